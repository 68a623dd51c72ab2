package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var east = time.FixedZone("east", 5*3600)

// each has the same hits in every algorithm, with windows so long that nothing comes back during a test.
func each(key string, limit, hits int64) []Hit {
	const day = 24 * time.Hour
	return []Hit{
		{Key: key, Limit: limit, Window: 30 * day, Hits: hits},
		{Key: key, Algorithm: GCRA, Limit: 1, Window: 2 * day, Burst: limit, Hits: hits},
		{Key: key, Algorithm: SlidingWindow, Limit: limit, Window: 30 * day, Hits: hits},
		{Key: key, Algorithm: Calendar, Limit: limit, Period: Year, Zone: east, Hits: hits},
	}
}

// tally is what an outcome counts, without its times.
type tally struct {
	Allowed          bool
	Remaining, Count int64
}

func tallies(out []Outcome) []tally {
	var all []tally
	for _, o := range out {
		all = append(all, tally{o.Allowed, o.Remaining, o.Count})
	}
	return all
}

func expect(t *testing.T, s Store, what string, hits []Hit, want ...tally) {
	t.Helper()
	if d := cmp.Diff(want, tallies(count(t, s, hits...))); d != "" {
		t.Errorf("%s, %s (-want +got):\n%s", hits[0].Algorithm, what, d)
	}
}

func asking(hits int64, h Hit) []Hit {
	h.Hits = hits
	return []Hit{h}
}

func limited(limit int64, h Hit) []Hit {
	if h.Limit = limit; h.Algorithm == GCRA {
		h.Limit, h.Burst = 1, limit
	}
	return []Hit{h}
}

func beyond(hits int64, h Hit) Hit {
	h.Hits, h.Beyond = hits, true
	return h
}

func testCounts(t *testing.T, s Store) {
	for _, h := range each("counts", 5, 2) {
		expect(t, s, "before", asking(0, h), tally{true, 5, 0})
		expect(t, s, "first", []Hit{h}, tally{true, 3, 2})
		expect(t, s, "second", []Hit{h}, tally{true, 1, 4})
		expect(t, s, "refused", []Hit{h}, tally{false, 1, 4})
		expect(t, s, "asked", asking(0, h), tally{true, 1, 4})
		expect(t, s, "last", asking(1, h), tally{true, 0, 5})
		expect(t, s, "full", asking(0, h), tally{false, 0, 5})
	}
}

func testRefuses(t *testing.T, s Store) {
	for _, h := range each("refuses", 3, 1) {
		for range 3 {
			count(t, s, h)
		}
		got := count(t, s, h)[0]
		if got.Allowed || got.Limit != 3 || got.RetryAfter <= 0 || got.RetryAfter > got.Reset {
			t.Errorf("%s: past the limit: %+v", h.Algorithm, got)
		}
		h.Key, h.Hits = "refuses never", 4
		if got := count(t, s, h)[0]; got.Allowed || got.RetryAfter <= 0 || got.Remaining != 3 {
			t.Errorf("%s: more than ever fit: %+v", h.Algorithm, got)
		}
	}
}

func testQuotaChanged(t *testing.T, s Store) {
	for _, h := range each("quota", 10, 1) {
		for range 10 {
			count(t, s, h)
		}
		expect(t, s, "full", []Hit{h}, tally{false, 0, 10})
		expect(t, s, "raised", limited(12, h), tally{true, 1, 11})
		expect(t, s, "lowered", limited(4, h), tally{false, 0, 11})
		expect(t, s, "raised again", limited(20, h), tally{true, 8, 12})
	}
}

func testGiveBack(t *testing.T, s Store) {
	for _, h := range each("back", 5, 5) {
		expect(t, s, "nothing is there", asking(-3, h), tally{true, 5, 0})
		count(t, s, h)
		expect(t, s, "two", asking(-2, h), tally{true, 2, 3})
		expect(t, s, "which may be had again", asking(2, h), tally{true, 0, 5})
		expect(t, s, "more than are there", asking(-MaxCount, h), tally{true, 5, 0})
		expect(t, s, "no more than the limit after it", []Hit{h}, tally{true, 0, 5})
		expect(t, s, "and no more", asking(1, h), tally{false, 0, 5})
		lower := limited(2, h)
		lower[0].Hits = -1
		expect(t, s, "when the limit is lower than the count", lower, tally{true, 0, 4})
	}
}

func testGiveBackAllOrNone(t *testing.T, s Store) {
	full := daily("back-full", 1, 1)
	count(t, s, full)
	for _, h := range each("back-all", 5, 4) {
		count(t, s, h)
		back := asking(-3, h)[0]
		expect(t, s, "another refuses", []Hit{back, full}, tally{true, 1, 4}, tally{false, 0, 1})
		expect(t, s, "another gives back as well", []Hit{back, asking(-1, full)[0]}, tally{true, 4, 1}, tally{true, 1, 0})
		count(t, s, full)
		expect(t, s, "the same twice", []Hit{back, asking(5, h)[0]}, tally{true, 5, 0}, tally{true, 0, 5})
	}
}

func testBeyond(t *testing.T, s Store) {
	for _, h := range each("beyond", 3, 2) {
		h.Beyond = true
		expect(t, s, "within", []Hit{h}, tally{true, 1, 2})
		expect(t, s, "past", []Hit{h}, tally{false, 0, 4})
		expect(t, s, "far past", []Hit{h}, tally{false, 0, 6})
		expect(t, s, "asked", asking(0, h), tally{false, 0, 6})
		h.Beyond = false
		expect(t, s, "held to it", []Hit{h}, tally{false, 0, 6})
	}
}

func testBeyondAllOrNone(t *testing.T, s Store) {
	for i, h := range each("beyond-all", 2, 1) {
		limit := daily(fmt.Sprint("beyond-limit", i), 4, 1)
		watch := beyond(1, h)
		for range 2 {
			count(t, s, watch, limit)
		}
		expect(t, s, "refuses nothing", []Hit{watch, limit}, tally{false, 0, 3}, tally{true, 1, 3})
		expect(t, s, "whichever is first", []Hit{limit, watch}, tally{true, 0, 4}, tally{false, 0, 4})
		expect(t, s, "is not counted when another refuses", []Hit{watch, limit}, tally{false, 0, 4}, tally{false, 0, 4})
		expect(t, s, "which holds", asking(0, h), tally{false, 0, 4})
	}
}

func testBeyondAndBack(t *testing.T, s Store) {
	for _, h := range each("beyond-back", 3, 1) {
		count(t, s, beyond(7, h))
		expect(t, s, "given back", asking(-5, h), tally{true, 1, 2})
		expect(t, s, "allowed again", []Hit{h}, tally{true, 0, 3})
	}
	for _, h := range each("beyond-all-there-is", 3, 1) {
		if h.Algorithm == GCRA {
			continue // holds as many as drain in MaxWindow
		}
		most := MaxCount
		if h.Algorithm == SlidingWindow {
			most = MaxLogged
		}
		count(t, s, beyond(MaxCount, h))
		expect(t, s, "as many as can be", []Hit{beyond(MaxCount, h)}, tally{false, 0, most})
		expect(t, s, "of which one is given back", asking(-1, h), tally{true, 0, most - 1})
		expect(t, s, "which a limit that high allows", limited(most, h), tally{true, 0, most})
	}
	h := each("beyond-drains", 100, MaxCount)[1]
	h.Beyond = true
	if got := count(t, s, h)[0]; got.Reset > MaxWindow || got.Reset < MaxWindow-time.Minute {
		t.Errorf("a gcra bucket with 2^53 hits drains in %s, want %s", got.Reset, MaxWindow)
	}
}

// testDecisions has one trip of several decisions, each of which is all or none by itself.
func testDecisions(t *testing.T, s Store) {
	for _, h := range each("decisions", 2, 1) {
		other := daily("decisions-other-"+h.Algorithm.String(), 10, 1)
		bad := h
		bad.Limit = 0
		decisions := []*Decision{
			{Hits: []Hit{h, other}, Outcomes: make([]Outcome, 3, 8)},
			{Hits: []Hit{bad}},
			{Hits: []Hit{h, other}},
			{},
			{Hits: []Hit{other, h}},
			{Hits: []Hit{other}},
		}
		s.Decide(decisions)
		var got [][]tally
		for i, d := range decisions {
			if (d.Err != nil) != (i == 1) || d.Err != nil && !errors.Is(d.Err, ErrInvalid) {
				t.Fatalf("%s: decision %d: %v", h.Algorithm, i, d.Err)
			}
			if i != 1 {
				got = append(got, tallies(d.Outcomes))
			}
		}
		want := [][]tally{
			{{true, 1, 1}, {true, 9, 1}},
			{{true, 0, 2}, {true, 8, 2}},
			nil,
			{{true, 8, 2}, {false, 0, 2}},
			{{true, 7, 3}},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", h.Algorithm, d)
		}
	}
}

func testOwnBuckets(t *testing.T, s Store) {
	for range 2 {
		var counts []int64
		for _, o := range count(t, s, each("own", 10, 1)...) {
			counts = append(counts, o.Count)
		}
		if counts[0] != counts[1] || counts[1] != counts[2] || counts[2] != counts[3] {
			t.Errorf("counts of one key by algorithm: %v", counts)
		}
	}
}
