package store

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// openAt opens a ready store of a process whose clock is wrong.
func openAt(t *testing.T, url string, wrong time.Duration) *redisStore {
	t.Helper()
	right := newClock()
	process := clock{func() int64 { return right.now() + wrong.Microseconds() }}
	s, err := openRedisAt(Options{URL: url, Timeout: 2 * time.Second, Log: logTo(t.Output())}, process)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	until(t, patience, "the store to be ready", func() bool { return s.Health().OK })
	return s.(*redisStore)
}

// decideAll makes decisions of one hit each in one turn.
func decideAll(t *testing.T, s Store, hits ...Hit) []Outcome {
	t.Helper()
	turn := make([]*Decision, len(hits))
	for i := range turn {
		turn[i] = &Decision{Hits: hits[i : i+1]}
	}
	s.Decide(turn)
	out := make([]Outcome, len(hits))
	for i, d := range turn {
		if d.Err != nil {
			t.Fatal(d.Err)
		}
		out[i] = d.Outcomes[0]
	}
	return out
}

func repeat(h Hit, n int) []Hit {
	hits := make([]Hit, n)
	for i := range hits {
		hits[i] = h
	}
	return hits
}

func called(t *testing.T, r *server, command string) int {
	t.Helper()
	for line := range strings.Lines(r.client().Info(t.Context(), "commandstats").Val()) {
		var n int
		if _, err := fmt.Sscanf(line, "cmdstat_"+command+":calls=%d", &n); err == nil {
			return n
		}
	}
	return 0
}

// stored is the number that Redis has for the only key of a bucket.
func stored(t *testing.T, r *server, bucket string) int64 {
	t.Helper()
	keys := r.client().Keys(t.Context(), string(appendTag(nil, bucket))+"*").Val()
	if len(keys) != 1 {
		t.Fatalf("keys of %s: %q, want one", bucket, keys)
	}
	n, err := r.client().Get(t.Context(), keys[0]).Int64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// everyKeyEnds fails for a key without a time to live.
func everyKeyEnds(t *testing.T, c *redis.Client) {
	t.Helper()
	until(t, patience, "every key to end", func() bool {
		for _, key := range c.Keys(t.Context(), "*").Val() {
			if c.PTTL(t.Context(), key).Val() == -1 {
				return false
			}
		}
		return true
	})
}

// metric is the value of a counter or a gauge.
func metric(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	m := families[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

func TestHitsOfOneKeyAreOneIncrement(t *testing.T) {
	r := startRedis(t)
	s := openReady(t, r.url())
	h := daily("hot", 1000, 1)
	for turn := range 3 {
		for i, o := range decideAll(t, s, repeat(h, 64)...) {
			if want := int64(64*turn + i + 1); !o.Allowed || o.Count != want || o.Remaining != 1000-want {
				t.Fatalf("hit %d: %+v", want, o)
			}
		}
	}
	if incr, by := called(t, r, "incr"), called(t, r, "incrby"); incr != 0 || by > 20 {
		t.Errorf("%d INCR and %d INCRBY for 3 turns of 64", incr, by)
	}
	if n := called(t, r, "set"); n > 10 {
		t.Errorf("the key was created %d times", n)
	}
}

// TestExcessIsGivenBack refuses some in each turn, and has the counter at the limit soon: then a raised limit opens at once.
func TestExcessIsGivenBack(t *testing.T) {
	r := startRedis(t)
	var stores []*redisStore
	for range 3 {
		stores = append(stores, openAt(t, r.url(), 0))
	}
	limit := int64(0)
	for range 5 {
		limit += 100
		h := daily("excess", limit, 1)
		var allowed atomic.Int64
		swarm(30, func(i int) bool {
			for _, o := range decideAll(t, stores[i%3], repeat(h, 17)...) {
				if o.Allowed {
					allowed.Add(1)
				}
			}
			return true
		})
		if allowed.Load() != 100 {
			t.Errorf("%d allowed, want 100", allowed.Load())
		}
		until(t, patience, "what was refused to be given back", func() bool { return stored(t, r, "excess") == limit })
	}
	if got := decideAll(t, stores[0], daily("excess", limit+3, 1)); !got[0].Allowed || got[0].Remaining != 2 {
		t.Errorf("raised by three: %+v", got)
	}
}

// TestTurnsAreInOrder mixes increments and the script's decisions on the same buckets, as the embedded store would have them.
func TestTurnsAreInOrder(t *testing.T) {
	s := openReady(t, startRedis(t).url())
	one, two, back, ask := daily("order", 3, 1), daily("order", 3, 2), daily("order", 3, -2), daily("order", 3, 0)
	for range 20 {
		out := decideAll(t, s, one, two, one, ask, back, one, one, one, daily("order", 4, 1), one)
		var got []string
		for _, o := range out {
			got = append(got, fmt.Sprintf("%t/%d", o.Allowed, o.Count))
		}
		want := "true/1 true/3 false/3 false/3 true/1 true/2 true/3 false/3 true/4 false/4"
		if strings.Join(got, " ") != want {
			t.Fatalf("got  %s\nwant %s", strings.Join(got, " "), want)
		}
		decideAll(t, s, daily("order", 3, -9))
	}
}

func TestExactWhateverTheClocksSay(t *testing.T) {
	r := startRedis(t)
	stores := []*redisStore{openAt(t, r.url(), -time.Hour), openAt(t, r.url(), 0), openAt(t, r.url(), time.Hour)}
	for _, h := range each("clocks", 300, 1) {
		got := swarm(1500, func(i int) bool { return count(t, stores[i%3], h)[0].Allowed })
		if got != 300 {
			t.Errorf("%s: %d allowed, want 300", h.Algorithm, got)
		}
		var resets []time.Duration
		for _, s := range stores {
			resets = append(resets, count(t, s, h)[0].Reset)
		}
		for _, reset := range resets {
			if off := (reset - resets[0]).Abs(); off > time.Second {
				t.Errorf("%s: the resets are %v", h.Algorithm, resets)
			}
		}
	}
	h := Hit{Key: "minute", Limit: 1 << 40, Window: time.Minute, Hits: 1}
	for _, s := range stores {
		count(t, s, h)
	}
	if n := stored(t, r, "minute"); n != 3 && time.Now().Second() != 0 {
		t.Errorf("%d counted, want 3", n)
	}
}

// TestExactWhileScriptsAreFlushedAndRepliesLost counts by three processes, in every algorithm.
func TestExactWhileScriptsAreFlushedAndRepliesLost(t *testing.T) {
	r := startRedis(t)
	var replies atomic.Int64
	proxy := cut(t, r.addr(), func() bool { return replies.Add(1)%10 == 0 })
	var stores []*redisStore
	for range 3 {
		stores = append(stores, openAt(t, "redis://"+proxy, 0))
	}
	c := r.client()
	flush := time.NewTicker(100 * time.Millisecond)
	defer flush.Stop()
	for _, h := range each("flaky", 200, 1) {
		var sent atomic.Int64
		allowed := swarm(3000, func(i int) bool {
			select {
			case <-flush.C:
				c.ScriptFlush(t.Context())
			default:
			}
			out, err := stores[i%3].Count(t.Context(), []Hit{h})
			if err == nil || !strings.Contains(err.Error(), errDown.Error()) {
				sent.Add(1)
			}
			return err == nil && out[0].Allowed
		})
		if allowed > 200 {
			t.Errorf("%s: %d allowed of 200", h.Algorithm, allowed)
		}
		direct := openAt(t, r.url(), 0)
		h.Hits = 0
		if n := count(t, direct, h)[0].Count; n > sent.Load() || n < int64(allowed) {
			t.Errorf("%s: %d counted, %d sent, %d allowed", h.Algorithm, n, sent.Load(), allowed)
		}
	}
	everyKeyEnds(t, c)
}

// TestKeysEndThoughRedisStalls stops Redis over the end of windows with increments on their way, which it makes when their
// keys are gone.
func TestKeysEndThoughRedisStalls(t *testing.T) {
	r := startRedis(t)
	s := redisOf(open(t, Options{URL: r.url(), Timeout: 500 * time.Millisecond, Log: logTo(t.Output())}))
	until(t, patience, "the store to be ready", func() bool { return s.Health().OK })
	hits := make([]Hit, 50)
	for i := range hits {
		hits[i] = Hit{Key: fmt.Sprint("stall", i), Limit: 1000, Window: 100 * time.Millisecond, Hits: 1}
	}
	count(t, s, hits...) // so that the connection is known to work
	start := time.Now()
	until(t, patience, "a window", func() bool { return time.Since(start).Truncate(hits[0].Window) > 0 })
	decideAll(t, s, hits...)
	r.signal(syscall.SIGSTOP)
	turn := make([]*Decision, len(hits))
	for i := range turn {
		turn[i] = &Decision{Hits: hits[i : i+1]}
	}
	s.Decide(turn)
	stopped := time.Now()
	until(t, patience, "the keys to be past their end", func() bool { return time.Since(stopped) > (linger+300)*time.Millisecond })
	r.signal(syscall.SIGCONT)
	heals(t, s)
	c := r.client()
	everyKeyEnds(t, c)
}

func TestLostCountersAreNoticed(t *testing.T) {
	r := startRedis(t)
	s := openAt(t, r.url(), 0)
	h, g := daily("lost", 1000, 1), daily("lost-by-script", 1000, 2)
	decideAll(t, s, append(repeat(h, 10), g)...)
	decideAll(t, s, append(repeat(h, 10), g, daily("lost-by-script", 1000, -1))...)
	if n := metric(t, s.metrics.lost); n != 0 {
		t.Fatalf("%v lost before anything was", n)
	}
	r.client().FlushAll(t.Context())
	out := decideAll(t, s, h, g)
	if out[0].Count != 1 || out[1].Count != 2 {
		t.Errorf("after the loss: %+v", out)
	}
	if n := metric(t, s.metrics.lost); n != 2 {
		t.Errorf("%v counters found to be lost, want 2", n)
	}
	everyKeyEnds(t, r.client())
}

func TestEvictingRedisIsToldOf(t *testing.T) {
	r := startRedis(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	var log lines
	reg := prometheus.NewRegistry()
	s := redisOf(open(t, Options{URL: r.url(), Timeout: time.Second, Log: logTo(&log), Metrics: reg}))
	until(t, patience, "the warning", func() bool { return strings.Contains(s.Health().Warning, "allkeys-lru") })
	if h := s.Health(); !h.OK {
		t.Errorf("a warning makes it not OK: %+v", h)
	}
	if metric(t, s.metrics.evicting) != 1 || strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("want the metric set, and one warning in the log:\n%s", log.String())
	}
	do(t, r.client(), "CONFIG SET maxmemory-policy noeviction")
	s.inspect(t.Context())
	if w := s.Health().Warning; w != "" || metric(t, s.metrics.evicting) != 0 {
		t.Errorf("still warns: %q", w)
	}
}

func TestInspectionNeedsNoRights(t *testing.T) {
	r := startRedis(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	do(t, r.client(), "ACL SETUSER plain on >pw ~* +@all -info -config")
	s := openAt(t, "redis://plain:pw@"+r.addr(), 0)
	s.inspect(t.Context())
	if h := s.Health(); !h.OK || h.Warning != "" {
		t.Errorf("health %+v", h)
	}
}

// TestNextRedisHasAnotherClock goes on with a Redis whose clock is an hour off, as after a fail-over.
func TestNextRedisHasAnotherClock(t *testing.T) {
	first, second := startRedis(t), startRedis(t)
	var to atomic.Pointer[server]
	to.Store(first)
	proxy := shift(t, func() (string, time.Duration) {
		if to.Load() == first {
			return first.addr(), 0
		}
		return second.addr(), time.Hour
	})
	s := openAt(t, "redis://"+proxy, 0)
	h := Hit{Key: "over", Limit: 1000, Window: time.Minute, Hits: 1}
	number := func(r *server) int64 {
		keys := r.client().Keys(t.Context(), string(appendTag(nil, "over"))+"*").Val()
		if len(keys) == 0 {
			t.Fatal("not counted there")
		}
		n, err := strconv.ParseInt(keys[0][strings.LastIndexByte(keys[0], '/')+1:], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	count(t, s, h)
	before := number(first)
	to.Store(second)
	first.kill()
	until(t, patience, "the second Redis", func() bool {
		_, err := s.Count(t.Context(), []Hit{h})
		return err == nil
	})
	if apart := number(second) - before; apart < 60 || apart > 61 {
		t.Errorf("the windows are %d minutes apart, want 60", apart)
	}
	everyKeyEnds(t, second.client())
}

// TestTurnsOfAnySize has turns that take several batches, and windows of more lengths than a batch keeps at hand.
func TestTurnsOfAnySize(t *testing.T) {
	s := openAt(t, startRedis(t).url(), 0)
	s.ways.Load().lanes[0].mu.Lock()
	s.ways.Load().lanes[0].batch.plain.round = math.MaxUint32 - 1 // rounds begin anew
	s.ways.Load().lanes[0].mu.Unlock()
	hits := make([]Hit, 1500)
	for i := range hits {
		hits[i] = Hit{Key: fmt.Sprint("many", i), Limit: 1000, Window: time.Duration(1000+i%100) * time.Hour, Hits: 1}
		if i%7 == 0 {
			hits[i].Hits = 2 // by the script
		}
	}
	swarm(8, func(int) bool {
		for i, o := range decideAll(t, s, hits...) {
			if !o.Allowed || o.Reset > hits[i].Window {
				t.Errorf("%+v: %+v", hits[i], o)
			}
		}
		return true
	})
	for i, o := range decideAll(t, s, hits...) {
		if o.Count != 9*hits[i].Hits {
			t.Fatalf("%+v: %+v, want 9 times as many", hits[i], o)
		}
	}
}
