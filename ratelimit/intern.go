package ratelimit

import (
	"hash/maphash"
	"sync/atomic"
)

// interner gives the strings of keys that were built before without making them anew. A key that falls on another's
// place takes it.
type interner struct {
	seed   maphash.Seed
	places [1 << 14]atomic.Pointer[string]
}

func (n *interner) get(key []byte) string {
	place := &n.places[maphash.Bytes(n.seed, key)%uint64(len(n.places))]
	if s := place.Load(); s != nil && *s == string(key) {
		return *s
	}
	s := string(key)
	place.Store(&s)
	return s
}
