package store

import (
	"slices"
	"sync"
)

// part is the hits of a decision that are in one slot.
type part struct {
	slot  int
	index []int // of hits
	err   error
}

// countSlots counts on a Cluster, which can't run a script over several slots. Each slot takes all or none of its part;
// when one refuses or fails, the others give back what they took. So no limit is ever exceeded; but for the time of two
// trips others may be refused for hits that are given back, and when a node fails in between they stay counted until
// the window ends.
func (s *redisStore) countSlots(hits []Hit, asked int64) ([]Outcome, error) {
	parts := split(hits)
	out := make([]Outcome, len(hits))
	s.each(parts, func(p *part) { p.err = s.lane(p.slot).count(hits, p.index, out) })

	var failed error
	refused := false
	for i := range parts {
		if parts[i].err != nil {
			failed = parts[i].err
			continue
		}
		refused = refused || slices.ContainsFunc(parts[i].index, func(i int) bool { return !out[i].Allowed })
	}
	if len(parts) > 1 && (refused || failed != nil) {
		s.giveBack(parts, hits, out)
	}
	if failed != nil {
		return nil, unavailable(failed)
	}
	if !refused || len(parts) == 1 { // else some were given back
		s.memory.learn(hits, out, asked)
	} else if !twice(hits) {
		for i := range hits {
			if !out[i].Allowed {
				s.memory.keep(&hits[i], &out[i], asked)
			}
		}
	}
	return out, nil
}

func split(hits []Hit) []part {
	parts := make([]part, 0, len(hits))
	for i := range hits {
		n := slot(redisKey(&hits[i]))
		at := slices.IndexFunc(parts, func(p part) bool { return p.slot == n })
		if at < 0 {
			at = len(parts)
			parts = append(parts, part{slot: n})
		}
		parts[at].index = append(parts[at].index, i)
	}
	return parts
}

func (s *redisStore) lane(slot int) *lane { return s.lanes[slot*len(s.lanes)/slots] }

// each runs do for all parts at once.
func (s *redisStore) each(parts []part, do func(*part)) {
	var wg sync.WaitGroup
	for i := range parts[1:] {
		wg.Go(func() { do(&parts[i+1]) })
	}
	do(&parts[0])
	wg.Wait()
}

// giveBack undoes the parts that were taken.
func (s *redisStore) giveBack(parts []part, hits []Hit, out []Outcome) {
	s.each(parts, func(p *part) {
		took := p.err == nil && !slices.ContainsFunc(p.index, func(i int) bool { return !out[i].Allowed })
		if took {
			s.lane(p.slot).refund(hits, p.index, out)
		}
	})
}

// refund gives back the hits at index; what fails to be given back stays counted.
func (l *lane) refund(hits []Hit, index []int, out []Outcome) {
	t := trips.Get().(*trip)
	defer trips.Put(t)
	t.script, t.values, t.err = refundScript, nil, nil
	t.args = append(t.args[:0], nil, nil, 0)
	for _, i := range index {
		if hits[i].Hits > 0 {
			t.args = append(t.args, redisKey(&hits[i]))
		}
	}
	t.args[2] = len(t.args) - 3
	if t.args[2] == 0 {
		return
	}
	for _, i := range index {
		if h := &hits[i]; h.Hits > 0 {
			t.args = append(t.args, uint8(h.Algorithm), h.Limit, h.Window.Microseconds(), h.Hits, out[i].Reset.Microseconds())
			out[i].Remaining = min(out[i].Limit, out[i].Remaining+h.Hits)
		}
	}
	l.run(t)
}
