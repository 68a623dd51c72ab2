package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

func perMinute(key string, limit, hits int64) Hit {
	return Hit{Key: key, Algorithm: SlidingWindow, Limit: limit, Window: time.Minute, Hits: hits}
}

// numbers are a value in numbers.
func numbers(value []byte) (all []uint32) {
	for ; len(value) >= 4; value = value[4:] {
		all = append(all, binary.LittleEndian.Uint32(value))
	}
	return all
}

// TestSlidingWindowValue counts in a window of a minute, whose unit is 4 µs, and looks at what is stored.
func TestSlidingWindowValue(t *testing.T) {
	const minute = 60_000_000
	zero := start.UnixMicro() / 4 * 4
	at := func(us int64) uint32 { return uint32((zero + us + 3) / 4) }
	type hit struct{ at, hits int64 }
	for _, row := range []struct {
		name string
		hits []hit
		want []uint32
		ends int64 // after zero
	}{
		{name: "one", hits: []hit{{0, 1}}, want: []uint32{0, at(0), 1}, ends: minute},
		{name: "at times that are units", hits: []hit{{0, 1}, {4, 2}, {8, 3}}, want: []uint32{0, at(0), 1, at(4), 3, at(8), 6}, ends: minute + 8},
		{name: "within a unit", hits: []hit{{1, 1}, {3, 2}, {4, 3}}, want: []uint32{0, at(4), 6}, ends: minute + 4},
		{name: "the first has gone", hits: []hit{{0, 5}, {100, 2}, {minute, 1}}, want: []uint32{5, at(100), 7, at(minute), 8}, ends: 2 * minute},
		{name: "all have gone", hits: []hit{{0, 5}, {100, 2}, {minute + 100, 1}}, want: []uint32{0, at(minute + 100), 1}, ends: 2*minute + 100},
		{name: "some given back", hits: []hit{{0, 5}, {100, 2}, {200, 1}, {300, -2}}, want: []uint32{0, at(0), 5, at(100), 6}, ends: minute + 100},
		{name: "an entry given back", hits: []hit{{0, 5}, {100, 2}, {300, -2}}, want: []uint32{0, at(0), 5}, ends: minute},
		{name: "all given back", hits: []hit{{0, 5}, {100, 2}, {300, -7}}},
		{name: "more than all given back", hits: []hit{{0, 5}, {100, 2}, {300, -MaxCount}}},
		{name: "up to 2^32-1", hits: []hit{{0, 5}, {minute / 1000, MaxCount}}, want: []uint32{0, at(0), 5, at(minute / 1000), 1<<32 - 1}, ends: minute + minute/1000},
		{name: "clock set back", hits: []hit{{8000, 1}, {0, 1}, {8004, 1}}, want: []uint32{0, at(8000), 2, at(8004), 3}, ends: minute + 8004},
		{name: "clock set back too far", hits: []hit{{minute + 5, 1}, {0, 1}}, want: []uint32{0, at(0), 1}, ends: minute},
	} {
		t.Run(row.name, func(t *testing.T) {
			var b bucket
			for _, each := range row.hits {
				h := perMinute("", 1000, each.hits)
				h.Beyond = true
				b, _ = h.take(b, zero+each.at)
			}
			if row.want == nil {
				if b != (bucket{}) {
					t.Errorf("got %+v, want nothing", b)
				}
				return
			}
			value := b.log.appendTo(nil)
			if d := cmp.Diff(row.want, numbers(value)); d != "" || len(value) != b.log.size() {
				t.Errorf("%d bytes, told to be %d (-want +got):\n%s", len(value), b.log.size(), d)
			}
			if got := b.end - zero; got != row.ends {
				t.Errorf("ends after %d µs, want %d", got, row.ends)
			}
			again := readLog(value, b.log.window)
			if d := cmp.Diff(value, again.appendTo(nil)); d != "" {
				t.Errorf("read back (-want +got):\n%s", d)
			}
		})
	}
}

// TestSlidingWindowBeginsAnew has buckets that say nothing of a window of a minute.
func TestSlidingWindowBeginsAnew(t *testing.T) {
	now := start.UnixMicro() / 4 * 4 // a unit
	five := perMinute("", 10, 5)
	b, _ := five.take(bucket{}, now)
	hour := five
	hour.Window = time.Hour
	if _, o := hour.take(b, now); o.Count != 5 {
		t.Errorf("another window: %+v", o)
	}
	if _, o := five.take(b, now+time.Minute.Microseconds()); o.Count != 5 {
		t.Errorf("a minute later: %+v", o)
	}
	if _, o := five.take(b, now+time.Minute.Microseconds()-1); o.Count != 10 {
		t.Errorf("a moment before: %+v", o)
	}
	for _, size := range []int{0, 3, 4, 8, 11, 13, 16} {
		if readLog(make([]byte, size), time.Minute.Microseconds()) != nil {
			t.Errorf("a value of %d bytes is read", size)
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

func (l *exactLog) add(now int64) { l.times = append(l.times, now) }

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

// windowsOf are so many that the old hits leave, and not more than a test has time for.
func windowsOf(limit int64) float64 { return max(2.2, min(40, 10_000/float64(limit))) }

// TestSlidingWindowIsExact holds limits of up to 1,024 against an exact log, hit by hit, when hits come at times that
// are units. When they come at any time, it is never wrong by more than a unit.
func TestSlidingWindowIsExact(t *testing.T) {
	for _, window := range []time.Duration{10 * time.Millisecond, 1001 * time.Millisecond, time.Minute, 30 * 24 * time.Hour, MaxWindow} {
		unit := (&slidingLog{window: window.Microseconds()}).unit()
		for _, a := range arrivals {
			for _, limit := range []int64{1, 10, 100, 1000, 1024} {
				t.Run(fmt.Sprint(a.name, limit, window), func(t *testing.T) {
					h := Hit{Algorithm: SlidingWindow, Limit: limit, Window: window, Hits: 1}
					log := exactLog{window: window.Microseconds()}
					var b, free bucket
					longer := exactLog{window: window.Microseconds() + unit}
					never := exactLog{window: window.Microseconds()}
					for _, when := range a.times(limit, windowsOf(limit)/2) {
						any := start.UnixMicro() + int64(when*float64(window.Microseconds()))
						now := any - any%unit
						after, o := h.take(b, now)
						if want := log.count(now) < limit; o.Allowed != want {
							t.Fatalf("at %d with %d hits in the window: %+v", now, log.count(now), o)
						}
						if b = after; o.Allowed {
							log.add(now)
						}
						after, o = h.take(free, any)
						if free = after; o.Allowed {
							never.add(any)
							longer.add(any)
						}
						if n := never.count(any); n > limit {
							t.Fatalf("%d hits in the window before %d", n, any)
						}
						if !o.Allowed && longer.count(any-1) < limit {
							t.Fatalf("refused at %d with %d hits in a window and a unit", any, longer.count(any-1))
						}
					}
				})
			}
		}
	}
}

// TestSlidingWindowFigures tells how near larger limits are to an exact log of the hits that were allowed: they never
// let too many through, refuse nothing that a limit lower by a 1,024th would not, nor what a window longer by a 1,024th
// would not, and need no more entries than there are.
func TestSlidingWindowFigures(t *testing.T) {
	for _, window := range []time.Duration{10 * time.Millisecond, time.Minute} {
		for _, limit := range []int64{1, 10, 100, 1000, 1025, 10_000, 100_000} {
			for _, a := range arrivals {
				if limit > 10_000 && (a.name == "flood" || testing.Short()) {
					continue // millions of hits
				}
				w := window.Microseconds()
				h := Hit{Algorithm: SlidingWindow, Limit: limit, Window: window, Hits: 1}
				var b bucket
				log, own := exactLog{window: w}, exactLog{window: w}
				longer := exactLog{window: w + w/parts + 1}
				late := (limit - 1) / parts
				n, under, allowed, right, entries := 0, 0, 0, 0, 0
				for _, when := range a.times(limit, windowsOf(limit)) {
					now := start.UnixMicro()/4*4 + int64(when*float64(w))/4*4
					n++
					had := log.count(now)
					after, o := h.take(b, now)
					if b = after; o.Allowed {
						log.add(now)
						longer.add(now)
						allowed++
						entries = max(entries, len(b.log.older)+1)
					}
					switch {
					case o.Allowed && had >= limit:
						t.Fatalf("%s, limit %d: allowed with %d in the window", a.name, limit, had)
					case !o.Allowed && had < limit-late:
						t.Fatalf("%s, limit %d: refused with %d in the window", a.name, limit, had)
					case !o.Allowed && longer.count(now) < limit:
						t.Fatalf("%s, limit %d: refused with %d in a window longer by a part", a.name, limit, longer.count(now))
					case !o.Allowed && had < limit:
						under++
					}
					if own.count(now) < limit {
						own.add(now)
						right++
					}
				}
				t.Logf("limit %6d in %5s, %-11s: %7d hits, %.4f %% refused too soon, %.3f %% of an exact log's hits allowed, %4d entries",
					limit, window, a.name, n, 100*float64(under)/float64(n), 100*float64(allowed)/float64(right), entries)
				if limit <= parts && (under > 0 || allowed != right || entries > int(limit)) || entries > fullEntries {
					t.Errorf("limit %d in %s, %s: %d refused too soon, %d of %d allowed, %d entries", limit, window, a.name, under, allowed, right, entries)
				}
			}
		}
	}
}

// TestSlidingWindowScript runs the script by a clock of the test's, and holds answers and values, byte by byte, against
// the embedded store's: logs short and full, hits given back and beyond, another limit, a clock that is set back.
func TestSlidingWindowScript(t *testing.T) {
	const readClock = "local t = call('TIME')\n    time = t[1] * 1000000 + t[2]"
	source := strings.Replace(countSource, readClock, "time = tonumber(ARGV[2])", 1)
	if source == countSource {
		t.Fatal("the script doesn't read the clock as is known")
	}
	c := startRedis(t).client()
	digest, err := c.ScriptLoad(t.Context(), source).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, window := range []time.Duration{time.Minute, MaxWindow} {
		for _, traffic := range []struct {
			name           string
			script         slidingScript
			entries, least int
		}{
			{"few", slidingScript{limits: []int64{3, 20, 50}, hits: []int64{0, 1, 2, 3}}, 60, 10},
			{"many", slidingScript{limits: []int64{8_000, 20_000}, hits: []int64{0, 1, 2, 3}, dense: true}, fullEntries, parts},
			{"above the limit", slidingScript{limits: []int64{1000}, hits: []int64{0, 1, 2, 3}, dense: true, beyond: true}, 2 * parts, parts + 1},
			{"uneven", slidingScript{limits: []int64{MaxLogged}, hits: []int64{1, 1, 1, 1, 1 << 22}, dense: true}, maxEntries, fullEntries},
		} {
			t.Run(fmt.Sprint(traffic.name, window), func(t *testing.T) {
				x := traffic.script
				x.t, x.digest, x.key = t, digest, traffic.name+window.String()
				x.rnd = rand.New(rand.NewPCG(uint64(window), 7))
				x.window, x.now = window.Microseconds(), start.UnixMicro()
				most := 0
				for range 70 {
					most = max(most, x.run(c, 100))
				}
				if most < traffic.least || most > traffic.entries {
					t.Errorf("logs had up to %d entries, want %d to %d", most, traffic.least, traffic.entries)
				}
			})
		}
	}
}

// slidingScript is a bucket in Redis and in this process.
type slidingScript struct {
	t      *testing.T
	digest string
	key    string
	rnd    *rand.Rand
	window int64
	now    int64
	limits []int64
	hits   []int64
	dense  bool // many hits in a window, and the clock goes on
	beyond bool
	bucket bucket
}

// run makes n hits and tells the most entries that were in the log.
func (x *slidingScript) run(c *redis.Client, n int) (most int) {
	type step struct {
		hit     Hit
		now     int64
		outcome Outcome
		value   []byte
		got     *redis.Cmd
		has     *redis.StringCmd
	}
	var steps []step
	pipe := c.Pipeline()
	for range n {
		x.now += x.pause()
		h := x.hit()
		after, o := h.take(x.bucket, x.now)
		x.bucket = after
		s := step{hit: h, now: x.now, outcome: o}
		if after.log != nil {
			s.value = after.log.appendTo(nil)
			most = max(most, len(after.log.older)+1)
		}
		kind := int64(SlidingWindow)
		if h.Beyond {
			kind += countsBeyond
		}
		args := packArray(nil)
		for _, v := range []int64{1, kind, h.Hits, h.Limit, x.window} {
			args = pack(args, v)
		}
		packLength(args, 5)
		s.got = pipe.EvalSha(context.Background(), x.digest, []string{x.key}, args, strconv.FormatInt(x.now, 10))
		if len(steps)%7 == 0 {
			s.has = pipe.Get(context.Background(), x.key)
		}
		steps = append(steps, s)
	}
	_, _ = pipe.Exec(x.t.Context())
	for _, s := range steps {
		v, err := s.got.Int64Slice()
		if err != nil {
			x.t.Fatal(err)
		}
		got := Outcome{Allowed: v[0] == 1, Limit: s.hit.Limit, Count: v[1], Remaining: max(0, s.hit.Limit-v[1])}
		got.Reset, got.RetryAfter = time.Duration(v[2])*time.Microsecond, time.Duration(v[3])*time.Microsecond
		if d := cmp.Diff(s.outcome, got); d != "" {
			x.t.Fatalf("%+v at %d (-embedded +script):\n%s", s.hit, s.now, d)
		}
		if s.has == nil {
			continue
		}
		if has := s.has.Val(); has != string(s.value) {
			x.t.Fatalf("%+v at %d (-embedded +script):\n%s", s.hit, s.now, cmp.Diff(numbers(s.value), numbers([]byte(has))))
		}
	}
	return most
}

// pause is in µs until the next hit, below 0 when the clock is set back.
func (x *slidingScript) pause() int64 {
	if x.dense && x.rnd.IntN(5000) > 0 {
		return max(0, x.rnd.Int64N(x.window/2400)-x.window/50_000)
	}
	switch x.rnd.IntN(40) {
	case 0:
		return -x.rnd.Int64N(x.window)
	case 1:
		return -2 * x.window
	case 2:
		return 2 * x.window
	}
	return x.rnd.Int64N(x.window / 20)
}

func (x *slidingScript) hit() Hit {
	h := Hit{Algorithm: SlidingWindow, Limit: x.limits[x.rnd.IntN(len(x.limits))], Window: time.Duration(x.window) * time.Microsecond}
	h.Hits, h.Beyond = x.hits[x.rnd.IntN(len(x.hits))], x.beyond
	odd := 20
	if x.dense {
		odd = 500
	}
	switch x.rnd.IntN(odd) {
	case 0:
		h.Hits = -x.rnd.Int64N(6)
	case 1:
		h.Beyond = true
	case 2:
		h.Hits *= 10
	case 3:
		h.Hits = 2 * h.Limit
	}
	return h
}
