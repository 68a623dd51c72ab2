package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/bench/load"
)

func TestChoose(t *testing.T) {
	for args, want := range map[string]string{"L4": "L4", "L10 L4": "L4 L10", "": "all"} {
		got, err := choose(strings.Fields(args))
		var names []string
		for _, s := range got {
			names = append(names, s.name)
		}
		if text := strings.Join(names, " "); err != nil || text != want && (want != "all" || len(got) != len(scenarios)) {
			t.Errorf("%q: got %s, %v", args, text, err)
		}
	}
	if _, err := choose([]string{"L4", "L99"}); err == nil || !strings.Contains(err.Error(), `"L99"`) {
		t.Errorf("got %v, want it to name L99", err)
	}
}

// All scenarios together end within three quarters of an hour, but for the waits at full hours.
func TestScenariosAreBounded(t *testing.T) {
	seen, sum := map[string]bool{}, time.Duration(0)
	for _, s := range scenarios {
		if seen[s.name] || s.limit <= 0 || s.promise == "" {
			t.Errorf("%s stands twice, or has no limit or promise", s.name)
		}
		seen[s.name] = true
		sum += s.limit + s.lasts
	}
	if sum > 45*time.Minute {
		t.Errorf("all together may take %s", sum)
	}
}

func TestLasting(t *testing.T) {
	for i, s := range lasting(scenarios, time.Minute) {
		if want := min(scenarios[i].lasts, time.Minute); s.lasts != want {
			t.Errorf("%s lasts %s, want %s", s.name, s.lasts, want)
		}
	}
}

func TestMedianOfGauge(t *testing.T) {
	if got := median([][]float64{{1, 9}, {1, 2}, {1, 4}}, 1); got != 4 {
		t.Errorf("got %g, want 4", got)
	}
}

// log is decisions that take a millisecond each, at these milliseconds: allowed where above 0, else refused.
func log(at ...int) (l []decision) {
	origin := time.Unix(1_000_000, 0)
	for _, ms := range at {
		d := decision{allowed: ms > 0}
		d.start = origin.Add(time.Duration(max(ms, -ms)) * time.Millisecond)
		d.end = d.start.Add(time.Millisecond)
		l = append(l, d)
	}
	return l
}

func TestCompare(t *testing.T) {
	const window = 100 * time.Millisecond
	for _, row := range []struct {
		name string
		log  []decision
		want verdict
	}{
		{"two in a window", log(10, 50, -60, 120, 155), verdict{judged: 5, most: 2}},
		{"one too many", log(10, 50, 60), verdict{judged: 3, over: 1, most: 3}},
		{"one too few", log(10, -50), verdict{judged: 2, under: 1, most: 1}},
		{"refused when one had left", log(10, 50, -115), verdict{judged: 3, under: 1, most: 2}},
		{"at the edge either is right", log(10, 50, -110, 111), verdict{judged: 3, close: 1, most: 2}},
		{"in any order", log(-60, 50, 10), verdict{judged: 3, most: 2}},
		{"none", nil, verdict{}},
	} {
		if got := compare(row.log, 2, window); got != row.want {
			t.Errorf("%s: got %+v, want %+v", row.name, got, row.want)
		}
	}
}

// What each onError says, and what breaks it.
func TestKept(t *testing.T) {
	down := map[string]uint64{"grpc status 14": 5}
	good := func() phase { return phase{{Failed: down}, {Allowed: 5}, {Allowed: 5}} }
	for _, row := range []struct {
		name string
		harm func(phase)
		some bool
		want int
	}{
		{"as promised", func(phase) {}, false, 0},
		{"deny allows", func(p phase) { p[0].Allowed = 1 }, false, 1},
		{"deny allows what was counted", func(p phase) { p[0].Allowed = 1 }, true, 0},
		{"deny was never told", func(p phase) { p[0].Failed = nil }, false, 1},
		{"allow denies", func(p phase) { p[1].Failed = down }, false, 1},
		{"local denies", func(p phase) { p[2].Failed = down }, false, 1},
		{"local refuses", func(p phase) { p[2].Refused = 1 }, false, 1},
		{"a connection breaks", func(p phase) { p[1].Failed = map[string]uint64{"connection: EOF": 1} }, true, 1},
	} {
		p := good()
		row.harm(p)
		w := &watch{t: &trial{out: io.Discard}}
		if w.kept("x", p, row.some); w.t.failed != row.want {
			t.Errorf("%s: %d promises broken, want %d", row.name, w.t.failed, row.want)
		}
	}
}

func TestQuantileIsOverAllAnswers(t *testing.T) {
	one, other := &load.Result{}, &load.Result{}
	one.Latency.Add(time.Millisecond)
	other.Told.Add(time.Second)
	if got := (phase{one, other}).quantile(1); got < 990*time.Millisecond {
		t.Errorf("got %s, want that of UNAVAILABLE too", got)
	}
}

// Each size of limit is used up by every algorithm, in rounds that make enough calls for it.
func TestSizedLimits(t *testing.T) {
	seen := map[int]int{}
	for _, l := range sizedLimits() {
		seen[l.limit]++
		if l.calls() < l.limit+500 || l.rounds() < 2 {
			t.Errorf("%s: %d calls in each of %d rounds", l.Name, l.calls(), l.rounds())
		}
	}
	for _, n := range []int{1, 100, 10_000} {
		if seen[n] != 4 {
			t.Errorf("%d algorithms with a limit of %d", seen[n], n)
		}
	}
}
