package store

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestEmbeddedWindowReopensAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Options{})
		defer s.Close()
		h := Hit{Key: "a", Limit: 2, Window: time.Minute, Hits: 1}
		time.Sleep(50 * time.Second)
		for range 3 {
			for i := range 4 {
				if got := count(t, s, h)[0]; got.Allowed != (i < 2) || got.Reset != 10*time.Second {
					t.Errorf("hit %d: %+v", i, got)
				}
			}
			time.Sleep(10*time.Second - time.Microsecond)
			if count(t, s, h)[0].Allowed {
				t.Error("reopened before its end")
			}
			time.Sleep(time.Microsecond)
			if got := count(t, s, Hit{Key: "a", Limit: 2, Window: time.Minute})[0]; got.Remaining != 2 || got.Reset != time.Minute {
				t.Errorf("the new window: %+v", got)
			}
			time.Sleep(50 * time.Second)
		}
	})
}

func TestEmbeddedGCRARefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Options{})
		defer s.Close()
		h := bucketGCRA("a", 10, time.Second, 5, 1)
		allowed := 0
		for range 10_000 { // 10 s
			if count(t, s, h)[0].Allowed {
				allowed++
			}
			time.Sleep(time.Millisecond)
		}
		if allowed != 5+99 { // the last refill is due at 10 s, after the last ask
			t.Errorf("%d allowed, want 104", allowed)
		}
		if got := count(t, s, bucketGCRA("a", 10, time.Second, 5, 3))[0]; got.RetryAfter != 200*time.Millisecond {
			t.Errorf("retry after %s, want 200 ms: one is there, two come each 100 ms", got.RetryAfter)
		}
	})
}

func TestEmbeddedForgetsIdleKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Options{})
		defer s.Close()
		for i := range 1000 {
			count(t, s, Hit{Key: fmt.Sprint(i), Limit: 1, Window: time.Second, Hits: 1}, bucketGCRA(fmt.Sprint(i), 1, time.Second, 1, 1))
		}
		time.Sleep(20 * time.Second)
		if n := size(s); n != 0 {
			t.Errorf("%d keys are left", n)
		}
	})
}

func TestEmbeddedIsBounded(t *testing.T) {
	s := open(t, Options{MaxKeys: 6400})
	keep := daily("kept", 10, 1) // ends later than the others, so these go first
	count(t, s, keep)
	for i := range 50_000 {
		count(t, s, Hit{Key: fmt.Sprint(i), Limit: 1, Window: time.Hour, Hits: 1})
	}
	if n := size(s); n > 6400 {
		t.Errorf("%d keys, want at most 6400", n)
	}
	if time.Until(time.Now().Truncate(24*time.Hour).Add(24*time.Hour)) < 2*time.Hour {
		return
	}
	if got := count(t, s, keep)[0]; got.Remaining != 8 {
		t.Errorf("the longest-lived bucket went first: %+v", got)
	}
}

func size(s Store) int {
	n := 0
	for i := range s.(*embedded).shards {
		sh := &s.(*embedded).shards[i]
		sh.mu.Lock()
		n += len(sh.buckets)
		sh.mu.Unlock()
	}
	return n
}

func BenchmarkEmbedded(b *testing.B) {
	s, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	hits := []Hit{{Key: "a", Limit: 1 << 40, Window: time.Hour, Hits: 1}}
	for b.Loop() {
		if _, err := s.Count(b.Context(), hits); err != nil {
			b.Fatal(err)
		}
	}
}
