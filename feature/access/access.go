// Package access lets clients in or keeps them out by their addresses: the key access. [envoy.Translate] calls it.
package access

import (
	_ "embed"
	"net/netip"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

//go:embed doc.md
var doc string

// Kind is the key access.
var Kind = policy.Define[Setting]("access", policy.Layers, doc)

// Setting is what stands under access.
type Setting struct {
	Allow []policy.Range `policy:"allow" doc:"the clients that may come: addresses and ranges such as 10.0.0.0/8; default: all"`
	Deny  []policy.Range `policy:"deny" doc:"the clients that may not come, whatever allow says"`
}

// maxRanges bounds each list: Envoy goes through it one by one for every request.
const maxRanges = 1000

// Check refuses lists that say nothing, and tells of ranges that deny makes pointless.
func (s *Setting) Check(c *policy.Check) {
	if s.Allow == nil && s.Deny == nil && c.Route() != nil {
		c.Errorf("", "says nothing: want allow, deny or both").Hintf("write access: {allow: [10.0.0.0/8]}")
	}
	checkList(c, "allow", s.Allow)
	checkList(c, "deny", s.Deny)
	for i, a := range s.Allow {
		for _, d := range s.Deny {
			if d.Covers(a) {
				c.Warnf(policy.Item("allow", i), "nobody of %s gets in: deny wins, and it has %s", a, d).
					Hintf("a more specific range does not count more; write the ranges around it into deny")
				break
			}
		}
	}
}

func checkList(c *policy.Check, list string, ranges []policy.Range) {
	if ranges != nil && len(ranges) == 0 {
		c.Errorf(list, "name at least one address or range").Hintf("leave %s out, or write `%[1]s: off` to take an outer layer's away", list)
	}
	if len(ranges) > maxRanges {
		c.Errorf(list, "want at most %d ranges: Envoy compares them one by one for each request", maxRanges)
	}
	seen := make(map[policy.Range]bool, len(ranges))
	for i, r := range ranges {
		if seen[r] {
			c.Warnf(policy.Item(list, i), "%s stands here twice", r)
		}
		seen[r] = true
	}
}

const filter = "legation.access"

// Filters puts the filter at the door: who may not come sees nothing, not even the answer to a preflight.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Guard, Config: &rbacfilterv3.RBAC{}}}
}

// Route gives the filter the route's ranges.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	config := &rbacfilterv3.RBACPerRoute{Rbac: &rbacfilterv3.RBAC{Rules: s.rules()}}
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: config}}
}

// rules lets in whom allow has and deny doesn't. Envoy's word for others is 403.
func (s *Setting) rules() *rbacv3.RBAC {
	var ids []*rbacv3.Principal
	if len(s.Allow) > 0 {
		ids = append(ids, anyOf(s.Allow))
	}
	if len(s.Deny) > 0 {
		ids = append(ids, &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: anyOf(s.Deny)}})
	}
	return &rbacv3.RBAC{
		Action: rbacv3.RBAC_ALLOW,
		Policies: map[string]*rbacv3.Policy{"access": {
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}},
			Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: ids}}}},
		}},
	}
}

// anyOf is the clients whose address is in one of the ranges. It is the address that Envoy trusts: the peer's, or what
// a trusted proxy says.
func anyOf(ranges []policy.Range) *rbacv3.Principal {
	var ids []*rbacv3.Principal
	for _, r := range ranges {
		for _, one := range envoy.ClientRanges(netip.Prefix(r)) {
			ids = append(ids, &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: one}})
		}
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: ids}}}
}
