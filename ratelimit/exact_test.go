package ratelimit

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/store"
)

// TestThreeServicesOnOneRedisAreExact has each request held to several limits of different algorithms: all are charged,
// or none, whichever service asks.
func TestThreeServicesOnOneRedisAreExact(t *testing.T) {
	url := startRedis(t)
	limits := []Limit{
		daily("wide", 500),
		daily("narrow", 100, By{Kind: Consumer}),
		{Name: "sliding", Rate: Rate{Requests: 450, Window: 24 * time.Hour, Algorithm: store.SlidingWindow}},
		{Name: "year", Rate: Rate{Requests: 480, Algorithm: store.Calendar, Period: store.Year, Zone: "Asia/Kolkata"}},
		{Name: "watched", Rate: Rate{Requests: 30, Window: 24 * time.Hour}, Shadow: true},
		{Name: "burst", By: []By{{Kind: Consumer}, {Kind: Path}}, Rate: Rate{Requests: 1, Window: time.Hour, Burst: 60, Algorithm: store.GCRA}},
	}
	ids := []string{"wide", "narrow", "sliding", "year", "watched", "burst"}
	var services []*Service
	for range 3 {
		services = append(services, newService(t, Options{Store: openStore(t, url)}, limits...))
	}
	got := swarm(3000, func(i int) bool {
		who := Attributes{Consumer: fmt.Sprint(i % 2), Path: fmt.Sprint("/", i/2%2)}
		return services[i%3].Count(context.Background(), ids, who, 1).Allowed
	})
	if want := 200; got != want { // 100 for each consumer, 60 at most for each of its paths
		t.Errorf("%d allowed, want %d", got, want)
	}
	ask := func(limit string, hits int64, negative bool) int64 {
		d := descriptor("limit", limit)
		d.HitsAddend, d.IsNegativeHits = wrap(hits), negative
		return int64(answer(t, services[1], request(d)).Statuses[0].LimitRemaining)
	}
	left := map[string]int64{"wide": ask("wide", 0, false), "sliding": ask("sliding", 0, false), "year": ask("year", 0, false)}
	if d := cmp.Diff(map[string]int64{"wide": 300, "sliding": 250, "year": 280}, left); d != "" {
		t.Error("what another limit refused counts nowhere:", d)
	}
	swarm(300, func(i int) bool {
		d := descriptor("limit", "wide")
		d.IsNegativeHits = true
		return allowed(answer(t, services[i%3], request(d)))
	})
	if got := ask("wide", 0, false); got != 500 {
		t.Errorf("%d are left, want all 500: more was given back than was used", got)
	}
	var over int64
	for _, s := range services {
		over += s.Report()[len(s.Report())-1].Over
	}
	if over != 3000-30 {
		t.Errorf("%d over the limit in shadow, want 2970", over)
	}
}
