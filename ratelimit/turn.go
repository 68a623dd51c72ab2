package ratelimit

import (
	"math"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/legation/legation/store"
)

// turn is the requests that are decided together. Turns are used again, so that a call in the steady state allocates
// nothing.
type turn struct {
	table     *table
	start     time.Time
	request   wireRequest
	decisions []*decision // the first n are the turn's
	n         int
	asked     []*store.Decision
	key       []byte // the key that is being built
	found     []found
	headers   headers
	sample    int64 // asks until the next is one for the list of busy keys
}

var turns = sync.Pool{New: func() any { return new(turn) }}

// begin gives an empty turn; end takes it back.
func (s *Service) begin() *turn {
	t := turns.Get().(*turn)
	t.table, t.start, t.n = s.table.Load(), time.Now(), 0
	s.top.tick(t.start)
	t.sample = min(t.sample, 2*s.top.stride.Load())
	return t
}

func (s *Service) end(t *turn) {
	s.metrics.seconds.Observe(time.Since(t.start).Seconds())
	t.table = nil
	turns.Put(t)
}

// next gives the decision of one request more.
func (t *turn) next() *decision {
	if t.n == len(t.decisions) {
		t.decisions = append(t.decisions, new(decision))
	}
	d := t.decisions[t.n]
	t.n++
	*d = decision{
		asks:    d.asks[:0],
		charge:  store.Decision{Hits: d.charge.Hits[:0], Outcomes: d.charge.Outcomes[:0]},
		watch:   store.Decision{Hits: d.watch.Hits[:0], Outcomes: d.watch.Outcomes[:0]},
		refused: -1,
		nearest: -1,
	}
	return d
}

// decision is the limits of one request.
type decision struct {
	asks     []ask
	charge   store.Decision // the limits that hold: all are charged, or none
	watch    store.Decision // those in shadow, whatever the others say
	places   int            // descriptors of the request
	blocked  bool           // a limit lets nothing pass
	refused  int            // the ask that refuses and is to be waited for the longest; -1: none
	nearest  int            // the ask that has the smallest share left, of those that answers tell of; -1: none
	shadow   *limit         // one in shadow that would have refused
	reserved bool           // an ask wants hits for later
	degraded bool           // the store couldn't answer
	code     codes.Code     // not OK: there is no decision
	text     string         // and this is why
	unknown  string         // the limit that isn't loaded, when that is why
}

// ask is a limit's part in a decision.
type ask struct {
	limit   *limit
	rate    *rate
	key     string
	hits    int64
	granted int64 // hits beyond those, for the caller to use later
	place   int   // the descriptor that asks
	counted bool  // there is an outcome: the store or this process has counted, or the rate is no requests at all
	outcome store.Outcome
}

func (d *decision) fail(code codes.Code, text string) { d.code, d.text = code, text }

// add asks a limit, held to the rate r.
func (d *decision) add(l *limit, r *rate, key string, hits int64, place int) {
	a := ask{limit: l, rate: r, key: key, hits: hits, place: place}
	switch {
	case r == nil, r.unlimited:
		a.outcome = store.Outcome{Allowed: true, Remaining: math.MaxInt64}
	case r.blocked() && l.Shadow:
		a.outcome = store.Outcome{Allowed: true}
	case r.blocked():
		span := max(r.span(), time.Second)
		a.counted, a.outcome = true, store.Outcome{Reset: span, RetryAfter: span}
		d.blocked = true
	case l.Shadow:
		d.watch.Hits = append(d.watch.Hits, r.on(key, hits))
	default:
		d.charge.Hits = append(d.charge.Hits, r.on(key, hits))
	}
	d.asks = append(d.asks, a)
}

// on is the hit of a bucket.
func (r *rate) on(key string, hits int64) store.Hit {
	h := r.hit
	h.Key, h.Hits = key, hits
	return h
}

// stored tells whether the ask is one of the store's: of the decision's watch when its limit is in shadow, else of its
// charge, in order.
func (a *ask) stored() bool { return a.rate != nil && !a.rate.unlimited && !a.rate.blocked() }
