package envoy

import (
	"fmt"
	"maps"
	"slices"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	directresponsev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/envoyproxy/go-control-plane/pkg/wellknown"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// connectAttempts is how many endpoints are tried for a connection, 5 s each unless the service says otherwise; Envoy by
// itself tries one.
const connectAttempts = 3

// connectionChains is the filter chains of a listener of TCP or TLS.
func (t *translation) connectionChains(
	c ListenerContext, network []*listenerv3.Filter, used services,
) []*listenerv3.FilterChain {
	routes := connectionRoutes(c)
	switch {
	case len(routes) == 0:
		return nowhere(network)
	case c.Listener.Protocol == policy.TCP:
		return t.tcpChains(c, routes, network, used)
	case len(c.Listener.Certificates) == 0:
		return t.passthroughChains(c, routes, network, used)
	default:
		return t.terminatedChains(c, routes, network, used)
	}
}

// tcpChains sends every connection to the backends of the one route that the listener has.
func (t *translation) tcpChains(
	c ListenerContext, routes []*policy.BoundRoute, network []*listenerv3.Filter, used services,
) []*listenerv3.FilterChain {
	if len(routes) > 1 {
		t.problem(routes[1].Pos, "routes."+routes[1].Name, "the listener "+c.Listener.Name+" of TCP has a route already",
			"give it a listener of its own: nothing tells connections of TCP apart", routes[0].Pos)
	}
	return []*listenerv3.FilterChain{{
		Name:    routes[0].Name,
		Filters: t.tcpFilters(c, routes[0], network, used),
	}}
}

// passthroughChains sends connections on as they are, by the server name that the client asks for: a chain for each
// route. TLS ends at the backends.
func (t *translation) passthroughChains(
	c ListenerContext, routes []*policy.BoundRoute, network []*listenerv3.Filter, used services,
) []*listenerv3.FilterChain {
	t.byServerName(c, routes)
	var chains []*listenerv3.FilterChain
	for _, r := range routes {
		filters := t.tcpFilters(c, r, network, used)
		chains = append(chains, sniChains(r.Name, r.Hostnames, filters, nil)...)
	}
	return chains
}

// terminatedChains ends TLS and sends what was in it to the backends of the route for the server name: a chain for each
// route and certificate.
func (t *translation) terminatedChains(
	c ListenerContext, routes []*policy.BoundRoute, network []*listenerv3.Filter, used services,
) []*listenerv3.FilterChain {
	certs, byName := certificatesOf(c), t.byServerName(c, routes)
	t.checkCovered(c, routes, certs)
	names := slices.AppendSeq(slices.Clone(certs.names), maps.Keys(byName))
	slices.Sort(names)

	// Whatever a client asks for falls under one of the names of routes and certificates; the nearest of each serve it.
	type pair struct{ route, certificate string }
	served := make(map[pair][]string)
	for _, name := range slices.Compact(names) {
		route, certificate := nearest(byName, name), nearest(certs.by, name)
		if route != "" && certificate != "" {
			p := pair{byName[route].Name, certificate}
			served[p] = append(served[p], name)
		}
	}
	var chains []*listenerv3.FilterChain
	for _, r := range routes {
		filters := t.tcpFilters(c, r, network, used)
		for _, certificate := range certs.names {
			if names := served[pair{r.Name, certificate}]; len(names) > 0 {
				socket := t.downstreamTLS(c, certs.by[certificate])
				chains = append(chains, sniChains(r.Name+"/"+certificate, names, filters, socket)...)
			}
		}
	}
	return chains
}

// connectionRoutes is the routes of a listener of TCP or TLS, in order of precedence.
func connectionRoutes(c ListenerContext) []*policy.BoundRoute {
	var routes []*policy.BoundRoute
	for _, r := range c.Model.Bound[c.Gateway] {
		if r.Layer4 && r.On(c.Listener) {
			routes = append(routes, r)
		}
	}
	return routes
}

// byServerName is the routes by their hostnames. Envoy refuses a listener where two have the same.
func (t *translation) byServerName(c ListenerContext, routes []*policy.BoundRoute) map[string]*policy.BoundRoute {
	by := make(map[string]*policy.BoundRoute)
	for _, r := range routes {
		for _, name := range r.Hostnames {
			if first := by[name]; first != nil {
				t.problem(r.Pos, "routes."+r.Name+".hostnames",
					fmt.Sprintf("the route %s has the hostname %s on the listener %s already", first.Name, name, c.Listener.Name),
					"nothing else tells connections apart", first.Pos)
				continue
			}
			by[name] = r
		}
	}
	return by
}

// checkCovered reports hostnames that no certificate of the listener is for. Of "*" it is enough that there is one.
func (t *translation) checkCovered(c ListenerContext, routes []*policy.BoundRoute, certs certificates) {
	for _, r := range routes {
		for _, name := range r.Hostnames {
			if name != anyName && nearest(certs.by, name) == "" {
				t.problem(r.Pos, "routes."+r.Name+".hostnames",
					fmt.Sprintf("no certificate of the listener %s is for %s", c.Listener.Name, name),
					"add one to certificates, or one without a hostname for all names", c.Listener.Pos)
			}
		}
	}
}

// nowhere closes connections at once: Envoy refuses a listener without a filter chain.
func nowhere(network []*listenerv3.Filter) []*listenerv3.FilterChain {
	closes := networkFilter("envoy.filters.network.direct_response", &directresponsev3.Config{})
	return []*listenerv3.FilterChain{{Name: "nowhere", Filters: append(network, closes)}}
}

// tcpFilters is the network filters of a chain, the last of which sends connections to a route's backends.
func (t *translation) tcpFilters(
	c ListenerContext, r *policy.BoundRoute, network []*listenerv3.Filter, used services,
) []*listenerv3.Filter {
	proxy := tcpProxy(r)
	if len(r.Backends) == 0 {
		t.problem(r.Pos, "routes."+r.Name, "the route has no backends", "add backends: {SERVICE: 1}")
	}
	for s := range contributions[TCPContributor](c) {
		if m := s.TCP(TCPContext{ListenerContext: c}); m != nil {
			overlay(proxy, m)
		}
	}
	for _, s := range policy.Each[TCPContributor](r.Settings) {
		if m := s.TCP(TCPContext{ListenerContext: c, Route: r}); m != nil {
			overlay(proxy, m)
		}
	}
	t.patch(proxy, c.Listener.Settings)
	if err := proxy.ValidateAll(); err != nil && len(r.Backends) > 0 {
		t.problem(r.Pos, "routes."+r.Name, "Envoy would refuse this: "+err.Error(), "")
	}
	used.ofConnections(proxy)
	chain := append(network, networkFilter(wellknown.TCPProxy, proxy))
	if len(proxy.AccessLog) > 0 {
		return labelledConnections(chain)
	}
	return chain
}

// tcpProxy is ours before the settings.
func tcpProxy(r *policy.BoundRoute) *tcpproxyv3.TcpProxy {
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix:         r.Name,
		IdleTimeout:        durationpb.New(time.Hour),
		MaxConnectAttempts: wrapperspb.UInt32(connectAttempts),
	}
	if len(r.Backends) == 1 {
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: r.Backends[0].Service.Name}
		return proxy
	}
	weighted := new(tcpproxyv3.TcpProxy_WeightedCluster)
	for _, b := range r.Backends {
		weighted.Clusters = append(weighted.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{
			Name: b.Service.Name, Weight: b.Weight,
		})
	}
	proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: weighted}
	return proxy
}
