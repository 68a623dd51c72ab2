package paths_test

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/paths"
	"github.com/legation/legation/policy"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", paths.Kind) }

// Envoy matches the whole of :path, after it has normalised it.
func TestGuardRefusesTrickyPaths(t *testing.T) {
	filter := paths.Kind.New().(envoy.FilterContributor).Filters(envoy.ListenerContext{})[0]
	var guards []*regexp.Regexp
	for _, p := range filter.Config.(*rbacfilterv3.RBAC).Rules.Policies["guard"].Permissions {
		expr := p.GetHeader().GetStringMatch().GetSafeRegex().Regex
		if err := policy.CheckRegex(expr); err != nil {
			t.Errorf("Envoy would refuse the guard: %v", err)
		}
		guards = append(guards, regexp.MustCompile("^(?:"+expr+")$"))
	}
	for path, refused := range map[string]bool{
		"/":                   false,
		"/orders/7?x=;%25":    false,
		"/a%20b%C3%A4":        false,
		"/a-b_c~d!$&'()*+,=@": false,
		"/?q=%zz\\":           false,
		"/?q=a%0a%3b.":        false,
		"/?q=a.&r=%20":        false,
		"/v1.2/a%20b.txt":     false,
		"/.well-known/x":      false,
		"/%e2%80%8b":          false,
		"/%F0%9F%98%80":       false,
		"/%e0%a0%80":          false,
		"/a?b=/c./d":          false,
		"/c%23/what%3f":       false,
		"/a%3bb":              true,
		"/%3B/admin":          true,
		"/public/..%3b/admin": true,
		"/..%e0%80%afadmin":   true,
		"/..%E0%9F%BFadmin":   true,
		"/%f0%80%80%afadmin":  true,
		"/%F0%8F%BF%BF":       true,
		"/%f8%80%80%80%af":    true,
		"/%ff":                true,
		"/admin%0a":           true,
		"/admin%0D%0A":        true,
		"/admin%09":           true,
		"/admin%1F":           true,
		"/admin%7f":           true,
		"/admin%20":           true,
		"/admin%20/x":         true,
		"/admin%20?x":         true,
		"/admin.":             true,
		"/admin./x":           true,
		"/admin.?x":           true,
		"/admin...":           true,
		"/a;b":                true,
		"/;/admin":            true,
		`/a\b`:                true,
		"/a[b":                true,
		"/a]b":                true,
		"/a?b[c]=d":           false,
		"/a%5bb%5d":           false,
		"/%00":                true,
		"/%252e%252e%252f":    true,
		"/%25%32%65":          true,
		"/%2f":                true,
		"/%5C":                true,
		"/%c0%af":             true,
		"/%uff0e":             true,
		"/%zz":                true,
		"/%":                  true,
		"/%?":                 true,
		"/%a":                 true,
		"/%a?b":               true,
		"/\x80":               true,
		"/a b":                true,
	} {
		matches := func(guard *regexp.Regexp) bool { return guard.MatchString(path) }
		if got := slices.ContainsFunc(guards, matches); got != refused {
			t.Errorf("%q: got refused %t, want %t", path, got, refused)
		}
	}
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {web: {endpoints: [%q]}}
routes:
  web: {hostnames: [a.test], backends: {web: 1}}
  lenient: {hostnames: [a.test], match: {path: /lenient}, backends: {web: 1}, paths: lenient}
  any: {hostnames: ["*"], match: {path: /lenient}, backends: {web: 1}, paths: lenient}
`

func TestTrickyPathsReachLenientRoutesOnly(t *testing.T) {
	edge := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo)), paths.Kind)
	ask := func(host, path string) golden.Answer {
		t.Helper()
		return edge.Raw(t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	}
	for _, tail := range []string{
		";b", "%3bb", "%0a", "%7f", "%e0%80%afadmin", "%f0%80%80%afadmin", "%ff", "%20", "./x", "%252e",
	} {
		if got := ask("a.test", "/public/a"+tail); got.Status != 400 {
			t.Errorf("/public/a%s: %d %s, want 400", tail, got.Status, got.Body)
		}
		if got := ask("a.test", "/lenient/a"+tail); got.Status != 200 || got.Received(t).Path != "/lenient/a"+tail {
			t.Errorf("/lenient/a%s: %d %s, want it to reach the backend", tail, got.Status, got.Body)
		}
		if got := ask("a.test", "/public?x=a"+tail); got.Status != 200 {
			t.Errorf("/public?x=a%s: %d %s, want 200: queries are free", tail, got.Status, got.Body)
		}
	}
	for _, host := range []string{"a.test:80:80", "x@a.test", "a.test,a.test", ""} {
		if got := ask(host, "/lenient"); got.Status != 400 {
			t.Errorf("host %q: %d %s, want 400: lenient is about paths", host, got.Status, got.Body)
		}
	}
}
