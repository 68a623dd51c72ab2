package envoy_test

import (
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// named is a route that answers with its own name.
func named(name, host, prefix string, change ...func(*policy.BoundRoute)) *policy.BoundRoute {
	r := route(name, host, prefix)
	r.Settings = policy.Settings{set(toyKind, &toy{route: envoy.RouteParts{Route: answers(200, name)}})}
	for _, c := range change {
		c(r)
	}
	return r
}

func exactPath(path string) func(*policy.BoundRoute) {
	return func(r *policy.BoundRoute) { r.Match.Path = policy.PathMatch{Kind: policy.PathExact, Value: path} }
}

func regexPath(re string) func(*policy.BoundRoute) {
	return func(r *policy.BoundRoute) { r.Match.Path = policy.PathMatch{Kind: policy.PathRegex, Value: re} }
}

func methods(m ...string) func(*policy.BoundRoute) {
	return func(r *policy.BoundRoute) { r.Match.Methods = m }
}

func matchHeader(v policy.ValueMatch) func(*policy.BoundRoute) {
	return func(r *policy.BoundRoute) { r.Match.Headers = append(r.Match.Headers, v) }
}

func matchQuery(v policy.ValueMatch) func(*policy.BoundRoute) {
	return func(r *policy.BoundRoute) { r.Match.Query = append(r.Match.Query, v) }
}

// TestRoutesMatch asks the real Envoy which route answers.
func TestRoutesMatch(t *testing.T) {
	m := modelOf([]*policy.Listener{httpListener("http")},
		named("exact", "app.test", "", exactPath("/a/exact")),
		named("prefix", "app.test", "/a/b/"),
		named("write", "app.test", "/a", methods("POST", "PUT")),
		named("delete", "app.test", "/a", methods("DELETE")),
		named("tenant", "app.test", "/a", matchHeader(policy.ValueMatch{Name: "x-tenant", Exact: "acme"})),
		named("beta", "app.test", "/a", matchHeader(policy.ValueMatch{Name: "x-beta", Regex: "y.*"})),
		named("there", "app.test", "/a", matchHeader(policy.ValueMatch{Name: "x-there", Present: new(true)})),
		named("debug", "app.test", "/a", matchQuery(policy.ValueMatch{Name: "debug", Exact: "1"})),
		named("page", "app.test", "/a", matchQuery(policy.ValueMatch{Name: "page", Present: new(true)})),
		named("a", "app.test", "/a"),
		named("regex", "app.test", "", regexPath("/v[0-9]+")),
		named("no-cookie", "app.test", "/c", matchHeader(policy.ValueMatch{Name: "cookie", Present: new(false)})),
		named("below", "*.app.test", "/"),
		named("exact-below", "one.app.test", "/one"),
	)
	address := live(t, m)["http"]
	rows := []struct {
		method, host, path, header string
		want                       string // 404 when empty
	}{
		{"GET", "app.test", "/a/exact", "", "exact"},
		{"GET", "app.test", "/a/exact?x", "", "exact"},
		{"GET", "app.test", "/a/exact/", "", "a"},
		{"GET", "app.test", "/a/b", "", "prefix"},
		{"GET", "app.test", "/a/b/c", "", "prefix"},
		{"GET", "app.test", "/a/bc", "", "a"},
		{"PUT", "app.test", "/a", "", "write"},
		{"DELETE", "app.test", "/a", "", "delete"},
		{"GET", "app.test", "/a", "x-tenant: acme", "tenant"},
		{"GET", "app.test", "/a", "x-tenant: acme2", "a"},
		{"GET", "app.test", "/a", "x-beta: yes", "beta"},
		{"GET", "app.test", "/a", "x-beta: no yes", "a"},
		{"GET", "app.test", "/a", "x-there:", "there"},
		{"GET", "app.test", "/a?debug=1", "", "debug"},
		{"GET", "app.test", "/a?debug=2", "", "a"},
		{"GET", "app.test", "/a?page", "", "page"},
		{"GET", "app.test", "/v12", "", "regex"},
		{"GET", "app.test", "/v12/", "", ""},
		{"GET", "app.test", "/c", "", "no-cookie"},
		{"GET", "app.test", "/c", "cookie: a=b", ""},
		{"GET", "app.test", "/", "", ""},
		{"GET", "two.app.test", "/x", "", "below"},
		{"GET", "a.b.app.test", "/x", "", "below"},
		{"GET", "one.app.test", "/one", "", "exact-below"},
		{"GET", "one.app.test", "/x", "", ""}, // the most specific hostname owns the request
	}
	for _, r := range rows {
		request := r.method + " " + r.path + " HTTP/1.1\r\nHost: " + r.host + "\r\nConnection: close\r\n"
		if r.header != "" {
			request += r.header + "\r\n"
		}
		got := raw(t, address, request+"\r\n")
		if r.want == "" && got.code != 404 || r.want != "" && got.body != r.want {
			t.Errorf("%s %s%s %s: %d %q, want %q", r.method, r.host, r.path, r.header, got.code, got.body, r.want)
		}
	}
}

// TestRouteTablesPerHost asks the real Envoy through the scoped form: exact hostnames, a wildcard, and one below it.
func TestRouteTablesPerHost(t *testing.T) {
	l := httpListener("http")
	l.PerHost = true
	s := service("web", upstream(t))
	exact := modelOf([]*policy.Listener{l}, named("one", "one.test", "/"), named("two", "two.test", "/"))
	wild := modelOf([]*policy.Listener{l}, named("one", "one.test", "/"), named("below", "*.two.test", "/"),
		named("exact-below", "a.two.test", "/"), named("deep", "*.deep.two.test", "/"),
		route("web", "web.test", "/", to(s)), named("suffix", "*.test.test", "/"))
	t.Run("exact", func(t *testing.T) {
		address := live(t, exact)["http"]
		for host, want := range map[string]string{
			"one.test": "one", "two.test:80": "two", "two.test.": "two", "x.two.test": "", "three.test": "",
		} {
			expectNamed(t, address, host, want)
		}
	})
	t.Run("wildcards", func(t *testing.T) {
		address := live(t, wild)["http"]
		for host, want := range map[string]string{
			"one.test": "one", "b.two.test": "below", "b.two.test:80": "below", "b.two.test.": "below",
			"a.two.test": "exact-below", "x.deep.two.test": "deep", "deep.two.test": "below", "two.test": "",
			"one.test:8080": "one", "other.test": "", "xtwo.test": "",
		} {
			expectNamed(t, address, host, want)
		}
		if got := get(t, address, "one.test", "/", "x-legation-scope: *.two.test"); got.body != "one" {
			t.Errorf("a client chose the table: %q", got.body)
		}
		if got := get(t, address, "web.test", "/").got(t).Headers.Get("x-legation-scope"); got != "" {
			t.Errorf("the backend got the scope key %q", got)
		}
	})
}

func expectNamed(t *testing.T, address, host, want string) {
	t.Helper()
	got := get(t, address, host, "/")
	if want == "" && got.code != 404 || want != "" && got.body != want {
		t.Errorf("%s: %d %q, want %q", host, got.code, got.body, want)
	}
}

// TestBeforeAndFilters asks the real Envoy about routes that stand before another, and about switched filters.
func TestBeforeAndFilters(t *testing.T) {
	preflight := answers(204, "")
	preflight.Match = &routev3.RouteMatch{Headers: []*routev3.HeaderMatcher{{
		Name:                 "x-preflight",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
	}}}
	s := service("web", upstream(t))
	parts := envoy.RouteParts{
		Before:  []*routev3.Route{preflight},
		Filters: map[string]proto.Message{"test.door": envoy.Off},
	}
	open := route("open", "app.test", "/admin/open", to(s))
	open.Match.Methods = []string{"POST"}
	open.Settings = policy.Settings{set(toyKind, &toy{route: parts})}
	address := live(t, modelOf([]*policy.Listener{httpListener("http")}, open, route("all", "app.test", "/", to(s))))["http"]
	ask := func(request string) int {
		return raw(t, address, request+" HTTP/1.1\r\nHost: app.test\r\nx-preflight: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").code
	}
	if got := ask("OPTIONS /admin/open"); got != 204 {
		t.Errorf("the route before: %d", got)
	}
	if got := ask("OPTIONS /admin"); got != 403 {
		t.Errorf("other paths: %d", got)
	}
	if got := raw(t, address, "POST /admin/open HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n").code; got != 200 {
		t.Errorf("the route with the door switched off: %d", got)
	}
	if got := get(t, address, "app.test", "/admin/open").code; got != 403 {
		t.Errorf("the route that does not switch it off: %d", got)
	}
}
