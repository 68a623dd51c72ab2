package store

import (
	"math"
	"sync"
	"time"
)

// A purse is what this process knows of one leased bucket: the tokens that it took and hasn't spent, how fast they are
// spent, and what the store said last.
//
// Tokens are hits that the store has counted. They are spent until the window ends in which they were counted, as the
// store told it by Reset, by the monotonic clock from before the store was asked: no later here than there. A GCRA
// bucket's tokens end when its terms say.
type purse struct {
	home  *purses // its mutex guards what follows
	hit   Hit     // the bucket; Hits is 0
	terms terms
	size  int64 // hits that the bucket holds

	lots   [2]lot // the tokens in hand; those that end sooner come first
	asking int64  // tokens of the lot that is under way
	low    int64  // at so few tokens the next lot is asked for
	spent  int64  // hits allowed so far
	swept  int64  // spent, when the sweeper last came by

	measured int64   // when spent was last measured, in µs
	mark     int64   // spent, at that time
	demand   float64 // hits per period before it

	asked int64 // when what follows was asked for, in µs
	left  int64 // hits that the store had left
	count int64 // hits that it had counted, those in hand among them
	ends  int64 // when its window ends, or the GCRA bucket is full again, in µs
}

// lot is tokens that end at one time.
type lot struct{ tokens, end int64 }

// terms are how a bucket is leased.
type terms struct {
	most  int64 // tokens in hand and under way
	life  int64 // of GCRA's tokens, in µs; 0: until the window ends
	burst int64 // what the store is told
}

// period is the time, in µs, whose demand a purse holds: it is asked to be filled up when half is gone, so lots are of
// 50 to 100 ms.
const period = 100_000

// share of what the store has left that one process takes ahead of need: as the limit comes near lots shrink, until at
// less than two tokens each decision is the store's own.
const share = 8

// lease tells on which terms h can be leased, if at all.
//
// A window counts hits by when they were taken, which is when they are spent, as far as it knows: they end with it.
//
// In GCRA a token that is spent later than it was taken could come on top of a burst that came back meanwhile. So as much
// of the burst as fills within a token's life is reserved, by all who lease: in any span T no more is spent than is taken in
// T and a life before it, which is at most burst - reserve + rate × (T + life) = burst + rate × T. A bucket that fills by less
// than two hits in a period isn't worth it.
//
// A sliding window would let a hit go too early that is spent later than it was taken: it is never leased.
func (h *Hit) lease() (terms, bool) {
	if h.Lease <= 0 || h.Limit < 1 {
		return terms{}, false
	}
	switch h.Algorithm {
	case FixedWindow, Calendar:
		return terms{most: h.Lease}, true
	case GCRA:
		interval, slack := h.interval()
		reserve := min(h.Lease/2, h.Burst/4, int64(period/max(interval, 1)))
		life := int64(float64(reserve)*interval - slack)
		t := terms{most: h.Lease - reserve, life: life, burst: h.Burst - reserve}
		return t, reserve >= 2 && life >= MinWindow.Microseconds()/2
	}
	return terms{}, false
}

// is tells whether h is of the purse's bucket, and on its terms.
func (p *purse) is(h *Hit) bool {
	k := &p.hit
	return k.sameBucket(h) && k.Limit == h.Limit && k.Burst == h.Burst && k.Lease == h.Lease
}

// ask is the hit that takes n tokens from the store.
func (p *purse) ask(n int64) Hit {
	h := p.hit
	h.Hits, h.Lease = n, 0
	if p.terms.life > 0 {
		h.Burst = p.terms.burst
	}
	return h
}

// tokens are those in hand.
func (p *purse) tokens() int64 { return p.lots[0].tokens + p.lots[1].tokens }

// expire drops tokens whose time is up.
func (p *purse) expire(now int64) {
	for i := range p.lots {
		if l := &p.lots[i]; l.tokens > 0 && l.end <= now {
			p.home.metrics.expired.Add(float64(l.tokens))
			l.tokens = 0
		}
	}
}

// take spends up to n tokens; end is when they would have ended.
func (p *purse) take(n, now int64) (got, end int64) {
	p.expire(now)
	for i := len(p.lots) - 1; i >= 0; i-- {
		if p.lots[i].tokens > 0 {
			end = p.lots[i].end
		}
	}
	for i := range p.lots {
		k := min(n-got, p.lots[i].tokens)
		p.lots[i].tokens -= k
		got += k
	}
	p.spent += got
	return got, end
}

// put adds tokens that end at end.
func (p *purse) put(n, end, now int64) {
	switch {
	case n <= 0:
		return
	case end <= now:
		p.home.metrics.expired.Add(float64(n))
		return
	}
	p.expire(now)
	old, young := &p.lots[0], &p.lots[1]
	switch {
	case young.tokens == 0:
		*young = lot{n, end}
	case young.end >= end:
		*young = lot{young.tokens + n, end} // the sooner of both: never later than told
	case old.tokens == 0:
		*old, *young = *young, lot{n, end}
	default:
		*old = lot{old.tokens + young.tokens, min(old.end, young.end)}
		*young = lot{n, end}
	}
}

// wanted is the size of the lot to ask for ahead of need, 0 for none, when need hits are asked for besides; it sets when to
// ask next.
func (p *purse) wanted(need, now int64) int64 {
	if p.asking > 0 {
		return 0
	}
	horizon := float64(period)
	switch left := p.ends - now; {
	case p.terms.life > 0:
		horizon = float64(p.terms.life) / 2
	case left > 0:
		horizon = min(horizon, float64(left))
	}
	level := int64(math.Min(p.pace(now)*horizon/period, float64(min(p.terms.most, (p.room(now)-need)/share))))
	if level < 2 {
		p.low = 0
		return 0
	}
	p.low = level / 2
	return max(0, level-p.tokens())
}

// pace is the demand of a period: of the last one, or of this one, if that is more already.
func (p *purse) pace(now int64) float64 {
	spent, elapsed := float64(p.spent-p.mark), now-p.measured
	if elapsed < period {
		return max(p.demand, spent)
	}
	p.demand = spent * period / float64(elapsed)
	p.measured, p.mark = now, p.spent
	return p.demand
}

// room is how many hits the store has left, as far as is known.
func (p *purse) room(now int64) int64 {
	switch {
	case p.ends > now:
		return p.left
	case p.terms.life > 0:
		return p.terms.burst
	}
	return p.size
}

// learn keeps what the store answered to what was asked at the given time.
func (p *purse) learn(o *Outcome, asked int64) {
	if asked >= p.asked {
		p.asked, p.left, p.count, p.ends = asked, o.Remaining, o.Count, asked+o.Reset.Microseconds()
	}
}

// end is when tokens end that were asked for at the given time, when the store answered o.
func (p *purse) end(o *Outcome, asked int64) int64 {
	if p.terms.life > 0 {
		return asked + p.terms.life
	}
	return asked + o.Reset.Microseconds()
}

// fail has the purse begin anew when the store didn't answer: what was asked for may be counted, but isn't known to be.
func (p *purse) fail(now int64) {
	p.low, p.demand = 0, 0
	p.measured, p.mark = now, p.spent
}

// outcome is the answer to hits that were allowed here: what the store said last, and the tokens in hand.
func (p *purse) outcome(now int64) Outcome {
	o := Outcome{Allowed: true, Remaining: p.room(now)}
	if p.ends > now {
		o.Count, o.Reset = p.count, time.Duration(p.ends-now)*time.Microsecond
	}
	p.adjust(&o)
	return o
}

// adjust makes an answer of the store's one of ours: tokens in hand are counted there, but not spent.
func (p *purse) adjust(o *Outcome) {
	tokens := p.tokens()
	o.Limit = p.size
	o.Remaining = max(0, min(o.Limit, o.Remaining+tokens))
	o.Count = max(0, o.Count-tokens)
	if p.terms.life > 0 {
		interval, _ := p.hit.interval()
		o.Reset = max(0, o.Reset-microseconds(float64(tokens)*interval))
	}
}

// purses are a shard of them.
type purses struct {
	mu      sync.Mutex // guards held and what is in it
	held    map[uint64]*purse
	metrics *leaseMetrics
	_       [40]byte // shards on cache lines of their own
}

// maxPurses of a shard: 65,536 in all, of some 400 bytes each. Of more buckets than these the tokens are forgotten, and
// stay counted.
const maxPurses = 1024

// evict makes room: for one of a few without tokens, else for the one with the fewest.
func (s *purses) evict(now int64) {
	const sample = 16
	var victim uint64
	n, fewest := 0, int64(math.MaxInt64)
	for at, p := range s.held { // in random order
		p.expire(now)
		if worth := p.tokens() + p.asking; worth < fewest {
			victim, fewest = at, worth
		}
		if n++; n == sample || fewest == 0 {
			break
		}
	}
	s.metrics.forgotten.Add(float64(s.held[victim].tokens()))
	delete(s.held, victim)
}
