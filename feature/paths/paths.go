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
var Kind = policy.Define[Setting]("paths", policy.Layers, doc)

// Setting is what stands under paths: strict, the default, or lenient.
type Setting string

// lenient lets paths through that strict refuses.
const lenient = "lenient"

// Values are the choices.
func (Setting) Values() []string { return []string{"strict", lenient} }

// Check has nothing to add: every choice is good everywhere.
func (*Setting) Check(*policy.Check) {}

const (
	filter = "legation.guard"
	// denial names the policy that refuses; envoy's local replies turn its 403 into 400.
	denial = "guard"
	// tricky is a path that two readers may take for two paths: parameters (;), backslashes, encoded NUL, percent,
	// slash and backslash, overlong UTF-8, broken percent signs, anything but visible ASCII. The query is left alone.
	// Envoy has normalised the path before. RE2 may make at most 100 instructions of it, else Envoy refuses it.
	tricky = `[^?]*(;|\\|%00|%25|%2[fF]|%5[cC]|%[cC][01]|%([^0-9a-fA-F]|$|[0-9a-fA-F]([^0-9a-fA-F]|$))|[^\x21-\x7e]).*`
)

// Filters puts the guard first into every chain, switched on, also for requests that no route matches.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Guard, Config: guard(), Enabled: true}}
}

// Route switches the guard off where the route takes any path.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	if *s != lenient {
		return envoy.RouteParts{}
	}
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: envoy.Off}}
}

func guard() *rbacfilterv3.RBAC {
	return &rbacfilterv3.RBAC{
		Rules: &rbacv3.RBAC{
			Action: rbacv3.RBAC_DENY,
			Policies: map[string]*rbacv3.Policy{denial: {
				Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Header{Header: pathMatches(tricky)}}},
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
