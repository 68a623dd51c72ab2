package store

import (
	"context"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
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
	maxLogs int                                        // bytes of a shard's sliding windows, beside what each key takes
	journal *journal                                   // nil when nothing is kept
	stop    context.CancelFunc
	wg      sync.WaitGroup
	closed  sync.Once
	shards  [shards]shard
}

type shard struct {
	mu      sync.Mutex // guards what follows
	buckets map[bucketKey]bucket
	logs    int      // bytes of sliding windows
	changed []change // since the last flush of the journal
	_       [16]byte // shards on cache lines of their own
}

type bucketKey struct {
	key       string
	algorithm Algorithm
}

// bucket is a count and its window's or period's end, a GCRA bucket's theoretical arrival time, or a sliding window.
type bucket struct {
	count int64       // fixed window and calendar
	tat   float64     // GCRA, in µs since epoch
	log   *slidingLog // sliding window; stays as it is
	end   int64       // when it says nothing any more, in µs; 0 is an empty bucket

	changed bool // it is among the shard's changed
	kept    bool // the journal has it
}

func newEmbedded(o Options, c clock) *embedded {
	if o.MaxKeys <= 0 {
		o.MaxKeys = 1_000_000
	}
	e := &embedded{
		seed:    maphash.MakeSeed(),
		clock:   c,
		maxKeys: max(1, o.MaxKeys/shards),
	}
	e.maxLogs = e.maxKeys * logBytes
	for i := range e.shards {
		e.shards[i].buckets = map[bucketKey]bucket{}
	}
	newMetrics(o.Metrics).up.Set(1)
	return e
}

// start has e look after itself until it is closed.
func (e *embedded) start() {
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	e.wg.Go(func() { e.sweep(ctx) })
	if e.journal.keeps() {
		e.wg.Go(func() { e.journal.run(ctx) })
	}
}

// Count never fails but for invalid hits.
func (e *embedded) Count(_ context.Context, hits []Hit) ([]Outcome, error) {
	return e.decide(hits, make([]Outcome, 0, len(hits)))
}

// Decide decides in this process.
func (e *embedded) Decide(decisions []*Decision) {
	for _, d := range decisions {
		d.Outcomes, d.Err = e.decide(d.Hits, d.Outcomes[:0])
	}
}

// decide appends the outcomes to out.
func (e *embedded) decide(hits []Hit, out []Outcome) ([]Outcome, error) {
	if err := validate(hits); err != nil {
		return nil, err
	}
	var set uint64
	var room [8]charge
	charges := room[:0]
	for i := range hits {
		n := maphash.String(e.seed, hits[i].Key) % shards
		set |= 1 << n
		charges = append(charges, charge{hit: &hits[i], shard: &e.shards[n]})
	}
	for s := set; s != 0; s &= s - 1 { // in order, so that two decisions never wait for each other
		e.shards[bits.TrailingZeros64(s)].mu.Lock()
	}
	out = e.charge(charges, out)
	for s := set; s != 0; s &= s - 1 {
		e.shards[bits.TrailingZeros64(s)].mu.Unlock()
	}
	return out, nil
}

// charge is a hit under way: its bucket as it was before, and whether it was changed.
type charge struct {
	hit    *Hit
	shard  *shard
	before bucket
	done   bool
}

func (c *charge) key() bucketKey { return bucketKey{c.hit.Key, c.hit.Algorithm} }

// charge is called with the shards locked. It charges as it goes, and takes back when one refuses.
func (e *embedded) charge(charges []charge, out []Outcome) []Outcome {
	now := e.now()
	refused := false
	for i := range charges {
		c := &charges[i]
		c.before = c.shard.buckets[c.key()]
		if e.recall != nil {
			c.before = e.remind(c.hit, c.before, now)
		}
		after, o := c.hit.take(c.before, now)
		if c.done = (o.Allowed || c.hit.Beyond) && c.hit.Hits != 0; c.done {
			e.set(c.shard, c.key(), after, now)
		}
		refused = refused || !o.Allowed && !c.hit.Beyond
		out = append(out, o)
	}
	if refused {
		e.takeBack(charges, out, now)
	}
	return out
}

// takeBack goes backwards: a bucket named twice ends as it was at first.
func (e *embedded) takeBack(charges []charge, out []Outcome, now int64) {
	for i, c := range slices.Backward(charges) {
		if !c.done {
			continue
		}
		e.put(c.shard, c.key(), c.before)
		ask := *c.hit
		ask.Hits = 0
		_, o := ask.take(c.before, now)
		o.Allowed, o.RetryAfter = out[i].Allowed, out[i].RetryAfter
		out[i] = o
	}
}

// remind raises b to what the other store last knew of it.
func (e *embedded) remind(h *Hit, b bucket, now int64) bucket {
	count, reset, ok := e.recall(h)
	if !ok {
		return b
	}
	switch h.Algorithm {
	case GCRA:
		if tat := float64(now - epoch + reset); b.end == 0 || tat > b.tat {
			b = bucket{tat: tat, end: now + reset}
		}
		return b
	case SlidingWindow:
		return h.remindSliding(b, now, count, now+reset)
	}
	if end := h.windowEnd(now); b.end != end {
		b = bucket{end: end}
	}
	b.count = max(b.count, count)
	return b
}

// windowEnd is when the window or period of now ends.
func (h *Hit) windowEnd(now int64) int64 {
	if h.Algorithm == Calendar {
		_, end := periodBounds(h.Period, h.Zone, time.UnixMicro(now))
		return end.UnixMicro()
	}
	window := h.Window.Microseconds()
	return now - now%window + window
}

// take gives the bucket after the hit and the answer; b is unchanged when it refuses and isn't Beyond.
func (h *Hit) take(b bucket, now int64) (bucket, Outcome) {
	switch h.Algorithm {
	case GCRA:
		return h.takeGCRA(b, now)
	case SlidingWindow:
		return h.takeSliding(b, now)
	}
	return h.takeWindow(b, now, h.windowEnd(now))
}

// takeWindow is take for a window or period that ends at end.
func (h *Hit) takeWindow(b bucket, now, end int64) (bucket, Outcome) {
	if b.end != end {
		b = bucket{end: end}
	}
	o := Outcome{Allowed: h.fits(b.count), Limit: h.Limit, Reset: microseconds(float64(end - now))}
	if !o.Allowed {
		o.RetryAfter = o.Reset
	}
	if o.Allowed || h.Beyond {
		b.count = min(max(0, b.count+h.Hits), MaxCount)
	}
	o.Count = b.count
	o.Remaining = max(0, h.Limit-b.count)
	if b.count == 0 {
		b = bucket{}
	}
	return b, o
}

// fits tells whether a count leaves room for the hits, or for one if they only ask. To give back fits always.
func (h *Hit) fits(count int64) bool {
	return h.Hits < 0 || max(1, h.Hits) <= h.Limit-count
}

// A GCRA bucket's hits are those not yet drained: those before it is empty, at its theoretical arrival time.
func (h *Hit) takeGCRA(b bucket, now int64) (bucket, Outcome) {
	interval, slack := h.interval()
	full := float64(h.Burst) * interval
	at := float64(now - epoch)
	tat := at
	if b.end != 0 {
		tat = math.Max(b.tat, at)
	}
	want := tat + float64(max(1, h.Hits))*interval
	o := Outcome{Allowed: h.Hits < 0 || want-full <= at+slack, Limit: h.Burst}
	if !o.Allowed {
		o.RetryAfter = microseconds(want - full - at)
		if h.Hits > h.Burst {
			o.RetryAfter = microseconds(math.Max(tat-at, interval)) // never; ask no sooner than when it is full
		}
	}
	if o.Allowed || h.Beyond {
		tat = math.Max(tat+float64(h.Hits)*interval, at)
		if h.Beyond {
			tat = math.Min(tat, at+float64(MaxWindow.Microseconds()))
		}
	}
	left := math.Floor((at + full - tat + slack) / interval)
	o.Remaining = int64(math.Min(math.Max(left, 0), float64(h.Burst)))
	o.Count = int64(math.Min(math.Max(float64(h.Burst)-left, 0), float64(MaxCount)))
	if o.Reset = microseconds(tat - at); o.Reset == 0 {
		return bucket{}, o
	}
	return bucket{tat: tat, end: gcraEnd(tat)}, o
}

// gcraEnd is when a GCRA bucket is empty, in µs.
func gcraEnd(tat float64) int64 { return int64(math.Ceil(tat)) + epoch }

func microseconds(us float64) time.Duration {
	return time.Duration(math.Ceil(us)) * time.Microsecond
}

// epoch is what GCRA's times count from, in µs: 2025, nearer than 1970, so that doubles keep 1/64 µs.
const epoch = 1_735_689_600_000_000

// logBytes is what sliding windows may take for each key that the store may hold, all together.
const logBytes = 64

// set makes room first when the shard is full: expired buckets go first, else the one of a few that ends soonest.
func (e *embedded) set(s *shard, k bucketKey, b bucket, now int64) {
	if _, ok := s.buckets[k]; !ok && len(s.buckets) >= e.maxKeys && b.end != 0 {
		s.evict(now, func(_ bucketKey, _ bucket) bool { return true })
	}
	e.put(s, k, b)
	for others := true; others && s.logs > e.maxLogs; {
		others = s.evict(now, func(other bucketKey, b bucket) bool { return b.logs() > 0 && other != k })
	}
}

// put has the journal know, if there is one.
func (e *embedded) put(s *shard, k bucketKey, b bucket) {
	if e.journal.keeps() {
		was := s.buckets[k]
		b.kept, b.changed = was.kept, true
		if !was.changed {
			s.changed = append(s.changed, change{k, b.kept})
		}
	}
	if b.end == 0 {
		s.drop(k)
		return
	}
	if b.log != nil {
		s.logs += b.logs() - s.buckets[k].logs()
	}
	s.buckets[k] = b
}

// logs is how many bytes the bucket takes beside what each one does.
func (b bucket) logs() int {
	if b.log == nil {
		return 0
	}
	return 8 * b.log.room
}

func (s *shard) drop(k bucketKey) {
	s.logs -= s.buckets[k].logs()
	delete(s.buckets, k)
}

// evict drops, of a few buckets that may go, those that are expired, else the one that ends soonest. It tells whether
// there was any.
func (s *shard) evict(now int64, mayGo func(bucketKey, bucket) bool) bool {
	const sample = 32
	var soonest bucketKey
	end, n, expired := int64(math.MaxInt64), 0, false
	for k, b := range s.buckets { // in random order
		if !mayGo(k, b) {
			continue
		}
		if b.end <= now {
			s.drop(k)
			expired = true
		} else if b.end < end {
			soonest, end = k, b.end
		}
		if n++; n == sample {
			break
		}
	}
	if n > 0 && !expired {
		s.drop(soonest)
	}
	return n > 0
}

// sweep drops expired buckets, a shard at a time, each shard once in 16 s.
func (e *embedded) sweep(ctx context.Context) {
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
				s.drop(k)
			}
		}
		s.mu.Unlock()
	}
}

// restore takes a bucket from the journal's file; the last that it gives of a bucket counts.
func (e *embedded) restore(k bucketKey, b bucket) {
	s := &e.shards[maphash.String(e.seed, k.key)%shards]
	now := e.now()
	if b.end <= now {
		b = bucket{}
	}
	b.kept = true
	e.set(s, k, b, now)
}

// rewind moves what was kept at a time that is still to come, by a clock that was set back since. Windows and periods are
// those of the clock, and stay; sliding windows see it for themselves.
func (e *embedded) rewind(kept int64) {
	ahead := kept - e.now()
	if ahead <= 0 {
		return
	}
	for i := range e.shards {
		for k, b := range e.shards[i].buckets {
			if k.algorithm == GCRA {
				b.tat -= float64(ahead)
				b.end = gcraEnd(b.tat)
				e.shards[i].buckets[k] = b
			}
		}
	}
}

// Health is always OK; it warns when counts are not kept on disk.
func (e *embedded) Health() Health {
	h := Health{OK: true, Kind: "embedded"}
	if e.journal != nil {
		h.Warning = e.journal.told()
	}
	return h
}

// Close keeps what isn't kept yet. What is counted from then on isn't.
func (e *embedded) Close() (err error) {
	e.closed.Do(func() {
		e.stop()
		e.wg.Wait()
		if e.journal.keeps() {
			err = e.journal.close()
		}
	})
	return err
}
