package store

import (
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"time"
)

// memory is what Redis answered last for the buckets in use. A bucket's count only grows until its window ends, so what
// it refused then it would refuse now: such hits need no trip. And what counts in this process while Redis can't be
// reached goes on from here (Local).
//
// Times run by this process' monotonic clock, from durations that Redis answered, and from before it was asked: a
// window ends here no later than there, whatever the clocks say. A limit that changed is held against the same count.
type memory struct {
	clock
	seed   maphash.Seed
	trust  int64 // µs for which hits are refused before Redis is asked again, which may have lost or reset its counts
	shards [shards]memories
}

// maxMemories of a shard: some 10 MiB in all. More buckets than these push each other out; no decision depends on one.
const maxMemories = 2048

// How long a refusal is taken to hold. On a Cluster hits may be given back within two trips.
const (
	trust        = 10 * time.Second
	clusterTrust = 25 * time.Millisecond
)

type memories struct {
	mu      sync.Mutex // guards buckets
	buckets map[uint64]memo
	_       [48]byte // shards on cache lines of their own
}

// memo is a bucket by the memory's clock; count is the least that it may be.
type memo struct {
	bucket
	period period
	asked  int64  // µs
	ends   int64  // a window's end, in µs by Redis' clock: names it
	held   uint32 // the connection over which the window's key is known to be there and to end
	spent  bool
}

// period is what tells the windows of two limits apart, but for when they end.
type period struct {
	window time.Duration
	period Period
	zone   *time.Location
}

func (h *Hit) spans() period { return period{h.Window, h.Period, h.Zone} }

func newMemory(hold time.Duration) *memory {
	m := &memory{clock: newClock(), seed: maphash.MakeSeed(), trust: hold.Microseconds()}
	for i := range m.shards {
		m.shards[i].buckets = map[uint64]memo{}
	}
	return m
}

// hash is by what the bucket of h is kept: 64 bits, with a seed that nobody knows.
func (m *memory) hash(h *Hit) uint64 { return maphash.String(m.seed, h.Key) ^ uint64(h.Algorithm) }

func (m *memory) shard(hash uint64) *memories { return &m.shards[hash>>58] }

// find gives the bucket of h unless its window has ended.
func (m *memory) find(h *Hit, now int64) (memo, bool) {
	hash := m.hash(h)
	s := m.shard(hash)
	s.mu.Lock()
	b, ok := s.buckets[hash]
	s.mu.Unlock()
	return b, ok && b.end > now && b.period == h.spans()
}

// holds tells whether the key of the window that ends at ends is known, over the connection held, to be there and to end.
func (m *memory) holds(hash uint64, ends int64, held uint32) bool {
	s := m.shard(hash)
	s.mu.Lock()
	b, ok := s.buckets[hash]
	s.mu.Unlock()
	return ok && b.held == held && b.ends == ends
}

// answer is the outcome for h of a bucket as it is remembered.
func (b *memo) answer(h *Hit, now int64) Outcome {
	var o Outcome
	if h.Algorithm == GCRA {
		_, o = h.takeGCRA(b.bucket, now)
	} else {
		_, o = h.takeWindow(b.bucket, now, b.end)
	}
	return o
}

// refuse answers hits of which one is refused for sure. Of the others it tells what it knows; a bucket that it doesn't
// know is told to be untouched. Who only asks, asks Redis, and so does who gives back or watches.
func (m *memory) refuse(hits []Hit, out []Outcome, now int64) bool {
	if !m.refuses(hits, now) || twice(hits) {
		return false
	}
	for i := range hits {
		h := hits[i]
		b, known := m.find(&h, now)
		if known {
			if out[i] = b.answer(&h, now); !out[i].Allowed {
				continue
			}
		}
		h.Hits = 0 // nothing is charged
		if known {
			out[i] = b.answer(&h, now)
		} else {
			_, out[i] = h.take(bucket{}, now)
		}
		out[i].Allowed, out[i].RetryAfter = true, 0
	}
	return true
}

func (m *memory) refuses(hits []Hit, now int64) bool {
	refused, counts := false, false
	for i := range hits {
		h := &hits[i]
		if h.Hits < 0 || h.Beyond {
			return false
		}
		counts = counts || h.Hits > 0
		if b, ok := m.find(h, now); ok && !refused {
			refused = now-b.asked < m.trust && !b.answer(h, now).Allowed
		}
	}
	return refused && counts
}

// twice tells whether a bucket is named twice: what is left for the second depends on the first.
func twice(hits []Hit) bool {
	for i := range hits {
		for j := range hits[:i] {
			if hits[i].Key == hits[j].Key && hits[i].Algorithm == hits[j].Algorithm {
				return true
			}
		}
	}
	return false
}

func refused(out []Outcome) bool {
	return slices.ContainsFunc(out, func(o Outcome) bool { return !o.Allowed })
}

// windowSeen is what Redis said of a window's counter.
type windowSeen struct {
	count int64
	end   int64 // of the window, µs by Redis' clock
	left  int64 // µs until then
	asked int64
	held  uint32
}

// keepWindow keeps what Redis said. It tells whether the counter is lower than it was known to be.
func (m *memory) keepWindow(h *Hit, hash uint64, w windowSeen) (lost bool) {
	b := memo{period: h.spans(), asked: w.asked, ends: w.end, held: w.held, spent: w.count >= h.Limit}
	b.count, b.end = w.count, w.asked+w.left
	s := m.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.buckets[hash]
	if ok && old.asked > w.asked {
		return false // an answer that came late
	}
	if !ok && len(s.buckets) >= maxMemories {
		s.evict(w.asked)
	}
	s.buckets[hash] = b
	return ok && old.ends == w.end && old.period == b.period && w.count < old.count
}

// keepGCRA keeps what Redis said of a bucket that was asked for at the given time.
func (m *memory) keepGCRA(h *Hit, o *Outcome, asked int64) {
	b := memo{period: h.spans(), asked: asked, spent: o.Remaining == 0}
	b.end = asked + o.Reset.Microseconds()
	b.tat = float64(b.end - epoch - 1) // Redis rounded up
	hash := m.hash(h)
	s := m.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.buckets[hash]
	if ok && old.asked > asked {
		return
	}
	if !ok && len(s.buckets) >= maxMemories {
		s.evict(asked)
	}
	s.buckets[hash] = b
}

// evict makes room: for what has ended, else for one of a few that still has hits left, else for the one that ends soonest.
func (s *memories) evict(now int64) {
	const sample = 16
	var victim uint64
	n, best := 0, int64(math.MaxInt64)
	for at, b := range s.buckets { // in random order
		if b.end <= now {
			delete(s.buckets, at)
		} else if worth := b.end; best > 0 {
			if !b.spent {
				worth = 0
			}
			if worth < best {
				victim, best = at, worth
			}
		}
		if n++; n == sample {
			break
		}
	}
	if len(s.buckets) >= maxMemories {
		delete(s.buckets, victim)
	}
}

// recall gives a bucket's count, or its GCRA time, and when it ends.
func (m *memory) recall(h *Hit) (count int64, reset int64, ok bool) {
	now := m.now()
	b, ok := m.find(h, now)
	return b.count, b.end - now, ok
}
