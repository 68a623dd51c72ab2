package ratelimit_test

import (
	"fmt"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/ratelimit"
	"github.com/legation/legation/policy"
	companion "github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

// login stands for auth: whether the callers of a route are known.
type login bool

func (*login) Check(*policy.Check) {}
func (l *login) KnowsCaller() bool { return bool(*l) }

var loginKind = policy.Define[login]("login", policy.InRoute, "")

// answer stands for what answers without a backend.
type answer bool

func (*answer) Check(*policy.Check) {}
func (a *answer) Answers() bool     { return bool(*a) }

var answerKind = policy.Define[answer]("answer", policy.InRoute, "")

// Route answers 204.
func (*answer) Route(envoy.RouteContext) envoy.RouteParts {
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_DirectResponse{
		DirectResponse: &routev3.DirectResponseAction{Status: 204},
	}}}
}

// password stands for a way to tell who calls.
type password string

func (*password) Check(*policy.Check) {}

var passwordKind = policy.Define[password]("password", policy.InAuth, "")

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", ratelimit.Kind, ratelimit.DomainKind, ratelimit.DescriptorsKind, loginKind, answerKind, passwordKind)
}

const shared = `
gateways: {edge: {listeners: {http: {port: 10000}}, defaults: {rateLimit: {rate: 50/second, burst: 100, by: ip}}}}
services: {orders: {endpoints: ["10.0.0.1:80"]}}
routes:
  a:
    hostnames: [a.test]
    login: true
    rateLimit: [{rate: 10/30s, by: [consumer, {claim: tenant}, {header: X-Team}], onError: deny}, {rate: 1/day, algorithm: gcra, burst: 1, onError: allow}]
    backends: {orders: 1}
  b: {hostnames: [b.test], backends: {orders: 1}}
`

func limits(t *testing.T, text string) []companion.Limit {
	t.Helper()
	m, problems := policy.New(ratelimit.Kind, loginKind).Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return ratelimit.Limits(m)
}

func TestLimits(t *testing.T) {
	want := []companion.Limit{
		{
			Name: "gateway/edge/0", By: []companion.By{{Kind: companion.IP}},
			Rate: companion.Rate{Requests: 50, Window: time.Second, Burst: 100, Algorithm: store.GCRA}, OnError: companion.Local,
		},
		{
			Name: "route/a/0",
			By:   []companion.By{{Kind: companion.Consumer}, {Kind: companion.Claim, Name: "tenant"}, {Kind: companion.Header, Name: "x-team"}},
			Rate: companion.Rate{Requests: 10, Window: 30 * time.Second, Algorithm: store.FixedWindow}, OnError: companion.Deny,
		},
		{
			Name: "route/a/1",
			Rate: companion.Rate{Requests: 1, Window: 24 * time.Hour, Burst: 1, Algorithm: store.GCRA}, OnError: companion.Allow,
		},
	}
	if diff := cmp.Diff(want, limits(t, shared), cmpopts.IgnoreFields(companion.Limit{}, "Known")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFileAndPortStayOutOfTheBucket(t *testing.T) {
	m, problems := policy.New(ratelimit.Kind, loginKind).Load(policy.Files{
		"gateways.yaml":    []byte("gateways: {edge: {listeners: {other: {port: 443}}, defaults: {rateLimit: {rate: 50/second, burst: 100, by: ip}}}}"),
		"teams/other.yaml": []byte(`services: {s: {endpoints: ["10.9.9.9:80"]}}`),
		"z.yml":            []byte("routes: {z: {hostnames: [z.test], backends: {s: 1}}}"),
	})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	got, want := ratelimit.Limits(m), limits(t, shared)
	if got[0].ID() != want[0].ID() {
		t.Errorf("got the ID %s, want %s as in another file", got[0].ID(), want[0].ID())
	}
}

func TestWhatLimitsSay(t *testing.T) {
	by := func(kinds ...companion.By) []companion.By { return kinds }
	minute := companion.Rate{Requests: 300, Window: time.Minute}
	for text, want := range map[string]companion.Limit{
		"{quota: 10000/month, timeZone: Europe/Berlin, by: {ip: /56}}": {
			By:   by(companion.By{Kind: companion.IP, Bits: 56}),
			Rate: companion.Rate{Requests: 10000, Algorithm: store.Calendar, Period: store.Month, Zone: "Europe/Berlin"},
		},
		"{quota: 7/day, timeZone: UTC, by: {ip: /64}, headers: draft03, mode: exact}": { // the defaults, written out
			By: by(companion.By{Kind: companion.IP}), Rate: companion.Rate{Requests: 7, Algorithm: store.Calendar},
		},
		"{rate: 300/minute, algorithm: slidingWindow, by: [path, route, method, host], shadow: true}": {
			By:   by(companion.By{Kind: companion.Path}, companion.By{Kind: companion.Route}, companion.By{Kind: companion.Method}, companion.By{Kind: companion.Host}),
			Rate: companion.Rate{Requests: 300, Window: time.Minute, Algorithm: store.SlidingWindow}, Shadow: true,
		},
		"{rate: 300/minute, mode: leased, by: [{cookie: Id}, {cel: request.path}], headers: [legacy, structured]}": {
			By:    by(companion.By{Kind: companion.Cookie, Name: "Id"}, companion.By{Kind: companion.CEL, Name: "request.path"}),
			Rate:  minute,
			Lease: 3, Headers: companion.Legacy | companion.Structured,
		},
		"{rate: 300/minute, mode: leased, lease: 50, headers: none, onError: allow}": {
			Rate: minute, Lease: 50, Headers: companion.NoHeaders, OnError: companion.Allow,
		},
		"{rate: 50/minute, mode: leased}": {Rate: companion.Rate{Requests: 50, Window: time.Minute}, Lease: 1},
		"{rate: 300/minute, by: ip, overrides: {10.0.0.0/8: 5/day, '::ffff:192.0.2.1': {rate: 1/second, burst: 9}}, exempt: ['2001:db8:0::/48']}": {
			By: by(companion.By{Kind: companion.IP}), Rate: minute, Exempt: []string{"2001:db8::/48"},
			Overrides: []companion.Override{
				{Value: "10.0.0.0/8", Rate: companion.Rate{Requests: 5, Window: 24 * time.Hour}},
				{Value: "192.0.2.1", Rate: companion.Rate{Requests: 1, Window: time.Second, Burst: 9, Algorithm: store.GCRA}},
			},
		},
		"{rate: 300/minute, burst: 10, by: host, overrides: {A.test: 5/minute, b.test: unlimited}}": {
			By: by(companion.By{Kind: companion.Host}), Rate: companion.Rate{Requests: 300, Window: time.Minute, Burst: 10, Algorithm: store.GCRA},
			Overrides: []companion.Override{
				{Value: "a.test", Rate: companion.Rate{Requests: 5, Window: time.Minute, Burst: 10, Algorithm: store.GCRA}},
				{Value: "b.test", Rate: companion.Rate{Unlimited: true}},
			},
		},
		"{quota: 5/week, by: method, overrides: {GET: 10/day, POST: {quota: 3/year}}}": {
			By: by(companion.By{Kind: companion.Method}), Rate: companion.Rate{Requests: 5, Algorithm: store.Calendar, Period: store.Week},
			Overrides: []companion.Override{
				{Value: "GET", Rate: companion.Rate{Requests: 10, Algorithm: store.Calendar}},
				{Value: "POST", Rate: companion.Rate{Requests: 3, Algorithm: store.Calendar, Period: store.Year}},
			},
		},
	} {
		want.Name = "route/a/0"
		list := limits(t, fmt.Sprintf(`
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: ["10.0.0.1:80"]}}
routes: {a: {hostnames: [a.test], rateLimit: [%s, {rate: 1/second, mode: perEnvoy}], backends: {orders: 1}}}
`, text))
		if diff := cmp.Diff([]companion.Limit{want}, list, cmpopts.IgnoreFields(companion.Limit{}, "Known")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
			continue
		}
		if err := list[0].Validate(); err != nil {
			t.Errorf("%s: the companion can't count it: %v", text, err)
		}
	}
}
