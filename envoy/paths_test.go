package envoy_test

import (
	"testing"

	"github.com/legation/legation/policy"
)

// TestPathsAndHosts holds the table of path and host tricks: what the real Envoy answers with the settings that we
// generate. /admin is refused by a filter that stands where auth does; /public has it switched off.
func TestPathsAndHosts(t *testing.T) {
	s := service("web", upstream(t))
	public := route("public", "app.test", "/public", to(s))
	public.Settings = policy.Settings{set0(doorKind)}
	addresses := live(t, modelOf([]*policy.Listener{httpListener("http")}, public, route("all", "app.test", "/", to(s))))
	address := addresses["http"]

	paths := map[string]int{
		"/":                               200,
		"/hello?x=1":                      200,
		"/hello?x=%2f;%25":                200,
		"/admin":                          403,
		"//admin":                         403,
		"/./admin":                        403,
		"/x/../admin":                     403,
		"/%61dmin":                        403,
		"/%2e%2e/admin":                   403,
		"/public/../admin":                403,
		"http://app.test/public/../admin": 403,
		"/public/..%2fadmin":              400,
		"/public/..%2Fadmin":              400,
		"/public/..%5cadmin":              400,
		`/public/..\admin`:                403,
		`/\admin`:                         403,
		"/public/..;/admin":               403,
		"/public/..;x=1/admin":            403,
		"/;/admin":                        400,
		"/public/a;b":                     400,
		"/public/%252e%252e%252fadmin":    400,
		"/public/%25%32%65":               400,
		"/%c0%afadmin":                    400,
		"/%zz":                            400,
		"/%":                              400,
		"/public/%00":                     400,
		"/admin#fragment":                 400,
		"*":                               400,
		"admin":                           400,
		"/\x80":                           400,
		"/public":                         200,
		"/public/":                        200,
		"/public/x":                       200,
	}
	for path, want := range paths {
		if got := get(t, address, "app.test", path); got.code != want {
			t.Errorf("path %q: %d %s, want %d", path, got.code, got.body, want)
		}
	}
	hosts := map[string]int{
		"app.test": 200, "APP.test": 200, "app.test:80": 200, "app.test:8443": 200, "app.test.": 200,
		"app.test..": 400, "app.test:x": 400, "app.test:": 400, "app.test:80:80": 400, "x@app.test": 400, "a,b": 400, "": 400,
		"app.test/": 400, "app.test\\": 400, "app%2etest": 400, ".app.test": 400, "*.test": 400, "\xe2\x80\x8bapp.test": 400,
		"other.test": 404, "x.app.test": 404, "[::1]": 404, "[::1]:80": 404, "127.0.0.1:8080": 404, "a_b.test": 404,
	}
	for host, want := range hosts {
		if got := get(t, address, host, "/"); got.code != want {
			t.Errorf("host %q: %d %s, want %d", host, got.code, got.body, want)
		}
	}
}

// TestHostsBesideOthers holds the hosts that only look as if they were below a wildcard, or another one than the host
// with auth. The exact hosts' routes lead nowhere, so that 200 is the wildcard's.
func TestHostsBesideOthers(t *testing.T) {
	s, gone := service("web", upstream(t)), service("gone", closedPort(t))
	for _, perHost := range []bool{false, true} {
		l := httpListener("http")
		l.PerHost = perHost
		routes := []*policy.BoundRoute{
			route("admin", "admin.test", "/", to(gone)), route("below", "admin.b.test", "/", to(gone)), route("wild", "*.b.test", "/", to(s)),
		}
		if !perHost {
			routes = append(routes, route("any", "*", "/", to(s)))
		}
		address := live(t, modelOf([]*policy.Listener{l}, routes...))["http"]
		for _, host := range []string{
			"admin.b.test,admin.b.test", "admin.b.test\r\nHost: admin.b.test", "admin.b.test:.b.test", "admin.b.test:80.b.test",
			"x@admin.b.test", "admin.b.test/.b.test", "admin.b.test#.b.test", "admin.b.test?.b.test", `admin.b.test\.b.test`,
			"admin.b.test:80,admin.b.test", ".b.test", "..b.test", "admin.test:", "admin.test..", "admin.test:80:80",
			"x@admin.test", "admin.test\r\nHost: admin.test", "admin.test\r\nHost: x.b.test", "admin.test x", "'admin.test'", "",
		} {
			if got := get(t, address, host, "/"); got.code != 400 {
				t.Errorf("per host %t, host %q: %d %s, want 400", perHost, host, got.code, got.body)
			}
		}
		upper := 503
		if perHost {
			upper = 404 // nothing makes a scope's key lower case
		}
		for host, want := range map[string]int{
			"admin.test": 503, "admin.test:80.": 503, "admin.b.test.:80": 503, "x.b.test:80": 200, "a_b.b.test": 200,
			"ADMIN.test": upper, "admin.B.TEST": upper, "Admin.b.test": 503,
		} {
			if got := get(t, address, host, "/"); got.code != want {
				t.Errorf("per host %t, host %q: %d %s, want %d", perHost, host, got.code, got.body, want)
			}
		}
	}
}

func set0(k *policy.Kind) policy.Set {
	return policy.Set{Kind: k, Setting: k.New(), Node: &policy.Node{}}
}
