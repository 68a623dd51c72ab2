package store

import (
	"hash/maphash"
	"math"
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

// maxMemories of a shard: some 25 MiB in all. More buckets than these push each other out; no decision depends on one.
const maxMemories = 2048

// How long a refusal is taken to hold. On a Cluster hits may be given back within two trips.
const (
	trust        = 10 * time.Second
	clusterTrust = 25 * time.Millisecond
)

// fresh is for how long, in µs, the count of a bucket is told that isn't used up.
const fresh = second

type memories struct {
	mu      sync.Mutex // guards buckets
	buckets map[uint64]memo
	_       [48]byte // shards on cache lines of their own
}

// memo is a bucket by the memory's clock.
type memo struct {
	span
	count int64  // as Redis said; not GCRA
	sure  int64  // the least that it is
	until int64  // µs: before then; sliding window: 0 when nothing is known to be refused
	end   int64  // µs: when it says nothing any more; GCRA: its theoretical arrival time
	asked int64  // µs
	ends  int64  // window, period: when it ends, in µs by Redis' clock, which names it
	held  uint32 // window, period: the connection over which its key is known to be there and to end
	spent bool   // worth keeping, since it spares trips
}

func newMemory(c clock, hold time.Duration) *memory {
	m := &memory{clock: c, seed: maphash.MakeSeed(), trust: hold.Microseconds()}
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
	return b, ok && b.end > now && b.span == h.span()
}

// holds tells whether the key of the window that ends at ends is known, over the connection held, to be there and to end.
func (m *memory) holds(hash uint64, ends int64, held uint32) bool {
	s := m.shard(hash)
	s.mu.Lock()
	b, ok := s.buckets[hash]
	s.mu.Unlock()
	return ok && b.held == held && b.ends == ends
}

// known gives the bucket of h while what Redis said of it may be told: used up, it is for as long as a refusal is taken to
// hold; else other processes may count there too.
func (m *memory) known(h *Hit, now int64) (memo, bool) {
	hash := m.hash(h)
	s := m.shard(hash)
	s.mu.Lock()
	b, ok := s.buckets[hash]
	s.mu.Unlock()
	if !ok || b.span != h.span() || h.windowed() && b.end <= now {
		return b, false
	}
	age := now - b.asked
	return b, age < min(fresh, m.trust) || age < m.trust && b.usedUp(h, now)
}

// usedUp tells whether not one hit is left for sure.
func (b *memo) usedUp(h *Hit, now int64) bool {
	one := *h
	one.Hits = 1
	return b.refuses(&one, now)
}

// answer is the outcome for h of a bucket as it is remembered.
func (b *memo) answer(h *Hit, now int64) Outcome {
	switch h.Algorithm {
	case GCRA:
		_, o := h.takeGCRA(bucket{tat: float64(b.end - epoch - 1), end: b.end}, now) // Redis rounded up
		return o
	case SlidingWindow:
		count := b.count
		if b.end <= now {
			count = 0
		}
		o := Outcome{Allowed: h.fits(count), Limit: h.Limit, Count: count, Remaining: max(0, h.Limit-count)}
		o.Reset = microseconds(float64(max(0, b.end-now)))
		if !o.Allowed {
			o.RetryAfter = microseconds(float64(b.until - now))
		}
		return o
	}
	_, o := h.takeWindow(bucket{count: b.count, end: b.end}, now, b.end)
	return o
}

// refuses tells whether h is refused for sure.
func (b *memo) refuses(h *Hit, now int64) bool {
	if h.Algorithm == GCRA {
		return !b.answer(h, now).Allowed
	}
	return now < b.until && !h.fits(b.sure)
}

// vague tells whether it isn't known what to tell of h: when hits leave a sliding window is, once some were refused.
func (b *memo) vague(h *Hit, now int64) bool {
	return h.Algorithm == SlidingWindow && now < b.end && !h.fits(b.count) && !b.refuses(h, now)
}

// refuse answers hits of which one is refused for sure, from what Redis said last of each: it has to be known of all. Who
// only asks, asks Redis, and so does who gives back or watches.
func (m *memory) refuse(hits []Hit, out []Outcome, now int64) bool {
	var room [8]memo
	buckets := room[:0]
	refused, counts := false, false
	for i := range hits {
		h := &hits[i]
		if h.Hits < 0 || h.Beyond {
			return false
		}
		b, ok := m.known(h, now)
		if !ok || b.vague(h, now) {
			return false
		}
		buckets = append(buckets, b)
		counts = counts || h.Hits > 0
		refused = refused || b.refuses(h, now)
	}
	if !refused || !counts || twice(hits) {
		return false
	}
	for i := range hits {
		out[i] = buckets[i].tell(hits[i], now)
	}
	return true
}

// tell is the outcome for h when its decision is refused.
func (b *memo) tell(h Hit, now int64) Outcome {
	o := b.answer(&h, now)
	if !o.Allowed {
		return o
	}
	h.Hits = 0 // nothing is charged
	o = b.answer(&h, now)
	o.Allowed, o.RetryAfter = true, 0
	return o
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

// windowSeen is what Redis said of a window's counter.
type windowSeen struct {
	count int64
	end   int64 // of the window, µs by Redis' clock
	left  int64 // µs until then
	asked int64
	held  uint32
}

// keepWindow keeps what Redis said. It tells whether the counter is lower than it was known to be. Of a counter above the
// limit no more is known than that it is used up: others may have counted what they are about to give back.
func (m *memory) keepWindow(h *Hit, hash uint64, w windowSeen) (lost bool) {
	b := memo{
		span: h.span(), count: w.count, sure: min(w.count, h.Limit), until: w.asked + w.left, end: w.asked + w.left,
		asked: w.asked, ends: w.end, held: w.held, spent: w.count >= h.Limit,
	}
	old, ok := m.keep(hash, b)
	return ok && old.ends == b.ends && old.span == b.span && b.sure < min(old.sure, h.Limit) && h.Hits >= 0
}

// keepGCRA keeps what Redis said of a bucket that was asked for at the given time.
func (m *memory) keepGCRA(h *Hit, o *Outcome, asked int64) {
	m.keep(m.hash(h), memo{span: h.span(), end: asked + o.Reset.Microseconds(), asked: asked, spent: o.Remaining == 0})
}

// keepSliding keeps that what was refused is, until its time comes.
func (m *memory) keepSliding(h *Hit, o *Outcome, asked int64) {
	b := memo{span: h.span(), count: o.Count, end: asked + o.Reset.Microseconds(), asked: asked}
	if more := max(1, h.Hits); !o.Allowed && more <= h.Limit && !h.Beyond {
		b.spent, b.sure, b.until = true, h.Limit-more+1, asked+o.RetryAfter.Microseconds()
	}
	m.keep(m.hash(h), b)
}

// keep gives what was remembered before, unless b is older.
func (m *memory) keep(hash uint64, b memo) (old memo, ok bool) {
	s := m.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok = s.buckets[hash]
	if ok && old.asked > b.asked {
		return old, false // an answer that came late
	}
	if !ok && len(s.buckets) >= maxMemories {
		s.evict(b.asked)
	}
	s.buckets[hash] = b
	return old, ok
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
func (m *memory) recall(h *Hit) (count, reset int64, ok bool) {
	now := m.now()
	b, ok := m.find(h, now)
	if h.windowed() {
		return b.sure, b.end - now, ok
	}
	return b.count, b.end - now, ok
}
