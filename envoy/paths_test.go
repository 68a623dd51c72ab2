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
		"app.test..": 404, "app.test:x": 404, "x@app.test": 404, "a,b": 404, "other.test": 404, "": 404,
		"x.app.test": 404,
	}
	for host, want := range hosts {
		if got := get(t, address, host, "/"); got.code != want {
			t.Errorf("host %q: %d %s, want %d", host, got.code, got.body, want)
		}
	}
}

func set0(k *policy.Kind) policy.Set {
	return policy.Set{Kind: k, Setting: k.New(), Node: &policy.Node{}}
}
