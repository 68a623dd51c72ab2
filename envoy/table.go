package envoy

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// table is the routes of one gateway by hostname, and the services that they send to.
type table struct {
	routes   map[string][]*routev3.Route // in order of precedence
	pos      map[string]policy.Pos       // of the first route of a hostname
	services map[string]bool
}

// table makes every route of a gateway once, whatever the number of its hostnames and listeners.
func (t *translation) table(gw *policy.Gateway) *table {
	tab := &table{
		routes:   make(map[string][]*routev3.Route),
		pos:      make(map[string]policy.Pos),
		services: make(map[string]bool),
	}
	for _, r := range gw.Routes {
		routes := t.route(r)
		for _, one := range routes {
			markServices(one, tab.services)
		}
		for _, host := range r.Hostnames {
			if len(tab.routes[host]) == 0 {
				tab.pos[host] = r.Pos
			}
			tab.routes[host] = append(tab.routes[host], routes...)
		}
	}
	return tab
}

// hosts makes the virtual hosts, sorted by name. There is none for hosts that no route names: they get 404.
func (tab *table) hosts(filters []Filter) []*routev3.VirtualHost {
	names := slices.Sorted(maps.Keys(tab.routes))
	trace := traceRoute(filters)
	hosts := make([]*routev3.VirtualHost, 0, len(names))
	for _, name := range names {
		hosts = append(hosts, &routev3.VirtualHost{
			Name:    name,
			Domains: []string{name},
			Routes:  append([]*routev3.Route{trace}, tab.routes[name]...),
		})
	}
	return hosts
}

// routeConfiguration is the route table of a listener; Envoy looks the virtual host up in it, the most specific first.
func routeConfiguration(name string, hosts []*routev3.VirtualHost) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name:                    name,
		VirtualHosts:            hosts,
		ResponseHeadersToRemove: backendHeaders,
		// A route may set what is removed here; Envoy's own order has the outermost say the last word.
		MostSpecificHeaderMutationsWins: true,
		MaxDirectResponseBodySizeBytes:  wrapperspb.UInt32(64 << 10), // Envoy's 4 KiB is little for a page
	}
}

// traceRoute refuses TRACE, which echoes back what the request carries. Envoy forwards it. No filter has any say: it
// would call the auth service for nothing.
func traceRoute(filters []Filter) *routev3.Route {
	off := make(map[string]*anypb.Any)
	for _, f := range filters {
		if f.Enabled {
			off[f.Name] = packedOff
		}
	}
	return &routev3.Route{
		Name: "legation.trace",
		Match: &routev3.RouteMatch{
			PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"},
			Headers:       []*routev3.HeaderMatcher{methodMatch([]string{"TRACE"})},
		},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: 405,
			Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{
				InlineString: `{"error":"method not allowed"}`,
			}},
		}},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: "content-type", Value: "application/json"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
		TypedPerFilterConfig: off,
	}
}

// markServices notes the clusters that a route sends to or mirrors to.
func markServices(r *routev3.Route, used map[string]bool) {
	action := r.GetRoute()
	if c := action.GetCluster(); c != "" {
		used[c] = true
	}
	for _, w := range action.GetWeightedClusters().GetClusters() {
		used[w.GetName()] = true
	}
	for _, m := range action.GetRequestMirrorPolicies() {
		used[m.GetCluster()] = true
	}
}
