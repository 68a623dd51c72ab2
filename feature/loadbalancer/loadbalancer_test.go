package loadbalancer_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/loadbalancer"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", loadbalancer.Kind) }

// named runs backends that answer with their names.
func named(t *testing.T, names ...string) []any {
	var addresses []any
	for _, name := range names {
		addresses = append(addresses, golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) }))
	}
	return addresses
}

// asked is how many of n requests each backend answered, by what it said.
func asked(t *testing.T, envoy *golden.Envoy, n int, host string, headers ...string) map[string]int {
	return askedAt(t, envoy, n, host, "/", headers...)
}

func askedAt(t *testing.T, envoy *golden.Envoy, n int, host, path string, headers ...string) map[string]int {
	seen := map[string]int{}
	for range n {
		seen[envoy.Ask(t, "GET", host, path, headers...).Body]++
	}
	return seen
}

const hashed = `
gateways: {edge: {listeners: {http: {port: 10000, behind: true}}}}
services:
  ip: {endpoints: [%[1]q, %[2]q, %[3]q], loadBalancer: {maglev: {by: ip, tableSize: 1021}}}
  header: {endpoints: [%[1]q, %[2]q, %[3]q], loadBalancer: {ringHash: {by: {header: x-user}}}}
  query: {endpoints: [%[1]q, %[2]q, %[3]q], loadBalancer: {ringHash: {by: {query: user}}}}
  first: {endpoints: [%[1]q, %[2]q, %[3]q], loadBalancer: {maglev: {by: [{header: x-user}, {query: user}, ip]}}}
  cookie: {endpoints: [%[1]q, %[2]q, %[3]q], loadBalancer: {maglev: {by: {cookie: {name: lb, ttl: 1h}}}}}
routes:
  ip: {hostnames: [ip.test], backends: {ip: 1}}
  header: {hostnames: [header.test], backends: {header: 1}}
  query: {hostnames: [query.test], backends: {query: 1}}
  first: {hostnames: [first.test], backends: {first: 1}}
  cookie: {hostnames: [cookie.test], backends: {cookie: 1}}
  # Two services of one route hash different things.
  both: {hostnames: [both.test], backends: {header: 1, cookie: 1}}
`

func TestEqualRequestsGoToOneEndpoint(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(hashed, named(t, "a", "b", "c")...), loadbalancer.Kind, behind)
	for _, test := range []struct {
		host, path, header string // of user %d
		anyone             bool   // a request with none of it goes anywhere
	}{
		{host: "ip.test", header: "10.0.0.%d"}, // what the trusted balancer before us says of the client
		{host: "header.test", header: "user%d", anyone: true},
		{host: "query.test", path: "?user=%d", anyone: true},
		{host: "first.test", header: "user%d"},
		{host: "first.test", path: "?user=%d"},
	} {
		name := "x-user"
		if test.host == "ip.test" {
			name = "x-forwarded-for"
		}
		users := map[string]int{}
		for i := range 20 {
			var headers []string
			if test.header != "" {
				headers = []string{name, fmt.Sprintf(test.header, i)}
			}
			path := "/" + strings.ReplaceAll(test.path, "%d", fmt.Sprint(i))
			seen := askedAt(t, envoy, 5, test.host, path, headers...)
			if len(seen) != 1 {
				t.Errorf("%s %s: user %d went to %v", test.host, path, i, seen)
			}
			for backend := range seen {
				users[backend]++
			}
		}
		if len(users) != 3 {
			t.Errorf("%s: 20 users went to %v only", test.host, users)
		}
		if seen := asked(t, envoy, 20, test.host); (len(seen) > 1) != test.anyone {
			t.Errorf("%s: requests that say nothing went to %v", test.host, seen)
		}
	}
}

func TestCookieIsGivenAndKept(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(hashed, named(t, "a", "b", "c")...), loadbalancer.Kind, behind)
	first := envoy.Ask(t, "GET", "cookie.test", "/")
	given := first.Header.Get("set-cookie")
	for _, part := range []string{"lb=", "Max-Age=3600", "Path=/", "HttpOnly", "SameSite=Lax"} {
		if !strings.Contains(given, part) {
			t.Errorf("set-cookie is %q, without %s", given, part)
		}
	}
	cookie, _, _ := strings.Cut(given, ";")
	if seen := asked(t, envoy, 20, "cookie.test", "cookie", cookie); len(seen) != 1 || seen[first.Body] == 0 {
		t.Errorf("the cookie of %s went to %v", first.Body, seen)
	}
	if seen := asked(t, envoy, 20, "both.test", "cookie", cookie, "x-user", "a"); len(seen) > 2 {
		t.Errorf("one endpoint of each service was to be asked, got %v", seen)
	}
}

const busy = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  bound: {endpoints: [%[1]q, %[2]q], loadBalancer: {ringHash: {by: {header: x-user}, balanceFactor: 100%%}}}
  unbound: {endpoints: [%[1]q, %[2]q], loadBalancer: {ringHash: {by: {header: x-user}}}}
  least: {endpoints: [%[1]q, %[2]q], loadBalancer: {leastRequest: {fullScan: true}}}
routes:
  bound: {hostnames: [bound.test], backends: {bound: 1}}
  unbound: {hostnames: [unbound.test], backends: {unbound: 1}}
  least: {hostnames: [least.test], backends: {least: 1}}
`

// Six requests stay open, all of one user: two endpoints share them by leastRequest, and by a hash with a bound as soon
// as one has more than its share.
func TestBusyEndpointIsPassedBy(t *testing.T) {
	const open = 6
	release := make(chan struct{})
	arrived := make(chan string)
	var addresses []any
	for _, name := range []string{"a", "b"} {
		addresses = append(addresses, golden.Backend(t, func(http.ResponseWriter, *http.Request) {
			arrived <- name
			<-release
		}))
	}
	envoy := golden.Serve(t, fmt.Sprintf(busy, addresses...), loadbalancer.Kind)
	for host, least := range map[string]int{"bound.test": 1, "unbound.test": 0, "least.test": open / 2} {
		var asking sync.WaitGroup
		held := map[string]int{}
		for range open {
			asking.Go(func() { envoy.Ask(t, "GET", host, "/", "x-user", "one") })
			held[<-arrived]++
		}
		if got := min(held["a"], held["b"]); got < least || least == 0 && got > 0 {
			t.Errorf("%s: six requests at once went to %v", host, held)
		}
		for range open {
			release <- struct{}{}
		}
		asking.Wait()
	}
}

const reporting = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  orders:
    endpoints: [%q, %q]
    loadBalancer: {clientSideWeightedRoundRobin: {metrics: [named_metrics.queue], blackoutPeriod: 0s, weightUpdatePeriod: 100ms}}
routes:
  orders: {hostnames: [a.test], backends: {orders: 1}}
`

func TestLoadedEndpointIsAskedLess(t *testing.T) {
	var addresses []any
	for name, queue := range map[string]float64{"loaded": .9, "idle": .1} {
		addresses = append(addresses, golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("endpoint-load-metrics", fmt.Sprintf("TEXT rps_fractional=100,named_metrics.queue=%g", queue))
			io.WriteString(w, name)
		}))
	}
	envoy := golden.Serve(t, fmt.Sprintf(reporting, addresses...), loadbalancer.Kind)
	if got := envoy.Ask(t, "GET", "a.test", "/").Header.Get("endpoint-load-metrics"); got != "" {
		t.Errorf("the client was told %q", got)
	}
	golden.Eventually(t, "nine of ten requests go to the idle endpoint", func() bool {
		return asked(t, envoy, 100, "a.test")["idle"] >= 85
	})
}

const raw = `
gateways: {edge: {listeners: {raw: {port: 10000, protocol: TCP}}}}
services: {orders: {endpoints: [%q, %q, %q], loadBalancer: {maglev: {by: [{header: x-user}, ip]}}}}
routes: {raw: {listeners: [raw], backends: {orders: 1}}}
`

// A connection of TCP has an address, but no header.
func TestConnectionsOfOneClientGoToOneEndpoint(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(raw, named(t, "a", "b", "c")...), loadbalancer.Kind)
	seen := map[string]bool{}
	for range 20 {
		seen[envoy.Raw(t, "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").Body] = true
	}
	if len(seen) != 1 {
		t.Errorf("20 connections of one client went to %v", seen)
	}
}

const weighted = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  turns: {endpoints: [%[1]q, {address: %[2]q, weight: 9}]}
  least: {endpoints: [%[1]q, {address: %[2]q, weight: 9}], loadBalancer: leastRequest}
  random: {endpoints: [%[1]q, {address: %[2]q, weight: 9}], loadBalancer: random}
routes:
  turns: {hostnames: [turns.test], backends: {turns: 1}}
  least: {hostnames: [least.test], backends: {least: 1}}
  random: {hostnames: [random.test], backends: {random: 1}}
`

func TestWeights(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(weighted, named(t, "light", "heavy")...), loadbalancer.Kind)
	for host, bounds := range map[string][2]int{"turns.test": {170, 190}, "least.test": {170, 190}, "random.test": {60, 140}} {
		if heavy := asked(t, envoy, 200, host)["heavy"]; heavy < bounds[0] || heavy > bounds[1] {
			t.Errorf("%s: %d of 200 requests went to the endpoint of weight 9, want %d to %d", host, heavy, bounds[0], bounds[1])
		}
	}
}
