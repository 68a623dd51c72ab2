package store

import (
	"context"
	"hash/maphash"
	"math"
	"math/bits"
	"sync"
	"time"
)

// shards of the embedded store: one bit each of the set that a decision locks.
const shards = 64

// embedded counts in this process, with the arithmetic of count.lua.
type embedded struct {
	clock
	seed    maphash.Seed
	recall  func(h *Hit) (count, reset int64, ok bool) // nil, or what another store knows of a bucket
	maxKeys int                                        // of a shard
	stop    context.CancelFunc
	stopped chan struct{}
	shards  [shards]shard
}

type shard struct {
	mu      sync.Mutex // guards buckets
	buckets map[bucketKey]bucket
	_       [40]byte // shards on cache lines of their own
}

type bucketKey struct {
	key       string
	algorithm Algorithm
}

// bucket is a count and its window's end, or a GCRA bucket's theoretical arrival time.
type bucket struct {
	count int64   // fixed window
	tat   float64 // GCRA, in µs since epoch
	end   int64   // when it says nothing any more, in µs
}

func openEmbedded(o Options) *embedded {
	if o.MaxKeys <= 0 {
		o.MaxKeys = 1_000_000
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &embedded{
		seed:    maphash.MakeSeed(),
		clock:   newClock(),
		maxKeys: max(1, o.MaxKeys/shards),
		stop:    cancel,
		stopped: make(chan struct{}),
	}
	for i := range e.shards {
		e.shards[i].buckets = map[bucketKey]bucket{}
	}
	newMetrics(o.Metrics).up.Set(1)
	go e.sweep(ctx)
	return e
}

// Count never fails but for invalid hits.
func (e *embedded) Count(_ context.Context, hits []Hit) ([]Outcome, error) {
	if err := validate(hits); err != nil {
		return nil, err
	}
	var set uint64
	var room [8]int
	index := room[:0]
	for i := range hits {
		n := int(maphash.String(e.seed, hits[i].Key) % shards)
		index = append(index, n)
		set |= 1 << n
	}
	for s := set; s != 0; s &= s - 1 { // in order, so that two decisions never wait for each other
		e.shards[bits.TrailingZeros64(s)].mu.Lock()
	}
	defer func() {
		for s := set; s != 0; s &= s - 1 {
			e.shards[bits.TrailingZeros64(s)].mu.Unlock()
		}
	}()
	return e.count(hits, index), nil
}

// count is called with the shards of hits locked. It charges as it goes, and takes back when one refuses.
func (e *embedded) count(hits []Hit, index []int) []Outcome {
	now := e.now()
	out := make([]Outcome, len(hits))
	var room [8]bucket
	before := room[:0]
	refused := false
	for i := range hits {
		s := &e.shards[index[i]]
		k := bucketKey{hits[i].Key, hits[i].Algorithm}
		was := s.buckets[k]
		if e.recall != nil {
			was = e.remind(&hits[i], was, now)
		}
		before = append(before, was)
		after, o := hits[i].take(was, now)
		out[i] = o
		refused = refused || !o.Allowed
		if o.Allowed && hits[i].Hits > 0 {
			e.set(s, k, after, now)
		}
	}
	if !refused {
		return out
	}
	for i := len(hits) - 1; i >= 0; i-- { // backwards: a bucket named twice ends as it was at first
		if !out[i].Allowed || hits[i].Hits == 0 {
			continue
		}
		s := &e.shards[index[i]]
		k := bucketKey{hits[i].Key, hits[i].Algorithm}
		if before[i].end == 0 {
			delete(s.buckets, k)
		} else {
			s.buckets[k] = before[i]
		}
		peek := hits[i]
		peek.Hits = 0
		_, o := peek.take(before[i], now)
		o.Allowed, o.RetryAfter = true, 0
		out[i] = o
	}
	return out
}

// remind raises b to what the other store last knew of it.
func (e *embedded) remind(h *Hit, b bucket, now int64) bucket {
	count, reset, ok := e.recall(h)
	if !ok {
		return b
	}
	if h.Algorithm == GCRA {
		if tat := float64(now - epoch + reset); b.end == 0 || tat > b.tat {
			b = bucket{tat: tat, end: now + reset}
		}
		return b
	}
	if end := h.windowEnd(now); b.end != end {
		b = bucket{end: end}
	}
	b.count = max(b.count, count)
	return b
}

// windowEnd is when the window of now ends.
func (h *Hit) windowEnd(now int64) int64 {
	window := h.Window.Microseconds()
	return now - now%window + window
}

// take gives the bucket after the hit and the answer; b is unchanged when it refuses.
func (h *Hit) take(b bucket, now int64) (bucket, Outcome) {
	if h.Algorithm == GCRA {
		return h.takeGCRA(b, now)
	}
	return h.takeWindow(b, now, h.windowEnd(now))
}

// takeWindow is take for a fixed window that ends at end.
func (h *Hit) takeWindow(b bucket, now, end int64) (bucket, Outcome) {
	if b.end != end {
		b = bucket{end: end}
	}
	left := max(0, h.Limit-b.count)
	o := Outcome{Allowed: max(1, h.Hits) <= left, Limit: h.Limit, Remaining: left, Reset: microseconds(float64(end - now))}
	if !o.Allowed {
		o.RetryAfter = o.Reset
		return b, o
	}
	b.count += h.Hits
	o.Remaining -= h.Hits
	return b, o
}

func (h *Hit) takeGCRA(b bucket, now int64) (bucket, Outcome) {
	interval, slack := h.interval()
	full := float64(h.Burst) * interval
	at := float64(now - epoch)
	tat := at
	if b.end != 0 {
		tat = math.Max(b.tat, at)
	}
	want := tat + float64(max(1, h.Hits))*interval
	o := Outcome{Allowed: want-full <= at+slack, Limit: h.Burst}
	if o.Allowed {
		tat += float64(h.Hits) * interval
	} else {
		o.RetryAfter = microseconds(want - full - at)
		if h.Hits > h.Burst {
			o.RetryAfter = microseconds(math.Max(tat-at, interval)) // never; ask no sooner than when it is full
		}
	}
	left := math.Floor((at + full - tat + slack) / interval)
	o.Remaining = int64(math.Min(math.Max(left, 0), float64(h.Burst)))
	o.Reset = microseconds(tat - at)
	return bucket{tat: tat, end: int64(math.Ceil(tat)) + epoch}, o
}

func microseconds(us float64) time.Duration {
	return time.Duration(math.Ceil(us)) * time.Microsecond
}

// epoch is what GCRA's times count from, in µs: 2025, nearer than 1970, so that doubles keep 1/64 µs.
const epoch = 1_735_689_600_000_000

// clock is the wall clock at its start; from then on it runs by the monotonic clock.
type clock struct{ start time.Time }

func newClock() clock { return clock{time.Now()} }

// now is the time in µs since 1970.
func (c clock) now() int64 {
	return c.start.UnixMicro() + time.Since(c.start).Microseconds()
}

// set makes room first when the shard is full: expired buckets go first, else the one of a few that ends soonest.
func (e *embedded) set(s *shard, k bucketKey, b bucket, now int64) {
	if _, ok := s.buckets[k]; !ok && len(s.buckets) >= e.maxKeys {
		s.evict(now)
	}
	s.buckets[k] = b
}

func (s *shard) evict(now int64) {
	const sample = 32
	var soonest bucketKey
	end, n := int64(math.MaxInt64), 0
	for k, b := range s.buckets { // in random order
		if b.end <= now {
			delete(s.buckets, k)
		} else if b.end < end {
			soonest, end = k, b.end
		}
		if n++; n == sample {
			break
		}
	}
	if len(s.buckets) >= n && end < math.MaxInt64 {
		delete(s.buckets, soonest)
	}
}

// sweep drops expired buckets, a shard at a time, each shard once in 16 s.
func (e *embedded) sweep(ctx context.Context) {
	defer close(e.stopped)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % shards {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s, now := &e.shards[i], e.now()
		s.mu.Lock()
		for k, b := range s.buckets {
			if b.end <= now {
				delete(s.buckets, k)
			}
		}
		s.mu.Unlock()
	}
}

// Health is always OK.
func (e *embedded) Health() Health { return Health{OK: true, Kind: "embedded"} }

// Close stops the sweeper.
func (e *embedded) Close() error {
	e.stop()
	<-e.stopped
	return nil
}

// Decide decides in this process.
func (e *embedded) Decide(decisions []*Decision) {
	for _, d := range decisions {
		d.Outcomes, d.Err = e.Count(context.Background(), d.Hits)
	}
}
