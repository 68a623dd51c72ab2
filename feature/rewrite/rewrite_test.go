package rewrite_test

import (
	"fmt"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/rewrite"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", rewrite.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}}
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
  host: {hostnames: [host.test], backends: {orders: 1}, rewrite: {hostname: orders.internal}}
`

func TestBackendGetsPath(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo)), rewrite.Kind)
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
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo)), rewrite.Kind)
	got := envoy.Ask(t, "GET", "host.test", "/a?b=c").Received(t)
	if got.Host != "orders.internal" || got.Path != "/a?b=c" || got.Header.Get("x-envoy-original-host") != "host.test" {
		t.Errorf("got %+v", got)
	}
}
