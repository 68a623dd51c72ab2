package policy

import "sync"

// Loader loads sets of files one after the other, as control does with what is served. It keeps the last good one, and
// does again only what the next differs in. What it gives equals what [Language.Load] gives of the same files, always.
//
// Pointers are identity: a [Service], [Route], [BoundRoute] or an entry of [Common] that is the same pointer in two models
// of one loader has not changed, nor has anything that can be seen through it. Where routes or services changed, all of
// them that stand in files that did not change and have nothing to do with those that did are the same; where anything
// else changed, all may be others.
type Loader struct {
	lang *Language
	*memory
}

// memory is what a loader keeps from one load to the next.
type memory struct {
	mu    sync.Mutex
	last  *loader // the last good load; nil where the next one has to be whole
	known trees   // of the files of the last two loads
}

// NewLoader returns a loader that has loaded nothing yet.
func (l *Language) NewLoader() *Loader { return &Loader{l, &memory{known: make(trees)}} }

// WithSecrets is [Language.WithSecrets] for the loads to come: it shares with l what was loaded before.
func (l *Loader) WithSecrets(s SecretSource, kinds ...SecretKind) *Loader {
	return &Loader{l.lang.WithSecrets(s, kinds...), l.memory}
}

// Load is [Language.Load].
func (l *Loader) Load(files Files) (*Model, Problems) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.known.keep(files)
	return l.load(files, nil)
}

// Isolate is [Language.Isolate].
func (l *Loader) Isolate(candidate, last Files, serving ...*Secret) (Files, *Model, Problems) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.known.keep(candidate, last)
	return isolate(l.load, l.known, candidate, last, serving)
}

// load goes on from the last good load where it can, and loads all files where it can't.
func (l *Loader) load(files Files, kept map[string]*Secret) (*Model, Problems) {
	if l.last != nil {
		if next := l.last.renew(l.lang, files, kept, l.known); next != nil {
			l.last = next
			return next.model, next.problems.clone()
		}
	}
	next := l.lang.begin(files, kept)
	model, problems := next.whole(l.known)
	if model == nil {
		return nil, problems
	}
	l.last = nil
	if !next.odd && next.steps <= maxSteps {
		next.settle()
		l.last = next
	}
	return model, problems.clone()
}

// settle lets go of what only the load itself needed.
func (l *loader) settle() {
	l.base, l.lang, l.kept, l.sorted = nil, nil, nil, nil
	l.checks, l.last, l.ran, l.seen, l.perFile = nil, nil, nil, nil, nil
	for key, made := range l.once {
		if !made.lasts(key) {
			delete(l.once, key)
		}
	}
}
