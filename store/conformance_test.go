package store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func isUnavailable(err error) bool { return errors.Is(err, ErrUnavailable) }

type behaviour struct {
	name string
	test func(t *testing.T, s Store)
}

// conform are the behaviours that both stores have.
var conform = []behaviour{
	{"fixed window counts to the limit", testFixedWindow},
	{"window reopens", testReopens},
	{"gcra has a burst", testGCRA},
	{"gcra refills", testRefills},
	{"all or none", testAllOrNone},
	{"same bucket twice", testTwice},
	{"peek", testPeek},
	{"exact under concurrency", testExact},
	{"gcra exact under concurrency", testExactGCRA},
	{"pairs exact under concurrency", testExactPairs},
	{"changed limit", testChangedLimit},
	{"huge values", testHuge},
	{"fine rates", testFineRates},
	{"keys of any bytes", testKeys},
	{"invalid hits", testInvalid},
	{"counts", testCounts},
	{"every algorithm refuses past its limit", testRefuses},
	{"quota raised and lowered", testQuotaChanged},
	{"given back", testGiveBack},
	{"given back with all or none", testGiveBackAllOrNone},
	{"beyond", testBeyond},
	{"beyond with all or none", testBeyondAllOrNone},
	{"beyond and back", testBeyondAndBack},
	{"every algorithm has its own bucket", testOwnBuckets},
	{"new algorithms exact under concurrency", testExactNew},
}

// conformWhole are those that a Cluster has not: a decision with hits in several slots takes two trips there, and others of
// its turn see what is between the two.
var conformWhole = []behaviour{
	{"decisions one after the other", testDecisions},
}

func TestConformance(t *testing.T) {
	for _, c := range slices.Concat(conform, conformWhole) {
		t.Run("embedded/"+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(start)) // doubles are finer nearer to 2025
				c.test(t, open(t, Options{}))
			})
		})
	}
	s := openReady(t, startRedis(t).url())
	for _, c := range slices.Concat(conform, conformWhole) {
		t.Run("redis/"+c.name, func(t *testing.T) { c.test(t, s) })
	}
}

func bucketGCRA(key string, limit int64, window time.Duration, burst, hits int64) Hit {
	return Hit{Key: key, Algorithm: GCRA, Limit: limit, Window: window, Burst: burst, Hits: hits}
}

func testFixedWindow(t *testing.T, s Store) {
	h := daily("fixed", 5, 2)
	for _, want := range []Outcome{
		{Allowed: true, Limit: 5, Remaining: 3, Count: 2},
		{Allowed: true, Limit: 5, Remaining: 1, Count: 4},
		{Limit: 5, Remaining: 1, Count: 4},
		{Limit: 5, Remaining: 1, Count: 4},
	} {
		got := count(t, s, h)[0]
		now := time.Now()
		ends := now.Truncate(h.Window).Add(h.Window)
		if off := now.Add(got.Reset).Sub(ends).Abs(); off > time.Second {
			t.Errorf("reset %s is %s off the window's end", got.Reset, off)
		}
		if !got.Allowed && got.RetryAfter != got.Reset {
			t.Errorf("retry after %s, want the reset %s", got.RetryAfter, got.Reset)
		}
		got.Reset, got.RetryAfter = 0, 0
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	if got := count(t, s, daily("fixed", 5, 1))[0]; !got.Allowed || got.Remaining != 0 {
		t.Errorf("the last hit: %+v", got)
	}
}

func testReopens(t *testing.T, s Store) {
	h := Hit{Key: "reopens", Limit: 3, Window: 200 * time.Millisecond, Hits: 1}
	start, allowed := time.Now(), 0
	until(t, patience, "five windows' hits", func() bool {
		if count(t, s, h)[0].Allowed {
			allowed++
		}
		return allowed == 5*3
	})
	if took := time.Since(start); took < 3*h.Window-10*time.Millisecond { // the first and the last are partial; Redis' clock is another
		t.Errorf("%d hits within %s, of 3 in each %s", allowed, took, h.Window)
	}
}

func testGCRA(t *testing.T, s Store) {
	h := bucketGCRA("gcra", 5, time.Hour, 4, 1)
	for i := range 4 {
		if got := count(t, s, h)[0]; !got.Allowed || got.Remaining != int64(3-i) || got.Limit != 4 {
			t.Fatalf("hit %d of the burst: %+v", i, got)
		}
	}
	if got := count(t, s, h)[0]; got.Allowed || got.RetryAfter <= 0 || got.RetryAfter > 12*time.Minute || got.Reset > 48*time.Minute {
		t.Errorf("past the burst: %+v", got)
	}
	if got := count(t, s, bucketGCRA("never", 5, time.Hour, 4, 5))[0]; got.Allowed || got.RetryAfter <= 0 {
		t.Errorf("more than the bucket holds: %+v", got)
	}
}

func testRefills(t *testing.T, s Store) {
	h := bucketGCRA("refills", 5, time.Second, 4, 1)
	start, allowed := time.Now(), 0
	until(t, patience, "eight hits", func() bool {
		if count(t, s, h)[0].Allowed {
			allowed++
		}
		return allowed == 8
	})
	if took := time.Since(start); took < 790*time.Millisecond { // Redis' clock is another
		t.Errorf("8 hits within %s, of a burst of 4 and 5 a second", took)
	}
}

func testAllOrNone(t *testing.T, s Store) {
	a, b, c := daily("all-a", 10, 1), daily("all-b", 1, 1), bucketGCRA("all-c", 1, time.Hour, 7, 1)
	for _, o := range count(t, s, a, b, c) {
		if !o.Allowed {
			t.Fatalf("first: %+v", o)
		}
	}
	for range 3 {
		out := count(t, s, a, b, c)
		if !out[0].Allowed || out[1].Allowed || !out[2].Allowed {
			t.Errorf("allowed: %v %v %v, want only b refused", out[0].Allowed, out[1].Allowed, out[2].Allowed)
		}
		if out[0].Remaining != 9 || out[1].Remaining != 0 || out[2].Remaining != 6 {
			t.Errorf("remaining: %d %d %d", out[0].Remaining, out[1].Remaining, out[2].Remaining)
		}
	}
	if out := count(t, s, a, c); out[0].Remaining != 8 || out[1].Remaining != 5 {
		t.Errorf("a and c were charged by refused decisions: %+v", out)
	}
}

func testTwice(t *testing.T, s Store) {
	h := daily("twice", 3, 1)
	if out := count(t, s, h, h); out[0].Remaining != 2 || out[1].Remaining != 1 || !out[1].Allowed {
		t.Errorf("both: %+v", out)
	}
	if out := count(t, s, h, h); out[1].Allowed {
		t.Errorf("the second of two on one left: %+v", out)
	}
	if out := count(t, s, h); !out[0].Allowed || out[0].Remaining != 0 {
		t.Errorf("the refused pair was charged: %+v", out)
	}
}

func testPeek(t *testing.T, s Store) {
	for _, h := range []Hit{daily("peek", 2, 0), bucketGCRA("peek", 1, time.Hour, 2, 0)} {
		one := h
		one.Hits = 1
		for _, want := range []int64{2, 1, 0} {
			for range 2 {
				got := count(t, s, h)[0]
				if got.Remaining != want || got.Allowed != (want > 0) {
					t.Errorf("%s: got %+v, want %d left", h.Algorithm, got, want)
				}
			}
			count(t, s, one)
		}
	}
}

func testChangedLimit(t *testing.T, s Store) {
	count(t, s, daily("changed", 10, 6))
	if got := count(t, s, daily("changed", 4, 1))[0]; got.Allowed || got.Remaining != 0 {
		t.Errorf("lowered below the count: %+v", got)
	}
	if got := count(t, s, daily("changed", 20, 1))[0]; !got.Allowed || got.Remaining != 13 {
		t.Errorf("raised: %+v", got)
	}
	if got := count(t, s, bucketGCRA("changed", 10, time.Hour, 10, 1))[0]; got.Remaining != 9 {
		t.Errorf("another algorithm: %+v", got)
	}
	week := daily("changed", 10, 1)
	week.Window = 31 * 24 * time.Hour
	if got := count(t, s, week)[0]; got.Remaining != 9 && time.Until(time.Now().Truncate(week.Window).Add(week.Window)) > 36*time.Hour {
		t.Errorf("another window: %+v", got)
	}
}

func testHuge(t *testing.T, s Store) {
	h := daily("huge", MaxCount, 1<<32-1)
	if got := count(t, s, h)[0]; !got.Allowed || got.Remaining != MaxCount-1<<32+1 {
		t.Errorf("2^32-1 of 2^53: %+v", got)
	}
	h.Hits = MaxCount - 1<<32 + 1
	if got := count(t, s, h)[0]; !got.Allowed || got.Remaining != 0 {
		t.Errorf("the rest: %+v", got)
	}
	h.Hits = 1
	if got := count(t, s, h)[0]; got.Allowed {
		t.Errorf("one more: %+v", got)
	}
	if got := count(t, s, daily("huge hits", 100, MaxCount))[0]; got.Allowed || got.Remaining != 100 {
		t.Errorf("2^53 hits: %+v", got)
	}
	if got := count(t, s, bucketGCRA("huge", MaxCount, time.Second, MaxCount, MaxCount))[0]; !got.Allowed {
		t.Errorf("gcra of 2^53: %+v", got)
	}
	if got := count(t, s, bucketGCRA("huge hits", 1, time.Second, 1, MaxCount))[0]; got.Allowed {
		t.Errorf("2^53 hits on gcra: %+v", got)
	}
}

// testFineRates counts where an interval is no whole number of microseconds, or less than one.
func testFineRates(t *testing.T, s Store) {
	for _, h := range []Hit{
		bucketGCRA("thirds", 3, time.Hour, 1000, 1),
		bucketGCRA("bytes", 1_000_000_007, 24*time.Hour, 1_500_000, 1500),
		bucketGCRA("seventy", 70_001, 24*time.Hour, 1000, 1),
	} {
		start, allowed := time.Now(), 0
		for count(t, s, h)[0].Allowed {
			allowed++
		}
		most := 1000 + int(float64(h.Limit)/float64(h.Hits)*since(start).Seconds()/h.Window.Seconds()) + 1
		if allowed < 1000 || allowed > most {
			t.Errorf("%s: %d allowed, want 1000 to %d", h.Key, allowed, most)
		}
	}
}

func testKeys(t *testing.T, s Store) {
	keys := []string{"", "a", "a|b", "a|", "|a", "{a}", "}", "{", "a%7Db", "a}b", "~a", "%", "\x00", "\xff", "é", "legation:{a}", Key("a", "|b"), Key("a|", "b"), Key("a", "b", "")}
	seen := map[string]bool{}
	for _, k := range keys {
		if seen[k] {
			t.Fatalf("%q twice", k)
		}
		seen[k] = true
		if got := count(t, s, daily(k, 2, 1))[0]; got.Remaining != 1 {
			t.Errorf("%q shares its bucket: %+v", k, got)
		}
	}
}

func testInvalid(t *testing.T, s Store) {
	good := bucketGCRA("good", 10, time.Second, 10, 1)
	for name, spoil := range map[string]func(*Hit){
		"limit 0":         func(h *Hit) { h.Limit = 0 },
		"limit 2^53+1":    func(h *Hit) { h.Limit = MaxCount + 1 },
		"hits -2^53-1":    func(h *Hit) { h.Hits = -MaxCount - 1 },
		"period":          func(h *Hit) { h.Algorithm, h.Period = Calendar, 9 },
		"burst 0":         func(h *Hit) { h.Burst = 0 },
		"window 0":        func(h *Hit) { h.Window = 0 },
		"microseconds":    func(h *Hit) { h.Window += time.Microsecond },
		"algorithm":       func(h *Hit) { h.Algorithm = 9 },
		"centuries":       func(h *Hit) { h.Limit, h.Burst, h.Window = 1, 1_000_000, time.Hour },
		"a window of eon": func(h *Hit) { h.Window = 1 << 62 },
	} {
		bad := good
		spoil(&bad)
		if _, err := s.Count(t.Context(), []Hit{good, bad}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if out := count(t, s); len(out) != 0 {
		t.Errorf("no hits: %v", out)
	}
	if got := count(t, s, good)[0]; got.Remaining != 9 {
		t.Errorf("invalid decisions were charged: %+v", got)
	}
}

// TestStoresAgree gives both stores the same decisions at random: every algorithm, hits given back, asked for and beyond
// the limit, and limits that change. Windows are so long that nothing comes back meanwhile.
func TestStoresAgree(t *testing.T) {
	a, b := open(t, Options{}), openReady(t, startRedis(t).url())
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 700 {
		var x, y []*Decision
		for range 1 + rnd.IntN(5) {
			hits := make([]Hit, 1+rnd.IntN(4))
			for i := range hits {
				hits[i] = limited(1+rnd.Int64N(60), each(fmt.Sprint("key", rnd.IntN(15)), 1, rnd.Int64N(5))[rnd.IntN(4)])[0]
				switch rnd.IntN(6) {
				case 0:
					hits[i].Hits *= -3
				case 1:
					hits[i].Beyond = true
				}
			}
			x, y = append(x, &Decision{Hits: hits}), append(y, &Decision{Hits: hits})
		}
		a.Decide(x)
		b.Decide(y)
		for i := range x {
			agree(t, x[i], y[i])
		}
	}
}

func agree(t *testing.T, x, y *Decision) {
	t.Helper()
	if x.Err != nil || y.Err != nil {
		t.Fatal(x.Err, y.Err)
	}
	for i := range x.Outcomes {
		p, q := &x.Outcomes[i], &y.Outcomes[i]
		if off := (p.Reset - q.Reset).Abs() + (p.RetryAfter - q.RetryAfter).Abs(); off > 2*time.Second {
			t.Errorf("%+v: times %s apart: %+v, %+v", x.Hits, off, p, q)
		}
		p.Reset, p.RetryAfter, q.Reset, q.RetryAfter = 0, 0, 0, 0
	}
	if d := cmp.Diff(x.Outcomes, y.Outcomes); d != "" {
		t.Fatalf("%+v: embedded (-) and Redis (+) differ:\n%s", x.Hits, d)
	}
}
