package login

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"
)

// live is a session as this replica knows it. Only what pace holds changes.
type live struct {
	sum     [sha256.Size]byte // of the cookie
	id      string
	session *session // nil = it has ended, for good
	read    time.Time
	*pace
}

// pace is kept while a session is read anew.
type pace struct {
	extended   atomic.Int64 // Unix ns
	failed     atomic.Int64 // the last refresh, Unix ns
	refreshing atomic.Bool
}

// stale tells whether the record has to be asked again. Clocks may step back.
func (l *live) stale(now time.Time) bool { return now.Sub(l.read).Abs() >= fresh }

func (l *live) orNone() *live {
	if l.session == nil {
		return nil
	}
	return l
}

// The cache holds at most cacheSets × cacheWays sessions of a flow.
const (
	cacheSets = 2048
	cacheWays = 4
)

// cache holds sessions for a moment. Reading it takes no lock: a cookie has cacheWays places that its hash gives.
type cache struct {
	writes sync.Mutex
	places [cacheSets * cacheWays]atomic.Pointer[live]
}

func (c *cache) set(sum [sha256.Size]byte) []atomic.Pointer[live] {
	i := (int(sum[0]) | int(sum[1])<<8) % cacheSets * cacheWays
	return c.places[i : i+cacheWays]
}

func (c *cache) get(sum [sha256.Size]byte) *live {
	set := c.set(sum)
	for i := range set {
		if l := set[i].Load(); l != nil && l.sum == sum {
			return l
		}
	}
	return nil
}

// put keeps a session with the pace that it had, in its own place, a free one, or that of the one read longest ago. It
// returns what is kept: a session that has ended stays so, whatever was read at the same time.
func (c *cache) put(l *live) *live {
	c.writes.Lock()
	defer c.writes.Unlock()
	l.pace = new(pace)
	set := c.set(l.sum)
	victim := &set[0]
	for i := range set {
		old := set[i].Load()
		if old == nil {
			victim = &set[i]
			continue
		}
		if old.sum == l.sum {
			if old.session == nil {
				return old
			}
			l.pace, victim = old.pace, &set[i]
			break
		}
		if v := victim.Load(); v != nil && old.read.Before(v.read) {
			victim = &set[i]
		}
	}
	victim.Store(l)
	return l
}

// end remembers that a session has ended.
func (c *cache) end(sum [sha256.Size]byte) {
	c.put(&live{sum: sum, read: time.Now()})
}
