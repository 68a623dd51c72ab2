package ratelimit_test

import (
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
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
	if diff := cmp.Diff(want, limits(t, shared)); diff != "" {
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
