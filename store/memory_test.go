package store

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// hitsServed is how many increments and scripts Redis ran.
func hitsServed(t *testing.T, r *server) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(r.client().Info(t.Context(), "commandstats").Val()) {
		var calls int
		for _, name := range []string{"eval", "evalsha", "incr", "incrby"} {
			if c, err := fmt.Sscanf(line, "cmdstat_"+name+":calls=%d", &calls); err == nil && c == 1 {
				n += calls
			}
		}
	}
	return n
}

func TestUsedUpBucketsAreNotAskedFor(t *testing.T) {
	r := startRedis(t)
	s := openReady(t, r.url())
	for _, h := range []Hit{daily("spared", 3, 1), bucketGCRA("spared", 1, time.Hour, 3, 1)} {
		other := daily("spared-other", 1000, 1)
		for range 3 {
			count(t, s, h, other)
		}
		want := count(t, s, h, other)
		left := want[1].Remaining
		before := hitsServed(t, r)
		for range 2000 {
			out := count(t, s, h, other)
			if out[0].Allowed || out[0].Remaining != 0 || out[0].RetryAfter <= 0 || (out[0].Reset-want[0].Reset).Abs() > 10*time.Second {
				t.Fatalf("%s: %+v, Redis said %+v", h.Algorithm, out[0], want[0])
			}
			if !out[1].Allowed || out[1].Remaining != left {
				t.Fatalf("the other limit: %+v, want %d left", out[1], left)
			}
		}
		if trips := hitsServed(t, r) - before; trips > 20 {
			t.Errorf("%s: %d trips for 2,000 refusals", h.Algorithm, trips)
		}
		more := h
		if more.Burst *= 2; h.Algorithm == FixedWindow {
			more.Limit *= 2
		}
		if got := count(t, s, more)[0]; !got.Allowed {
			t.Errorf("%s: the limit was raised, yet %+v", h.Algorithm, got)
		}
	}
}

func TestMemoryForgetsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(newClock(), 10*time.Second)
		h := Hit{Key: "a", Limit: 10, Window: time.Minute, Hits: 1}
		learn := func(left int64, reset time.Duration) {
			m.keepWindow(&h, m.hash(&h), windowSeen{count: 10 - left, left: reset.Microseconds(), asked: m.now()})
		}
		refuses := func(hits int64) bool {
			more := h
			more.Hits = hits
			return m.refuse([]Hit{more}, make([]Outcome, 1), m.now())
		}
		learn(2, 30*time.Second)
		if refuses(1) || refuses(2) || !refuses(3) {
			t.Error("with 2 left: want 3 refused, no fewer")
		}
		learn(0, 30*time.Second)
		time.Sleep(9 * time.Second)
		if !refuses(1) {
			t.Error("used up 9 s ago: want a refusal")
		}
		time.Sleep(time.Second)
		if refuses(1) {
			t.Error("10 s later Redis wants to be asked again")
		}
		if n, _, ok := m.recall(&h); !ok || n != 10 {
			t.Errorf("recalls %d, %t; want 10 until the window ends", n, ok)
		}
		learn(0, 5*time.Second)
		time.Sleep(5 * time.Second)
		if _, _, ok := m.recall(&h); ok || refuses(1) {
			t.Error("remembered past the window's end")
		}
		learn(0, time.Minute)
		other := h
		other.Window = time.Hour
		if m.refuse([]Hit{other}, make([]Outcome, 1), m.now()) {
			t.Error("a limit with another window is refused")
		}
		late := m.now() - 1
		learn(3, time.Minute)
		m.keepWindow(&h, m.hash(&h), windowSeen{count: 10, left: time.Minute.Microseconds(), asked: late})
		if refuses(1) {
			t.Error("an older answer counts over a later one")
		}
	})
}

func TestMemoryIsBoundedAndKeepsWhatIsUsedUp(t *testing.T) {
	m := newMemory(newClock(), time.Hour)
	spent := daily("spent", 10, 1)
	m.keepWindow(&spent, m.hash(&spent), windowSeen{count: 10, left: time.Hour.Microseconds(), asked: m.now()})
	for i := range 3 * shards * maxMemories {
		h := daily(fmt.Sprint("key", i), 10, 1)
		m.keepWindow(&h, m.hash(&h), windowSeen{count: 1, left: time.Hour.Microseconds(), asked: m.now()})
	}
	n := 0
	for i := range m.shards {
		n += len(m.shards[i].buckets)
	}
	if n > shards*maxMemories {
		t.Errorf("%d buckets are remembered, want at most %d", n, shards*maxMemories)
	}
	if !m.refuse([]Hit{spent}, make([]Outcome, 1), m.now()) {
		t.Error("a bucket that is used up made room for others")
	}
}

func TestLocalGoesOnFromWhatRedisSaid(t *testing.T) {
	r := startRedis(t)
	s := openReady(t, r.url())
	local := Local(s)
	defer local.Close()
	for _, h := range []Hit{daily("local", 10, 1), bucketGCRA("local", 1, time.Hour, 10, 1)} {
		for range 7 {
			count(t, s, h)
		}
		for i := range 5 {
			if got := count(t, local, h)[0]; got.Allowed != (i < 3) {
				t.Errorf("%s: hit %d beyond 7: %+v", h.Algorithm, i+1, got)
			}
		}
	}
	if got := count(t, local, daily("unseen", 10, 1))[0]; !got.Allowed || got.Remaining != 9 {
		t.Errorf("a bucket that Redis was never asked for: %+v", got)
	}
}

// decide is what the rate limit service does for onError: local.
func decide(t *testing.T, s, local Store, h Hit) bool {
	t.Helper()
	out, err := s.Count(t.Context(), []Hit{h})
	if err != nil {
		out = count(t, local, h)
	}
	return out[0].Allowed
}

func TestExactWhileRedisStalls(t *testing.T) {
	r := startRedis(t)
	var stores, locals []Store
	for range 3 {
		s := open(t, Options{URL: r.url()})
		until(t, patience, "the store to be ready", func() bool { return s.Health().OK })
		stores, locals = append(stores, s), append(locals, Local(s))
	}
	defer func() {
		for _, l := range locals {
			l.Close()
		}
	}()
	h := daily("stalls", 100, 1)
	allowed := 0
	until(t, patience, "the limit to be used up and known to be", func() bool {
		all := 0
		for i := range stores {
			if decide(t, stores[i], locals[i], h) {
				allowed++
				all++
			}
		}
		return all == 0
	})
	if allowed < 100 {
		t.Errorf("%d allowed, want 100", allowed)
	}
	for range 3 {
		r.signal(syscall.SIGSTOP)
		resume := time.AfterFunc(60*time.Millisecond, func() { _ = r.cmd.Process.Signal(syscall.SIGCONT) })
		start, further, i := time.Now(), 0, 0
		for ; time.Since(start) < 300*time.Millisecond; i++ {
			if decide(t, stores[i%3], locals[i%3], h) {
				further++
			}
		}
		resume.Stop()
		if further > 0 {
			t.Errorf("%d of %d calls allowed past the limit", further, i)
		}
	}
}

// TestRefusalsTellOnlyWhatIsKnown has another process count, and hits of one turn.
func TestRefusalsTellOnlyWhatIsKnown(t *testing.T) {
	r := startRedis(t)
	s, another := openReady(t, r.url()), openReady(t, r.url())
	spent, other := daily("known-spent", 3, 3), daily("known-other", 10, 2)
	count(t, s, spent)
	count(t, another, other)
	spent.Hits = 1
	expect(t, s, "a bucket that was never asked for", []Hit{spent, other}, tally{false, 0, 3}, tally{true, 8, 2})
	turn := []*Decision{{Hits: []Hit{other}}, {Hits: []Hit{spent, other}}}
	s.Decide(turn)
	if d := cmp.Diff([]tally{{false, 0, 3}, {true, 6, 4}}, tallies(turn[1].Outcomes)); d != "" {
		t.Errorf("after a hit of the same turn (-want +got):\n%s", d)
	}
	turn = []*Decision{{Hits: asking(-1, spent)}, {Hits: []Hit{spent}}}
	s.Decide(turn)
	if d := cmp.Diff([]tally{{true, 0, 3}}, tallies(turn[1].Outcomes)); d != "" {
		t.Errorf("given back in the same turn (-want +got):\n%s", d)
	}
}

// TestMemoryTellsFreshCounts: others may count where there are hits left, so what is told of them is a second old at most.
func TestMemoryTellsFreshCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, other := range each("other", 10, 1) {
			for _, spent := range each("spent", 10, 1) {
				m := newMemory(newClock(), trust)
				m.learn(&spent, 10)
				hits, out := []Hit{spent, other}, make([]Outcome, 2)
				if m.refuse(hits, out, m.now()) {
					t.Errorf("%s: refused, and told of a %s that isn't known", spent.Algorithm, other.Algorithm)
				}
				m.learn(&other, 4)
				time.Sleep(999 * time.Millisecond)
				ok := m.refuse(hits, out, m.now())
				if d := cmp.Diff([]tally{{false, 0, 10}, {true, 6, 4}}, tallies(out)); !ok || d != "" {
					t.Errorf("%s and %s: %t (-want +got):\n%s", spent.Algorithm, other.Algorithm, ok, d)
				}
				time.Sleep(time.Millisecond)
				if m.refuse(hits, out, m.now()) {
					t.Errorf("%s: refused, and told of a %s as it was a second ago", spent.Algorithm, other.Algorithm)
				}
			}
		}
	})
}

// learn has the memory know that so many hits are counted in the bucket of h.
func (m *memory) learn(h *Hit, count int64) {
	const far = 1000 * time.Hour
	o := Outcome{Allowed: count < h.size(), Count: count, Remaining: h.size() - count, Reset: far, RetryAfter: far}
	switch h.Algorithm {
	case GCRA:
		interval, _ := h.interval()
		o.Reset = microseconds(float64(count) * interval)
		m.keepGCRA(h, &o, m.now())
	case SlidingWindow:
		m.keepSliding(h, &o, m.now())
	default:
		m.keepWindow(h, m.hash(h), windowSeen{count: count, left: far.Microseconds(), asked: m.now()})
	}
}
