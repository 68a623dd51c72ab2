package store

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// leased answers hits with a Lease from tokens: hits that it has the store count ahead of need. Its promises, for r
// processes on one store and a lease of b:
//
//   - no more is ever allowed than the limit: a token is a hit that the store has counted;
//   - at most r × b hits of a window go unused: b is the most that a process holds of one bucket, those included that
//     are under way. One that is killed takes b at most with it, and a lost answer what was asked for with it;
//   - a bucket that is asked for less than some 20 times a second is decided by the store, as without a lease, and so is
//     the last eighth of what is left, and less, where lots would be of one token.
//
// Fixed windows, calendar windows and GCRA are leased ([Hit.lease] tells how that is sound), sliding windows never. While
// the store can't answer, tokens in hand are spent; then it is ErrUnavailable.
//
// The outcome of a hit that was decided here is the best that is known: Remaining is what the store said last to be left,
// and the tokens in hand; other processes may have taken some since. It is never negative.
//
// Hits below 0 go to the tokens in hand where there is room for them, else to the store. Tokens that aren't being spent go
// back within some seconds, and all on Close, when their window lasts for some seconds more; GCRA's never do, since
// theirs end sooner.
type leased struct {
	Store
	clock
	seed    maphash.Seed
	metrics *leaseMetrics
	shards  [shards]purses
	stop    context.CancelFunc
	stopped chan struct{}
	wake    chan struct{} // there are lots due

	mu  sync.Mutex // guards due
	due []order
}

// order is a lot to be asked for.
type order struct {
	purse *purse
	n     int64
}

func lease(inner Store, o Options) *leased { return leaseAt(inner, o, newClock()) }

// leaseAt has the store's process see the time of c.
func leaseAt(inner Store, o Options, c clock) *leased {
	ctx, cancel := context.WithCancel(context.Background())
	l := &leased{
		Store:   inner,
		clock:   c,
		seed:    maphash.MakeSeed(),
		metrics: newLeaseMetrics(o.Metrics),
		stop:    cancel,
		stopped: make(chan struct{}),
		wake:    make(chan struct{}, 1),
	}
	for i := range l.shards {
		l.shards[i] = purses{held: map[uint64]*purse{}, metrics: l.metrics}
	}
	go l.run(ctx)
	return l
}

// Count is Decide for one.
func (l *leased) Count(ctx context.Context, hits []Hit) ([]Outcome, error) {
	if !leases(hits) {
		return l.Store.Count(ctx, hits)
	}
	d := Decision{Hits: hits}
	l.Decide([]*Decision{&d})
	return d.Outcomes, d.Err
}

func leases(hits []Hit) bool {
	for i := range hits {
		if hits[i].Lease > 0 {
			return true
		}
	}
	return false
}

// Decide makes no trip when tokens in hand are enough for all.
func (l *leased) Decide(decisions []*Decision) {
	if !slices.ContainsFunc(decisions, func(d *Decision) bool { return leases(d.Hits) }) {
		l.Store.Decide(decisions)
		return
	}
	now := l.now()
	var t *turn
	var room [8]held
	ordered := false
	for _, d := range decisions {
		has, done, order := l.spend(d, room[:0], now)
		ordered = ordered || order
		if done {
			continue
		}
		if t == nil {
			t = newTurn(l)
		}
		t.claim(d, has, now)
	}
	switch {
	case t != nil:
		t.settle(now)
		t.free()
	case ordered:
		l.call()
	}
}

// spend decides d from tokens in hand. When they aren't enough it appends to has what it took, of the first hits. It tells
// whether it ordered a lot.
func (l *leased) spend(d *Decision, has []held, now int64) (took []held, done, ordered bool) {
	if len(d.Hits) == 0 || len(d.Hits) > MaxHits {
		return has, false, false
	}
	d.Outcomes = d.Outcomes[:0]
	back := false
	for i := range d.Hits {
		o, one, order := l.spendOne(&d.Hits[i], now)
		ordered = ordered || order
		if !one.whole {
			for j := range has {
				has[j].whole = d.Hits[j].Hits >= 0 // the store decides on what is given back
			}
			return has, false, ordered
		}
		has = append(has, one)
		back = back || d.Hits[i].Hits < 0
		d.Outcomes = append(d.Outcomes, o)
	}
	if back {
		l.back(d, has, now)
	}
	d.Err = nil
	l.metrics.local.Inc()
	return nil, true, ordered
}

// spendOne spends tokens for h, all or none, and tells whether it ordered a lot.
func (l *leased) spendOne(h *Hit, now int64) (o Outcome, has held, ordered bool) {
	if h.Lease <= 0 {
		return o, has, false
	}
	s, at := l.place(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.held[at]
	if p == nil || !p.is(h) {
		return o, has, false
	}
	has.purse = p
	if h.Hits < 0 {
		has.whole, has.end = p.accepts(-h.Hits, now), p.ends
		return o, has, false
	}
	p.expire(now)
	tokens := p.tokens()
	if tokens < max(1, h.Hits) {
		return o, has, false
	}
	has.tokens, has.end = p.take(h.Hits, now)
	has.whole = true
	if tokens-h.Hits <= p.low {
		if n := p.wanted(0, now); n > 0 {
			l.order(p, n)
			ordered = true
		}
	}
	return p.outcome(now), has, ordered
}

// accepts tells whether n hits that are given back may become tokens: there are so many to give back, and they will be
// spent soon. GCRA's go to the store, where the bucket may be full already.
func (p *purse) accepts(n, now int64) bool {
	tokens := p.tokens()
	return p.terms.life == 0 && p.ends > now && n <= p.count-tokens && n <= 2*p.low-tokens && tokens+p.asking+n <= p.terms.most
}

// back takes the hits that a decision gives back, now that it is allowed.
func (l *leased) back(d *Decision, has []held, now int64) {
	for i := range d.Hits {
		if n := -d.Hits[i].Hits; n > 0 {
			p := has[i].purse
			p.home.mu.Lock()
			p.put(n, has[i].end, now)
			d.Outcomes[i] = p.outcome(now)
			p.home.mu.Unlock()
		}
	}
}

// place is where the purse of h is kept.
func (l *leased) place(h *Hit) (*purses, uint64) {
	sum := maphash.String(l.seed, h.Key) ^ uint64(h.Algorithm) ^ uint64(h.Limit)*0x9e3779b97f4a7c15
	return &l.shards[sum>>58], sum
}

// purse is the one of h, made when there is none; nil when h isn't leased.
func (l *leased) purse(h *Hit, now int64) *purse {
	terms, ok := h.lease()
	if !ok || h.Hits > h.size() {
		return nil
	}
	s, at := l.place(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.held[at]
	switch {
	case p != nil && p.is(h):
		return p
	case p != nil:
		return nil // two buckets with one hash, or two windows of one key: the first has the purse
	case len(s.held) >= maxPurses:
		s.evict(now)
	}
	p = &purse{home: s, hit: *h, terms: terms, size: h.size(), measured: now}
	p.hit.Hits, p.hit.Beyond = 0, false
	s.held[at] = p
	return p
}

// order has a lot asked for with the next trip; the purse is locked.
func (l *leased) order(p *purse, n int64) {
	p.asking = n
	l.mu.Lock()
	l.due = append(l.due, order{p, n})
	l.mu.Unlock()
}

// orders are the lots that are due, appended to to.
func (l *leased) orders(to []order) []order {
	l.mu.Lock()
	defer l.mu.Unlock()
	to = append(to, l.due...)
	clear(l.due)
	l.due = l.due[:0]
	return to
}

// call has the lots that are due asked for while nobody waits.
func (l *leased) call() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// sweepEach is the time in which each purse is looked at once.
const sweepEach = time.Second

// run asks for the lots that are due, and sweeps.
func (l *leased) run(ctx context.Context) {
	defer close(l.stopped)
	const steps = 4
	tick := time.NewTicker(sweepEach / steps)
	defer tick.Stop()
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			t := newTurn(l)
			t.settle(l.now())
			t.free()
		case <-tick.C:
			l.giveBack(l.sweep(l.shards[i*shards/steps : (i+1)*shards/steps]))
			i = (i + 1) % steps
		}
	}
}

// settling is how much longer a window has to last for hits to be given back: what came after its end would be taken
// off the next one's.
const settling = 3 * time.Second

// sweep takes from purses what was not spent in the time since it last came, and forgets those that weren't used.
func (l *leased) sweep(shards []purses) []order {
	var back []order
	now := l.now()
	for i := range shards {
		s := &shards[i]
		s.mu.Lock()
		for at, p := range s.held {
			p.expire(now)
			spent := p.spent - p.swept
			p.swept = p.spent
			if n := p.surplus(spent, now); n > 0 {
				back = append(back, order{p, n})
			} else if spent == 0 && p.asking == 0 && p.tokens() == 0 {
				delete(s.held, at)
			}
		}
		s.mu.Unlock()
	}
	return back
}

// surplus takes the tokens beyond need that are worth giving back.
func (p *purse) surplus(need, now int64) int64 {
	n := p.tokens() - need
	if n <= 0 || p.asking > 0 || p.terms.life > 0 || p.ends-now < settling.Microseconds() {
		return 0
	}
	p.take(n, now)
	p.spent -= n
	return n
}

// giveBack gives tokens back to the store. What fails to be given back stays counted.
func (l *leased) giveBack(back []order) {
	if len(back) == 0 {
		return
	}
	asked := l.now()
	decisions := make([]*Decision, len(back))
	for i, b := range back {
		decisions[i] = &Decision{Hits: []Hit{b.purse.ask(-b.n)}}
	}
	l.Store.Decide(decisions)
	for i, d := range decisions {
		p := back[i].purse
		if d.Err != nil {
			l.metrics.lost.Add(float64(back[i].n))
			continue
		}
		l.metrics.returned.Add(float64(back[i].n))
		p.home.mu.Lock()
		p.learn(&d.Outcomes[0], asked)
		p.home.mu.Unlock()
	}
}

// Close gives tokens back as far as it can, and closes the store.
func (l *leased) Close() error {
	l.stop()
	<-l.stopped
	now := l.now()
	var back []order
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, p := range s.held {
			if n := p.surplus(0, now); n > 0 {
				back = append(back, order{p, n})
			}
		}
		s.mu.Unlock()
	}
	l.giveBack(back)
	return l.Store.Close()
}

type leaseMetrics struct {
	local, store                       prometheus.Counter
	granted, refused, failed           prometheus.Counter
	size                               prometheus.Histogram
	expired, returned, lost, forgotten prometheus.Counter
}

func newLeaseMetrics(r prometheus.Registerer) *leaseMetrics {
	lots := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "legation_store_lease_lots_total",
		Help: "Lots of hits asked for ahead of need, by result: granted, refused, error.",
	}, []string{"result"})
	unused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "legation_store_lease_unused_hits_total",
		Help: "Hits taken ahead of need that were not spent, by what became of them: returned to the store; and those that " +
			"stay counted: expired with their window or their time, forgotten for want of room, lost with an answer.",
	}, []string{"fate"})
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "legation_store_lease_decisions_total",
		Help: "Decisions with leased hits by who decided them: local, from hits taken ahead of need, or the store.",
	}, []string{"by"})
	m := &leaseMetrics{
		local:   decisions.WithLabelValues("local"),
		store:   decisions.WithLabelValues("store"),
		granted: lots.WithLabelValues("granted"),
		refused: lots.WithLabelValues("refused"),
		failed:  lots.WithLabelValues("error"),
		size: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_store_lease_lot_hits",
			Help:    "Hits of a lot that was granted.",
			Buckets: []float64{2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384},
		}),
		expired:   unused.WithLabelValues("expired"),
		returned:  unused.WithLabelValues("returned"),
		lost:      unused.WithLabelValues("lost"),
		forgotten: unused.WithLabelValues("forgotten"),
	}
	if r != nil {
		r.MustRegister(lots, unused, decisions, m.size)
	}
	return m
}
