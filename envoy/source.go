package envoy

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	inputv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
)

// This file is routes for some clients only. A route's own match knows no address; filter state, which could be compared
// with networks, holds none yet where routes are chosen, and an expression over the header that tells the address can't
// say the networks of IPv6, and only a few of IPv4 within Envoy's bound of 100 instructions. But a virtual host can have
// a header parsed as an address and compared with networks first, and then go through a list of routes. So there is a
// list for each set of networks that are in the same conditions: nearly always two, with the routes for the networks and
// without. Envoy lets such a choice look at headers only. It costs some 2 µs a request, on such hosts only.

// clientHeader is where Envoy writes the client's address that it trusts, before it looks for a route; what clients send
// under this name is removed.
const clientHeader = "x-envoy-external-address"

// maxCopies is how many routes one host may come to by its lists.
const maxCopies = 20000

// network is a range of addresses, and the routes of a host that it is a source of, by their numbers.
type network struct {
	netip.Prefix
	routes []int // ascending; shared with the networks that are a source of the same ones
}

// sourcesOf is the networks that the routes of a host ask for, each once, in the order in which they are to be looked at.
// A smaller one within a larger is a source of the larger one's routes too. None are left, and it is reported, where they
// would come to too many routes.
func (t *translation) sourcesOf(all []*made) []network {
	asked := make(map[netip.Prefix][]int) // the routes that ask for this very network
	for number, m := range all {
		for _, p := range m.Match.Source {
			p = plain(p)
			asked[p] = append(asked[p], number)
		}
	}
	sets := make(map[string][]int) // of routes, by their numbers as bytes
	found := make([]network, 0, len(asked))
	var key []byte
	for p := range asked {
		n := network{Prefix: p, routes: around(p, asked)}
		key = key[:0]
		for _, number := range n.routes {
			key = binary.AppendUvarint(key, uint64(number))
		}
		if same := sets[string(key)]; same != nil {
			n.routes = same
		} else if sets[string(key)] = n.routes; len(all)*(1+len(sets)) > maxCopies {
			t.problem(all[0].Pos, "routes."+all[0].Name,
				fmt.Sprintf("the %d routes of this host are for so many different sets of clients that they come to more than %d", len(all), maxCopies),
				"have fewer different match.source, or more hosts")
			return nil
		}
		found = append(found, n)
	}
	// The first that holds is taken. A network within another is in the conditions of both, and so comes first; one of IPv6
	// that has the mapped addresses comes last, since these are clients of IPv4.
	slices.SortFunc(found, func(a, b network) int {
		return cmp.Or(cmp.Compare(a.turn(), b.turn()), cmp.Compare(len(b.routes), len(a.routes)),
			slices.Compare(a.routes, b.routes), a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return found
}

// around is the routes that ask for a network or for one that it is within.
func around(p netip.Prefix, asked map[netip.Prefix][]int) []int {
	var routes []int
	for bits := range p.Bits() + 1 {
		routes = append(routes, asked[netip.PrefixFrom(p.Addr(), bits).Masked()]...)
	}
	slices.Sort(routes)
	return slices.Compact(routes)
}

// plain is a network as Envoy compares it: without what lies beyond its bits, and of IPv4 where it stands for that.
func plain(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= mappedBits {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-mappedBits)
	}
	return p.Masked()
}

// mappedBits is the bits that all IPv4-mapped addresses of IPv6 begin with: ::ffff:10.1.2.3.
const mappedBits = 96

// turn is 1 for a network of IPv6 that has the mapped addresses, 0 for others.
func (n network) turn() int {
	if n.Addr().Is6() && n.Contains(netip.AddrFrom16(netip.IPv4Unspecified().As16())) {
		return 1
	}
	return 0
}

// bySource chooses the list of routes by the client's address, those without a source being in every list.
func bySource(sources []network, all []*made, f frame) *matcherv3.Matcher {
	choice := new(matcherv3.Matcher_MatcherList)
	for len(sources) > 0 {
		alike := slices.IndexFunc(sources, func(n network) bool { return !slices.Equal(n.routes, sources[0].routes) })
		if alike < 0 {
			alike = len(sources)
		}
		choice.Matchers = append(choice.Matchers, &matcherv3.Matcher_MatcherList_FieldMatcher{
			Predicate: clientIn(sources[:alike]),
			OnMatch:   f.list(all, sources[0].routes),
		})
		sources = sources[alike:]
	}
	return &matcherv3.Matcher{
		MatcherType: &matcherv3.Matcher_MatcherList_{MatcherList: choice},
		OnNoMatch:   f.list(all, nil),
	}
}

// clientIn holds for clients in one of the networks.
func clientIn(networks []network) *matcherv3.Matcher_MatcherList_Predicate {
	ranges := &ipv3.Ip{StatPrefix: "source"}
	for _, n := range networks {
		ranges.CidrRanges = append(ranges.CidrRanges, ClientRanges(n.Prefix)...)
	}
	return &matcherv3.Matcher_MatcherList_Predicate{
		MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
			SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
				Input: extension("envoy.matching.inputs.request_headers", &inputv3.HttpRequestHeaderMatchInput{
					HeaderName: clientHeader,
				}),
				Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch{
					CustomMatch: extension("envoy.matching.matchers.ip", ranges),
				},
			},
		},
	}
}

// list is the routes in their order: those with one of the numbers, which ascend, and those that are for all clients.
func (f frame) list(all []*made, numbers []int) *matcherv3.Matcher_OnMatch {
	var some []*made
	for number, m := range all {
		if _, asks := slices.BinarySearch(numbers, number); asks || len(m.Match.Source) == 0 {
			some = append(some, m)
		}
	}
	return &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{
		Action: extension("routes", &routev3.RouteList{Routes: f.around(some)}),
	}}
}

func extension(name string, config proto.Message) *xdscorev3.TypedExtensionConfig {
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: Pack(config)}
}
