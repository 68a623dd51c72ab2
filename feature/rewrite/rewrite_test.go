package rewrite_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/rewrite"
	"github.com/legation/legation/policy"
)

// answer stands for a key that answers by itself.
type answer struct{}

func (*answer) Check(*policy.Check) {}

func (*answer) Answers() bool { return true }

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", rewrite.Kind, policy.Define[answer]("answer", policy.InRoute, ""))
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}, named: {dns: "localhost:%s"}}
routes:
  prefix: {hostnames: [prefix.test], match: {path: /v1/orders}, backends: {orders: 1}, rewrite: {prefix: /orders}}
  cut: {hostnames: [cut.test], match: {path: /v1.2}, backends: {orders: 1}, rewrite: {prefix: /}}
  under: {hostnames: [under.test], backends: {orders: 1}, rewrite: {prefix: /x}}
  full: {hostnames: [full.test], backends: {orders: 1}, rewrite: {path: "/a%%20b"}}
  regex:
    hostnames: [regex.test]
    backends: {orders: 1}
    rewrite: {regex: {pattern: "^/users/([0-9]+)(/.*)?$", substitution: '/u/\1\2'}}
  swap:
    hostnames: [swap.test]
    backends: {orders: 1}
    rewrite: {regex: {pattern: "^(/.*)/v([0-9]+)/([^/]+)$", substitution: '/.v\2\1/\3'}}
  case: {hostnames: [case.test], match: {path: {prefix: /Old, ignoreCase: true}}, backends: {orders: 1}, rewrite: {prefix: /new}}
  cutcase: {hostnames: [cutcase.test], match: {path: {prefix: /Old, ignoreCase: true}}, backends: {orders: 1}, rewrite: {prefix: /}}
  template:
    hostnames: [template.test]
    match: {path: {template: "/users/{id}/v1/{rest=**}"}}
    backends: {orders: 1}
    rewrite: {template: "/v2/.{id}-{id}/a%%20b/{rest}"}
  named:
    hostnames: [named.test]
    match: {path: {template: "/{kind}/{place=in/*/of}/*"}}
    backends: {orders: 1}
    rewrite: {template: "/{place}/{kind}"}
  auto: {hostnames: [auto.test], backends: {named: 1}, rewrite: {hostname: auto}}
  host: {hostnames: [host.test], backends: {orders: 1}, rewrite: {hostname: orders.internal}}
`

func serve(t *testing.T) *golden.Envoy {
	backend := golden.Backend(t, golden.Echo)
	_, port, err := net.SplitHostPort(backend)
	if err != nil {
		t.Fatal(err)
	}
	return golden.Serve(t, fmt.Sprintf(live, backend, port), rewrite.Kind)
}

func TestBackendGetsPath(t *testing.T) {
	envoy := serve(t)
	for _, tt := range []struct{ host, path, want string }{
		{"prefix.test", "/v1/orders", "/orders"},
		{"prefix.test", "/v1/orders/", "/orders/"},
		{"prefix.test", "/v1/orders/7?a=/v1/orders", "/orders/7?a=/v1/orders"},
		{"cut.test", "/v1.2", "/"},
		{"cut.test", "/v1.2/", "/"},
		{"cut.test", "/v1.2?a=b", "/?a=b"},
		{"cut.test", "/v1.2/7/8?a=b", "/7/8?a=b"},
		{"under.test", "/", "/x/"},
		{"under.test", "/7?a=b", "/x/7?a=b"},
		{"full.test", "/any/thing?a=b", "/a%20b?a=b"},
		{"regex.test", "/users/7/orders?a=b", "/u/7/orders?a=b"},
		{"regex.test", "/users/x", "/users/x"},
		{"regex.test", "/users/7..", "/users/7.."},
		{"case.test", "/oLD/7?a=b", "/new/7?a=b"},
		{"cutcase.test", "/oLD/7?a=b", "/7?a=b"},
		{"template.test", "/users/7/v1/a/b/?a=b", "/v2/.7-7/a%20b/a/b/?a=b"},
		{"template.test", "/users/..x/v1/", "/v2/...x-..x/a%20b/"},
		{"template.test", "/users/%2525/v1/", "/v2/.%2525-%2525/a%20b/"},
		{"named.test", "/shop/in/berlin/of/x?/../y", "/in/berlin/of/shop?/../y"},
		{"swap.test", "/a/b/v2/...x", "/.v2/a/b/...x"},
		{"swap.test", "/a/v1/v2/v3/b?c=//../", "/.v3/a/v1/v2/b?c=//../"},
	} {
		got := envoy.Ask(t, "GET", tt.host, tt.path, "x-envoy-original-path", "/forged").Received(t)
		if got.Path != tt.want {
			t.Errorf("%s%s became %s, want %s", tt.host, tt.path, got.Path, tt.want)
		}
		if original := got.Header.Get("x-envoy-original-path"); original != tt.path {
			t.Errorf("%s%s: the original path is told as %s", tt.host, tt.path, original)
		}
	}
}

func TestBackendGetsHost(t *testing.T) {
	envoy := serve(t)
	for host, want := range map[string]string{"host.test": "orders.internal", "auto.test": "localhost"} {
		got := envoy.Ask(t, "GET", host, "/a?b=c").Received(t)
		if got.Host != want || got.Path != "/a?b=c" || got.Header.Get("x-envoy-original-host") != host {
			t.Errorf("%s: got %+v, want the host %s", host, got, want)
		}
	}
}
