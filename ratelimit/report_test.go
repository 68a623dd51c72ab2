package ratelimit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/legation/legation/store"
)

func TestShadowRefusesNobodyAndReports(t *testing.T) {
	shadow := daily("shadow", 3, By{Kind: Consumer})
	shadow.Shadow = true
	strict := daily("strict", 8)
	reg := prometheus.NewRegistry()
	s := newService(t, Options{Metrics: reg}, shadow, strict)
	start := time.Now()
	for consumer, n := range map[string]int{"a": 2, "b": 3, "c": 5} {
		for range n {
			r := answer(t, s, request(descriptor("limit", "shadow", "consumer", consumer), descriptor("limit", "strict")))
			if r.Statuses[0].Code.String() != "OK" || r.Statuses[0].CurrentLimit.RequestsPerUnit != 3 {
				t.Errorf("%v", r.Statuses[0])
			}
			if h := headersOf(r)[:len("RateLimit-Limit: 8")]; h != "RateLimit-Limit: 8" {
				t.Errorf("%s, want the limit that isn't in shadow", h)
			}
		}
	}
	want := []Report{
		{
			Limit: "shadow", Rate: "3/day", Shadow: true, Requests: 10, Over: 2, Values: 3, ValuesOver: 1, Peak: 5, Fits99: 5,
			Worst: []ValueReport{{Value: "c", Over: 2, Least: 2, Peak: 5}},
		},
		{Limit: "strict", Rate: "8/day", Requests: 10, Over: 2, ValuesOver: 1, Worst: []ValueReport{{Over: 2, Least: 2}}},
	}
	got := s.Report()
	if d := cmp.Diff(want, got, cmpopts.IgnoreTypes(time.Time{})); d != "" {
		t.Fatal(d)
	}
	for _, r := range got {
		if r.Since.After(start) || r.Worst[0].First.Before(start) || r.Worst[0].Last.Before(r.Worst[0].First) {
			t.Errorf("%+v", r)
		}
	}
	if d := cmp.Diff(map[string]float64{
		"shadow ok": 8, "shadow shadow_over": 2, "strict ok": 8, "strict over": 2,
		" unknown": 0, " invalid": 0, " foreign": 0, " unplanned": 0,
	}, samples(t, reg, "legation_ratelimit_decisions_total")); d != "" {
		t.Error(d)
	}

	s.Load(Table{Limits: []Limit{shadow, strict}})
	if got := s.Report(); got[0].Over != 2 {
		t.Errorf("the same table again, and the report begins anew: %+v", got)
	}
	shadow.Requests = 4
	s.Load(Table{Limits: []Limit{shadow, strict}})
	if got := s.Report(); got[0].Over != 0 || got[0].Requests != 0 || got[1].Over != 2 {
		t.Errorf("a limit that changed: %+v", got)
	}
}

func TestShadowWatchesWhateverOthersSay(t *testing.T) {
	shadow := Limit{Name: "shadow", Shadow: true, Rate: Rate{Requests: 1, Window: time.Hour, Burst: 4, Algorithm: store.GCRA}}
	strict := daily("strict", 1)
	st := &trouble{Store: openStore(t, "")}
	reg := prometheus.NewRegistry()
	s := newService(t, Options{Store: st, Metrics: reg}, shadow, strict)
	for range 10 {
		s.Count(t.Context(), []string{"shadow", "strict"}, Attributes{}, 1)
	}
	want := Report{
		Limit: "shadow", Rate: "1/hour burst 4", Requests: 10, Shadow: true, Over: 6, Values: 1, ValuesOver: 1, Peak: 10, Fits99: 10,
		Worst: []ValueReport{{Over: 6, Least: 6, Peak: 10}},
	}
	if d := cmp.Diff(want, s.Report()[0], cmpopts.IgnoreTypes(time.Time{})); d != "" {
		t.Error(d)
	}
	st.down.Store(true)
	if v := s.Count(t.Context(), []string{"shadow"}, Attributes{}, 1); !v.Allowed || v.Degraded {
		t.Errorf("without the store: %+v", v)
	}
	shadow.OnError = Deny
	s.Load(Table{Limits: []Limit{shadow, strict}})
	if v := s.Count(t.Context(), []string{"shadow"}, Attributes{}, 1); !v.Allowed {
		t.Errorf("one that would deny: %+v", v)
	}
	if got := samples(t, reg, "legation_ratelimit_decisions_total"); got["shadow degraded"] != 2 || got["shadow ok"] != 4 {
		t.Errorf("%v", got)
	}
}

func TestWhatIsGivenBackIsNoRequest(t *testing.T) {
	shadow := daily("shadow", 1)
	shadow.Shadow = true
	reg := prometheus.NewRegistry()
	s := newService(t, Options{Metrics: reg}, shadow, daily("strict", 8))
	for _, hits := range []int64{1, 1, -1} {
		s.Count(t.Context(), []string{"shadow", "strict"}, Attributes{}, hits)
	}
	if d := cmp.Diff(map[string]float64{
		"shadow ok": 1, "shadow shadow_over": 1, "shadow refunded": 1, "strict ok": 2, "strict over": 0, "strict refunded": 1,
		" unknown": 0, " invalid": 0, " foreign": 0, " unplanned": 0,
	}, samples(t, reg, "legation_ratelimit_decisions_total")); d != "" {
		t.Error(d)
	}
	if got := s.Report()[0]; got.Requests != 2 || got.Over != 1 {
		t.Errorf("the report counts what is given back: %+v", got)
	}
}

func TestWhatTheStoreIsAsked(t *testing.T) {
	leased := daily("leased", 100)
	leased.Lease = 10
	shadow := leased
	shadow.Name, shadow.Shadow = "shadow", true
	table := newService(t, Options{}, leased, shadow).table.Load()
	for name, want := range map[string]store.Hit{
		"leased": {Key: "k", Hits: 2, Limit: 100, Window: 24 * time.Hour, Lease: 10},
		"shadow": {Key: "k", Hits: 2, Limit: 100, Window: 24 * time.Hour, Beyond: true}, // the report needs each count
	} {
		if d := cmp.Diff(want, table.limits[name].base.on("k", 2)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestReportsAreBounded(t *testing.T) {
	l := daily("shadow", 1, By{Kind: Consumer})
	l.Shadow = true
	s := newService(t, Options{}, l)
	worst := "the one that asks most"
	for i := range 20_000 {
		consumer := fmt.Sprint("c", i%5000)
		if i%10 == 0 {
			consumer = worst
		}
		s.Count(t.Context(), []string{"shadow"}, Attributes{Consumer: consumer}, 1)
	}
	r := s.Report()[0]
	if len(r.Worst) != maxWorst || r.Worst[0].Value != valueOf(store.Key("", worst)) || r.Worst[0].Least < 1900 || r.Worst[0].Peak != 2000 {
		t.Errorf("%d values, the first %+v", len(r.Worst), r.Worst[0])
	}
	if math.Abs(float64(r.Values)-4501) > 450 || math.Abs(float64(r.ValuesOver)-4501) > 450 || r.Fits99 != 4 {
		t.Errorf("%d values, %d over, %d would fit; want some 4501 and 4", r.Values, r.ValuesOver, r.Fits99)
	}
}

func TestSketchKeepsWhatOccursMost(t *testing.T) {
	k := newSketch(20)
	r := rand.New(rand.NewPCG(1, 2))
	truth := map[string]int64{}
	for range 50_000 {
		key := fmt.Sprint(int(r.ExpFloat64() * 5))
		if r.IntN(2) == 0 {
			key = fmt.Sprint("once ", r.Int64())
		}
		truth[key]++
		k.add(key, 1)
	}
	if len(k.keys) != 20 || len(k.index) != 20 {
		t.Errorf("%d keys", len(k.keys))
	}
	for key, n := range truth {
		place, ok := k.index[key]
		if n > 50_000/20 && !ok {
			t.Errorf("%q occurred %d times and is gone", key, n)
		}
		if ok && (k.keys[place] != key || k.counts[place] < n || k.counts[place]-k.over[place] > n) {
			t.Errorf("%q occurred %d times, told %d to %d", key, n, k.counts[place]-k.over[place], k.counts[place])
		}
	}
}

func TestLevels(t *testing.T) {
	for l := 1; l < len(levels{}); l++ {
		if n := least(l); n <= least(l-1) || level(n) != l || level(n-1) != l-1 {
			t.Errorf("level %d begins at %d, of level %d; the one before ends in level %d", l, n, level(n), level(n-1))
		}
	}
	if level(store.MaxCount) >= len(levels{}) || level(-1) != 0 {
		t.Error("counts beyond the levels")
	}
	var l levels
	if l.fits(100) != 0 {
		t.Error("nothing fits nothing")
	}
	for window := range int64(1000) { // 989 windows reach 7, 11 reach 100
		top := int64(7)
		if window%90 == 0 && window < 990 {
			top = 100
		}
		for c := range top {
			l.pass(c, c+1)
		}
	}
	if got := l.fits(100); got < 100 || got > 112 {
		t.Errorf("%d fits 99 %%, want a little above 100", got)
	}
	if got := l.fits(50); got != 7 {
		t.Errorf("%d fits 98 %%, want 7", got)
	}
}

func TestTopTellsTheBusiest(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := newTop(now)
	l := &limit{Limit: Limit{Name: "a limit/with a name that is longer than a part of a key"}}
	next := int64(0)
	ask := func(value string, refused bool) {
		if next--; next <= 0 {
			next = p.add(&ask{limit: l, key: store.Key(l.Name, value), counted: true, outcome: store.Outcome{Allowed: !refused}})
		}
	}
	for range 60 {
		for i := range 20_000 {
			switch {
			case i%2 == 0:
				ask("half", i%4 == 0)
			case i%5 == 0:
				ask("tenth", false)
			default:
				ask(fmt.Sprint(i), false)
			}
		}
		now = now.Add(time.Second)
		p.tick(now)
	}
	if n := p.stride.Load(); n < 10 || n > 40 {
		t.Errorf("one in %d of 20,000 a second is a sample, want some 20", n)
	}
	got := p.list(2, now)
	if len(got) != 2 || got[0].Value != "half" || got[1].Value != "tenth" || got[0].Limit != l.Name {
		t.Fatalf("%+v", got)
	}
	if math.Abs(got[0].Rate-10_000) > 1000 || math.Abs(got[1].Rate-2000) > 600 || math.Abs(got[0].Over-.5) > .1 || got[1].Over != 0 {
		t.Errorf("%+v, want 10,000/s of which half are refused, and 2,000/s", got)
	}
	now = now.Add(2 * time.Minute)
	if got := p.list(2, now); len(got) != 0 {
		t.Errorf("two minutes later: %+v", got)
	}
	next = 1
	ask("rare", false)
	if got := p.list(2, now.Add(time.Second)); p.stride.Load() != 1 || len(got) != 1 || got[0].Rate > 1 {
		t.Errorf("later: %+v, one in %d is a sample", got, p.stride.Load())
	}
	if got := p.list(-1, now); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestTopOfAService(t *testing.T) {
	s := newService(t, Options{}, daily("a", 5, By{Kind: Consumer}))
	asks := make([]Ask, 1000)
	for i := range asks {
		asks[i] = Ask{IDs: []string{"a"}, Hits: 1, Attributes: Attributes{Consumer: fmt.Sprint(min(i%10, 5))}}
	}
	s.CountAll(asks)
	got := s.Top(1)
	if len(got) != 1 || got[0].Limit != "a" || got[0].Value != "5" || got[0].Over < .9 || got[0].Rate < 100 {
		t.Errorf("%+v", got)
	}
}
