package envoy

import (
	"fmt"
	"net/netip"
	"slices"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// This file is routes for some clients only. A route's match knows no address, and neither has anything an address to
// show it yet where routes are chosen but the request itself: filters run later, headers are changed before Envoy has
// found out who the client is, and expressions over the header that tells it can't say all networks of IPv6 and are
// bounded to a few of IPv4. A virtual host can look the client's address up first, as Envoy trusts it, in a tree of
// networks; then it goes through a list of routes. So there is a list for each set of networks that are in the same
// conditions: nearly always two, with the routes for the network and without.

// maxCopies is how many routes one host may come to by its lists.
const maxCopies = 20000

// network is a range of addresses, and the routes of a host that it is a source of, by their numbers.
type network struct {
	netip.Prefix
	routes []int
}

// sourcesOf is the networks that the routes of a host ask for, each once. A smaller one within a larger is a source of
// the larger one's routes too.
func sourcesOf(all []made) []network {
	var found []network
	for _, m := range all {
		for _, p := range m.Match.Source {
			p = plain(p)
			if !slices.ContainsFunc(found, func(n network) bool { return n.Prefix == p }) {
				found = append(found, network{Prefix: p})
			}
		}
	}
	for i, n := range found {
		for number, m := range all {
			if slices.ContainsFunc(m.Match.Source, func(p netip.Prefix) bool { return within(n.Prefix, plain(p)) }) {
				found[i].routes = append(found[i].routes, number)
			}
		}
	}
	return found
}

// plain is a network as Envoy compares it: without what lies beyond its bits, and of IPv4 where it stands for that.
func plain(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

func within(inner, outer netip.Prefix) bool {
	return inner.Bits() >= outer.Bits() && outer.Contains(inner.Addr())
}

// bySource chooses the list of routes by the client's address, those without a source being in every list.
func (t *translation) bySource(sources []network, all []made, f frame) *matcherv3.Matcher {
	var order []string
	lists := make(map[string]*matcherv3.IPMatcher_IPRangeMatcher)
	for _, n := range sources {
		key := fmt.Sprint(n.routes)
		if lists[key] == nil {
			order = append(order, key)
			lists[key] = &matcherv3.IPMatcher_IPRangeMatcher{OnMatch: f.list(all, n.routes)}
		}
		lists[key].Ranges = append(lists[key].Ranges, &xdscorev3.CidrRange{
			AddressPrefix: n.Addr().String(),
			PrefixLen:     wrapperspb.UInt32(uint32(n.Bits())),
		})
	}
	if copies := len(all) * (1 + len(order)); copies > maxCopies {
		t.problem(all[0].Pos, "routes."+all[0].Name,
			fmt.Sprintf("the routes of this host differ by %d sets of sources, which come to %d routes", len(order), copies),
			"have fewer different match.source, or more hosts")
	}
	tree := new(matcherv3.IPMatcher)
	for _, key := range order {
		tree.RangeMatchers = append(tree.RangeMatchers, lists[key])
	}
	return &matcherv3.Matcher{
		MatcherType: &matcherv3.Matcher_MatcherTree_{MatcherTree: &matcherv3.Matcher_MatcherTree{
			Input: extension("envoy.matching.inputs.source_ip", &networkv3.SourceIPInput{}),
			TreeType: &matcherv3.Matcher_MatcherTree_CustomMatch{
				CustomMatch: extension("envoy.matching.custom_matchers.ip_range_matcher", tree),
			},
		}},
		OnNoMatch: f.list(all, nil),
	}
}

// list is the routes in their order: those with one of the numbers and those that are for all clients.
func (f frame) list(all []made, numbers []int) *matcherv3.Matcher_OnMatch {
	var some []made
	for number, m := range all {
		if len(m.Match.Source) == 0 || slices.Contains(numbers, number) {
			some = append(some, m)
		}
	}
	return &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{
		Action: extension("routes", &routev3.RouteList{Routes: f.around(some)}),
	}}
}

func extension(name string, config proto.Message) *xdscorev3.TypedExtensionConfig {
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: pack(config)}
}
