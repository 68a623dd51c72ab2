package ratelimit

import (
	"testing"
	"time"

	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/store"
)

// plans are free and gold, whose limits have the same names.
func plans() []Plan {
	limits := func(burst, quota int64) []Limit {
		return []Limit{
			{Name: "plan/rate", By: []By{{Kind: Consumer}}, Rate: Rate{Requests: 1, Window: time.Hour, Burst: burst, Algorithm: store.GCRA}},
			{Name: "plan/quota", By: []By{{Kind: Consumer}}, Rate: Rate{Requests: quota, Algorithm: store.Calendar, Period: store.Year}},
		}
	}
	return []Plan{{"free", limits(100, 5)}, {"gold", limits(200, 50)}}
}

func TestPlansStandInPlaceOfLimitsByConsumer(t *testing.T) {
	byConsumer, byBoth, all := daily("consumer", 3, By{Kind: Consumer}), daily("both", 40, By{Kind: Consumer}, By{Kind: Path}), daily("all", 1000)
	s := newService(t, Options{})
	s.Load(Table{Limits: []Limit{byConsumer, byBoth, all}, Plans: plans()})
	ids := []string{"consumer", "both", "all"}
	for _, test := range []struct {
		name    string
		who     Attributes
		allowed int // of 100 requests
		refused Verdict
	}{
		{"no plan", Attributes{Consumer: "a"}, 3, Verdict{Limit: "consumer", Status: 429}},
		{"a plan that doesn't hold here", Attributes{Consumer: "b", Plan: "free"}, 3, Verdict{Limit: "consumer", Status: 429}},
		{"optional, without", Attributes{Consumer: "c", Plans: PlanOptional}, 3, Verdict{Limit: "consumer", Status: 429}},
		{"optional, unknown", Attributes{Consumer: "d", Plans: PlanOptional, Plan: "silver"}, 3, Verdict{Limit: "consumer", Status: 429}},
		{"optional", Attributes{Consumer: "e", Plans: PlanOptional, Plan: "free"}, 5, Verdict{Limit: "plan/quota", Status: 429}},
		{"required", Attributes{Consumer: "f", Plans: PlanRequired, Plan: "gold"}, 40, Verdict{Limit: "both", Status: 429}},
		{"required, without", Attributes{Consumer: "g", Plans: PlanRequired}, 0, Verdict{Limit: "plan", Status: 403}},
		{"required, unknown", Attributes{Consumer: "h", Plans: PlanRequired, Plan: "silver"}, 0, Verdict{Limit: "plan", Status: 403}},
		{"nobody", Attributes{Anonymous: true, Consumer: "i", Plans: PlanRequired, Plan: "free"}, 100, Verdict{}},
	} {
		asks := make([]Ask, 100)
		for i := range asks {
			asks[i] = Ask{IDs: ids, Attributes: test.who, Hits: 1}
		}
		s.CountAll(asks)
		got, refused := 0, Verdict{}
		for _, a := range asks {
			if a.Verdict.Allowed {
				got++
			} else {
				refused = Verdict{Limit: a.Verdict.Limit, Status: a.Verdict.Status}
			}
		}
		if got != test.allowed {
			t.Errorf("%s: %d allowed, want %d", test.name, got, test.allowed)
		}
		if d := cmp.Diff(test.refused, refused); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
	}
}

func TestUsageGoesAlongWithAChangeOfPlan(t *testing.T) {
	s := newService(t, Options{})
	s.Load(Table{Plans: plans()})
	ask := func(plan string) (left string, ok bool) {
		v := s.Count(t.Context(), nil, Attributes{Consumer: "acme", Plans: PlanRequired, Plan: plan}, 1)
		return v.Headers[1].Value, v.Allowed
	}
	for range 5 {
		if _, ok := ask("free"); !ok {
			t.Fatal("refused within the quota")
		}
	}
	if _, ok := ask("free"); ok {
		t.Error("allowed beyond the quota")
	}
	if left, ok := ask("gold"); !ok || left != "44" {
		t.Errorf("raised: %s left, %t", left, ok)
	}
	if _, ok := ask("free"); ok {
		t.Error("lowered, and what was used is forgotten")
	}
	raised := plans()
	raised[0].Limits[1].Requests = 7
	s.Load(Table{Plans: append(plans(), raised...)})
	if left, ok := ask("free"); !ok || left != "0" {
		t.Errorf("the plan was raised: %s left, %t", left, ok)
	}
}

func TestPlansThatCantBeCounted(t *testing.T) {
	bad := plans()[0]
	bad.Limits[0].By = nil
	worse := plans()[0]
	worse.Limits[1].Requests = 0
	for _, p := range []Plan{bad, worse} {
		if err := p.Validate(); err == nil {
			t.Errorf("%+v can be counted", p)
		}
	}
	s := newService(t, Options{})
	s.Load(Table{Plans: []Plan{bad}})
	if v := s.Count(t.Context(), nil, Attributes{Consumer: "a", Plan: "free", Plans: PlanRequired}, 1); v.Status != 403 {
		t.Errorf("a plan that was left out: %+v", v)
	}
}

func TestPlansAreGivenBackByTheirName(t *testing.T) {
	s := newService(t, Options{})
	s.Load(Table{Plans: plans()})
	use := func() string {
		v := s.Count(t.Context(), nil, Attributes{Consumer: "acme", Plans: PlanRequired, Plan: "free"}, 1)
		return v.Headers[1].Value
	}
	use()
	free := plans()[0]
	var back []*rlcommon.RateLimitDescriptor
	for _, l := range free.Limits {
		d := descriptor("limit", free.LimitID(l), "consumer", "acme")
		d.IsNegativeHits = true
		back = append(back, d)
	}
	answer(t, s, request(back...))
	if left := use(); left != "4" {
		t.Errorf("%s left of 5 after one was given back and one was used, want 4", left)
	}
}
