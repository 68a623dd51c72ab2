package cors_test

import (
	"fmt"
	"maps"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/cors"
	"github.com/legation/legation/feature/golden"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", cors.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}, gone: {endpoints: ["127.0.0.1:1"]}}
routes:
  gone: {hostnames: [gone.test], backends: {gone: 1}, cors: {allowOrigins: ["https://app.test"]}}
  orders:
    hostnames: [a.test]
    match: {methods: [GET, DELETE]}
    backends: {orders: 1}
    cors:
      allowOrigins: ["https://app.test", "https://*.wild.test"]
      allowHeaders: [authorization]
      exposeHeaders: [x-total]
      maxAge: 10m
      allowCredentials: true
`

// careless allows every page everything.
func careless(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("access-control-allow-origin", "*")
	w.Header().Set("access-control-allow-credentials", "true")
	w.Header().Set("access-control-expose-headers", "*")
	w.Header().Set("vary", "accept")
	golden.Echo(w, r)
}

func TestBrowsers(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, careless)), cors.Kind)
	refused := map[string]string{ // no allow-origin: the browser goes no further
		"access-control-allow-credentials": "true", "access-control-allow-methods": "DELETE, GET",
		"access-control-allow-headers": "authorization", "access-control-max-age": "600",
	}
	stranger := map[string]string{"vary": "accept,origin"}
	tests := []struct {
		name, method, origin, asked string
		status                      int
		want                        map[string]string
	}{
		{"preflight", "OPTIONS", "https://app.test", "DELETE", 200, granted("https://app.test", refused)},
		{"preflight below a wildcard", "OPTIONS", "https://a.b.wild.test", "GET", 200, granted("https://a.b.wild.test", refused)},
		{"preflight of a stranger", "OPTIONS", "https://evil.test", "DELETE", 200, refused},
		{"preflight of the wildcard's own host", "OPTIONS", "https://wild.test", "GET", 200, refused},
		{"preflight from another scheme", "OPTIONS", "http://a.wild.test", "GET", 200, refused},
		{"preflight from a longer host", "OPTIONS", "https://a.wild.test.evil.test", "GET", 200, refused},
		{"preflight for another method", "OPTIONS", "https://app.test", "PUT", 404, nil},
		{"OPTIONS that is no preflight", "OPTIONS", "https://app.test", "", 404, nil},
		{"request", "GET", "https://app.test", "", 200, map[string]string{
			"access-control-allow-origin": "https://app.test", "access-control-allow-credentials": "true",
			"access-control-expose-headers": "x-total", "vary": "accept,origin",
		}},
		{"request of a stranger", "GET", "https://evil.test", "", 200, stranger},
		{"request of no page", "GET", "", "", 200, stranger},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := envoy.Ask(t, tt.method, "a.test", "/", headers(tt.origin, tt.asked)...)
			if got.Status != tt.status {
				t.Errorf("status %d, want %d", got.Status, tt.status)
			}
			if diff := cmp.Diff(tt.want, ours(got.Header)); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

const besideAuth = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}, gone: {endpoints: ["127.0.0.1:1"]}}
routes:
  get:
    hostnames: [a.test]
    match: {path: /m, methods: [GET]}
    backends: {orders: 1}
    cors: {allowOrigins: ["https://app.test"]}
  any: {hostnames: [a.test], match: {path: /any}, backends: {orders: 1}, cors: {allowOrigins: ["*"]}}
  closed: {hostnames: [a.test], match: {path: /m}, backends: {gone: 1}}
`

// What looks like a preflight must not take the preflight's route to the backend of a route with cors: here that would
// be 200, and the route that the request is for has no backend, 503. The filter's own answers have no body.
func TestNoPreflightReachesBackend(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(besideAuth, golden.Backend(t, golden.Echo)), cors.Kind)
	const method = "Access-Control-Request-Method: "
	for _, tt := range []struct {
		path, headers string
		status        int
	}{
		{"/m", "Origin: https://app.test\r\n" + method + "GET\r\n", 200},
		{"/m", "Origin: https://evil.test\r\n" + method + "GET\r\n", 200},
		{"/m", "Origin:\r\nOrigin: https://app.test\r\n" + method + "GET\r\n", 200},
		{"/m", "Origin: https://app.test\r\nOrigin:\r\n" + method + "GET\r\n", 200},
		{"/m", "Origin:\r\n" + method + "GET\r\n", 503},
		{"/m", "Origin: \t \r\n" + method + "GET\r\n", 503},
		{"/m", method + "GET\r\n", 503},
		{"/m", "Origin: https://app.test\r\n" + method + "\r\n", 503},
		{"/m", "Origin: https://app.test\r\n" + method + "\r\n" + method + "GET\r\n", 200},
		{"/m", "Origin: https://app.test\r\n" + method + "GET\r\n" + method + "\r\n", 200},
		{"/m", "Origin: https://app.test\r\n" + method + "POST\r\n", 503},
		{"/m", "Origin:\r\n" + method + "GET\r\nX-Envoy-Nowhere: orders\r\n", 503},
		{"/any", "Origin: https://app.test\r\n" + method + "GET\r\n", 200},
		{"/any", "Origin: https://app.test\r\n" + method + "GET\r\nX-Envoy-Nowhere: orders\r\n", 200},
	} {
		request := "OPTIONS " + tt.path + " HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n" + tt.headers + "\r\n"
		if got := envoy.Raw(t, request); got.Status != tt.status || got.Status == 200 && got.Body != "" {
			t.Errorf("%s %q: status %d %q, want %d", tt.path, tt.headers, got.Status, got.Body, tt.status)
		}
	}
}

// Envoy's own answers can be read too: a page that can't read a 503 or 401 can't tell it from a broken network.
func TestPagesCanReadRefusals(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, careless)), cors.Kind)
	got := envoy.Ask(t, "GET", "gone.test", "/", "origin", "https://app.test")
	if allowed := got.Header.Get("access-control-allow-origin"); got.Status != 503 || allowed != "https://app.test" {
		t.Errorf("status %d for %q, want 503 for the page", got.Status, allowed)
	}
}

// granted is the answer to a preflight that is refused, and what makes it a yes.
func granted(origin string, refused map[string]string) map[string]string {
	yes := maps.Clone(refused)
	yes["access-control-allow-origin"] = origin
	yes["access-control-expose-headers"] = "x-total"
	return yes
}

func headers(origin, asked string) []string {
	var h []string
	if origin != "" {
		h = append(h, "origin", origin)
	}
	if asked != "" {
		h = append(h, "access-control-request-method", asked)
	}
	return h
}

// ours is the headers that the feature is about.
func ours(h http.Header) map[string]string {
	var found map[string]string
	for _, name := range []string{
		"access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods",
		"access-control-allow-headers", "access-control-expose-headers", "access-control-max-age", "vary",
	} {
		if v := h.Get(name); v != "" {
			if found == nil {
				found = map[string]string{}
			}
			found[name] = v
		}
	}
	return found
}
