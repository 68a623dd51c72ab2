package ratelimit

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/legation/legation/store"
)

func TestBusyOfTwoProcesses(t *testing.T) {
	a := []Busy{{"l", "x", 30, 0.5}, {"l", "y", 20, 0}}
	b := []Busy{{"m", "y", 50, 1}, {"l", "x", 10, 0.1}, {"l", "z", 0, 0}}
	want := []Busy{{"m", "y", 50, 1}, {"l", "x", 40, 0.4}, {"l", "y", 20, 0}, {"l", "z", 0, 0}}
	if d := cmp.Diff(want, AddBusy(a, b), cmpopts.EquateApprox(0, 1e-9)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(a, AddBusy(nil, a)); d != "" {
		t.Error(d)
	}
}

func TestReportsOfTwoProcesses(t *testing.T) {
	at := func(second int64) time.Time { return time.Unix(second, 0).UTC() }
	a := []Report{
		{
			Limit: "l", Rate: "3/day", Shadow: true, Since: at(20), Requests: 10, Over: 4, Values: 3, ValuesOver: 2, Peak: 5, Fits99: 4,
			Worst: []ValueReport{{"x", 3, 3, at(30), at(40), 5}, {"y", 1, 1, at(50), at(50), 4}},
		},
		{Limit: "n", Rate: "1/day", Since: at(1), Requests: 1},
	}
	b := []Report{
		{
			Limit: "l", Rate: "3/day", Shadow: true, Since: at(10), Requests: 20, Over: 5, Values: 4, ValuesOver: 1, Peak: 9, Fits99: 3,
			Worst: []ValueReport{{"y", 4, 2, at(25), at(45), 9}, {"z", 1, 1, at(26), at(26), 4}},
		},
		{Limit: "l", Rate: "4/day", Shadow: true, Since: at(12), Requests: 7}, // which has loaded the next version
		{Limit: "k", Rate: "1/day", Since: at(1), Requests: 1},
	}
	want := []Report{
		b[2],
		{
			Limit: "l", Rate: "3/day", Shadow: true, Since: at(10), Requests: 30, Over: 9, Values: 4, ValuesOver: 2, Peak: 9, Fits99: 4,
			Worst: []ValueReport{{"y", 5, 3, at(25), at(50), 9}, {"x", 3, 3, at(30), at(40), 5}, {"z", 1, 1, at(26), at(26), 4}},
		},
		b[1],
		a[1],
	}
	first := slices.Clone(a[0].Worst)
	if d := cmp.Diff(want, AddReports(a, b)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(first, a[0].Worst); d != "" {
		t.Errorf("what was added to has changed: %s", d)
	}
}

func TestSumsOfReportsAreBounded(t *testing.T) {
	var both [2][]Report
	for i := range both {
		p := Report{Limit: "l"}
		for n := range maxWorst {
			p.Worst = append(p.Worst, ValueReport{Value: strings.Repeat("x", i*maxWorst+n), Over: int64(i)})
		}
		both[i] = []Report{p}
	}
	got := AddReports(both[0], both[1])
	if len(got) != 1 || len(got[0].Worst) != maxWorst || got[0].Worst[maxWorst-1].Over != 1 {
		t.Errorf("%d values, want the %d that were over most often", len(got[0].Worst), maxWorst)
	}
}

func TestAdvice(t *testing.T) {
	day := Rate{Requests: 10, Window: 24 * time.Hour}
	gcra := Rate{Requests: 10, Window: time.Second, Burst: 20, Algorithm: store.GCRA}
	month := Rate{Requests: 10, Algorithm: store.Calendar, Period: store.Month, Zone: "Europe/Paris"}
	sliding := Rate{Requests: 10, Window: 90 * time.Second, Algorithm: store.SlidingWindow}
	for _, row := range []struct {
		rate Rate
		p    Report
		want string
	}{
		{day, Report{Shadow: true}, "nobody has asked yet"},
		{day, Report{Shadow: true, Requests: 9, Peak: 4}, "the most was 4 of 10: without"},
		{gcra, Report{Shadow: true, Requests: 9, Peak: 4}, "the most was 4 of 20: without"},
		{day, Report{Shadow: true, Requests: 9, Over: 1, Peak: 30, Fits99: 30}, "rate: 30/day would have refused nobody"},
		{day, Report{Shadow: true, Requests: 9, Over: 1, Peak: 30, Fits99: 12}, "nobody; with rate: 12/day, 99 of"},
		{day, Report{Shadow: true, Requests: 9, Over: 1, Peak: 30, Fits99: 10}, "nobody; as it is, 99 of"},
		{gcra, Report{Shadow: true, Requests: 9, Over: 1, Peak: 30, Fits99: 25}, "burst: 30 would have refused nobody; with burst: 25,"},
		{month, Report{Shadow: true, Requests: 9, Over: 1, Peak: 30}, "quota: 30/month would have refused nobody"},
		{sliding, Report{Shadow: true, Requests: 9, Over: 1, Peak: 30}, "rate: 30/1m30s would have refused nobody"},
		{day, Report{Requests: 9, Over: 1}, "isn't known of a limit that refuses"},
	} {
		row.p.Rate = row.rate.String()
		if got := row.p.Advice(); !strings.Contains(got, row.want) {
			t.Errorf("%+v: got %q, want %q in it", row.p, got, row.want)
		}
	}
	for _, p := range []Report{{Requests: 9, Over: 1}, {Shadow: true, Requests: 9, Over: 1, Peak: 3}, {Rate: "unlimited", Requests: 1, Over: 1}} {
		if got := p.Advice(); got != "" {
			t.Errorf("%+v: got %q, though nothing is known", p, got)
		}
	}
}

// Limits that others' Envoys ask for are told too.
func TestReportsOfDomains(t *testing.T) {
	shadow := Limit{Rate: Rate{Requests: 1, Window: 24 * time.Hour}, Shadow: true}
	s := newService(t, Options{})
	s.Load(Table{Plans: plans(), Limits: []Limit{daily("a", 10)}, Domains: []Domain{{Name: "edge", Descriptors: []Descriptor{
		{Key: "remote_address", Limit: &shadow},
		{Key: "path", Descriptors: []Descriptor{{Key: "bad", Value: "yes", Deny: true}}},
	}}}})
	q := request(descriptor("remote_address", "192.0.2.1"))
	q.Domain = "edge"
	for range 3 {
		answer(t, s, q)
	}
	want := []Report{{
		Limit: "rateLimits/edge/remote_address", Rate: "1/day", Shadow: true, Requests: 3, Over: 2, Values: 1, ValuesOver: 1, Peak: 3, Fits99: 3,
		Worst: []ValueReport{{Value: "remote_address||192.0.2.1", Over: 2, Least: 2, Peak: 3}},
	}}
	if d := cmp.Diff(want, s.Report(), cmpopts.IgnoreTypes(time.Time{})); d != "" {
		t.Error(d)
	}
	names := []string{"a", "plan/quota", "plan/rate", "rateLimits/edge/path/bad=yes", "rateLimits/edge/remote_address"}
	if d := cmp.Diff(names, s.Limits()); d != "" {
		t.Error(d)
	}
}
