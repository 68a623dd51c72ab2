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
	if f.host == nil || a.first("x-forwarded-proto") == "" && manager.GetUseRemoteAddress().GetValue() {
		return f // a proxy that says nothing of the scheme finds no route
	}
	var unsure string
	if f.routes, unsure = d.matcher.listFor(f.host, a); unsure != "" {
		f.unsure = append(f.unsure, unsure)
	}
	for i, r := range f.routes {
		miss := d.matcher.misses(r.Match, a)
		if miss == nil {
			f.route, f.index = r, i
			return f
		}
		if miss.unsure != "" {
			f.unsure = append(f.unsure, "the route "+r.Name+" may answer: "+miss.unsure)
		}
	}
	return f
}

// main tells whether the route is the one that a policy wrote, and not one that a setting has put just before it.
func (f found) main() bool {
	return f.index+1 >= len(f.routes) || f.routes[f.index+1].Name != f.route.Name
}

// host is the virtual host that stands for a host: it alone, the longest wildcard above it, or all.
func (d *door) host(manager *hcmv3.HttpConnectionManager, host string) *routev3.VirtualHost {
	name := manager.GetRds().GetRouteConfigName()
	if manager.GetScopedRoutes() != nil {
		name = envoy.ScopedTable(d.gateway, d.listener, host)
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
