package control

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/ratelimit"
)

// A turn of checks is counted as if one had come after the other, by all that the caller is known by.
func TestCounterCountsATurn(t *testing.T) {
	daily := func(name string, n int64, by ...ratelimit.By) ratelimit.Limit {
		return ratelimit.Limit{Name: name, By: by, Rate: ratelimit.Rate{Requests: n, Window: 24 * time.Hour}}
	}
	s := ratelimit.New(ratelimit.Options{})
	defer s.Close()
	s.Load(ratelimit.Table{
		Limits: []ratelimit.Limit{
			daily("route", 1, ratelimit.By{Kind: ratelimit.Route}, ratelimit.By{Kind: ratelimit.Method}, ratelimit.By{Kind: ratelimit.Host},
				ratelimit.By{Kind: ratelimit.Path}, ratelimit.By{Kind: ratelimit.CEL, Name: "request.scheme"}),
			daily("consumer", 1, ratelimit.By{Kind: ratelimit.Consumer}),
		},
		Plans: []ratelimit.Plan{{Name: "gold", Limits: []ratelimit.Limit{daily("plan/quota", 2, ratelimit.By{Kind: ratelimit.Consumer})}}},
	})
	caller := auth.Caller{Identified: true, Consumer: "acme", Route: "edge/a", Method: "GET", Host: "a.test", Path: "/a?q", Scheme: "https"}
	other := func(change func(*auth.Caller)) auth.Caller {
		c := caller
		change(&c)
		return c
	}
	route, consumer := []string{"route"}, []string{"consumer"}
	asks := []*auth.Ask{
		{Limits: route, Caller: caller},
		{Limits: route, Caller: caller},
		{Limits: route, Caller: other(func(c *auth.Caller) { c.Route = "edge/b" })},
		{Limits: route, Caller: other(func(c *auth.Caller) { c.Method = "PUT" })},
		{Limits: route, Caller: other(func(c *auth.Caller) { c.Host = "b.test" })},
		{Limits: route, Caller: other(func(c *auth.Caller) { c.Path = "/b" })},
		{Limits: route, Caller: other(func(c *auth.Caller) { c.Scheme = "http" })},
		{Limits: consumer, Caller: caller, Plans: auth.PlanOptional},
		{Limits: consumer, Caller: caller, Plans: auth.PlanOptional},
		{Limits: consumer, Caller: caller, Plans: auth.PlanRequired},
	}
	gold := other(func(c *auth.Caller) { c.Plan = "gold" })
	for range 3 {
		asks = append(asks, &auth.Ask{Limits: consumer, Caller: gold, Plans: auth.PlanRequired})
	}
	asks = append(asks, &auth.Ask{Limits: consumer, Caller: gold}) // where plans don't hold
	NewCounter(s).Count(asks)
	var got []int
	for _, a := range asks {
		got = append(got, a.Verdict.Status)
	}
	if d := cmp.Diff([]int{200, 429, 200, 200, 200, 200, 200, 200, 429, 403, 200, 200, 429, 429}, got); d != "" {
		t.Error(d)
	}
	if v := asks[12].Verdict; v.Limit != "plan/quota" || len(v.Headers) != 4 || v.Headers[3][0] != "Retry-After" {
		t.Errorf("%+v", v)
	}
	if v := asks[9].Verdict; v.Limit != "plan" || len(v.Headers) > 0 {
		t.Errorf("%+v", v)
	}
}
