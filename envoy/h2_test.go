package envoy_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestPathsOverHTTP2 is the part of the table that reads the same in :path.
func TestPathsOverHTTP2(t *testing.T) {
	s := service("web", upstream(t))
	address := live(t, modelOf([]*policy.Listener{httpListener("http")}, route("all", "app.test", "/", to(s))))["http"]
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	t.Cleanup(client.CloseIdleConnections)
	method := "GET"
	ask := func(path, host string, header ...string) int {
		req := &http.Request{
			Method: method, Host: host, Header: http.Header{},
			URL: &url.URL{Scheme: "http", Host: address, Opaque: path},
		}
		for i := 0; i+1 < len(header); i += 2 {
			req.Header[header[i]] = []string{header[i+1]}
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0 // the stream was reset
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		if resp.ProtoMajor != 2 {
			t.Fatalf("spoke %s", resp.Proto)
		}
		return resp.StatusCode
	}
	for path, want := range map[string]int{
		"/": 200, "/.//admin": 403, "/x/../admin": 403, "/%61dmin": 403, "/public/..;/admin": 403, `/x/..\admin`: 403,
		"/x/..%2fadmin": 400, "/;/admin": 400, "/%252e%252e%252fadmin": 400, "/%00": 400, "/%zz": 400,
	} {
		if got := ask(path, "app.test"); got != want {
			t.Errorf("path %q: %d, want %d", path, got, want)
		}
	}
	if got := ask("/", "app.test:8443"); got != 200 {
		t.Errorf("a port in :authority: %d", got)
	}
	if got := ask("/", "other.test"); got != 404 {
		t.Errorf("an unknown host: %d", got)
	}
	for _, host := range []string{"app.test:80:80", "app.test,app.test", "app.test:x", "app.test.."} {
		if got := ask("/", host); got != 400 {
			t.Errorf("host %q: %d, want 400", host, got)
		}
	}
	for _, method = range []string{"get", "post", "Get", "trace", "Trace", "G!T"} {
		if got := ask("/", "app.test"); got != 400 {
			t.Errorf("method %s: %d, want 400", method, got)
		}
	}
	for m, want := range map[string]int{"PROPFIND": 200, "M-SEARCH": 200, "MY_METHOD2": 200, "TRACE": 405} {
		method = m
		if got := ask("/", "app.test"); got != want {
			t.Errorf("method %s: %d, want %d", method, got, want)
		}
	}
	method = "GET"
	if got := ask("/", "app.test", "x_auth_user", "root"); got != 0 {
		t.Errorf("an underscore in a header: %d, want the stream reset", got)
	}
	if got := ask("/", "app.test", "x", strings.Repeat("y", 40<<10)); got == 200 {
		t.Errorf("40 KiB of header: %d", got)
	}
}

// echo is a kind whose filter answers by itself wherever it is switched on; it has no configuration per route.
type echo struct{}

func (*echo) Check(*policy.Check) {}

func (*echo) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: "test.echo", Phase: envoy.Transform, Config: &healthv3.HealthCheck{
		PassThroughMode: wrapperspb.Bool(false),
		Headers: []*routev3.HeaderMatcher{{
			Name:                 ":method",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
		}},
	}}}
}

func (*echo) Route(envoy.RouteContext) envoy.RouteParts {
	return envoy.RouteParts{Filters: map[string]proto.Message{"test.echo": envoy.On}}
}

// RouteWithout marks the routes that do not have the key.
func (*echo) RouteWithout(envoy.RouteContext) envoy.RouteParts {
	return envoy.RouteParts{Route: &routev3.Route{ResponseHeadersToAdd: []*corev3.HeaderValueOption{{
		Header: &corev3.HeaderValue{Key: "x-without", Value: "yes"},
	}}}}
}

var echoKind = policy.Define[echo]("echo", policy.Layers, "")

func TestFilterWithoutRouteConfigIsSwitchedOn(t *testing.T) {
	s := service("gone", closedPort(t))
	on := route("on", "app.test", "/on", to(s))
	on.Settings = policy.Settings{set0(echoKind)}
	m := modelOf([]*policy.Listener{httpListener("http")}, on, route("off", "app.test", "/", to(s)))
	address := live(t, m, echoKind)["http"]
	if got := get(t, address, "app.test", "/on"); got.code != 200 || got.header.Get("x-without") != "" {
		t.Errorf("the route with the key: %d %v", got.code, got.header)
	}
	if got := get(t, address, "app.test", "/"); got.code != 503 || got.header.Get("x-without") != "yes" {
		t.Errorf("the route without it: %d %v", got.code, got.header)
	}
	if got := get(t, address, "other.test", "/"); got.code != 404 {
		t.Errorf("no route: %d", got.code)
	}
}
