package auth

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// unverified matches requests whose callers Envoy does not know itself: the companion is asked about these alone. nil,
// for all, where no entry has Envoy know anybody.
func unverified(m *policy.Model) *matcherv3.MetadataMatcher {
	if !slices.ContainsFunc(m.Auth, func(a *policy.Auth) bool { return len(ownFilters(a)) > 0 }) {
		return nil
	}
	return &matcherv3.MetadataMatcher{
		Filter: envoy.VerifiedNamespace,
		Path: []*matcherv3.MetadataMatcher_PathSegment{{
			Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: envoy.VerifiedKey},
		}},
		Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: envoy.Verified},
		}}},
		Invert: true,
	}
}

// ownFilters are the filters by which Envoy itself knows the callers of an entry, as a route switches them on.
func ownFilters(a *policy.Auth) map[string]proto.Message {
	if v, ok := policy.Find[envoy.Verifier](a.Settings); ok {
		return v.VerifyFilters(a.Name)
	}
	return nil
}

// verifyFilters switches on the filters by which Envoy knows the callers of a route, where nothing needs the companion.
func (s *Setting) verifyFilters(m *policy.Model, r *policy.BoundRoute) map[string]proto.Message {
	filters, why := s.placement(&m.Common, r)
	if why != "" {
		return nil
	}
	return filters
}

// placement is the filters by which Envoy could know callers of a route, and why the companion does it nonetheless; ""
// where Envoy does.
func (s *Setting) placement(m *policy.Common, r *policy.BoundRoute) (filters map[string]proto.Message, why string) {
	filters = make(map[string]proto.Message)
	able := 0 // entries
	for _, name := range s.Of {
		i, ok := slices.BinarySearchFunc(m.Auth, name, func(a *policy.Auth, name string) int { return cmp.Compare(a.Name, name) })
		if !ok {
			continue
		}
		if own := ownFilters(m.Auth[i]); len(own) > 0 {
			maps.Copy(filters, own)
			able++
		}
	}
	rule := s.rule(m, r)
	switch {
	case able == 0:
		return nil, ""
	case able < len(s.Of):
		return filters, "another of its entries needs it"
	case rule.All && len(s.Of) > 1:
		return filters, "all of several entries are asked for"
	case len(rule.Limits) > 0 || rule.Plan != auth.NoPlan:
		return filters, "limits or a plan are counted in the same call"
	case len(rule.Metadata) > 0:
		return filters, "limits count by claims"
	}
	rule.Name, rule.Providers, rule.All = "", nil, false
	if !reflect.ValueOf(rule).IsZero() {
		return filters, "it decides by more than who calls"
	}
	return filters, ""
}

// warnPlacement tells of a route on which verify: envoy has no effect.
func (s *Setting) warnPlacement(c *policy.Check) {
	r := c.Route()
	if r == nil || s.None {
		return
	}
	if filters, why := s.placement(c.Common(), r); len(filters) > 0 && why != "" {
		c.Warnf("", "the companion verifies the tokens of the route %q, though an entry says verify: envoy: %s", r.Name, why).
			Hintf("nothing is lost but the lower cost; give the route an entry without verify: envoy to say that it is meant")
	}
}
