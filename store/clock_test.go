package store

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// suspended is a clock in a bubble, whose machine was suspended for so long as asleep says.
func suspended(asleep *atomic.Int64) clock {
	monotonic := newClock().now
	return catchUp(monotonic, func() int64 { return monotonic() + asleep.Load() })
}

func TestClockCatchesUp(t *testing.T) {
	var wall, monotonic int64
	c := catchUp(func() int64 { return monotonic }, func() int64 { return wall })
	for _, step := range []struct {
		what                  string
		wall, monotonic, want int64
	}{
		{"at first", 0, 0, 0},
		{"both run", 10 * second, 10 * second, 10 * second},
		{"the wall clock is a second ahead", 12 * second, 11 * second, 11 * second},
		{"suspended for an hour", 3613 * second, 12 * second, 3613 * second},
		{"on", 3614 * second, 13 * second, 3614 * second},
		{"set back by an hour", 15 * second, 14 * second, 3615 * second},
		{"and right again", 3616 * second, 15 * second, 3616 * second},
	} {
		wall, monotonic = step.wall, step.monotonic
		if got := c.now(); got != step.want {
			t.Errorf("%s: %d, want %d", step.what, got, step.want)
		}
	}
}

// TestPeriodsEndWhileSuspended has the machine suspended over midnight.
func TestPeriodsEndWhileSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asleep atomic.Int64
		e := newEmbedded(Options{}, suspended(&asleep))
		e.start()
		defer e.Close()
		h := Hit{Key: "a", Algorithm: Calendar, Period: Day, Limit: 1, Hits: 1}
		count(t, e, h)
		asleep.Store(23 * time.Hour.Microseconds())
		time.Sleep(heeds * time.Microsecond)
		if got := count(t, e, h)[0]; got.Allowed || got.Reset != time.Hour-heeds*time.Microsecond {
			t.Errorf("an hour before midnight: %+v", got)
		}
		asleep.Store(25 * time.Hour.Microseconds())
		time.Sleep(heeds * time.Microsecond)
		if got := count(t, e, h)[0]; !got.Allowed || got.Reset != 23*time.Hour-2*heeds*time.Microsecond {
			t.Errorf("an hour after midnight: %+v", got)
		}
	})
}

// TestTokensEndWhileSuspended: what was in hand says nothing in the window of an hour later.
func TestTokensEndWhileSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asleep atomic.Int64
		model := newNaive()
		s := leaseAt(model, Options{}, suspended(&asleep))
		defer s.Close()
		h := windowed("k", 100_000, 1000)
		paced(t, s, h, 500, time.Millisecond)
		if inHandOf(s.purse(&h, s.now())) == 0 {
			t.Error("no tokens in hand")
		}
		asleep.Store(time.Hour.Microseconds())
		time.Sleep(heeds * time.Microsecond)
		trips := model.trips
		allowed(t, s, h)
		synctest.Wait()
		if model.trips == trips || metric(t, s.metrics.expired) == 0 {
			t.Errorf("%d trips, %v tokens expired: it was decided by tokens of an hour ago", model.trips-trips, metric(t, s.metrics.expired))
		}
	})
}
