package envoy

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// table is the routes of one gateway by hostname.
type table map[string][]made

// made is a route with what was made of it: itself, after those that its features put just before it.
type made struct {
	*policy.BoundRoute
	routes []*routev3.Route
}

// table makes every route of HTTP of a gateway once, whatever the number of its hostnames and listeners.
func (t *translation) table(gw *policy.Gateway, used services) table {
	tab := make(table)
	for _, r := range t.model.Bound[gw] {
		if r.Layer4 {
			continue
		}
		one := made{r, t.route(r)}
		for _, route := range one.routes {
			used.ofRequests(route)
		}
		for _, host := range r.Hostnames {
			tab[host] = append(tab[host], one)
		}
	}
	return tab
}

// host is a virtual host, and where the first of its routes stands.
type host struct {
	*routev3.VirtualHost
	pos policy.Pos
}

// frame is the routes that stand before and after those of the policy in every virtual host of a listener.
type frame struct{ before, after []*routev3.Route }

// around is the routes one after the other, in the frame.
func (f frame) around(all []made) []*routev3.Route {
	routes := slices.Clone(f.before)
	for _, m := range all {
		routes = append(routes, m.routes...)
	}
	return append(routes, f.after...)
}

// hosts makes the virtual hosts of a listener, sorted by name. There is none for hosts that no route names: they get 404.
func (t *translation) hosts(tab table, l *policy.Listener, f frame) []host {
	hosts := make([]host, 0, len(tab))
	for _, name := range slices.Sorted(maps.Keys(tab)) {
		all := tab[name]
		if slices.ContainsFunc(all, func(m made) bool { return !m.On(l) }) {
			all = slices.DeleteFunc(slices.Clone(all), func(m made) bool { return !m.On(l) })
		}
		if len(all) == 0 {
			continue
		}
		h := host{&routev3.VirtualHost{Name: name, Domains: []string{name}}, all[0].Pos}
		if sources := t.sourcesOf(all); len(sources) > 0 {
			h.Matcher = bySource(sources, all, f)
		} else {
			h.Routes = f.around(all)
		}
		hosts = append(hosts, h)
	}
	return hosts
}

// routeConfiguration is the route table of a listener; Envoy looks the virtual host up in it, the most specific first.
func routeConfiguration(name string, hosts []host) *routev3.RouteConfiguration {
	table := &routev3.RouteConfiguration{
		Name:                    name,
		ResponseHeadersToRemove: backendHeaders,
		// A route may set what is removed here; Envoy's own order has the outermost say the last word.
		MostSpecificHeaderMutationsWins: true,
		MaxDirectResponseBodySizeBytes:  wrapperspb.UInt32(64 << 10), // Envoy's 4 KiB is little for a page
	}
	for _, h := range hosts {
		table.VirtualHosts = append(table.VirtualHosts, h.VirtualHost)
	}
	return table
}

// traceRoute refuses TRACE, which echoes back what the request carries. Envoy forwards it. No filter has any say: it
// would call the auth service for nothing.
func traceRoute(filters []Filter) *routev3.Route {
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
		TypedPerFilterConfig: switchedOff(filters, Guard),
	}
}

// switchedOff leaves the filters of a phase and the later ones out of a route.
func switchedOff(filters []Filter, from Phase) map[string]*anypb.Any {
	off := make(map[string]*anypb.Any)
	for _, f := range filters {
		if f.Enabled && f.Phase >= from {
			off[f.Name] = packedOff
		}
	}
	return off
}

// services is the names of those that are sent to.
type services map[string]bool

// ofRequests notes the clusters that a route sends to or mirrors to.
func (used services) ofRequests(r *routev3.Route) {
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

// ofConnections notes the clusters that a TCP proxy sends to.
func (used services) ofConnections(p *tcpproxyv3.TcpProxy) {
	if c := p.GetCluster(); c != "" {
		used[c] = true
	}
	for _, w := range p.GetWeightedClusters().GetClusters() {
		used[w.GetName()] = true
	}
}

// ofSettings notes the services that the settings of a gateway, its listeners and its routes send to by themselves.
func (used services) ofSettings(m *policy.Model, gw *policy.Gateway) {
	for _, settings := range settingsOf(m, gw) {
		for _, s := range policy.Each[ServiceUser](settings) {
			for _, name := range s.UsesServices() {
				used[name] = true
			}
		}
	}
}
