package policy

import "sync"

// Loader loads sets of files one after the other, as control does with what is served. It keeps the last good one, and
// does again only what the next differs in. What it gives equals what [Language.Load] gives of the same files, always.
//
// Pointers are identity: a [Service], [Route], [BoundRoute] or an entry of [Common] that is the same pointer in two models
// of one loader has not changed, nor has anything that can be seen through it; else it is another one.
type Loader struct {
	lang *Language
	*memory
}

// memory is what a loader keeps from one load to the next.
type memory struct {
	mu sync.Mutex
}

// NewLoader returns a loader that has loaded nothing yet.
func (l *Language) NewLoader() *Loader { return &Loader{l, &memory{}} }

// WithSecrets is [Language.WithSecrets] for the loads to come: it shares with l what was loaded before.
func (l *Loader) WithSecrets(s SecretSource, kinds ...SecretKind) *Loader {
	return &Loader{l.lang.WithSecrets(s, kinds...), l.memory}
}

// Load is [Language.Load].
func (l *Loader) Load(files Files) (*Model, Problems) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lang.load(files, make(trees), nil)
}

// Isolate is [Language.Isolate].
func (l *Loader) Isolate(candidate, last Files, serving ...*Secret) (Files, *Model, Problems) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := make(trees)
	load := func(files Files, kept map[string]*Secret) (*Model, Problems) { return l.lang.load(files, known, kept) }
	return isolate(load, known, candidate, last, serving)
}
