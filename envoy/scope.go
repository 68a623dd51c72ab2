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

// wildcardsOf is the wildcard hostnames of a gateway, the most specific first.
func wildcardsOf(gw *policy.Gateway) []string {
	names := make(map[string]bool)
	for _, r := range gw.Routes {
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

// scopeKey is the key of the table that serves a hostname: the wildcard above it, or itself. It says the same as
// scopeExpression does for a request.
func scopeKey(host string, wildcards []string) string {
	for _, w := range wildcards {
		if strings.HasSuffix(host, w[1:]) {
			return w
		}
	}
	return host
}

func scopeExpression(wildcards []string) string {
	var b strings.Builder
	for _, w := range wildcards {
		fmt.Fprintf(&b, "request.host.endsWith('%s') ? '%s' : ", w[1:], w)
	}
	return b.String() + "request.host"
}

// scopeMutations computes the key of the route table before routing, where the host alone is not the key. It costs
// some 2 µs a request, and a new wildcard changes the listener.
func scopeMutations(wildcards []string) []*mutationv3.HeaderMutation {
	if len(wildcards) == 0 {
		return nil
	}
	return []*mutationv3.HeaderMutation{{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: scopeHeader, Value: "%CEL(" + scopeExpression(wildcards) + ")%"},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}}}}
}

// scopedRoutes looks the route table up by host, so that a change costs Envoy the same whatever the number of hosts.
func scopedRoutes(wildcards []string) *hcmv3.HttpConnectionManager_ScopedRoutes {
	extractor := &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor{
		Name: ":authority",
		ExtractType: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index{
			Index: 0, // without a separator: the whole value
		},
	}
	if len(wildcards) > 0 {
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
func (tab *table) scopes(hosts []*routev3.VirtualHost, wildcards []string) []Resource {
	byKey := make(map[string][]*routev3.VirtualHost)
	for _, h := range hosts {
		key := scopeKey(h.Name, wildcards)
		byKey[key] = append(byKey[key], h)
	}
	var list []Resource
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		name := "host/" + key // no listener's name has a slash
		routes := routeConfiguration(name, byKey[key])
		if len(wildcards) > 0 {
			routes.RequestHeadersToRemove = []string{scopeHeader}
		}
		pos := tab.pos[byKey[key][0].Name]
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
	for _, r := range gw.Routes {
		if slices.Contains(r.Hostnames, "*") {
			t.problem(r.Pos, "routes."+r.Name+".hostnames",
				fmt.Sprintf(`"*" can't be served by the listener %s, which has a route table per host`, l.Name),
				"write out the hostnames, or remove routeTables: perHost from the listener", l.Pos)
		}
	}
}
