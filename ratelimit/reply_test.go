package ratelimit

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/legation/legation/store"
)

// generated is the answer of a decision in the generated types.
func generated(t *testing.T, d *decision) *rls.RateLimitResponse {
	t.Helper()
	r := &rls.RateLimitResponse{OverallCode: rls.RateLimitResponse_OK}
	if d.refused >= 0 {
		r.OverallCode = rls.RateLimitResponse_OVER_LIMIT
	}
	for place := range d.places {
		st := &rls.RateLimitResponse_DescriptorStatus{Code: rls.RateLimitResponse_OK}
		r.Statuses = append(r.Statuses, st)
		for _, a := range d.asks {
			switch {
			case a.place != place || a.rate == nil:
			case a.rate.unlimited:
				st.LimitRemaining = 1<<32 - 1
			default:
				st.CurrentLimit = a.rate.proto(a.limit.Name)
				if a.counted {
					st.LimitRemaining = clamp(a.outcome.Remaining)
					st.DurationUntilReset = durationpb.New(a.outcome.Reset)
				}
				if a.counted && !a.outcome.Allowed && !a.limit.Shadow {
					st.Code = rls.RateLimitResponse_OVER_LIMIT
				}
			}
		}
	}
	var h headers
	h.of(d)
	for _, f := range h.fields() {
		r.ResponseHeadersToAdd = append(r.ResponseHeadersToAdd, &corev3.HeaderValue{Key: f.Name, Value: f.Value})
	}
	metadata := map[string]any{}
	if told := d.told(); told >= 0 {
		a := d.asks[told]
		metadata["limit"], metadata["remaining"], metadata["reset"] = a.limit.Name, a.outcome.Remaining, seconds(a.outcome.Reset)
	}
	if d.refused >= 0 {
		metadata["refusedBy"] = d.asks[d.refused].limit.Name
	}
	for name, yes := range map[string]bool{"refused": d.refused >= 0, "degraded": d.degraded} {
		if yes {
			metadata[name] = true
		}
	}
	if d.shadow != nil {
		metadata["shadow"] = d.shadow.Name
	}
	if metadata["refused"] != nil || metadata["degraded"] != nil || metadata["shadow"] != nil {
		var err error
		if r.DynamicMetadata, err = structpb.NewStruct(metadata); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// someDecision is one of any shape.
func someDecision(r *rand.Rand, limits []*limit) *decision {
	d := &decision{refused: -1, nearest: -1, places: r.IntN(5), degraded: r.IntN(4) == 0}
	for place := range d.places {
		if r.IntN(4) == 0 {
			continue
		}
		l := limits[r.IntN(len(limits))]
		a := ask{limit: l, rate: []*rate{l.base, l.base, {unlimited: true}, nil}[r.IntN(4)], place: place}
		if a.stored() && r.IntN(4) > 0 {
			a.counted = true
			a.outcome = store.Outcome{
				Allowed: r.IntN(2) == 0, Limit: l.Requests, Remaining: r.Int64N(1 << r.IntN(54)),
				Reset: time.Duration(r.Int64N(1 << r.IntN(57))), RetryAfter: time.Duration(r.Int64N(1 << r.IntN(57))),
			}
			switch {
			case l.Shadow && !a.outcome.Allowed:
				d.shadow = l
			case !l.Shadow && !a.outcome.Allowed:
				d.refused = len(d.asks)
			case !l.Shadow && l.Headers != NoHeaders:
				d.nearest = len(d.asks)
			}
		}
		d.asks = append(d.asks, a)
	}
	return d
}

// everyShape are limits of all algorithms and sets of headers, with short and long names.
func everyShape(t testing.TB) []*limit {
	rates := []Rate{
		{Requests: 1, Window: time.Second},
		{Requests: 1<<32 - 1, Window: 90 * time.Minute, Algorithm: store.SlidingWindow},
		{Requests: 100, Window: 1500 * time.Millisecond, Algorithm: store.GCRA, Burst: 7},
		{Requests: 100, Algorithm: store.Calendar, Period: store.Month, Zone: "Europe/Berlin"},
		{Requests: 100, Algorithm: store.Calendar, Period: store.Day},
	}
	var limits []Limit
	for i, r := range rates {
		for _, h := range []Headers{0, Draft03, Structured, Legacy, Draft03 | Structured | Legacy, NoHeaders} {
			name := strconv.Itoa(len(limits))
			if h == Structured {
				name += `/a "name" of some length, so that the status is longer than 127 bytes, in which case its length takes two: é\`
			}
			limits = append(limits, Limit{Name: name, Rate: r, Headers: h, Shadow: i == 2})
		}
	}
	table := newService(t, Options{}, limits...).table.Load()
	var all []*limit
	for _, l := range limits {
		all = append(all, table.limits[l.Name])
	}
	return all
}

func FuzzReply(f *testing.F) {
	limits := everyShape(f)
	for seed := range uint64(100) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		d := someDecision(rand.New(rand.NewPCG(seed, 0)), limits)
		var turn turn
		b := turn.reply([]byte("before"), d)
		got := new(rls.RateLimitResponse)
		if err := proto.Unmarshal(b[len("before"):], got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(generated(t, d), got, protocmp.Transform()); d != "" {
			t.Error(d)
		}
	})
}

func TestHeaderSets(t *testing.T) {
	limits := []Limit{
		{Name: "sliding", Rate: Rate{Requests: 10, Window: time.Hour, Algorithm: store.SlidingWindow}, Headers: Structured | Legacy},
		{Name: "burst", Rate: Rate{Requests: 1, Window: time.Minute, Burst: 20, Algorithm: store.GCRA}, Headers: Structured},
		{Name: `"month"`, Rate: Rate{Requests: 500, Algorithm: store.Calendar, Period: store.Month}, Headers: Structured},
		{Name: "silent", Rate: Rate{Requests: 1, Window: time.Hour}, Headers: NoHeaders},
	}
	var h headers
	table := newService(t, Options{}, limits...).table.Load()
	on := func(name string, o store.Outcome) ask {
		l := table.limits[name]
		return ask{limit: l, rate: l.base, counted: true, outcome: o}
	}
	asks := []ask{
		on(`"month"`, store.Outcome{Allowed: true, Limit: 500, Remaining: 400, Reset: 10 * day}),
		on("sliding", store.Outcome{Allowed: true, Limit: 10, Remaining: 3, Reset: 59*time.Minute + 1}),
		on("burst", store.Outcome{Allowed: true, Limit: 20, Remaining: 20}),
		on("silent", store.Outcome{RetryAfter: time.Minute, Reset: time.Minute, Limit: 1}),
	}
	for name, test := range map[string]struct {
		refused, nearest int
		want             []Field
	}{
		"nearest": {-1, 1, []Field{
			{"RateLimit-Policy", `"sliding";q=10;w=3600, "\"month\"";q=500, "burst";q=20;w=1200`},
			{"RateLimit", `"sliding";r=3;t=3541, "\"month\"";r=400;t=864000, "burst";r=20;t=0`},
			{"X-RateLimit-Limit", "10"},
			{"X-RateLimit-Remaining", "3"},
			{"X-RateLimit-Reset", "3541"},
		}},
		"refused by one that tells nothing else": {3, 1, []Field{{"Retry-After", "60"}}},
		"let pass by those that tell nothing":    {-1, -1, nil},
		"refused": {2, 1, []Field{
			{"RateLimit-Policy", `"burst";q=20;w=1200, "\"month\"";q=500, "sliding";q=10;w=3600`},
			{"RateLimit", `"burst";r=20;t=0, "\"month\"";r=400;t=864000, "sliding";r=3;t=3541`},
			{"Retry-After", "1"},
		}},
	} {
		h.of(&decision{asks: asks, refused: test.refused, nearest: test.nearest})
		if d := cmp.Diff(test.want, h.fields()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
