package envoy

import (
	"cmp"
	"fmt"
	"maps"
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
func wildcardsOf(m *policy.Model, gw *policy.Gateway, l *policy.Listener) []string {
	names := make(map[string]bool)
	for _, r := range m.Bound[gw] {
		if r.Layer4 || !r.On(l) {
			continue
		}
		for _, host := range r.Hostnames {
			if strings.HasPrefix(host, "*.") {
				names[host] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
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
// one or no route names the listeners that it is for.
func scopeKeysOf(m *policy.Model, gw *policy.Gateway, l *policy.Listener) scopeKeys {
	keys := scopeKeys{wildcards: wildcardsOf(m, gw, l)}
	alike := func(r *policy.BoundRoute) bool { return r.Layer4 || len(r.Listeners) == 0 }
	others := slices.ContainsFunc(gw.Listeners, func(o *policy.Listener) bool { return o != l && scoped(o) })
	if others && !allOf(m.Bound[gw], alike) {
		keys.prefix = l.Name + "/"
	}
	return keys
}

func allOf[T any](list []T, holds func(T) bool) bool {
	return !slices.ContainsFunc(list, func(one T) bool { return !holds(one) })
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

// scopes makes a route table for every scope key, and the scope that leads to it: one for each exact hostname, one
// for a wildcard and all that is below it.
func (k scopeKeys) scopes(hosts []host) []Resource {
	byKey := make(map[string][]host)
	for _, h := range hosts {
		key := k.of(h.Name)
		byKey[key] = append(byKey[key], h)
	}
	var list []Resource
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		name := tablePrefix + key
		routes := routeConfiguration(name, byKey[key])
		if k.computed() {
			routes.RequestHeadersToRemove = []string{scopeHeader}
		}
		pos := byKey[key][0].pos
		list = append(list,
			Resource{Type: resource.RouteType, Name: name, Message: routes, Pos: pos},
			Resource{Type: resource.ScopedRouteType, Name: name, Message: scope(name, key), Pos: pos})
	}
	return list
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
func (t *translation) checkPerHost(gw *policy.Gateway, l *policy.Listener) {
	for _, r := range t.model.Bound[gw] {
		if slices.Contains(r.Hostnames, "*") && !r.Layer4 && r.On(l) {
			t.problem(r.Pos, "routes."+r.Name+".hostnames",
				fmt.Sprintf(`"*" can't be served by the listener %s, which has a route table per host`, l.Name),
				"write out the hostnames, or remove routeTables: perHost from the listener", l.Pos)
		}
	}
}

// ScopedTable is the name of the route table by which a listener with a table per host answers a request for a host, which
// is in its normal form. There may be none of that name.
func ScopedTable(m *policy.Model, gw *policy.Gateway, l *policy.Listener, host string) string {
	return tablePrefix + scopeKeysOf(m, gw, l).of(host)
}
