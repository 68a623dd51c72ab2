package envoy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
)

// scopeHeader holds the key of a request's route table where there are wildcards. What a client sends under this
// name is overwritten, and backends don't get it.
const scopeHeader = "x-legation-scope"

// tablePrefix begins the name of a table per host; no listener's name has a slash.
const tablePrefix = "host/"

// wildcardsOf is the wildcard hostnames on a listener of a gateway, the most specific first.
func wildcardsOf(sites []*site, l *policy.Listener) []string {
	var names []string
	for _, s := range sites { // sorted: no other name begins with what comes before a star
		if !strings.HasPrefix(s.name, "*") {
			break
		}
		if s.name != "*" && len(s.on(l)) > 0 {
			names = append(names, s.name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	return names
}

// scoped tells whether a listener looks its route tables up by host. One that sends clients on to https:// has something
// to say to all hosts, and its routes are few.
func scoped(l *policy.Listener) bool { return l.PerHost && l.HTTP() && l.RedirectPort == 0 }

// scopeKeys is how the key of a request's route table comes from its host.
type scopeKeys struct {
	wildcards []string
	// prefix comes before the key where listeners serve different routes: to Envoy the tables of all listeners are one set.
	prefix string
}

// scopeKeysOf is those of a listener. All such listeners have the same, and share the tables, as long as there is only
// one or no route names the listeners that it is for; named is how many do.
func scopeKeysOf(sites []*site, named int, gw *policy.Gateway, l *policy.Listener) scopeKeys {
	keys := scopeKeys{wildcards: wildcardsOf(sites, l)}
	others := slices.ContainsFunc(gw.Listeners, func(o *policy.Listener) bool { return o != l && scoped(o) })
	if others && named > 0 {
		keys.prefix = l.Name + "/"
	}
	return keys
}

func (k scopeKeys) equal(o scopeKeys) bool {
	return k.prefix == o.prefix && slices.Equal(k.wildcards, o.wildcards)
}

// computed tells whether the host alone is not the key.
func (k scopeKeys) computed() bool { return len(k.wildcards) > 0 || k.prefix != "" }

// of is the key of the table that serves a hostname: the wildcard above it, or itself. It says the same as expression
// does for a request.
func (k scopeKeys) of(host string) string {
	for _, w := range k.wildcards {
		if strings.HasSuffix(host, w[1:]) {
			return k.prefix + w
		}
	}
	return k.prefix + host
}

func (k scopeKeys) expression() string {
	var b strings.Builder
	for _, w := range k.wildcards {
		fmt.Fprintf(&b, "request.host.endsWith('%s') ? '%s' : ", w[1:], w)
	}
	return k.prefix + "%CEL(" + b.String() + "request.host)%"
}

// mutations computes the key of the route table before routing, where the host alone is not the key. It costs some 2 µs
// a request, and a new wildcard changes the listener.
func (k scopeKeys) mutations() []*mutationv3.HeaderMutation {
	if !k.computed() {
		return nil
	}
	return []*mutationv3.HeaderMutation{{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: scopeHeader, Value: k.expression()},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}}}}
}

// scopedRoutes looks the route table up by host, so that a change costs Envoy the same whatever the number of hosts.
func (k scopeKeys) scopedRoutes() *hcmv3.HttpConnectionManager_ScopedRoutes {
	extractor := &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor{
		Name: ":authority",
		ExtractType: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index{
			Index: 0, // without a separator: the whole value
		},
	}
	if k.computed() {
		extractor.Name = scopeHeader
	}
	return &hcmv3.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcmv3.ScopedRoutes{
		Name: "hosts",
		ScopeKeyBuilder: &hcmv3.ScopedRoutes_ScopeKeyBuilder{
			Fragments: []*hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder{{
				Type: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_{
					HeaderValueExtractor: extractor,
				},
			}},
		},
		RdsConfigSource: ads(forever),
		ConfigSpecifier: &hcmv3.ScopedRoutes_ScopedRds{ScopedRds: &hcmv3.ScopedRds{
			ScopedRdsConfigSource: ads(forever),
		}},
	}}
}

// group is the hosts of one scope key, with their route table and the scope that leads to it.
type group struct {
	key          string
	hosts        []host
	table, scope Resource
}

// groups makes a route table for every scope key, and its scope, but for those that were made of the same hosts before:
// one for each exact hostname, one for a wildcard and all that is below it.
func (t *translation) groups(k scopeKeys, hosts []host, before []group) []group {
	hosts = slices.Clone(hosts)
	slices.SortStableFunc(hosts, func(a, b host) int { return cmp.Compare(k.of(a.site.name), k.of(b.site.name)) })
	groups := make([]group, 0, len(hosts))
	for len(hosts) > 0 {
		g := group{key: k.of(hosts[0].site.name)}
		n := slices.IndexFunc(hosts, func(h host) bool { return k.of(h.site.name) != g.key })
		if n < 0 {
			n = len(hosts)
		}
		g.hosts, hosts = hosts[:n:n], hosts[n:]
		for len(before) > 0 && before[0].key < g.key {
			before = before[1:]
		}
		if len(before) > 0 && before[0].key == g.key && slices.Equal(before[0].hosts, g.hosts) {
			groups = append(groups, before[0])
			continue
		}
		t.fill(&g, k)
		groups = append(groups, g)
	}
	return groups
}

// fill makes the table and the scope of a group.
func (t *translation) fill(g *group, k scopeKeys) {
	name := tablePrefix + g.key
	hosts := make([]*routev3.VirtualHost, 0, len(g.hosts))
	for _, h := range g.hosts {
		hosts = append(hosts, h.VirtualHost)
	}
	routes := routeConfiguration(name, hosts)
	if k.computed() {
		routes.RequestHeadersToRemove = []string{scopeHeader}
	}
	pos := g.hosts[0].pos()
	g.table = Resource{Type: resource.RouteType, Name: name, Message: routes, Pos: pos}
	g.scope = t.valid(Resource{Type: resource.ScopedRouteType, Name: name, Message: scope(name, g.key), Pos: pos})
}

func scope(name, key string) *routev3.ScopedRouteConfiguration {
	return &routev3.ScopedRouteConfiguration{
		Name:                   name,
		RouteConfigurationName: name,
		Key: &routev3.ScopedRouteConfiguration_Key{
			Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{{
				Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: key},
			}},
		},
	}
}

// checkPerHost refuses the hostname that no table per host can stand for: "*" is every host that has none, and to
// Envoy a scope is always one key.
func (t *translation) checkPerHost(s *served, l *policy.Listener) {
	i, found := slices.BinarySearchFunc(s.sites, "*", func(s *site, name string) int { return strings.Compare(s.name, name) })
	if !found {
		return
	}
	for _, r := range s.sites[i].on(l) {
		t.problem(r.Pos, "routes."+r.Name+".hostnames",
			fmt.Sprintf(`"*" can't be served by the listener %s, which has a route table per host`, l.Name),
			"write out the hostnames, or remove routeTables: perHost from the listener", l.Pos)
	}
}

// ScopedTable is the name of the route table by which a listener with a table per host answers a request for a host, which
// is in its normal form. There may be none of that name.
func ScopedTable(m *policy.Model, gw *policy.Gateway, l *policy.Listener, host string) string {
	s, routes := new(served), make([]*made, 0, len(m.Bound[gw]))
	for _, r := range m.Bound[gw] {
		routes = append(routes, &made{BoundRoute: r})
	}
	s.put(routes, nil, routes)
	return tablePrefix + scopeKeysOf(s.sites, s.named, gw, l).of(host)
}
