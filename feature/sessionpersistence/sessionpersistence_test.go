package sessionpersistence_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/sessionpersistence"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", sessionpersistence.Kind, retryKind, tokenKind)
}

// token stands for a way to tell who calls: it sets the header of its name.
type token string

var tokenKind = policy.Define[token]("token", policy.InAuth, "")

func (*token) Check(*policy.Check)      {}
func (h *token) StripHeaders() []string { return []string{string(*h)} }

// retry stands for the key of that name: one where the endpoint can't be connected to, at another endpoint.
type retry bool

var retryKind = policy.Define[retry]("retry", policy.InRoute, "")

func (*retry) Check(*policy.Check) {}

func (*retry) Route(envoy.RouteContext) envoy.RouteParts {
	config, _ := anypb.New(&previoushostsv3.PreviousHostsPredicate{})
	action := &routev3.RouteAction{RetryPolicy: &routev3.RetryPolicy{
		RetryOn: "connect-failure",
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: config},
		}},
		HostSelectionRetryMaxAttempts: 10,
	}}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}

// wary stands for outlier detection: one 5xx, and the endpoint is out.
type wary bool

var waryKind = policy.Define[wary]("wary", policy.InService, "")

func (*wary) Check(*policy.Check) {}

func (*wary) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	return &clusterv3.Cluster{OutlierDetection: &clusterv3.OutlierDetection{
		Consecutive_5Xx:          wrapperspb.UInt32(1),
		EnforcingConsecutive_5Xx: wrapperspb.UInt32(100),
		MaxEjectionPercent:       wrapperspb.UInt32(100),
	}}
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  three: {endpoints: [%q, %q, %q]}
  wary: {endpoints: [%[1]q, %[2]q], wary: true}
  other: {endpoints: [%[4]q]}
  half: {endpoints: [%[1]q, %[5]q]}
routes:
  cookie: {hostnames: [a.test], match: {path: /cookie}, backends: {three: 1}, sessionPersistence: {cookie: s}}
  ttl: {hostnames: [a.test], match: {path: /ttl}, backends: {three: 1}, sessionPersistence: {cookie: {name: s, ttl: 1h, path: /ttl}}}
  strict: {hostnames: [a.test], match: {path: /strict}, backends: {three: 1}, sessionPersistence: {cookie: s, strict: true}}
  header: {hostnames: [a.test], match: {path: /header}, backends: {three: 1}, sessionPersistence: {header: x-session}}
  strict-header: {hostnames: [a.test], match: {path: /strict-header}, backends: {three: 1}, sessionPersistence: {header: x-session, strict: true}}
  wary: {hostnames: [a.test], match: {path: /wary}, backends: {wary: 1}, sessionPersistence: {cookie: s}}
  strict-wary: {hostnames: [a.test], match: {path: /strict-wary}, backends: {wary: 1}, sessionPersistence: {cookie: s, strict: true}}
  dead: {hostnames: [a.test], match: {path: /dead}, backends: {half: 1}, sessionPersistence: {cookie: s}}
  again: {hostnames: [a.test], match: {path: /again}, backends: {half: 1}, retry: true, sessionPersistence: {cookie: s}}
  strict-again: {hostnames: [a.test], match: {path: /strict-again}, backends: {half: 1}, retry: true, sessionPersistence: {cookie: s, strict: true}}
`

// serve runs an Envoy in front of endpoints that answer their names, or 500 when asked to fail. dead is an endpoint of
// the service half, other the one of another service.
func serve(t *testing.T) (edge *golden.Envoy, addresses []string, dead, other string) {
	t.Helper()
	for i := range 3 {
		addresses = append(addresses, golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Fail") != "" {
				w.WriteHeader(500)
			}
			fmt.Fprint(w, i)
		}))
	}
	dead = golden.Dead(t)
	other = golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "other") })
	text := fmt.Sprintf(live, addresses[0], addresses[1], addresses[2], other, dead)
	return golden.Serve(t, text, sessionpersistence.Kind, retryKind, waryKind), addresses, dead, other
}

// session is the cookie of a session at an address, as Envoy writes it: a protobuf message whose first field it is.
func session(address string) string {
	return "s=" + base64.StdEncoding.EncodeToString([]byte("\n"+string(byte(len(address)))+address))
}

func TestClientsStay(t *testing.T) {
	edge, addresses, _, _ := serve(t)
	for _, tt := range []struct{ path, cookie string }{
		{"/cookie", `^s="[A-Za-z0-9+/]+=*"; Path=/; SameSite=Lax; HttpOnly$`},
		{"/ttl", `^s="[A-Za-z0-9+/]+=*"; Max-Age=3600; Path=/ttl; SameSite=Lax; HttpOnly$`},
	} {
		first := edge.Ask(t, "GET", "a.test", tt.path)
		given := first.Header.Get("Set-Cookie")
		if !regexp.MustCompile(tt.cookie).MatchString(given) {
			t.Fatalf("%s: got the cookie %s", tt.path, given)
		}
		cookie, _, _ := strings.Cut(given, ";")
		for range 6 {
			if got := edge.Ask(t, "GET", "a.test", tt.path, "Cookie", "a=b; "+cookie); got.Body != first.Body || got.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s: got %q, cookie %q, want %q again and no cookie", tt.path, got.Body, got.Header.Get("Set-Cookie"), first.Body)
			}
		}
	}
	first := edge.Ask(t, "GET", "a.test", "/header")
	given, err := base64.StdEncoding.DecodeString(first.Header.Get("X-Session"))
	if want := addresses[first.Body[0]-'0']; err != nil || string(given) != want {
		t.Fatalf("got the header %q, %v, want %s encoded", given, err, want)
	}
	for range 6 {
		got := edge.Ask(t, "GET", "a.test", "/header", "X-Session", first.Header.Get("X-Session"))
		if got.Body != first.Body || got.Header.Get("X-Session") != "" {
			t.Errorf("got %q, header %q, want %q again and no header", got.Body, got.Header.Get("X-Session"), first.Body)
		}
	}
}

func TestSessionsThatLeadNowhere(t *testing.T) {
	edge, addresses, _, other := serve(t)
	for _, tt := range []struct {
		name, path, header, value string
		status                    int
	}{
		{"no session", "/strict", "Cookie", "", 200},
		{"nonsense", "/strict", "Cookie", "s=%%%", 200},
		{"a gone endpoint", "/cookie", "Cookie", session("192.0.2.1:80"), 200},
		{"a gone endpoint", "/strict", "Cookie", session("192.0.2.1:80"), 503},
		{"another service", "/cookie", "Cookie", session(other), 200},
		{"another service", "/strict", "Cookie", session(other), 503},
		{"another cookie", "/strict", "Cookie", "t" + session("192.0.2.1:80")[1:], 200},
		{"a gone endpoint", "/header", "X-Session", base64.StdEncoding.EncodeToString([]byte("192.0.2.1:80")), 200},
		{"a gone endpoint", "/strict-header", "X-Session", base64.StdEncoding.EncodeToString([]byte("192.0.2.1:80")), 503},
	} {
		got := edge.Ask(t, "GET", "a.test", tt.path, tt.header, tt.value)
		if got.Status != tt.status || got.Body == "other" {
			t.Errorf("%s, %s: got %d %q, want %d", tt.path, tt.name, got.Status, got.Body, tt.status)
		}
		if given := got.Header.Get("Set-Cookie") + got.Header.Get("X-Session"); (given != "") != (tt.status == 200) {
			t.Errorf("%s, %s: %d gave the session %q", tt.path, tt.name, got.Status, given)
		}
	}
	for i, address := range addresses {
		if got := edge.Ask(t, "GET", "a.test", "/strict", "Cookie", session(address)); got.Body != fmt.Sprint(i) {
			t.Errorf("the session of endpoint %d came to %q", i, got.Body)
		}
	}
}

func TestUnhealthyEndpoints(t *testing.T) {
	edge, addresses, _, _ := serve(t)
	cookie := session(addresses[0])
	if got := edge.Ask(t, "GET", "a.test", "/wary", "Cookie", cookie, "X-Fail", "yes"); got.Status != 500 || got.Body != "0" {
		t.Fatalf("got %d %q, want the endpoint's own 500", got.Status, got.Body)
	}
	// It is out once Envoy's main thread has told the worker.
	out := func() bool { return edge.Ask(t, "GET", "a.test", "/strict-wary", "Cookie", cookie).Status == 503 }
	for range 10_000 {
		if out() {
			break
		}
	}
	if !out() {
		t.Error("strict: the unhealthy endpoint still answers")
	}
	if got := edge.Ask(t, "GET", "a.test", "/wary", "Cookie", cookie); got.Body != "1" || got.Header.Get("Set-Cookie") == "" {
		t.Errorf("got %d %q, want another endpoint and its session", got.Status, got.Body)
	}
}

// Envoy finds it out with the first request; a retry leaves the endpoint, strict or not.
func TestDeadEndpoints(t *testing.T) {
	edge, _, dead, _ := serve(t)
	for path, want := range map[string]int{"/dead": 503, "/again": 200, "/strict-again": 200} {
		got := edge.Ask(t, "GET", "a.test", path, "Cookie", session(dead))
		if got.Status != want || (got.Header.Get("Set-Cookie") != "") != (want == 200) {
			t.Errorf("%s: got %d, cookie %q, want %d", path, got.Status, got.Header.Get("Set-Cookie"), want)
		}
	}
}

func TestCookieIsSecureOverTLSOnly(t *testing.T) {
	plain := &policy.Listener{Entry: policy.Entry{Name: "http"}, Protocol: policy.HTTP}
	tls := &policy.Listener{Entry: policy.Entry{Name: "https"}, Protocol: policy.HTTPS}
	redirects := &policy.Listener{Entry: policy.Entry{Name: "http"}, Protocol: policy.HTTP, RedirectPort: 443}
	for _, tt := range []struct {
		name      string
		listeners []*policy.Listener
		on        []string
		want      bool
	}{
		{"HTTP", []*policy.Listener{plain}, nil, false},
		{"HTTPS", []*policy.Listener{tls}, nil, true},
		{"both", []*policy.Listener{plain, tls}, nil, false},
		{"both, and the route on one", []*policy.Listener{plain, tls}, []string{"https"}, true},
		{"HTTP redirects", []*policy.Listener{redirects, tls}, nil, true},
	} {
		s := &sessionpersistence.Setting{Cookie: &sessionpersistence.Cookie{Name: "s"}}
		r := &policy.BoundRoute{Route: &policy.Route{Listeners: tt.on}, Gateway: &policy.Gateway{Listeners: tt.listeners}}
		got := slices.ContainsFunc(cookie(t, s.Route(envoy.RouteContext{Route: r})).Attributes, func(a *httpv3.CookieAttribute) bool {
			return a.Name == "Secure"
		})
		if got != tt.want {
			t.Errorf("%s: got Secure %t, want %t", tt.name, got, tt.want)
		}
	}
}

// cookie is the one that a route's filter gives.
func cookie(t *testing.T, parts envoy.RouteParts) *httpv3.Cookie {
	t.Helper()
	filter := parts.Filters["legation.session_persistence"].(*filterv3.StatefulSessionPerRoute)
	state := new(cookiev3.CookieBasedSessionState)
	if err := filter.GetStatefulSession().SessionState.TypedConfig.UnmarshalTo(state); err != nil {
		t.Fatal(err)
	}
	return state.Cookie
}
