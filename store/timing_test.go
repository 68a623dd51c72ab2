package store

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// How long answers, stalls and healing take: in bubbles, where no other process is in the way.

// callers have n goroutines count until stop, and tell each answer.
func callers(s Store, n int, each func(began time.Time, err error)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				_, err := s.Count(ctx, []Hit{daily(fmt.Sprint("busy", w), 1<<40, 1)})
				each(began, err)
				if time.Since(began) == 0 {
					time.Sleep(time.Millisecond) // it was refused at once
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// TestShortStallsOpenNoBreaker has calls under way all the time.
func TestShortStallsOpenNoBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, n := newFakeRedis(), newFakeNet()
		n.serve("redis:1", f.serve)
		s := openFake(t, n, Options{})
		l := s.ways.Load().lanes[0]
		var mu sync.Mutex
		var stalled, over time.Time
		stop := callers(s, 8, func(began time.Time, err error) {
			mu.Lock()
			defer mu.Unlock()
			if took := time.Since(began); took > l.bound() {
				t.Errorf("an answer took %s, want %s at most", took, l.bound())
			}
			if err != nil && (began.Before(stalled.Add(-l.bound())) || began.After(over)) {
				t.Errorf("%s after the stall was over: %v", began.Sub(over), err)
			}
		})
		for range 3 {
			mu.Lock()
			stalled, over = time.Now(), time.Now().Add(50*time.Millisecond)
			f.stall(50 * time.Millisecond)
			mu.Unlock()
			time.Sleep(250 * time.Millisecond)
			if h := s.Health(); !h.OK {
				t.Errorf("down after a stall of 50 ms: %s", h.Reason)
			}
		}
		stop()
	})
}

// unanswered serves connections that are made and never answered.
func unanswered(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// TestAnswersComeInTime has callers all the time, to a Redis that is in trouble of every sort.
func TestAnswersComeInTime(t *testing.T) {
	f, n := new(*fakeRedis), new(*fakeNet)
	for name, trouble := range map[string]func(){
		"killed":               func() { (*n).kill("redis:1") },
		"stopped":              func() { (*f).stall(time.Hour) },
		"killed and swallowed": func() { (*n).kill("redis:1"); (*n).serve("redis:1", unanswered) },
		"read-only":            func() { (*f).refuses("READONLY You can't write against a read only replica.") },
		"full":                 func() { (*f).refuses("OOM command not allowed when used memory > 'maxmemory'.") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				*f, *n = newFakeRedis(), newFakeNet()
				(*n).serve("redis:1", (*f).serve)
				s := openFake(t, *n, Options{})
				bound := s.ways.Load().lanes[0].bound()
				var failed, fine atomic.Int64
				stop := callers(s, 64, func(began time.Time, err error) {
					if took := time.Since(began); took > bound {
						t.Errorf("an answer took %s, want %s at most", took, bound)
					}
					switch {
					case err == nil:
						fine.Add(1)
					case !isUnavailable(err):
						t.Errorf("got %v, want ErrUnavailable", err)
					default:
						failed.Add(1)
					}
				})
				trouble()
				time.Sleep(500 * time.Millisecond)
				if s.Health().OK || failed.Load() == 0 {
					t.Errorf("%d failed in half a second, health %+v", failed.Load(), s.Health())
				}
				fine.Store(0)
				time.Sleep(time.Second)
				if n := fine.Load(); n > 0 {
					t.Errorf("%d were counted", n)
				}
				(*f).refuses("")
				(*f).stall(0)
				(*n).serve("redis:1", (*f).serve)
				time.Sleep(time.Second)
				failed.Store(0)
				fine.Store(0)
				time.Sleep(100 * time.Millisecond)
				if failed.Load() > 0 || fine.Load() == 0 || !s.Health().OK {
					t.Errorf("a second after the trouble was over %d failed, %d were fine; health %+v", failed.Load(), fine.Load(), s.Health())
				}
				stop()
			})
		})
	}
}

// TestSparedBucketsReopenInTime asks a window that is used up just before and just after the time that was told.
func TestSparedBucketsReopenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, n := newFakeRedis(), newFakeNet()
		n.serve("redis:1", f.serve)
		s := openFake(t, n, Options{})
		h := Hit{Key: "reopen", Limit: 1, Window: 500 * time.Millisecond, Hits: 1}
		const near = 2 * fakeTrip // the clocks are known to
		for range 4 {
			time.Sleep(100 * time.Millisecond)
			count(t, s, h)
			told := count(t, s, h)[0].RetryAfter
			time.Sleep(told - near)
			spared := metric(t, s.metrics.spared)
			if got := count(t, s, h)[0]; got.Allowed || metric(t, s.metrics.spared) != spared+1 {
				t.Errorf("%s before the time that was told: %+v", near, got)
			}
			time.Sleep(2 * near)
			if got := count(t, s, h)[0]; !got.Allowed {
				t.Errorf("%s after the time that was told: %+v", near, got)
			}
		}
	})
}

// TestFollowsSentinel has the primary replaced: while it is well, so that it answers on and would count on, and when it died.
func TestFollowsSentinel(t *testing.T) {
	for name, dies := range map[string]bool{"well": false, "dead": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, other, n := newFakeRedis(), newFakeRedis(), newFakeNet()
				var primary atomic.Value
				primary.Store("redis:1")
				n.serve("redis:1", one.serve)
				n.serve("redis:2", other.serve)
				n.serve("sentinel:1", fakeSentinel(&primary))
				s := openFake(t, n, Options{URL: "redis://sentinel:1?master_name=main"})
				stop := callers(s, 4, func(time.Time, error) {})
				time.Sleep(time.Second)
				if dies {
					n.kill("redis:1")
					time.Sleep(time.Second)
				}
				primary.Store("redis:2")
				time.Sleep(1200 * time.Millisecond)
				before := one.counted()
				time.Sleep(100 * time.Millisecond)
				stop()
				if one.counted() != before || other.counted() == 0 || !s.Health().OK {
					t.Errorf("%d, then %d counted by the old primary, %d by the new one; health %+v", before, one.counted(), other.counted(), s.Health())
				}
			})
		})
	}
}
