package store

import (
	"fmt"
	"hash/maphash"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
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
		time.Sleep(time.Hour + time.Millisecond) // a log's times are up to 215 µs late
		for _, h := range hits[:3] {             // the day has not ended
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

// TestLogsAreBounded fills a few sliding windows with as many hits as they hold; the one that ends last stays.
func TestLogsAreBounded(t *testing.T) {
	now := start.UnixMicro()
	e := newEmbedded(Options{MaxKeys: shards * 1000}, clock{func() int64 { return now }})
	for i := range 200_000 {
		now += 10_000
		h := Hit{Key: fmt.Sprint(i % 1000), Algorithm: SlidingWindow, Limit: 1000, Window: time.Hour, Hits: 1}
		if out, _ := e.Count(t.Context(), []Hit{h, {Key: h.Key, Limit: 1 << 40, Window: 24 * time.Hour, Hits: 1}}); !out[0].Allowed {
			t.Fatalf("%+v", out)
		}
	}
	windows, logs := 0, 0
	for i := range e.shards {
		s := &e.shards[i]
		bytes := 0
		for k, b := range s.buckets {
			if bytes += b.logs(); k.algorithm == SlidingWindow {
				logs++
			} else {
				windows++
			}
		}
		if bytes != s.logs || bytes > e.maxLogs {
			t.Errorf("shard %d has logs of %d bytes, told to be %d, want at most %d", i, bytes, s.logs, e.maxLogs)
		}
	}
	if windows != 1000 || logs < 500 {
		t.Errorf("%d windows and %d logs are left", windows, logs)
	}
	now += 2 * time.Hour.Microseconds()
	for i := range 1000 {
		if _, err := e.Count(t.Context(), []Hit{{Key: fmt.Sprint(i), Algorithm: SlidingWindow, Limit: 1000, Window: time.Hour, Hits: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range e.shards {
		if n := e.shards[i].logs; n > 0 {
			t.Errorf("shard %d: %d bytes of logs that have gone", i, n)
		}
	}
}

// TestRefusedHitsLeaveLogsAsTheyWere has decisions give back, count and give back in one log, and be refused for another.
func TestRefusedHitsLeaveLogsAsTheyWere(t *testing.T) {
	now := start.UnixMicro()
	e := newEmbedded(Options{}, clock{func() int64 { return now }})
	h := perMinute("a", 1000, 1)
	full := Hit{Key: "full", Limit: 1, Window: time.Hour, Hits: 2}
	for range 50 {
		now += 1000
		count(t, e, h)
		k := bucketKey{h.Key, h.Algorithm}
		s := &e.shards[maphash.String(e.seed, h.Key)%shards]
		before := s.buckets[k].log.appendTo(nil)
		for back := range int64(12) {
			now += 100
			count(t, e, asking(-back, h)[0], h, asking(-back/2, h)[0], asking(3, h)[0], full)
			if d := cmp.Diff(numbers(before), numbers(s.buckets[k].log.appendTo(nil))); d != "" {
				t.Fatalf("%d given back and refused (-before +after):\n%s", back, d)
			}
		}
	}
}

// TestLocalCountsBesideWhatItRecalls has a log here when the other store tells of more hits, which are as old as it says.
func TestLocalCountsBesideWhatItRecalls(t *testing.T) {
	now := start.UnixMicro()
	e := newEmbedded(Options{}, clock{func() int64 { return now }})
	h := perMinute("a", 10, 1)
	for range 3 {
		count(t, e, h)
		now += 10_000_000
	}
	ends := now + 45_000_000 // between the second and the third
	e.recall = func(*Hit) (count, reset int64, ok bool) { return 7, ends - now, ends > now }
	for _, row := range []struct{ after, count int64 }{{0, 8}, {30_000_010, 7}, {10_000_000, 7}, {5_000_000, 2}, {5_000_000, 1}} {
		now += row.after
		h.Hits = 0
		if row.after == 0 {
			h.Hits = 1
		}
		if got := count(t, e, h)[0]; got.Count != row.count {
			t.Errorf("%d µs later: %+v, want %d", row.after, got, row.count)
		}
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
		{Algorithm: SlidingWindow, Limit: 1 << 30, Window: time.Hour, Hits: 1},
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
