package diff_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/diff"
	"github.com/legation/legation/policy"
)

const layered = `gateways:
  edge:
    listeners: {http: {port: 10000}}
    defaults:
      auth: [idp]
      authorize: {scopes: [any]}
      rateLimit: {rate: 1000/minute, by: ip}
      retry: {attempts: 2}
      locked: [auth]
      timeouts: {request: 5s, idle: 1m}
auth:
  idp: {jwt: {issuer: "https://id.test/", audiences: [a], jwks: "https://id.test/keys.json"}}
services:
  a: {endpoints: ["10.0.0.1:80", "10.0.0.2:80"], timeouts: {request: 3s}, cors: off, protocol: http2}
routes:
  orders:
    hostnames: [a.test]
    match: {path: {exact: /orders}, headers: {x-api-key: hunter2}}
    backends: {a: 1}
    authorize: {scopes: [orders.read]}
    rateLimit: {rate: 10/second, by: consumer}
    retry: off
`

func show(t *testing.T, find func(*policy.Model, string) (*diff.Shown, bool), name string) string {
	t.Helper()
	s, found := find(load(t, policy.Files{"p.yaml": []byte(layered)}).Model, name)
	if !found {
		t.Fatalf("there is no %s", name)
	}
	var out bytes.Buffer
	if err := s.Write(&out, false); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestRouteIsShownWithTheLayerOfEachSetting(t *testing.T) {
	const want = `route orders  p.yaml:16:3
  backends.a               1                                  p.yaml:19:16
  gateways                 [edge]                             p.yaml:16:3
  hostnames                [a.test]                           p.yaml:17:5
  match.headers.x-api-key  (not shown: it may hold a secret)  p.yaml:18:58
  match.path               exact /orders                      p.yaml:18:13

at gateway edge
  auth                     [idp]                              gateway/edge  p.yaml:5:7  locked
  authorize.scopes         [any]                              gateway/edge  p.yaml:6:19
  authorize.scopes         [orders.read]                      route/orders  p.yaml:20:17
  cors                     off                                service/a     p.yaml:14:81
  rateLimit.by             ip                                 gateway/edge  p.yaml:7:42
  rateLimit.rate           1000/minute                        gateway/edge  p.yaml:7:25
  rateLimit.by             consumer                           route/orders  p.yaml:21:38
  rateLimit.rate           10/second                          route/orders  p.yaml:21:23
  retry                    off                                route/orders  p.yaml:22:12
  timeouts.idle            1m                                 gateway/edge  p.yaml:10:37
  timeouts.request         3s                                 service/a     p.yaml:14:70
`
	if d := cmp.Diff(want, show(t, diff.Route, "orders")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestServiceIsShown(t *testing.T) {
	const want = `service a  p.yaml:14:3
  endpoints.10.0.0.1:80  weight 1  p.yaml:14:19
  endpoints.10.0.0.2:80  weight 1  p.yaml:14:34
  protocol               http2     p.yaml:14:96
  timeouts.request       3s        p.yaml:14:70
`
	if d := cmp.Diff(want, show(t, diff.Service, "a")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestGatewayIsShown(t *testing.T) {
	const want = `gateway edge  p.yaml:2:3
  defaults.locked            [auth]       p.yaml:9:7
  listeners.http.address     0.0.0.0      p.yaml:3:17
  listeners.http.port        10000        p.yaml:3:30
  listeners.http.protocol    HTTP         p.yaml:3:17
  defaults.auth              [idp]        p.yaml:5:7  locked
  defaults.authorize.scopes  [any]        p.yaml:6:19
  defaults.rateLimit.by      ip           p.yaml:7:42
  defaults.rateLimit.rate    1000/minute  p.yaml:7:25
  defaults.retry.attempts    2            p.yaml:8:25
  defaults.timeouts.idle     1m           p.yaml:10:37
  defaults.timeouts.request  5s           p.yaml:10:27
`
	if d := cmp.Diff(want, show(t, diff.Gateway, "edge")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestNothingElseIsShown(t *testing.T) {
	m := load(t, policy.Files{"p.yaml": []byte(layered)}).Model
	for _, find := range []func(*policy.Model, string) (*diff.Shown, bool){diff.Route, diff.Service, diff.Gateway} {
		if s, found := find(m, "nobody"); found || s != nil {
			t.Errorf("got %+v", s)
		}
	}
	if text := show(t, diff.Route, "orders"); strings.Contains(text, "hunter2") {
		t.Errorf("a secret is shown:\n%s", text)
	}
}
