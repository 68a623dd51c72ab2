package explain

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/envoy"
)

// found is what Envoy comes to when it looks a route up.
type found struct {
	host   *routev3.VirtualHost // nil where none stands for the request's host
	routes []*routev3.Route     // of the host, for this client, in the order in which they are asked
	route  *routev3.Route       // the one that takes the request; nil for none
	index  int                  // of the route among the routes
	unsure []string             // what nobody can know beforehand
}

// look finds the route of a request.
func (d *door) look(manager *hcmv3.HttpConnectionManager, a *asked) found {
	f := found{host: d.host(manager, a.Host), index: -1}
	if f.host == nil || a.first("x-forwarded-proto") == "" {
		return f // a proxy, or an app beside its sidecar, that says nothing of the scheme finds no route
	}
	routes, maybe, why := d.matcher.listFor(f.host, a)
	f.routes = routes
	f.index, f.unsure = d.first(routes, a)
	if f.index >= 0 {
		f.route = routes[f.index]
	}
	for _, list := range maybe {
		if i, _ := d.first(list, a); i >= 0 && list[i].Name != f.route.GetName() {
			f.unsure = append(f.unsure, "the route "+list[i].Name+" may answer: "+why)
		}
	}
	return f
}

// first is the first of some routes that takes a request, -1 for none, and those before that nobody can know of.
func (d *door) first(routes []*routev3.Route, a *asked) (index int, unsure []string) {
	for i, r := range routes {
		miss := d.matcher.misses(r.Match, a)
		if miss == nil {
			return i, unsure
		}
		if miss.unsure != "" {
			unsure = append(unsure, "the route "+r.Name+" may answer: "+miss.unsure)
		}
	}
	return -1, unsure
}

// main tells whether the route is the one that a policy wrote, and not one that a setting has put just before it.
func (f found) main() bool {
	return f.index+1 >= len(f.routes) || f.routes[f.index+1].Name != f.route.Name
}

// host is the virtual host that stands for a host: it alone, the longest wildcard above it, or all.
func (d *door) host(manager *hcmv3.HttpConnectionManager, host string) *routev3.VirtualHost {
	name := manager.GetRds().GetRouteConfigName()
	if manager.GetScopedRoutes() != nil {
		name = envoy.ScopedTable(d.policy.Model, d.gateway, d.listener, host)
	}
	domains := d.table(name)
	host = lowerASCII(host)
	if h := domains[host]; h != nil {
		return h
	}
	for i := 1; i < len(host); i++ {
		if h := domains["*"+host[i:]]; h != nil && host[i] == '.' {
			return h
		}
	}
	return domains["*"]
}

// table is the virtual hosts of a route table by their domains.
func (d *door) table(name string) map[string]*routev3.VirtualHost {
	if domains, have := d.tables[name]; have {
		return domains
	}
	domains := map[string]*routev3.VirtualHost{}
	if config, ok := d.resource(resource.RouteType, name).(*routev3.RouteConfiguration); ok {
		for _, h := range config.VirtualHosts {
			for _, domain := range h.Domains {
				domains[strings.ToLower(domain)] = h
			}
		}
	}
	d.tables[name] = domains
	return domains
}
