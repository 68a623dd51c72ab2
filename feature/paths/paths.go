// Package paths is the key paths: whether a route takes paths that backends are known to read in another way than
// Envoy does. envoy asks it for the guard at the door of every chain.
package paths

import (
	_ "embed"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

//go:embed doc.md
var doc string

// Kind is the key paths.
var Kind = policy.Define[Setting]("paths", policy.Layers, doc).ForApp()

// Setting is what stands under paths: strict, the default, or lenient.
type Setting string

// lenient lets paths through that strict refuses.
const lenient = "lenient"

// Values are the choices.
func (Setting) Values() []string { return []string{"strict", lenient} }

// TakesAnyPath tells whether the route takes paths that two readers may take for two.
func (s *Setting) TakesAnyPath() bool { return *s == lenient }

// Check has nothing to add: every choice is good everywhere.
func (*Setting) Check(*policy.Check) {}

const (
	filter = "legation.guard"
	// denial names the policy that refuses; envoy's local replies turn its 403 into 400.
	denial = "guard"
)

// tricky is the paths that two readers may take for two paths. The query is left alone; Envoy has normalised the path
// before. RE2 may make at most 100 instructions of each, else Envoy refuses it.
var tricky = []string{
	// Parameters (;), brackets, which Envoy's templates don't match, backslashes, encoded percent signs and slashes, broken
	// escapes, anything but visible ASCII.
	`[^?]*([;[\\\]]|%25|%2[fF]|%3[bB]|%5[cC]|%([^0-9a-fA-F]|$|[0-9a-fA-F]([^0-9a-fA-F]|$))|[^\x21-\x7e]).*`,
	// Encoded controls (NUL, line ends …), overlong UTF-8 of two to four bytes, and what no UTF-8 has.
	`[^?]*%([01][0-9a-fA-F]|7[fF]|[cC][01]|[eE]0%[89]|[fF]0%8|[fF][5-9a-fA-F]).*`,
	// Segments that end in a dot or a space: some servers drop it.
	`[^?]*(\.|%20)([/?].*)?`,
}

// Filters puts the guard into every chain before what looks at the path, switched on also where no route matches.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Guard, Config: guard(), Enabled: true}}
}

// Route switches the guard off where the route takes any path.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	if !s.TakesAnyPath() {
		return envoy.RouteParts{}
	}
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: envoy.Off}}
}

func guard() *rbacfilterv3.RBAC {
	var permissions []*rbacv3.Permission
	for _, regex := range tricky {
		permissions = append(permissions, &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: pathMatches(regex)}})
	}
	return &rbacfilterv3.RBAC{
		Rules: &rbacv3.RBAC{
			Action: rbacv3.RBAC_DENY,
			Policies: map[string]*rbacv3.Policy{denial: {
				Permissions: permissions,
				Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
			}},
		},
	}
}

func pathMatches(regex string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: ":path",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: regex}},
		}},
	}
}
