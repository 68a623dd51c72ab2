package ratelimit

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/legation/legation/store"
)

func TestUsageTellsPlanAndLimits(t *testing.T) {
	l, other := daily("a", 10, By{Kind: Consumer}), daily("b", 10, By{Kind: Consumer}, By{Kind: Path})
	l.Overrides = []Override{{"vip", Rate{Requests: 30, Window: 24 * time.Hour}}, {"free", Rate{Unlimited: true}}}
	l.Exempt = []string{"health"}
	st := &trouble{Store: openStore(t, "")}
	s := newService(t, Options{Store: st})
	s.Load(Table{Limits: []Limit{l, other}, Plans: plans()})
	for _, consumer := range []string{"vip", "free", "health", "acme"} {
		for range 3 {
			s.Count(t.Context(), []string{"a", "b"}, Attributes{Consumer: consumer}, 1)
			s.Count(t.Context(), []string{"a"}, Attributes{Consumer: consumer, Plan: "gold", Plans: PlanRequired}, 1)
		}
	}
	gold := []Usage{
		{Limit: "plan/rate", Plan: "gold", Rate: "1/hour burst 200", Used: 3, Size: 200, Remaining: 197},
		{Limit: "plan/quota", Plan: "gold", Rate: "50/year (UTC)", Used: 3, Size: 50, Remaining: 47},
	}
	for _, test := range []struct {
		consumer, plan string
		want           []Usage
	}{
		{"acme", "", []Usage{{Limit: "a", Rate: "10/day", Used: 3, Size: 10, Remaining: 7}}},
		{"acme", "gold", append(gold[:2:2], Usage{Limit: "a", Rate: "10/day", Used: 3, Size: 10, Remaining: 7})},
		{"vip", "", []Usage{{Limit: "a", Rate: "30/day", Used: 3, Size: 30, Remaining: 27}}},
		{"free", "", []Usage{{Limit: "a", Rate: "unlimited", Exempt: true}}},
		{"health", "", []Usage{{Limit: "a", Rate: "10/day", Exempt: true}}},
		{"nobody", "", []Usage{{Limit: "a", Rate: "10/day", Size: 10, Remaining: 10}}},
	} {
		for range 2 { // to ask charges nothing
			got, err := s.Usage(t.Context(), test.consumer, test.plan)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range got {
				if u.Used > 0 && (u.Reset < 0 || u.Reset == 0 && u.Limit == "plan/rate") {
					t.Errorf("reset in %d s: %+v", u.Reset, u)
				}
			}
			if d := cmp.Diff(test.want, got, cmpopts.IgnoreFields(Usage{}, "Reset")); d != "" {
				t.Errorf("%s: %s", test.consumer, d)
			}
		}
	}
	if _, err := s.Usage(t.Context(), "acme", "silver"); err == nil {
		t.Error("a plan that isn't there")
	}
	st.down.Store(true)
	if _, err := s.Usage(t.Context(), "acme", "gold"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without the store: %v", err)
	}
}

func TestUsageOfManyLimits(t *testing.T) {
	var limits []Limit
	for i := range 3*maxAsked + 1 {
		limits = append(limits, daily(fmt.Sprintf("%03d", i), 10, By{Kind: Consumer}))
	}
	s := newService(t, Options{}, limits...)
	s.Count(t.Context(), []string{"300"}, Attributes{Consumer: "a"}, 4)
	got, err := s.Usage(t.Context(), "a", "")
	if err != nil || len(got) != len(limits) || got[300].Used != 4 || got[0].Used != 0 || got[0].Limit != "000" {
		t.Errorf("%d limits, %v", len(got), err)
	}
}

func TestAdjust(t *testing.T) {
	l := daily("a", 10, By{Kind: Consumer})
	l.Exempt = []string{"health"}
	s := newService(t, Options{})
	s.Load(Table{Limits: []Limit{l, daily("b", 10)}, Plans: plans()})
	for i, test := range []struct {
		limit           string
		hits            int64
		used, remaining int64
	}{
		{"a", 4, 4, 6},
		{"a", -3, 1, 9},
		{"a", -3, 0, 10},
		{"a", 12, 12, 0},
		{"a", -2, 10, 0},
		{"a", 0, 10, 0},
		{"plan/quota", 5, 5, 0},
		{"plan/rate", 7, 7, 93},
	} {
		u, err := s.Adjust(t.Context(), "acme", "free", test.limit, test.hits)
		if err != nil || u.Used != test.used || u.Remaining != test.remaining {
			t.Errorf("%d: %+v, %v; want %d used, %d left", i, u, err, test.used, test.remaining)
		}
	}
	who := Attributes{Consumer: "acme", Plan: "free", Plans: PlanRequired}
	if v := s.Count(t.Context(), nil, who, 1); v.Status != 429 || v.Limit != "plan/quota" {
		t.Errorf("the quota was used up: %+v", v)
	}
	if _, err := s.Adjust(t.Context(), "acme", "free", "plan/quota", -1); err != nil {
		t.Error(err)
	}
	if v := s.Count(t.Context(), nil, who, 1); v.Status != 200 {
		t.Errorf("one was given back: %+v", v)
	}
	for _, bad := range []struct {
		consumer, plan, limit string
		hits                  int64
		want                  error
	}{
		{"acme", "free", "b", 1, ErrNoSuch},
		{"acme", "", "plan/quota", 1, ErrNoSuch},
		{"acme", "silver", "a", 1, ErrNoSuch},
		{"acme", "", "", 1, ErrNoSuch},
		{"health", "", "a", 1, ErrExempt},
		{"acme", "", "a", store.MaxCount + 1, store.ErrInvalid},
	} {
		if u, err := s.Adjust(t.Context(), bad.consumer, bad.plan, bad.limit, bad.hits); !errors.Is(err, bad.want) {
			t.Errorf("%+v: got %+v, %v", bad, u, err)
		}
	}
}

func TestThresholdsAreCountedOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := newService(t, Options{Metrics: reg})
	quota := Limit{Name: "quota", By: []By{{Kind: Consumer}}, Rate: Rate{Requests: 10, Algorithm: store.Calendar, Period: store.Year}}
	short := Limit{Name: "short", By: []By{{Kind: Consumer}}, Rate: Rate{Requests: 10, Window: time.Minute}}
	s.Load(Table{Limits: []Limit{quota, short, daily("all", 10)}})
	ask := func(consumer string, hits ...int64) {
		for _, n := range hits {
			s.Count(t.Context(), []string{"quota", "short", "all"}, Attributes{Consumer: consumer}, n)
		}
	}
	ask("a", 1, 7, 0, 1, 1, 1, -10) // at 8, 9 and 10
	ask("b", 7, 3, 1, 0, -10)       // from 7 to 10
	want := map[string]float64{"quota 80": 2, "quota 90": 2, "quota 100": 2}
	if d := cmp.Diff(want, samples(t, reg, "legation_ratelimit_threshold_total")); d != "" {
		t.Error(d)
	}
	s.Load(Table{})
	if got := samples(t, reg, "legation_ratelimit_threshold_total"); len(got) > 0 {
		t.Errorf("of a limit that is gone: %v", got)
	}
}

func TestRatesAsText(t *testing.T) {
	for want, r := range map[string]Rate{
		"unlimited":               {Unlimited: true},
		"10/second":               {Requests: 10, Window: time.Second},
		"10/30s":                  {Requests: 10, Window: 30 * time.Second},
		"10/minute sliding":       {Requests: 10, Window: time.Minute, Algorithm: store.SlidingWindow},
		"10/hour burst 20":        {Requests: 10, Window: time.Hour, Burst: 20, Algorithm: store.GCRA},
		"10/day (UTC)":            {Requests: 10, Algorithm: store.Calendar},
		"10/month (Europe/Paris)": {Requests: 10, Algorithm: store.Calendar, Period: store.Month, Zone: "Europe/Paris"},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
