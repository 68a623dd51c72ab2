package envoy

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

const (
	// plainHost is a name or an address and nothing else. Envoy has taken one port and one trailing dot away before.
	// Whatever else stands there, it compares as text: "admin.test,x.b.test", from two Host lines, is below *.b.test,
	// "admin.test:80" of "admin.test:80:80" is some other host, and a backend may read either as admin.test.
	plainHost = `[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]`
	// plainMethod is a method in upper case. HTTP/2 takes any word; a route for POST doesn't match post, which the next
	// route may let through to a backend that knows no case.
	plainMethod = `[A-Z][A-Z0-9_-]*`
)

// gate refuses hosts and methods that two readers may take for two, with 400. It stands in every chain, acts also where
// no route matches, and no setting switches it off.
func gate() Filter {
	return Filter{Name: "legation.gate", Phase: Guard, Enabled: true, Config: &rbacfilterv3.RBAC{
		Rules: &rbacv3.RBAC{
			Action: rbacv3.RBAC_DENY,
			Policies: map[string]*rbacv3.Policy{guardPolicy: {
				Permissions: []*rbacv3.Permission{unless(":authority", plainHost), unless(":method", plainMethod)},
				Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
			}},
		},
	}}
}

// unless holds for all requests but those with a header whose whole value an expression matches.
func unless(header, regex string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: &rbacv3.Permission{
		Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
			Name: header,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: safeRegex(regex)},
			}},
		}},
	}}}
}
