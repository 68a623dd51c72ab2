package paths_test

import (
	"regexp"
	"testing"

	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/paths"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", paths.Kind) }

// Envoy matches the whole of :path, after it has normalised it.
func TestGuardRefusesTrickyPaths(t *testing.T) {
	filter := paths.Kind.New().(envoy.FilterContributor).Filters(envoy.ListenerContext{})[0]
	permission := filter.Config.(*rbacfilterv3.RBAC).Rules.Policies["guard"].Permissions[0]
	guard := regexp.MustCompile("^(?:" + permission.GetHeader().GetStringMatch().GetSafeRegex().Regex + ")$")
	for path, refused := range map[string]bool{
		"/":                   false,
		"/orders/7?x=;%25":    false,
		"/a%20b%C3%A4":        false,
		"/a-b_c~d!$&'()*+,=@": false,
		"/?q=%zz\\":           false,
		"/a;b":                true,
		"/;/admin":            true,
		`/a\b`:                true,
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
		if got := guard.MatchString(path); got != refused {
			t.Errorf("%q: got refused %t, want %t", path, got, refused)
		}
	}
}
