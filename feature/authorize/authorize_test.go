package authorize_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	companion "github.com/legation/legation/auth"
	"github.com/legation/legation/feature/authorize"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

// login stands for auth: whether the callers of a route are known.
type login bool

func (*login) Check(*policy.Check) {}
func (l *login) KnowsCaller() bool { return bool(*l) }

var loginKind = policy.Define[login]("login", policy.Layers, "")

func TestGolden(t *testing.T) { golden.Run(t, "testdata", authorize.Kind, loginKind) }

const layers = `
gateways:
  edge:
    listeners: {http: {port: 10000}}
    defaults: {login: true, authorize: {claims: {tenant: acme, level: [3, true]}, deny: {status: 404}}}
services:
  orders: {endpoints: ["10.0.0.1:80"], authorize: {scopes: [a, b]}}
routes:
  all:
    hostnames: [a.test]
    backends: {orders: 1}
    authorize:
      metadata: {b: {url: "https://a.test/{consumer}"}, a: {url: "https://a.test/", cache: 5s, timeout: 20ms}}
      rules:
        - request.method == 'GET'
        - {cel: "identity.a == 1", name: one, deny: {status: 302, body: x, headers: {Location: /x}}}
  fewer: {hostnames: [b.test], backends: {orders: 1}, authorize: off}
  none: {hostnames: [c.test], backends: {orders: 1}, login: true}
`

// TestWhatTheCompanionJudgesBy has layers beside each other, and what the route drops.
func TestWhatTheCompanionJudgesBy(t *testing.T) {
	m, problems := policy.New(authorize.Kind, loginKind).Load(policy.Files{"policy.yaml": []byte(layers)})
	if m == nil {
		t.Fatal(problems.Err())
	}
	edge := companion.Authorization{
		Name: "gateway/edge", Claims: map[string][]string{"tenant": {"acme"}, "level": {"3", "true"}}, Deny: &companion.Reply{Status: 404},
	}
	orders := companion.Authorization{Name: "service/orders", Scopes: []string{"a", "b"}}
	want := map[string][]companion.Authorization{
		"all": {edge, orders, {
			Name: "route/all",
			Rules: []companion.AuthRule{
				{Expression: "request.method == 'GET'"},
				{Expression: "identity.a == 1", Name: "one", Deny: &companion.Reply{Status: 302, Body: "x", Headers: map[string]string{"location": "/x"}}},
			},
			Metadata: []companion.Metadata{
				{Name: "a", URL: "https://a.test/", Cache: 5 * time.Second, Timeout: 20 * time.Millisecond},
				{Name: "b", URL: "https://a.test/{consumer}"},
			},
		}},
		"none": {edge, orders},
	}
	got := map[string][]companion.Authorization{}
	for _, r := range m.Bound[m.Gateways[0]] {
		for set, s := range policy.Each[*authorize.Setting](r.Settings) {
			got[r.Name] = append(got[r.Name], s.Authorizations(set.Layer)...)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
