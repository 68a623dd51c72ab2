package envoy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

func from(sources ...string) func(*policy.BoundRoute) {
	return func(r *policy.BoundRoute) {
		for _, s := range sources {
			r.Match.Source = append(r.Match.Source, netip.MustParsePrefix(s))
		}
	}
}

// TestSource asks the real Envoy for routes by the client's address, as a trusted proxy tells it.
func TestSource(t *testing.T) {
	behind, scoped := httpListener("behind"), httpListener("scoped")
	scoped.PerHost = true
	for _, l := range []*policy.Listener{behind, scoped} {
		l.Settings = policy.Settings{set(toyKind, &toy{http: &hcmv3.HttpConnectionManager{XffNumTrustedHops: 1}})}
	}
	preflight := answers(204, "")
	preflight.Match = &routev3.RouteMatch{Headers: []*routev3.HeaderMatcher{{
		Name:                 "x-preflight",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
	}}}
	inner := named("inner", "app.test", "/", from("10.1.2.0/23", "2001:db8:8000::/33"))
	inner.Settings = policy.Settings{set(toyKind, &toy{route: envoy.RouteParts{
		Route: answers(200, "inner"), Before: []*routev3.Route{preflight},
	}})}
	m := modelOf([]*policy.Listener{behind, scoped, httpListener("direct")},
		named("first", "app.test", "/first"),
		named("one", "app.test", "/", from("10.1.2.3/32", "2001:db8::1/128")),
		inner,
		named("outer", "app.test", "/", from("10.0.0.0/9", "2001:db8::/31", "::ffff:192.168.0.0/112")),
		named("home", "app.test", "/home", from("127.0.0.0/8", "::1/128")),
		named("other", "other.test", "/", from("0.0.0.0/0")),
		named("four", "both.test", "/", from("10.0.0.0/8")),
		named("six", "both.test", "/", from("::/0")),
		named("six-too", "both.test", "/six", from("::/0")),
		named("rest", "app.test", "/"),
	)
	addresses := live(t, m)
	for client, want := range map[string]string{
		"10.1.2.3": "one", "10.1.2.2": "inner", "10.1.3.255": "inner", "10.1.4.0": "outer", "10.127.255.255": "outer",
		"10.128.0.0": "rest", "9.255.255.255": "rest", "110.1.2.3": "rest", "192.168.7.7": "outer",
		"2001:db8::1": "one", "2001:DB8:0:0::0001": "one", "2001:db8::2": "outer", "2001:db8:7fff:ffff::1": "outer",
		"2001:db8:8000::": "inner", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": "inner", "2001:db9:8000::1": "outer",
		"2001:dba::1": "rest", "::1": "rest",
		// So a proxy may write a client of IPv4.
		"::ffff:10.1.2.3": "one", "::ffff:a01:202": "inner", "::ffff:10.128.0.0": "rest", "::ffff:192.168.7.7": "outer",
	} {
		for _, listener := range []string{"behind", "scoped"} {
			header := "x-forwarded-for: 10.1.2.3, " + client // what stands before was not added by the trusted proxy
			if got := get(t, addresses[listener], "app.test", "/", header); got.body != want {
				t.Errorf("%s: %s got %q, want %q", listener, client, got.body, want)
			}
			if got := get(t, addresses[listener], "app.test", "/", header, "x-preflight: 1"); (got.code == 204) != (want == "inner") {
				t.Errorf("%s: preflight of %s: %d", listener, client, got.code)
			}
			if got := get(t, addresses[listener], "app.test", "/first", header); got.body != "first" {
				t.Errorf("%s: a route before: %s got %q", listener, client, got.body)
			}
		}
		want := 404
		if netip.MustParseAddr(client).Unmap().Is4() {
			want = 200
		}
		if got := get(t, addresses["behind"], "other.test", "/", "x-forwarded-for: "+client); got.code != want {
			t.Errorf("other.test: %s: %d, want %d", client, got.code, want)
		}
	}
	for client, want := range map[string]string{"10.1.2.3": "four", "::ffff:10.1.2.3": "four", "2001:db8::1": "six"} {
		if got := get(t, addresses["behind"], "both.test", "/", "x-forwarded-for: "+client); got.body != want {
			t.Errorf("both.test: %s got %q, want %q", client, got.body, want)
		}
	}
	for path, want := range map[string]string{"/home": "home", "/": "rest"} {
		if got := get(t, addresses["direct"], "app.test", path, "x-forwarded-for: 10.1.2.3"); got.body != want {
			t.Errorf("a client that names another address: %s got %q, want %q", path, got.body, want)
		}
	}
	if got := raw(t, addresses["behind"], "TRACE / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 10.1.2.3\r\n\r\n"); got.code != 405 {
		t.Errorf("TRACE: %d", got.code)
	}
}

// TestManyNetworksCostLittle holds that many networks in one set cost one list of routes, and many sets none: they are
// told before anything is made of them.
func TestManyNetworksCostLittle(t *testing.T) {
	address := func(i int) string { return fmt.Sprintf("10.%d.%d.1/32", i>>8, i&0xff) }
	var networks []string
	for i := range 9000 {
		networks = append(networks, address(i))
	}
	var sets []*policy.BoundRoute
	for i := range 2000 {
		sets = append(sets, named(fmt.Sprint("all", i), "app.test", fmt.Sprint("/", i)),
			named(fmt.Sprint("some", i), "app.test", fmt.Sprint("/", i), from(address(i))))
	}
	for name, test := range map[string]struct {
		routes  []*policy.BoundRoute
		refused bool
	}{
		"networks": {[]*policy.BoundRoute{named("r", "app.test", "/", from(networks...))}, false},
		"sets":     {sets, true},
	} {
		m := modelOf([]*policy.Listener{httpListener("http")}, test.routes...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := envoy.Translate(m, testKinds)
		runtime.ReadMemStats(&after)
		if (err != nil) != test.refused {
			t.Errorf("%s: %v", name, err)
		}
		if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 100 {
			t.Errorf("%s: %d MiB allocated", name, got)
		}
	}
}

func TestTooManySources(t *testing.T) {
	var routes []*policy.BoundRoute
	for i := range 200 {
		routes = append(routes, named(fmt.Sprint("r", i), "app.test", fmt.Sprint("/", i), from(fmt.Sprintf("10.0.%d.0/24", i))))
	}
	_, err := envoy.Translate(modelOf([]*policy.Listener{httpListener("http")}, routes...), testKinds)
	if p, ok := errors.AsType[*policy.Problem](err); !ok || p.Pos != routes[0].Pos || !strings.Contains(err.Error(), "the 200 routes of this host are for so many different sets of clients") {
		t.Errorf("got %v", err)
	}
}
