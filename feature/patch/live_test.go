package patch_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

// guard stands for auth: it refuses requests with the header x-stranger.
type guard struct{}

func (*guard) Check(*policy.Check) {}

func (*guard) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: "legation.guard", Phase: envoy.Identity, Enabled: true, Config: &rbacfilterv3.RBAC{Rules: &rbacv3.RBAC{
		Action: rbacv3.RBAC_DENY,
		Policies: map[string]*rbacv3.Policy{"strangers": {
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
				Name: "x-stranger", HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
			}}}},
			Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
		}},
	}}}}
}

const listener = `
gateways:
  edge:
    listeners:
      http:
        port: 10000
        envoy:
          http: {via: edge, alwaysSetRequestIdInResponse: true}
          filters:
            - name: a.limit
              typedConfig:
                "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
                statPrefix: added
                tokenBucket: {maxTokens: 2, fillInterval: 24h}
                filterEnabled: {defaultValue: {numerator: 100}}
                filterEnforced: {defaultValue: {numerator: 100}}
            - name: cdn
              typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.cdn_loop.v3.CdnLoopConfig, cdnId: edge.test}
services: {orders: {endpoints: [%q]}}
routes: {orders: {hostnames: [a.test], backends: {orders: 1}}}
`

func TestListenerAndAddedFilters(t *testing.T) {
	e := golden.Serve(t, fmt.Sprintf(listener, golden.Backend(t, golden.Echo)), append(kinds, policy.Define[guard]("guard", policy.InRoute, ""))...)
	for range 3 { // auth comes first: a stranger takes nothing from the bucket
		if got := e.Ask(t, "GET", "a.test", "/", "x-stranger", "1"); got.Status != 403 {
			t.Errorf("a stranger got %d, want 403", got.Status)
		}
	}
	first := e.Ask(t, "GET", "a.test", "/")
	if got := first.Received(t).Header.Get("via"); got != "edge" {
		t.Errorf("the backend got via %q", got)
	}
	if first.Header.Get("x-request-id") == "" {
		t.Error("the answer has no x-request-id")
	}
	if got := e.Ask(t, "GET", "a.test", "/", "cdn-loop", "edge.test"); got.Status != 502 {
		t.Errorf("a loop got %d, want 502", got.Status)
	}
	if got := e.Ask(t, "GET", "a.test", "/"); got.Status != 429 {
		t.Errorf("the third got %d, want 429", got.Status)
	}
	if got := e.Ask(t, "TRACE", "a.test", "/"); got.Status != 405 {
		t.Errorf("TRACE got %d, want 405 from the route that has no filters", got.Status)
	}
}

const priorities = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  orders:
    endpoints: [%q]
    circuitBreakers: {}
    envoy: {cluster: {circuitBreakers: {thresholds: [{priority: HIGH, maxRequests: 1, maxPendingRequests: 1}]}}}
routes:
  high: {hostnames: [high.test], backends: {orders: 1}, envoy: {route: {statPrefix: urgent, route: {priority: HIGH}}}}
  usual: {hostnames: [usual.test], backends: {orders: 1}}
`

func TestRouteHasItsPriority(t *testing.T) {
	came, leave := make(chan struct{}), make(chan struct{})
	backend := golden.Backend(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			came <- struct{}{}
			<-leave
		}
	})
	e := golden.Serve(t, fmt.Sprintf(priorities, backend), kinds...)
	var wait sync.WaitGroup
	wait.Go(func() {
		if got := e.Ask(t, "GET", "high.test", "/wait"); got.Status != 200 {
			t.Errorf("the first got %d", got.Status)
		}
	})
	<-came
	if got := e.Ask(t, "GET", "high.test", "/"); got.Status != 503 {
		t.Errorf("a second of HIGH priority got %d, want 503", got.Status)
	}
	if got := e.Ask(t, "GET", "usual.test", "/"); got.Status != 200 {
		t.Errorf("one of DEFAULT priority got %d, want 200", got.Status)
	}
	close(leave)
	wait.Wait()
	if got := e.Admin(t, "/stats?filter=route.urgent.upstream_rq_200"); !strings.Contains(got, ": 1") {
		t.Errorf("the route's own statistics: %q", got)
	}
}

const headerCase = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  orders:
    endpoints: [%q]
    envoy: {http: {explicitHttpConfig: {httpProtocolOptions: {headerKeyFormat: {properCaseWords: {}}}}}}
routes: {orders: {hostnames: [a.test], backends: {orders: 1}}}
`

func TestServiceGetsProperCase(t *testing.T) {
	backend := golden.Accept(t, func(conn net.Conn) {
		lines, in := "", bufio.NewReader(conn)
		for !strings.HasSuffix(lines, "\r\n\r\n") {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			lines += line
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(lines), lines)
	})
	e := golden.Serve(t, fmt.Sprintf(headerCase, backend), kinds...)
	if got := e.Ask(t, "GET", "a.test", "/", "x-color", "red"); !strings.Contains(got.Body, "\r\nX-Color: red\r\n") {
		t.Errorf("the backend got %q", got.Body)
	}
}

const connections = `
gateways:
  edge:
    listeners: {db: {port: 10000, protocol: TCP, envoy: {listener: {tcpBacklogSize: 64}, tcp: {maxConnectAttempts: 5}}}}
services: {orders: {endpoints: [%q]}}
routes: {orders: {listeners: [db], backends: {orders: 1}}}
`

func TestProxyTriesAsOftenAsThePatchSays(t *testing.T) {
	e := golden.Serve(t, fmt.Sprintf(connections, golden.Dead(t)), kinds...)
	conn, err := net.Dial("tcp", e.Address(t, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	if got := e.Admin(t, "/stats?filter=cluster.orders.upstream_cx_connect_fail$"); !strings.HasSuffix(got, ": 5\n") {
		t.Errorf("it tried: %q", got)
	}
}
