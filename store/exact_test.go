package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// swarm runs do in 64 goroutines until they made n calls, and counts those that were allowed.
func swarm(n int, do func(i int) bool) int {
	var wg sync.WaitGroup
	var next, allowed atomic.Int64
	for range 64 {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				if do(i) {
					allowed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(allowed.Load())
}

func testExact(t *testing.T, s Store) {
	for _, limit := range []int64{1, 100, 2000} {
		h := daily(fmt.Sprint("exact", limit), limit, 1)
		if got := swarm(int(limit)+200, func(int) bool { return count(t, s, h)[0].Allowed }); int64(got) != limit {
			t.Errorf("%d allowed, want %d", got, limit)
		}
	}
}

func testExactGCRA(t *testing.T, s Store) {
	h := bucketGCRA("exact", 1, time.Hour, 100, 1)
	if got := swarm(300, func(int) bool { return count(t, s, h)[0].Allowed }); got != 100 {
		t.Errorf("%d allowed, want 100", got)
	}
	h = bucketGCRA("exact fast", 300, time.Second, 10, 1)
	start := time.Now()
	got := swarm(2000, func(int) bool { return count(t, s, h)[0].Allowed })
	took := since(start)
	if most := 10 + int(took.Seconds()*300) + 1; got > most {
		t.Errorf("%d allowed in %v, want at most %d", got, took, most)
	}
}

// since is how long it is since start by the clock that says more: Redis counts by the wall clock, which may be set
// meanwhile; the embedded store by the monotonic one.
func since(start time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(start), now.Round(0).Sub(start.Round(0)))
}

// testExactPairs has decisions over two buckets each, of three, in both orders.
func testExactPairs(t *testing.T, s Store) {
	buckets := []Hit{daily("pair-a", 50, 1), daily("pair-b", 50, 1), daily("pair-c", 50, 1)}
	got := swarm(300, func(i int) bool {
		out := count(t, s, buckets[i%3], buckets[(i+1+i/3%2)%3])
		return out[0].Allowed && out[1].Allowed
	})
	used := int64(0)
	for _, h := range buckets {
		h.Hits = 0
		used += 50 - count(t, s, h)[0].Remaining
	}
	if int64(2*got) != used {
		t.Errorf("%d pairs allowed, but %d hits counted", got, used)
	}
}

func testExactNew(t *testing.T, s Store) {
	for _, h := range each("exact", 100, 1)[2:] {
		if got := swarm(300, func(int) bool { return count(t, s, h)[0].Allowed }); got != 100 {
			t.Errorf("%s: %d allowed, want 100", h.Algorithm, got)
		}
	}
}
