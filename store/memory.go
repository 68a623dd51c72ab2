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
	window int64 // µs
	asked  int64 // µs
	spent  bool
}

func newMemory(hold time.Duration) *memory {
	m := &memory{clock: newClock(), seed: maphash.MakeSeed(), trust: hold.Microseconds()}
	for i := range m.shards {
		m.shards[i].buckets = map[uint64]memo{}
	}
	return m
}

// place is where the bucket of h is kept: by a hash of 64 bits with a seed that nobody knows.
func (m *memory) place(h *Hit) (*memories, uint64) {
	sum := maphash.String(m.seed, h.Key) ^ uint64(h.Algorithm)
	return &m.shards[sum>>58], sum
}

// find gives the bucket of h unless its window has ended.
func (m *memory) find(h *Hit, now int64) (memo, bool) {
	s, at := m.place(h)
	s.mu.Lock()
	b, ok := s.buckets[at]
	s.mu.Unlock()
	return b, ok && b.end > now && b.window == h.Window.Microseconds()
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
// know is told to be untouched. Who only asks, asks Redis.
func (m *memory) refuse(hits []Hit) ([]Outcome, bool) {
	now := m.now()
	if !m.refuses(hits, now) || twice(hits) {
		return nil, false
	}
	out := make([]Outcome, len(hits))
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
	return out, true
}

func (m *memory) refuses(hits []Hit, now int64) bool {
	refused, counts := false, false
	for i := range hits {
		h := &hits[i]
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

// learn keeps what Redis answered to a decision that was asked for at the given time.
func (m *memory) learn(hits []Hit, out []Outcome, asked int64) {
	if refused(out) && twice(hits) {
		return // the second was told what the first would have left
	}
	for i := range hits {
		m.keep(&hits[i], &out[i], asked)
	}
}

func refused(out []Outcome) bool {
	return slices.ContainsFunc(out, func(o Outcome) bool { return !o.Allowed })
}

func (m *memory) keep(h *Hit, o *Outcome, asked int64) {
	b := memo{window: h.Window.Microseconds(), asked: asked, spent: o.Remaining == 0}
	if b.end = asked + o.Reset.Microseconds(); h.Algorithm == GCRA {
		b.tat = float64(b.end - epoch - 1) // Redis rounded up
	} else {
		b.count = h.Limit - o.Remaining
	}
	s, at := m.place(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.buckets[at]
	switch {
	case !ok && len(s.buckets) >= maxMemories:
		s.evict(asked)
	case ok && old.asked > asked:
		return // an answer that came late
	case ok && b.spent && old.window == b.window && old.end > asked:
		b.count = max(b.count, old.count) // nothing left tells only that there were so many or more
	}
	s.buckets[at] = b
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
