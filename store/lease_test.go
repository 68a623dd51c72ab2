package store

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
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

// replicas are r leased stores over one.
func replicas(inner Store, r int) []*leased {
	all := make([]*leased, r)
	for i := range all {
		all[i] = lease(inner, Options{})
	}
	return all
}

func windowed(key string, limit, lease int64) Hit {
	return Hit{Key: key, Limit: limit, Window: 10 * time.Second, Hits: 1, Lease: lease}
}

// ask is one decision of one hit.
func allowed(t *testing.T, s Store, h Hit) bool {
	t.Helper()
	out, err := s.Count(t.Context(), []Hit{h})
	if err != nil {
		t.Fatal(err)
	}
	o := out[0]
	if o.Remaining < 0 || o.Remaining > o.Limit || o.Limit != h.size() || o.Reset < 0 || o.Reset > max(h.Window, time.Minute) {
		t.Errorf("%+v is no answer to %+v", o, h)
	}
	return o.Allowed
}

// TestLeasedNeverExceedsAWindow drives replicas at rates of their own through some windows.
func TestLeasedNeverExceedsAWindow(t *testing.T) {
	for _, limit := range []int64{1, 2, 10, 100, 10_000} {
		for _, b := range []int64{1, 16, 1000} {
			t.Run(fmt.Sprintf("limit %d lease %d", limit, b), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testWindows(t, limit, b) })
			})
		}
	}
}

func testWindows(t *testing.T, limit, b int64) {
	const r = 3
	model := newNaive()
	stores := replicas(model, r)
	h := windowed("w", limit, b)
	var mu sync.Mutex
	passed, asked, between := map[time.Time]int64{}, map[time.Time]int64{}, map[time.Time]int64{}
	var wg sync.WaitGroup
	end := time.Now().Truncate(h.Window).Add(3 * h.Window)
	for i := range 2 * r {
		rnd := rand.New(rand.NewPCG(uint64(i), uint64(limit)))
		wg.Go(func() {
			for time.Now().Before(end) {
				window := time.Now().Truncate(h.Window)
				ok := allowed(t, stores[i%r], h)
				mu.Lock()
				asked[window]++
				switch now := time.Now().Truncate(h.Window); {
				case !ok:
				case now == window:
					passed[window]++
				default: // one that was under way when a window ended was decided in either
					between[window]++
					between[now]++
				}
				mu.Unlock()
				time.Sleep(time.Duration(rnd.Int64N(int64(i+1)) * int64(2*time.Millisecond)))
			}
		})
	}
	wg.Wait()
	for window, got := range passed {
		if got > limit {
			t.Errorf("%d allowed of %d", got, limit)
		}
		if want := min(limit, asked[window]) - r*b; got+between[window] < want {
			t.Errorf("%d allowed, want %d at least", got, want)
		}
	}
	for _, s := range stores {
		s.Close()
	}
	t.Logf("%v allowed of %v, %d hits at the store in %d trips", slices.Collect(maps.Values(passed)), slices.Collect(maps.Values(asked)), model.hits, model.trips)
}
