package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func perMinute(key string, limit, hits int64) Hit {
	return Hit{Key: key, Algorithm: SlidingWindow, Limit: limit, Window: time.Minute, Hits: hits}
}

// slotMicros is a slot of a window of a minute, in µs.
const slotMicros = int64(60_000_000 / slotsPerWindow)

func TestSlidingWindowValue(t *testing.T) {
	const i = 28_571_426
	for _, row := range []struct {
		name  string
		hits  []int64 // in the slots before that of now, and there
		value string
	}{
		{name: "empty"},
		{name: "one", hits: []int64{1}, value: "28571426a1"},
		{name: "some", hits: []int64{1, 0, 0, 3}, value: "28571426a3001"},
		{name: "63", hits: []int64{63}, value: "28571426ao"},
		{name: "70", hits: []int64{70}, value: "28571426b16"},
		{name: "not lately", hits: []int64{5, 64, 0, 0}, value: "28571424b1005"},
		{name: "the oldest", hits: []int64{7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, value: "28571410a7"},
		{name: "2^53", hits: []int64{MaxCount}, value: "28571426iP00000000"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := sliding{now: i}
			for k, n := range row.hits {
				s.counts[len(row.hits)-1-k] = n
			}
			got := s.value()
			if got != row.value {
				t.Errorf("got %q, want %q", got, row.value)
			}
			back := readSliding(got, i*slotMicros, time.Minute.Microseconds())
			if d := cmp.Diff(s, back, cmp.AllowUnexported(sliding{})); d != "" {
				t.Errorf("read back: %s", d)
			}
		})
	}
}

func TestSlidingWindowReadsWhatItCan(t *testing.T) {
	const i = 28_571_426
	for _, row := range []struct {
		name, value string
		at, count   int64
	}{
		{"a slot later", "28571426a31", i + 1, 4},
		{"sixteen later", "28571426a31", i + 16, 3},
		{"all gone", "28571426a31", i + 17, 0},
		{"long gone", "5a31", i, 0},
		{"clock set back", "28571442a31", i, 4},
		{"foreign", "28571443a31", i, 0},
		{"no width", "28571426", i, 0},
		{"no index", "a31", i, 0},
		{"width 0", "28571426`31", i, 0},
		{"width 10", "28571426j3100000000", i, 0},
		{"cut", "28571426b311", i, 0},
		{"no digit", "28571426a3 1", i, 0},
		{"past digits", "28571426ap", i, 0},
		{"huge index", strings.Repeat("9", 30) + "a1", i, 0},
		{"more slots than there are", "28571426a" + strings.Repeat("1", 40), i, 17},
	} {
		s := readSliding(row.value, row.at*slotMicros, time.Minute.Microseconds())
		if got := s.count(); got != row.count {
			t.Errorf("%s: %d hits, want %d", row.name, got, row.count)
		}
	}
}

// TestSlidingWindowInDoubles holds the slots against what a script in doubles makes of the same formulas.
func TestSlidingWindowInDoubles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		window := 1000 * (10 + rnd.Int64N(MaxWindow.Milliseconds()-10)>>rnd.IntN(36))
		now := 1_700_000_000_000_000 + rnd.Int64N(1<<50)
		i := slotIndex(now, window)
		n, w := float64(now), float64(window)
		rest := n - math.Floor(n/w)*w // Lua's %
		if got := (n-rest)/w*16 + math.Floor(rest*16/w); got != float64(i) {
			t.Fatalf("slot of %d in windows of %d: %v in doubles, want %d", now, window, got, i)
		}
		k := float64(i)
		if got := math.Floor(k/16)*w + math.Ceil((k-math.Floor(k/16)*16)*w/16); got != float64(slotBegins(i, window)) {
			t.Fatalf("slot %d in windows of %d begins at %v in doubles, want %d", i, window, got, slotBegins(i, window))
		}
		if from, to := slotBegins(i, window), slotBegins(i+1, window); now < from || now >= to {
			t.Fatalf("%d is in slot %d, which is from %d to %d", now, i, from, to)
		}
		if from, to := slotBegins(i, window), slotBegins(i+slotsPerWindow, window); to-from != window {
			t.Fatalf("sixteen slots take %d µs of a window of %d", to-from, window)
		}
	}
}

// exactLog is a sliding window that keeps every hit.
type exactLog struct {
	window int64
	times  []int64
	start  int
}

func (l *exactLog) count(now int64) int64 {
	for l.start < len(l.times) && l.times[l.start] <= now-l.window {
		l.start++
	}
	return int64(len(l.times) - l.start)
}

func (l *exactLog) add(now, hits int64) {
	for range hits {
		l.times = append(l.times, now)
	}
}

// TestSlidingWindowHoldsItsBound runs every kind of arrivals past an exact log of what was allowed: no window ever has
// more than the limit, and what is refused, a window longer by a sixteenth refuses too.
func TestSlidingWindowHoldsItsBound(t *testing.T) {
	for _, a := range arrivals {
		for _, limit := range []int64{1, 10, 100, 1000} {
			for _, window := range []time.Duration{10 * time.Millisecond, 1001 * time.Millisecond, time.Minute, 30 * 24 * time.Hour} {
				t.Run(fmt.Sprint(a.name, limit, window), func(t *testing.T) {
					h := Hit{Algorithm: SlidingWindow, Limit: limit, Window: window, Hits: 1}
					log := exactLog{window: window.Microseconds()}
					longer := exactLog{window: window.Microseconds() * 17 / 16}
					var b bucket
					for _, at := range a.times(limit, 10) {
						now := start.UnixMicro() + int64(at*float64(window.Microseconds()))
						after, o := h.take(b, now)
						if o.Allowed {
							b = after
							log.add(now, 1)
							longer.add(now, 1)
						}
						if n := log.count(now); n > limit {
							t.Fatalf("%d hits in the window before %d", n, now)
						}
						if !o.Allowed && longer.count(now-1) < limit {
							t.Fatalf("refused with %d hits in 17/16 windows before %d", longer.count(now-1), now)
						}
					}
				})
			}
		}
	}
}

// start is where simulations start.
var start = time.Date(2026, time.March, 3, 11, 17, 23, 456_789_000, time.UTC)

// arrivals are kinds of traffic: times of hits in windows, for so many windows, sorted.
var arrivals = []struct {
	name  string
	times func(limit int64, windows float64) []float64
}{
	{"half", poisson(0.5)},
	{"most", poisson(0.8)},
	{"just", poisson(1)},
	{"double", poisson(2)},
	{"flood", poisson(20)},
	{"bursts", bursts(1)},
	{"long bursts", bursts(5)},
	{"boundaries", boundaries},
}

func poisson(rate float64) func(int64, float64) []float64 {
	return func(limit int64, windows float64) []float64 {
		rnd := rand.New(rand.NewPCG(uint64(limit), 1))
		var times []float64
		for t := rnd.Float64(); t < windows; t += rnd.ExpFloat64() / (rate * float64(limit)) {
			times = append(times, t)
		}
		return times
	}
}

// bursts come at five times the rate for a tenth of a window each, and then pause for four.
func bursts(rate float64) func(int64, float64) []float64 {
	return func(limit int64, windows float64) []float64 {
		rnd := rand.New(rand.NewPCG(uint64(limit), 2))
		var times []float64
		for t := 0.0; t < windows; t += rnd.ExpFloat64() * 0.4 {
			end := t + rnd.ExpFloat64()*0.1
			for ; t < end; t += rnd.ExpFloat64() / (5 * rate * float64(limit)) {
				times = append(times, t)
			}
		}
		return times
	}
}

// boundaries attacks fixed windows, and two weighted counters: all at the end of each window, then as fast as the weight
// of that fades.
func boundaries(limit int64, windows float64) []float64 {
	var times []float64
	for w := 1.0; w < windows; w++ {
		for i := range limit {
			times = append(times, w-0.001*(1-float64(i)/float64(limit)))
		}
		for i := range limit {
			times = append(times, w+0.98*float64(i)/float64(limit))
		}
	}
	return times
}

// weighted is the usual sliding window: the hits of the slots by how much of each is still in the window.
type weighted struct {
	slots  float64
	counts map[float64]float64
}

func (w *weighted) allow(at float64, limit int64) bool {
	i, n := math.Floor(at*w.slots), 0.0
	for k, c := range w.counts {
		n += c * max(0, min(1, k+1-(at-1)*w.slots))
	}
	if n+1 > float64(limit) {
		return false
	}
	w.counts[i]++
	return true
}

// TestSlidingWindowFigures tells why slots are counted whole. Wrong are decisions that an exact log of the hits allowed
// would not have made: those that let too many through, and those that refuse too soon.
func TestSlidingWindowFigures(t *testing.T) {
	const limit, windows = 100, 60
	worst := map[string]float64{}
	for _, a := range arrivals {
		ours := bucket{}
		h := Hit{Algorithm: SlidingWindow, Limit: limit, Window: time.Minute, Hits: 1}
		two, sixteen := weighted{1, map[float64]float64{}}, weighted{slotsPerWindow, map[float64]float64{}}
		for _, s := range []struct {
			name  string
			allow func(at float64) bool
		}{
			{"two weighted counters", func(at float64) bool { return two.allow(at, limit) }},
			{"sixteen weighted slots", func(at float64) bool { return sixteen.allow(at, limit) }},
			{"sixteen whole slots", func(at float64) bool {
				after, o := h.take(ours, slotMicros*slotsPerWindow*28_000_000+int64(at*60_000_000))
				ours = after
				return o.Allowed
			}},
		} {
			log, exact := exactLog{window: 60_000_000}, exactLog{window: 60_000_000}
			over, under, n, allowed, right := 0, 0, 0, 0, 0
			for _, at := range a.times(limit, windows) {
				now := int64(at * 60_000_000)
				n++
				had := log.count(now)
				got := s.allow(at)
				if got {
					log.add(now, 1)
					allowed++
				}
				if got && had >= limit {
					over++
				}
				if !got && had < limit {
					under++
				}
				worst[s.name] = max(worst[s.name], float64(log.count(now))/limit)
				if exact.count(now) < limit {
					exact.add(now, 1)
					right++
				}
			}
			t.Logf("%-12s %-23s %6d hits: %.3f %% wrongly allowed, %.3f %% refused too soon, %.1f %% of an exact log's hits allowed",
				a.name, s.name, n, 100*float64(over)/float64(n), 100*float64(under)/float64(n), 100*float64(allowed)/float64(right))
			if s.name != "sixteen whole slots" {
				continue
			}
			if over > 0 || float64(allowed) < 0.93*float64(right) {
				t.Errorf("%s: %d wrongly allowed, %d allowed, an exact log %d", a.name, over, allowed, right)
			}
			if a.name == "half" && under > n/10_000 {
				t.Errorf("%d of %d refused though half the limit is asked for", under, n)
			}
		}
	}
	t.Logf("most hits in a window, by the limit: %v", worst)
	if worst["two weighted counters"] < 1.8 || worst["sixteen weighted slots"] < 1.1 || worst["sixteen whole slots"] > 1 {
		t.Errorf("most hits in a window, by the limit: %v", worst)
	}
}
