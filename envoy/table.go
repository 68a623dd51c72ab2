package envoy

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// host is a virtual host, and what it was made of.
type host struct {
	*routev3.VirtualHost
	site *site
}

// pos is where the first of its routes stands.
func (h host) pos() policy.Pos { return h.site.all[0].Pos }

// frame is the routes that stand before and after those of the policy in every virtual host of a listener.
type frame struct{ before, after []*routev3.Route }

// around is the routes one after the other, in the frame.
func (f frame) around(all []*made) []*routev3.Route {
	routes := slices.Clone(f.before)
	for _, m := range all {
		routes = append(routes, m.routes...)
	}
	return append(routes, f.after...)
}

// hosts makes the virtual hosts of a listener, sorted by name, but for those that were made of the same routes before.
// There is none for hosts that no route names: they get 404.
func (t *translation) hosts(s *served, l *policy.Listener, f frame, before []host) []host {
	if s.named == 0 && !new(policy.Route).On(l) {
		return nil
	}
	hosts := make([]host, 0, len(s.sites))
	for _, one := range s.sites {
		for len(before) > 0 && before[0].site.name < one.name {
			before = before[1:]
		}
		if len(before) > 0 && before[0].site == one {
			hosts = append(hosts, before[0])
		} else if h := t.host(one, l, f); h != nil {
			hosts = append(hosts, host{h, one})
		}
	}
	return hosts
}

// host is the virtual host of a name on a listener; nil without any route there.
func (t *translation) host(s *site, l *policy.Listener, f frame) *routev3.VirtualHost {
	all := s.on(l)
	if len(all) == 0 {
		return nil
	}
	h := &routev3.VirtualHost{Name: s.name, Domains: []string{s.name}}
	if sources := t.sourcesOf(all); len(sources) > 0 {
		h.Matcher = bySource(sources, all, f)
	} else {
		h.Routes = f.around(all)
	}
	return h
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

// ofSettings notes the services that settings send to by themselves.
func (used services) ofSettings(settings policy.Settings) {
	for _, s := range policy.Each[ServiceUser](settings) {
		for _, name := range s.UsesServices() {
			used[name] = true
		}
	}
}

func (used services) add(more services) {
	for name := range more {
		used[name] = true
	}
}
