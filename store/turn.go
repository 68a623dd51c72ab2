package store

import (
	"errors"
	"sync"
)

// turn is what one Decide of a leased store takes to the store: the decisions for which tokens in hand are not enough,
// and the lots that are due.
//
// A decision that misses hits of one bucket only waits for the lot of that bucket, when one is due, which brings what all
// such decisions of the turn miss. Others go to the store themselves, for what they miss, so that they are all or none
// there. What a decision took from the tokens in hand goes back when it is refused.
type turn struct {
	l      *leased
	plain  []*Decision // without leased hits
	claims []claim
	asks   []ask
	at     map[*purse]int // of asks that claims wait for
	orders []order
	batch  []*Decision
}

// held is what a decision has of one hit.
type held struct {
	purse       *purse // nil: the store decides
	tokens, end int64  // spent from it; when they would have ended
	whole       bool   // and no more is needed
}

// claim is a decision that needs the store.
type claim struct {
	decision *Decision
	held     []held   // one for each hit
	ask      int      // that it waits for; -1 for none
	missing  int      // the hit that waits
	part     Decision // what the store is to decide of it; no hits: nothing
	index    []int    // of these hits in the decision
}

// ask takes hits of one bucket from the store.
type ask struct {
	purse       *purse
	need, ahead int64 // for the claims that wait, and for later
	hit         [1]Hit
	decision    Decision
}

var turns = sync.Pool{New: func() any { return &turn{at: map[*purse]int{}} }}

func newTurn(l *leased) *turn {
	t := turns.Get().(*turn)
	t.l = l
	return t
}

func (t *turn) free() {
	clear(t.plain)
	for i := range t.claims {
		c := &t.claims[i]
		clear(c.held)
		clear(c.part.Hits)
		c.decision = nil
	}
	clear(t.asks)
	clear(t.at)
	clear(t.orders)
	clear(t.batch)
	t.plain, t.claims, t.asks, t.orders, t.batch = t.plain[:0], t.claims[:0], t.asks[:0], t.orders[:0], t.batch[:0]
	turns.Put(t)
}

// add makes room for a claim, with the slices of an earlier one.
func (t *turn) add() *claim {
	if n := len(t.claims); n < cap(t.claims) {
		t.claims = t.claims[:n+1]
	} else {
		t.claims = append(t.claims, claim{})
	}
	c := &t.claims[len(t.claims)-1]
	c.held, c.index, c.part.Hits, c.part.Err, c.ask = c.held[:0], c.index[:0], c.part.Hits[:0], nil, -1
	return c
}

// claim adds a decision that has from of its first hits.
func (t *turn) claim(d *Decision, from []held, now int64) {
	if !leases(d.Hits) || len(d.Hits) > MaxHits {
		t.plain = append(t.plain, d)
		return
	}
	t.l.metrics.store.Inc()
	c := t.add()
	c.decision = d
	c.held = append(c.held, from...)
	for i := len(from); i < len(d.Hits); i++ {
		c.held = append(c.held, t.l.reserve(&d.Hits[i], now))
	}
	n := 0
	for i := range c.held {
		if !c.held[i].whole {
			c.missing = i
			n++
		}
	}
	if n != 1 || !t.wait(c, now) {
		c.split()
	}
	for i := range c.held {
		if p := c.held[i].purse; p != nil && (c.ask < 0 || i != c.missing) {
			t.l.renew(p, max(0, d.Hits[i].Hits-c.held[i].tokens), now)
		}
	}
}

// reserve spends what tokens there are for h.
func (l *leased) reserve(h *Hit, now int64) held {
	p := l.purse(h, now)
	if p == nil || h.Hits < 0 {
		return held{purse: p}
	}
	p.home.mu.Lock()
	defer p.home.mu.Unlock()
	tokens, end := p.take(h.Hits, now)
	return held{p, tokens, end, tokens == h.Hits && (h.Hits > 0 || p.tokens() > 0)}
}

// renew orders a lot when it is time; need hits are asked for besides.
func (l *leased) renew(p *purse, need, now int64) {
	p.home.mu.Lock()
	defer p.home.mu.Unlock()
	if p.tokens() <= p.low {
		if n := p.wanted(need, now); n > 0 {
			l.order(p, n)
		}
	}
}

// wait has c wait for the ask of the bucket that it misses. Where no lot is to be had, for now or since the store has too
// little left, the decision goes itself: the store makes one increment of several of those.
func (t *turn) wait(c *claim, now int64) bool {
	h, has := &c.decision.Hits[c.missing], &c.held[c.missing]
	p := has.purse
	if p == nil || h.Hits <= 0 {
		return false
	}
	need := h.Hits - has.tokens
	p.home.mu.Lock()
	defer p.home.mu.Unlock()
	room := p.room(now)
	at, ok := t.at[p]
	if ok {
		room -= t.asks[at].need + t.asks[at].ahead
	}
	if need > room {
		return false
	}
	if !ok {
		ahead := p.wanted(need, now)
		if ahead <= 0 {
			return false
		}
		at = len(t.asks)
		p.asking += ahead
		t.asks = append(t.asks, ask{purse: p, ahead: ahead})
		t.at[p] = at
	}
	t.asks[at].need += need
	c.ask = at
	return true
}

// split makes the part of c that the store decides.
func (c *claim) split() {
	c.ask = -1
	for i := range c.held {
		if has := &c.held[i]; !has.whole {
			h := c.decision.Hits[i]
			if p := has.purse; p != nil {
				beyond := h.Beyond
				h = p.ask(h.Hits - has.tokens)
				h.Beyond = beyond
			}
			c.part.Hits = append(c.part.Hits, h)
			c.index = append(c.index, i)
		}
	}
}

// settle goes to the store and answers all. Of a lot that didn't fit, those who waited for it go once more, each for itself.
func (t *turn) settle(now int64) {
	t.orders = t.l.orders(t.orders)
	for _, o := range t.orders {
		t.asks = append(t.asks, ask{purse: o.purse, ahead: o.n})
	}
	t.batch = append(t.batch, t.plain...) // requests go before lots: what is left is for them
	for i := range t.claims {
		if c := &t.claims[i]; len(c.part.Hits) > 0 {
			t.batch = append(t.batch, &c.part)
		}
	}
	for i := range t.asks {
		a := &t.asks[i]
		a.hit[0] = a.purse.ask(a.need + a.ahead)
		a.decision.Hits = a.hit[:]
		t.batch = append(t.batch, &a.decision)
	}
	t.decide()
	back := t.l.now()
	for i := range t.asks {
		t.l.receive(&t.asks[i], now, back)
	}
	for i := range t.claims {
		if c := &t.claims[i]; c.ask >= 0 && t.asks[c.ask].open(c) {
			c.split()
			t.batch = append(t.batch, &c.part)
			continue
		}
		t.finish(&t.claims[i], now, back)
	}
	if len(t.batch) == 0 {
		return
	}
	t.decide()
	again := t.l.now()
	for i := range t.claims {
		if c := &t.claims[i]; c.decision != nil {
			t.finish(c, back, again)
		}
	}
}

// decide sends the batch.
func (t *turn) decide() {
	if len(t.batch) > 0 {
		t.l.Store.Decide(t.batch)
		clear(t.batch)
		t.batch = t.batch[:0]
	}
}

// receive takes the answer to an ask that was sent at the time asked.
func (l *leased) receive(a *ask, asked, now int64) {
	p := a.purse
	p.home.mu.Lock()
	defer p.home.mu.Unlock()
	p.asking -= a.ahead
	if a.decision.Err != nil {
		p.fail(now)
		l.metrics.failed.Inc()
		l.metrics.lost.Add(float64(a.ahead))
		return
	}
	o := &a.decision.Outcomes[0]
	p.learn(o, asked)
	if !o.Allowed {
		l.metrics.refused.Inc()
		return
	}
	p.spent += a.need
	p.put(a.ahead, p.end(o, asked), now)
	l.metrics.granted.Inc()
	l.metrics.size.Observe(float64(a.need + a.ahead))
}

// open tells whether the refusal of a leaves it open what the store would answer to c alone. What is beyond is counted.
func (a *ask) open(c *claim) bool {
	if a.decision.Err != nil || a.decision.Outcomes[0].Allowed {
		return false
	}
	h := &c.decision.Hits[c.missing]
	missing := h.Hits - c.held[c.missing].tokens
	return h.Beyond || h.Algorithm == GCRA || a.decision.Outcomes[0].Remaining >= missing
}

// finish answers a decision from what it held and what the store said to what was asked at the given time.
func (t *turn) finish(c *claim, asked, now int64) {
	d := c.decision
	c.decision = nil
	d.Outcomes = d.Outcomes[:0]
	d.Err = c.part.Err
	if c.ask >= 0 {
		d.Err = t.asks[c.ask].decision.Err
	}
	if d.Err != nil {
		if errors.Is(d.Err, ErrUnavailable) {
			c.fail(now)
		}
		c.release(now)
		return
	}
	refused := false
	for i := range d.Hits {
		if o := t.answer(c, i); o != nil && !o.Allowed && !d.Hits[i].Beyond {
			refused = true
		}
	}
	if refused {
		c.release(now)
	}
	for i := range d.Hits {
		o := t.answer(c, i)
		if has := &c.held[i]; has.purse != nil {
			missed := d.Hits[i].Hits - has.tokens
			if c.ask >= 0 || refused {
				missed = 0 // counted already, or not at all
			}
			d.Outcomes = append(d.Outcomes, has.purse.report(o, missed, asked, now))
		} else {
			d.Outcomes = append(d.Outcomes, *o)
		}
	}
}

// answer is what the store said to hit i of c; nil when it wasn't asked.
func (t *turn) answer(c *claim, i int) *Outcome {
	if c.ask >= 0 {
		if i == c.missing {
			return &t.asks[c.ask].decision.Outcomes[0]
		}
		return nil
	}
	for j, k := range c.index {
		if k == i {
			return &c.part.Outcomes[j]
		}
	}
	return nil
}

// report is the outcome of a leased hit: of one that the store answered, or was decided here. It counts what the store did.
func (p *purse) report(answer *Outcome, counted, asked, now int64) Outcome {
	p.home.mu.Lock()
	defer p.home.mu.Unlock()
	if answer == nil {
		return p.outcome(now)
	}
	o := *answer
	p.learn(&o, asked)
	p.spent += max(0, counted)
	p.adjust(&o)
	return o
}

// release puts back what the decision took from the tokens in hand.
func (c *claim) release(now int64) {
	for i := range c.held {
		if has := &c.held[i]; has.tokens > 0 {
			p := has.purse
			p.home.mu.Lock()
			p.spent -= has.tokens
			p.put(has.tokens, has.end, now)
			p.home.mu.Unlock()
			has.tokens = 0
		}
	}
}

// fail has the purses that the store was asked for begin anew.
func (c *claim) fail(now int64) {
	for i := range c.held {
		if p := c.held[i].purse; p != nil && !c.held[i].whole {
			p.home.mu.Lock()
			p.fail(now)
			p.home.mu.Unlock()
		}
	}
}
