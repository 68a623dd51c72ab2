package policy

import "sync"

// Loader loads sets of files one after the other, as control does with what is served. It keeps the last good one, and
// does again only what the next differs in. What it gives equals what [Language.Load] gives of the same files, always.
//
// Pointers are identity: a [Service], [Route], [BoundRoute] or an entry of [Common] that is the same pointer in two models
// of one loader has not changed, nor has anything that can be seen through it; where an entry stands counts, too. Where only
// routes and services changed, files that services read, or files that nobody refers to, all others are the same. Where
// anything else did, or something is wrong, the load is a whole one, and all may be others.
type Loader struct {
	lang *Language
	*memory
	held Files
}

// memory is what a loader keeps from one load to the next.
type memory struct {
	mu    sync.Mutex
	last  *loader // the last good load; nil where the next one has to be whole
	known trees   // of the files of the last two loads
}

// NewLoader returns a loader that has loaded nothing yet.
func (l *Language) NewLoader() *Loader { return &Loader{lang: l, memory: &memory{known: make(trees)}} }

// WithSecrets is [Language.WithSecrets] for the loads to come: it shares with l what was loaded before.
func (l *Loader) WithSecrets(s SecretSource, kinds ...SecretKind) *Loader {
	return &Loader{l.lang.WithSecrets(s, kinds...), l.memory, l.held}
}

// Holding has [Loader.Isolate] know of files that hold something else than the candidate says, and are served as in last
// all the same: it is told what they hold, nil where that can't be known.
func (l *Loader) Holding(held Files) *Loader { return &Loader{l.lang, l.memory, held} }

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
	return isolate(l.load, &isolation{candidate: candidate, last: last, held: l.held, known: l.known}, serving)
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
