package auth

import (
	"crypto/sha256"
	"sync/atomic"
	"time"
)

// verified is a token that was found good; of introspection also one that was found bad.
type verified struct {
	sum   [sha256.Size]byte // of the token
	keys  *keySet           // that verified it; the grant ends with the set
	grant *grant

	until time.Time // of introspection: how long what was said holds
	err   error     // of introspection: why there is no grant
}

// The cache holds at most cacheSets × cacheWays tokens of a provider.
const (
	cacheSets = 2048
	cacheWays = 4
)

// cache holds verified tokens without locks: a token has cacheWays places that its hash gives.
type cache struct {
	places [cacheSets * cacheWays]atomic.Pointer[verified]
	turn   atomic.Uint32
}

func newCache() *cache { return &cache{} }

func (c *cache) set(sum *[sha256.Size]byte) []atomic.Pointer[verified] {
	i := (int(sum[0]) | int(sum[1])<<8) % cacheSets * cacheWays
	return c.places[i : i+cacheWays]
}

func (c *cache) get(sum *[sha256.Size]byte) *verified {
	if c == nil {
		return nil
	}
	for i := range c.set(sum) {
		if g := c.set(sum)[i].Load(); g != nil && g.sum == *sum {
			return g
		}
	}
	return nil
}

// put takes the token's own place, a free one, one that an older key set verified.
func (c *cache) put(g *verified) {
	if c == nil {
		return
	}
	places := c.set(&g.sum)
	victim := &places[c.turn.Add(1)%cacheWays]
	for i := range places {
		old := places[i].Load()
		if old == nil || old.sum == g.sum || old.keys != g.keys {
			victim = &places[i]
			if old != nil && old.sum == g.sum {
				break
			}
		}
	}
	victim.Store(g)
}
