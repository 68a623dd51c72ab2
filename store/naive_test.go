package store

import (
	"context"
	"sync"
	"time"
)

// naive is the model: a shared store that decides one after the other, from what it was told and nothing else. Its times
// are those of the bubble that the test runs in.
type naive struct {
	mu     sync.Mutex // guards what follows
	counts map[string]int64
	ends   map[string]time.Time
	fulls  map[string]time.Time
	trips  int
	hits   int
	back   int64                        // hits given back
	fault  func() (before, after error) // the decision is lost before or after it is counted
}

func newNaive() *naive {
	return &naive{counts: map[string]int64{}, ends: map[string]time.Time{}, fulls: map[string]time.Time{}}
}

func (n *naive) Decide(decisions []*Decision) {
	time.Sleep(time.Millisecond) // there
	n.mu.Lock()
	n.trips++
	for _, d := range decisions {
		n.decide(d)
	}
	n.mu.Unlock()
	time.Sleep(time.Millisecond) // and back
}

func (n *naive) decide(d *Decision) {
	var before, after error
	if n.fault != nil {
		before, after = n.fault()
	}
	d.Outcomes, d.Err = nil, before
	if before != nil {
		return
	}
	n.hits += len(d.Hits)
	undo := []func(){}
	refused := false
	for i := range d.Hits {
		o, back := n.hit(&d.Hits[i])
		d.Outcomes = append(d.Outcomes, o)
		undo = append(undo, back)
		refused = refused || !o.Allowed && !d.Hits[i].Beyond
	}
	for i := len(undo) - 1; refused && i >= 0; i-- {
		undo[i]()
	}
	d.Err = after
}

func (n *naive) hit(h *Hit) (Outcome, func()) {
	now := time.Now()
	if h.Algorithm == GCRA {
		was := n.fulls[h.Key]
		full := was
		if full.Before(now) {
			full = now
		}
		interval := h.Window / time.Duration(h.Limit)
		room := int64((time.Duration(h.Burst)*interval - full.Sub(now)) / interval)
		o := Outcome{Allowed: max(1, h.Hits) <= room, Limit: h.Burst, Remaining: max(0, room)}
		if o.Allowed {
			full = full.Add(time.Duration(h.Hits) * interval)
			n.fulls[h.Key] = full
			o.Remaining -= h.Hits
		}
		o.Reset = full.Sub(now)
		return o, func() { n.fulls[h.Key] = was }
	}
	if !n.ends[h.Key].After(now) {
		n.ends[h.Key], n.counts[h.Key] = now.Truncate(h.Window).Add(h.Window), 0
	}
	n.back -= min(0, h.Hits)
	was := n.counts[h.Key]
	o := Outcome{Allowed: h.Hits < 0 || max(1, h.Hits) <= h.Limit-was, Limit: h.Limit, Reset: n.ends[h.Key].Sub(now)}
	if o.Allowed || h.Beyond {
		n.counts[h.Key] = max(0, was+h.Hits)
	}
	o.Count = n.counts[h.Key]
	o.Remaining = max(0, h.Limit-o.Count)
	return o, func() { n.counts[h.Key] = was }
}

func (n *naive) Count(_ context.Context, hits []Hit) ([]Outcome, error) {
	d := Decision{Hits: hits}
	n.Decide([]*Decision{&d})
	return d.Outcomes, d.Err
}

func (n *naive) Health() Health { return Health{OK: true} }
func (n *naive) Close() error   { return nil }
