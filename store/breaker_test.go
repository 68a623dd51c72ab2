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
