package ratelimit

import (
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/legation/legation/store"
)

// decide decides all requests of a turn with one trip to the store.
func (s *Service) decide(t *turn) {
	t.asked = t.asked[:0]
	for _, d := range t.decisions[:t.n] {
		if d.code != codes.OK {
			continue
		}
		if d.blocked {
			d.chargeNothing()
		}
		if len(d.charge.Hits) > 0 {
			t.asked = append(t.asked, &d.charge)
		}
		if len(d.watch.Hits) > 0 {
			t.asked = append(t.asked, &d.watch)
		}
	}
	if len(t.asked) > 0 {
		s.store.Decide(t.asked)
	}
	s.retry(t)
	for _, d := range t.decisions[:t.n] {
		if d.code == codes.OK {
			s.settle(t, d)
		}
	}
}

// chargeNothing has the store only tell what is there.
func (d *decision) chargeNothing() {
	for i := range d.charge.Hits {
		d.charge.Hits[i].Hits = 0
	}
	for i := range d.asks {
		d.asks[i].granted = 0
	}
	d.reserved = false
}

// settle reads what the store said to d.
func (s *Service) settle(t *turn, d *decision) {
	switch err := d.charge.Err; {
	case err == nil:
		d.take()
	case errors.Is(err, store.ErrInvalid):
		s.metrics.invalid.Inc()
		d.fail(codes.InvalidArgument, err.Error())
		return
	default:
		if !s.degrade(d) {
			d.fail(codes.Unavailable, "the store can't answer")
			return
		}
	}
	for i := range d.asks {
		a := &d.asks[i]
		s.count(t, d, a)
		if a.limit.Shadow || !a.counted {
			continue
		}
		switch {
		case !a.outcome.Allowed:
			if d.refused < 0 || a.outcome.RetryAfter > d.asks[d.refused].outcome.RetryAfter {
				d.refused = i
			}
		case a.limit.Headers != NoHeaders:
			if d.nearest < 0 || nearer(&a.outcome, &d.asks[d.nearest].outcome) {
				d.nearest = i
			}
		}
	}
	if d.refused < 0 {
		d.refused = d.allSoft()
	}
}

// allSoft is an ask that refuses since all soft limits of the request are over, and there is one; else -1.
func (d *decision) allSoft() int {
	refused := -1
	for i := range d.asks {
		switch a := &d.asks[i]; {
		case !a.limit.soft:
		case !a.counted || a.outcome.Allowed:
			return -1
		case refused < 0 || a.outcome.RetryAfter > d.asks[refused].outcome.RetryAfter:
			refused = i
		}
	}
	return refused
}

// take gives the outcomes to the asks.
func (d *decision) take() {
	charged, watched := 0, 0
	for i := range d.asks {
		a := &d.asks[i]
		switch {
		case !a.stored():
		case !a.limit.Shadow:
			a.counted, a.outcome = true, d.charge.Outcomes[charged]
			charged++
		case d.watch.Err == nil:
			a.counted, a.outcome = true, d.watch.Outcomes[watched]
			watched++
		}
	}
}

// nearer tells whether a smaller share is left of a than of b.
func nearer(a, b *store.Outcome) bool {
	return float64(a.Remaining)*float64(b.Limit) < float64(b.Remaining)*float64(a.Limit)
}

// degrade decides without the store; false when a limit wants no decision then.
func (s *Service) degrade(d *decision) bool {
	d.degraded = true
	var local store.Decision
	n := 0
	for i := range d.asks {
		a := &d.asks[i]
		if !a.stored() || a.limit.Shadow {
			continue
		}
		switch a.limit.OnError {
		case Deny:
			s.metrics.result(a.limit, "error").Inc()
			return false
		case Local:
			local.Hits = append(local.Hits, d.charge.Hits[n])
		}
		n++
	}
	if len(local.Hits) == 0 {
		return true
	}
	s.local.Decide([]*store.Decision{&local})
	if local.Err != nil {
		return false
	}
	n = 0
	for i := range d.asks {
		if a := &d.asks[i]; a.stored() && !a.limit.Shadow && a.limit.OnError == Local {
			a.counted, a.outcome = true, local.Outcomes[n]
			n++
		}
	}
	return true
}

// count gives the figures of an ask. What is given back is a request neither for them nor for the report.
func (s *Service) count(t *turn, d *decision, a *ask) {
	l := a.limit
	if a.hits < 0 {
		if a.counted {
			s.metrics.result(l, "refunded").Inc()
		}
		return
	}
	l.figures.requests.Add(1)
	if a.counted && l.Shadow {
		l.figures.record.watch(a, t.start)
	}
	switch {
	case a.counted && !a.outcome.Allowed:
		l.over.Inc()
		if !l.Shadow {
			l.figures.record.refuse(a, t.start)
		} else if d.shadow == nil {
			d.shadow = l
		}
	case d.degraded && !l.Shadow, l.Shadow && a.stored() && !a.counted:
		s.metrics.result(l, "degraded").Inc()
	default:
		l.ok.Inc()
		if l.crossed[0] != nil && a.counted && a.hits > 0 {
			l.cross(a)
		}
	}
	if t.sample--; t.sample <= 0 {
		t.sample = s.top.add(a)
	}
}
