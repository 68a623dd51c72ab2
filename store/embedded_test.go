package store

import (
	"fmt"
	"path/filepath"
	"slices"
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

// TestLocalGoesOnInEveryAlgorithm has another store that knew of 7 hits in each bucket, for another hour.
func TestLocalGoesOnInEveryAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		knew := time.Now()
		e := newEmbedded(Options{}, newClock())
		e.recall = func(h *Hit) (count, reset int64, ok bool) {
			left := time.Hour - time.Since(knew)
			return 7, left.Microseconds(), left > 0
		}
		e.start()
		defer e.Close()
		hits := []Hit{
			{Key: "a", Limit: 10, Window: time.Hour, Hits: 1},
			{Key: "a", Algorithm: GCRA, Limit: 7, Window: time.Hour, Burst: 10, Hits: 1},
			{Key: "a", Algorithm: SlidingWindow, Limit: 10, Window: time.Hour, Hits: 1},
			{Key: "a", Algorithm: Calendar, Limit: 10, Hits: 1},
		}
		for i := range int64(5) {
			for _, h := range hits {
				if got := count(t, e, h)[0]; got.Allowed != (i < 3) || got.Count != min(10, 8+i) {
					t.Errorf("%s: hit %d beyond 7: %+v", h.Algorithm, i+1, got)
				}
			}
		}
		time.Sleep(time.Hour)
		for _, h := range hits[:3] { // the day has not ended
			h.Hits = 6
			if got := count(t, e, h)[0]; !got.Allowed {
				t.Errorf("%s: an hour later: %+v", h.Algorithm, got)
			}
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

// BenchmarkEmbedded decides over 1,000 keys: each algorithm, two limits at once, and with counts kept on disk.
func BenchmarkEmbedded(b *testing.B) {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = Key("route/orders/0", fmt.Sprint("idp/user-", i))
	}
	all := []Hit{
		{Limit: 1 << 40, Window: time.Hour, Hits: 1},
		{Algorithm: GCRA, Limit: 1 << 30, Window: time.Hour, Burst: 1 << 30, Hits: 1},
		{Algorithm: SlidingWindow, Limit: 1 << 40, Window: time.Hour, Hits: 1},
		{Algorithm: Calendar, Limit: 1 << 40, Period: Month, Hits: 1},
	}
	for _, row := range []struct {
		name string
		hits []Hit
		disk bool
	}{
		{"fixedWindow", all[:1], false},
		{"gcra", all[1:2], false},
		{"slidingWindow", all[2:3], false},
		{"calendar", all[3:], false},
		{"rate and quota", []Hit{all[1], all[3]}, false},
		{"on disk", all[:1], true},
	} {
		b.Run(row.name, func(b *testing.B) {
			o := Options{}
			if row.disk {
				o.Path = filepath.Join(b.TempDir(), "counts")
			}
			s, err := Open(o)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			d := &Decision{Hits: slices.Clone(row.hits)}
			turn := []*Decision{d}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				for j := range d.Hits {
					d.Hits[j].Key = keys[i%len(keys)]
				}
				if s.Decide(turn); d.Err != nil || !d.Outcomes[0].Allowed {
					b.Fatal(d.Outcomes, d.Err)
				}
			}
		})
	}
}
