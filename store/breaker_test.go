package store

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestBreakerOpensByCountAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := 0
		b := &breaker{reason: starting, change: func() { changes++ }}
		b.set(true, "")
		for range 10 {
			b.fail("slow")
		}
		if b.open.Load() {
			t.Error("open after many failures in no time")
		}
		time.Sleep(stall)
		b.succeed()
		b.fail("slow")
		time.Sleep(stall)
		b.fail("slow")
		if b.open.Load() {
			t.Error("open after two failures")
		}
		b.fail("slow")
		if up, reason := b.state(); up || reason != "slow" || !b.open.Load() {
			t.Errorf("after three failures in %s: up %t, reason %q", stall, up, reason)
		}
		b.succeed()
		if up, _ := b.state(); up || changes != 2 {
			t.Errorf("after one that came late: up %t, %d changes", up, changes)
		}
		b.set(true, "")
		if up, _ := b.state(); !up || b.open.Load() || changes != 3 {
			t.Errorf("after a probe: up %t, %d changes", up, changes)
		}
	})
}

// After a batch that failed, Redis is waited for as long as it may take to answer, no more: those behind have waited too.
func TestPatienceAfterAFailure(t *testing.T) {
	const timeout = 10 * time.Millisecond
	decisions, probe := []*trip{{}}, []*trip{{}, {probe: true}}
	for _, row := range []struct {
		name    string
		failing bool
		usual   time.Duration
		trips   []*trip
		want    time.Duration
	}{
		{"all is well", false, time.Millisecond, decisions, timeout},
		{"usually fast", true, 100 * time.Microsecond, decisions, timeout / 4},
		{"usually slower", true, time.Millisecond, decisions, 4 * time.Millisecond},
		{"always slow", true, 5 * time.Millisecond, decisions, timeout},
		{"a probe", true, 100 * time.Microsecond, probe, timeout},
	} {
		l := &lane{timeout: timeout, usual: row.usual}
		if row.failing {
			l.fail("no answer in time")
		}
		if got := l.patience(row.trips); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
}
