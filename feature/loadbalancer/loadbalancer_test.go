package loadbalancer_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/loadbalancer"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", loadbalancer.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  ip: {endpoints: [%[1]q, %[2]q, %[3]q], loadBalancer: {maglev: {by: ip}}}
  header: {endpoints: [%[1]q, %[2]q, %[3]q], loadBalancer: {ringHash: {by: {header: x-user}}}}
  cookie: {endpoints: [%[1]q, %[2]q, %[3]q], loadBalancer: {maglev: {by: {cookie: {name: lb, ttl: 1h}}}}}
routes:
  ip: {hostnames: [ip.test], backends: {ip: 1}}
  header: {hostnames: [header.test], backends: {header: 1}}
  cookie: {hostnames: [cookie.test], backends: {cookie: 1}}
  # Two services of one route hash different things.
  both: {hostnames: [both.test], backends: {header: 1, cookie: 1}}
`

func serve(t *testing.T) *golden.Envoy {
	var backends []any
	for i := range 3 {
		backends = append(backends, golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, fmt.Sprint("backend ", i))
		}))
	}
	return golden.Serve(t, fmt.Sprintf(live, backends...), loadbalancer.Kind)
}

// asked is the backends that answered 20 requests.
func asked(t *testing.T, envoy *golden.Envoy, host string, headers ...string) map[string]bool {
	seen := map[string]bool{}
	for range 20 {
		seen[envoy.Ask(t, "GET", host, "/", headers...).Body] = true
	}
	return seen
}

func TestEqualRequestsGoToOneEndpoint(t *testing.T) {
	envoy := serve(t)
	if seen := asked(t, envoy, "ip.test"); len(seen) != 1 {
		t.Errorf("one address went to %v", seen)
	}
	users := map[string]bool{}
	for i := range 20 {
		seen := asked(t, envoy, "header.test", "x-user", fmt.Sprint("user", i))
		if len(seen) != 1 {
			t.Errorf("user %d went to %v", i, seen)
		}
		for backend := range seen {
			users[backend] = true
		}
	}
	if len(users) != 3 {
		t.Errorf("20 users went to %v only", users)
	}
	if seen := asked(t, envoy, "header.test"); len(seen) == 1 {
		t.Errorf("requests without the header all went to %v", seen)
	}
}

func TestCookieIsGivenAndKept(t *testing.T) {
	envoy := serve(t)
	first := envoy.Ask(t, "GET", "cookie.test", "/")
	given := first.Header.Get("set-cookie")
	for _, part := range []string{"lb=", "Max-Age=3600", "Path=/", "HttpOnly", "SameSite=Lax"} {
		if !strings.Contains(given, part) {
			t.Errorf("set-cookie is %q, without %s", given, part)
		}
	}
	cookie, _, _ := strings.Cut(given, ";")
	if seen := asked(t, envoy, "cookie.test", "cookie", cookie); len(seen) != 1 || !seen[first.Body] {
		t.Errorf("the cookie of %s went to %v", first.Body, seen)
	}
	if seen := asked(t, envoy, "both.test", "cookie", cookie, "x-user", "a"); len(seen) > 2 {
		t.Errorf("one endpoint of each service was to be asked, got %v", seen)
	}
}
