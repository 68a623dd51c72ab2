package control

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Connections end by their age. A canary that comes back with what it had goes on holding it, to whichever process it comes.
func TestConnectionsEndByTheirAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := boardOf(t)
		text := func(n int) string { return delivered(protected(n, n), "delivery: {canary: 1, hold: 5m}, ") }
		var planes []*plane
		envoys := map[string]*proxy{}
		for _, name := range []string{"a", "b"} {
			p := judging(t, Options{Parked: board, Replica: name})
			p.push(text(1))
			for _, id := range []string{name + "-1", name + "-2"} {
				envoys[id] = p.envoyCalled(id)
			}
			planes = append(planes, p)
		}
		pass(time.Minute)
		second := planes[0].push(text(2))
		planes[1].push(text(2))
		for i := range 5 {
			pass(58 * time.Second)
			for _, p := range planes {
				if o := p.Outcome(); len(o.Staged) != 1 || len(o.Parked) != 0 {
					t.Fatalf("after %d minutes: got %+v, %+v", i+1, o.Staged, o.Parked)
				}
			}
			canary := planes[0].canary()
			envoys[canary] = planes[i%2].back(envoys[canary])
		}
		pass(20 * time.Second)
		for _, p := range planes {
			if o := p.Outcome(); len(o.Staged) != 0 || len(o.Parked) != 0 || p.count(second) != len(p.runs()) {
				t.Errorf("after the hold: got %+v, %+v, %v", o.Staged, o.Parked, p.runs())
			}
		}
	})
}

// One whose connections end soon may be in trouble, whatever it has.
func TestCanaryThatDoesNotStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		p.push(byStages(1, 10))
		envoys := p.start(2)
		pass(time.Second)
		p.push(byStages(2, 20))
		pass(5 * time.Second)
		e := envoys[p.canary()]
		for range returnsMax {
			e = p.back(e)
			pass(5 * time.Second)
		}
		if got := p.Outcome().Parked; len(got) != 1 || got[0].Reasons[0].Error != "came back for the third time since it got it" {
			t.Errorf("got %+v", got)
		}
	})
}

// Processes tell each other of hundreds of canaries, whatever these are called.
func TestManyCanaries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := boardOf(t)
		text := func(n int) string { return delivered(protected(n, n), "delivery: {canary: 100%}, ") }
		a, b := judging(t, Options{Parked: board, Replica: "a"}), judging(t, Options{Parked: board, Replica: "b"})
		for _, p := range []*plane{a, b} {
			p.push(text(1))
		}
		for i := range 200 {
			a.envoyCalled(fmt.Sprintf("%s-%d", strings.Repeat("<", 150), i))
		}
		b.envoyCalled("b")
		pass(10 * time.Second)
		second := a.push(text(2))
		b.push(text(2))
		chosen := len(a.Outcome().Staged[0].Canaries)
		for range 15 {
			pass(2 * time.Second)
			for _, p := range []*plane{a, b} {
				if o := p.Outcome(); len(o.Parked) > 0 || len(o.Staged) == 1 && len(o.Staged[0].Canaries) != chosen {
					t.Fatalf("got %d canaries after %d, %+v", len(o.Staged[0].Canaries), chosen, o.Parked)
				}
			}
		}
		pass(10 * time.Second)
		if a.Outcome().Staged != nil || a.count(second) != 200 || b.count(second) != 1 {
			t.Errorf("%d and %d have it, want all 200 and 1", a.count(second), b.count(second))
		}
	})
}

// A long name keeps an Envoy from nothing.
func TestCanaryWithALongName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{Parked: boardOf(t), Replica: "a"})
		p.push(byStages(1, 10))
		id := "spiffe://" + strings.Repeat("<", 2000)
		p.envoyCalled(id)
		second := p.push(byStages(2, 20))
		if pass(10 * time.Second); p.canary() != id {
			t.Fatalf("got %s", p.canary())
		}
		if rec := p.record("edge"); rec == nil || len(rec.Canaries) != 1 {
			t.Errorf("other processes know %+v", rec)
		}
		if pass(25 * time.Second); p.count(second) != 1 || p.Outcome().Staged != nil {
			t.Errorf("after the hold: got %+v", p.Outcome().Staged)
		}
	})
}
