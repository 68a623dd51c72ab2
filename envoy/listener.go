package envoy

import (
	"cmp"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/wellknown"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// bufferLimit is what Envoy keeps of one connection in memory, in bytes: its own advice for edges, instead of 1 MiB.
const bufferLimit = 32 << 10

// listener makes the listener of one port. A changed listener drains its connections, so next to nothing in it comes
// from routes: only the names of headers that settings reserve, and wildcards where there is a table per host.
func (t *translation) listener(gw *policy.Gateway, l *policy.Listener, filters []Filter) *listenerv3.Listener {
	manager := t.connectionManager(gw, l, filters)
	if err := manager.ValidateAll(); err != nil {
		t.problem(l.Pos, "", "Envoy would refuse this: "+err.Error(), "")
	}
	return &listenerv3.Listener{
		Name:                          l.Name,
		StatPrefix:                    l.Name,
		Address:                       socketAddress(cmp.Or(l.Address, "0.0.0.0"), l.Port),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{{
				Name:       wellknown.HTTPConnectionManager,
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(manager)},
			}},
		}},
	}
}

// connectionManager is ours with what the gateway's and the listener's own settings say on top, the nearer one last.
func (t *translation) connectionManager(
	gw *policy.Gateway, l *policy.Listener, filters []Filter,
) *hcmv3.HttpConnectionManager {
	manager := connectionManager(l)
	c := ListenerContext{Model: t.model, Gateway: gw, Listener: l}
	for _, settings := range []policy.Settings{gw.Settings, l.Settings} {
		for _, h := range policy.Each[HTTPContributor](settings) {
			if m := h.HTTP(c); m != nil {
				overlay(manager, m)
			}
		}
	}
	early := earlyMutations(t.strip, manager.XffNumTrustedHops > 0)
	if l.PerHost {
		wildcards := wildcardsOf(gw)
		manager.RouteSpecifier = scopedRoutes(wildcards)
		early.Mutations = append(early.Mutations, scopeMutations(wildcards)...)
	}
	manager.EarlyHeaderMutationExtensions = append(manager.EarlyHeaderMutationExtensions, earlyExtension(early))
	for _, f := range filters {
		manager.HttpFilters = append(manager.HttpFilters, httpFilter(f))
	}
	manager.HttpFilters = append(manager.HttpFilters, router())
	return manager
}

// chain is the gate and the filters of all kinds, in the order in which a request goes through them. Two of one name
// are a fault of the features.
func (t *translation) chain(c ListenerContext) []Filter {
	all := []Filter{gate()}
	for _, z := range t.filters {
		all = append(all, z.setting.Filters(c)...)
	}
	slices.SortFunc(all, func(a, b Filter) int {
		return cmp.Or(cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.Name, b.Name))
	})
	for i, f := range all {
		if slices.ContainsFunc(all[:i], func(g Filter) bool { return f.Name == g.Name }) {
			t.problem(c.Listener.Pos, "", "two features have a filter named "+f.Name, "")
		}
	}
	return all
}

func httpFilter(f Filter) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name:       f.Name,
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(f.Config)},
		Disabled:   !f.Enabled,
	}
}

func router() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name: wellknown.Router,
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{
			SuppressEnvoyHeaders: true, // x-envoy-upstream-service-time and -attempt-count are nobody's business
		})},
	}
}

func rds(name string) *hcmv3.HttpConnectionManager_Rds {
	return &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
		ConfigSource:    ads(forever),
		RouteConfigName: name,
	}}
}
