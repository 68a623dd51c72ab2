package envoy

import (
	"cmp"
	"iter"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/wellknown"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// bufferLimit is what Envoy keeps of one connection in memory, in bytes: its own advice for edges, instead of 1 MiB.
const bufferLimit = 32 << 10

// listener makes the listener of one port. A changed listener drains its connections, so next to nothing in it comes
// from HTTP routes: only the names of headers that settings reserve, and wildcards where there is a table per host. Of
// TCP and TLS its routes are the filter chains; Envoy drains those that change, and no others.
func (t *translation) listener(c ListenerContext, keys scopeKeys, filters []Filter, used services) *listenerv3.Listener {
	l := c.Listener
	out := &listenerv3.Listener{
		Name:                          l.Name,
		StatPrefix:                    l.Name,
		Address:                       socketAddress(cmp.Or(l.Address, "0.0.0.0"), l.Port),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
	}
	for s := range contributions[ListenerContributor](c) {
		if m := s.Listener(c); m != nil {
			overlay(out, m)
		}
	}
	network := networkFilters(c)
	switch l.Protocol {
	case policy.TCP, policy.TLS:
		out.FilterChains = t.connectionChains(c, network, used)
	case policy.HTTPS:
		out.FilterChains = t.httpsChains(c, append(network, t.httpFilter(c, keys, filters)))
	default:
		out.FilterChains = []*listenerv3.FilterChain{{Filters: append(network, t.httpFilter(c, keys, filters))}}
	}
	bound(out.FilterChains, c)
	if l.Protocol == policy.TLS || l.Protocol == policy.HTTPS {
		// After those of the settings: one of them may take away what a proxy has put before the TLS.
		out.ListenerFilters = append(out.ListenerFilters, tlsInspector())
	}
	t.patch(out, l.Settings)
	return out
}

// bound adds to the chains' matches what the settings say.
func bound(chains []*listenerv3.FilterChain, c ListenerContext) {
	for s := range contributions[ChainContributor](c) {
		match := s.FilterChainMatch(c)
		if match == nil {
			continue
		}
		for _, chain := range chains {
			if chain.FilterChainMatch == nil {
				chain.FilterChainMatch = new(listenerv3.FilterChainMatch)
			}
			overlay(chain.FilterChainMatch, match)
		}
	}
}

// contributions yields the settings that are a T of the gateway and then of the listener, so that the nearer one has the
// last word.
func contributions[T any](c ListenerContext) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, settings := range []policy.Settings{c.Gateway.Settings, c.Listener.Settings} {
			for _, s := range policy.Each[T](settings) {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// networkFilters is what stands in every filter chain before the one that sends on.
func networkFilters(c ListenerContext) []*listenerv3.Filter {
	var all []*listenerv3.Filter
	for s := range contributions[ConnectionContributor](c) {
		all = append(all, s.Connection(c)...)
	}
	return slices.Clip(all)
}

func networkFilter(name string, config proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{
		Name:       name,
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: Pack(config)},
	}
}

func tlsInspector() *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name: wellknown.TlsInspector,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{
			TypedConfig: Pack(&tlsinspectorv3.TlsInspector{}),
		},
	}
}

// httpFilter is the network filter that speaks HTTP.
func (t *translation) httpFilter(c ListenerContext, keys scopeKeys, filters []Filter) *listenerv3.Filter {
	manager := t.connectionManager(c, keys, filters)
	if err := manager.ValidateAll(); err != nil {
		t.problem(c.Listener.Pos, "", "Envoy would refuse this: "+err.Error(), "")
	}
	return networkFilter(wellknown.HTTPConnectionManager, manager)
}

// connectionManager is ours with what the gateway's and the listener's own settings say on top, the nearer one last.
func (t *translation) connectionManager(c ListenerContext, keys scopeKeys, filters []Filter) *hcmv3.HttpConnectionManager {
	manager := connectionManager(c.Listener)
	for s := range contributions[HTTPContributor](c) {
		if m := s.HTTP(c); m != nil {
			overlay(manager, m)
		}
	}
	early := earlyMutations(t.strip, manager.XffNumTrustedHops > 0)
	if c.Listener.Trusted {
		early = trustedMutations()
	}
	if scoped(c.Listener) {
		manager.RouteSpecifier = keys.scopedRoutes()
		early.Mutations = append(early.Mutations, keys.mutations()...)
	}
	// What clients send is removed first, then settings add theirs.
	manager.EarlyHeaderMutationExtensions = slices.Insert(manager.EarlyHeaderMutationExtensions, 0, earlyExtension(early))
	for _, f := range filters {
		manager.HttpFilters = append(manager.HttpFilters, httpFilter(f))
	}
	manager.HttpFilters = append(manager.HttpFilters, router())
	if len(manager.AccessLog) > 0 {
		manager.HttpFilters = labelled(manager.HttpFilters)
	}
	t.patch(manager, c.Listener.Settings)
	return manager
}

// chain is the gate and the filters of all kinds, in the order in which a request goes through them. Two of one name
// are a fault of the features.
func (t *translation) chain(c ListenerContext) []Filter {
	all := []Filter{gate()}
	if c.Listener.Protocol == policy.HTTPS && len(c.Listener.Peers) == 0 { // peers ask for the service, whatever host they pass on
		all = append(all, sniGuard())
	}
	for _, z := range t.filters {
		all = append(all, z.setting.Filters(c)...)
	}
	slices.SortFunc(all, func(a, b Filter) int {
		return cmp.Or(cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
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
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: Pack(f.Config)},
		Disabled:   !f.Enabled,
	}
}

func router() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name: wellknown.Router,
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: Pack(&routerv3.Router{
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
