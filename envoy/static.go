package envoy

import (
	"fmt"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Static puts the resources of one gateway into a bootstrap that a stock Envoy loads by itself. What is answered by
// the companion still needs one. It holds the contents of secrets, unless o.Secrets names their directory. Access logs name
// the revision where the resources have its [Labels].
func Static(resources []Resource, o BootstrapOptions) (*bootstrapv3.Bootstrap, error) {
	s := inliner{
		routes:    make(map[string]*routev3.RouteConfiguration),
		endpoints: make(map[string]*endpointv3.ClusterLoadAssignment),
		labels:    make(map[string]*anypb.Any),
	}
	for _, r := range resources {
		switch m := r.Message.(type) {
		case *routev3.RouteConfiguration:
			s.routes[r.Name] = m
		case *routev3.ScopedRouteConfiguration:
			s.scopes = append(s.scopes, m)
		case *endpointv3.ClusterLoadAssignment:
			s.endpoints[r.Name] = m
		case *corev3.TypedExtensionConfig:
			s.labels[r.Name] = m.TypedConfig
		}
	}
	b := base(o)
	b.StaticResources = &bootstrapv3.Bootstrap_StaticResources{
		Clusters: append([]*clusterv3.Cluster{companionCluster(o)}, selfClusters(o)...),
	}
	for _, r := range resources {
		switch m := r.Message.(type) {
		case *listenerv3.Listener:
			l, err := s.listener(m)
			if err != nil {
				return nil, fmt.Errorf("listener %s: %w", r.Name, err)
			}
			b.StaticResources.Listeners = append(b.StaticResources.Listeners, l)
		case *clusterv3.Cluster:
			b.StaticResources.Clusters = append(b.StaticResources.Clusters, s.cluster(m))
		case *tlsv3.Secret:
			if o.Secrets != "" {
				m = inDirectory(m, o.Secrets)
			}
			b.StaticResources.Secrets = append(b.StaticResources.Secrets, m)
		}
	}
	if len(b.StaticResources.Secrets) > 0 {
		Walk(b.StaticResources, fromBootstrap)
	}
	return b, nil
}

// fromBootstrap turns a reference to a secret that is served into one to a secret of the bootstrap.
func fromBootstrap(m proto.Message) bool {
	s, ok := m.(*tlsv3.SdsSecretConfig)
	if !ok || s.GetSdsConfig().GetAds() == nil {
		return false
	}
	s.SdsConfig = nil
	return true
}

// inliner puts in place what the served form refers to by name.
type inliner struct {
	routes    map[string]*routev3.RouteConfiguration
	scopes    []*routev3.ScopedRouteConfiguration
	endpoints map[string]*endpointv3.ClusterLoadAssignment
	labels    map[string]*anypb.Any
}

// label is what a filter is that comes as a resource: the resource, or what is there until it comes.
func (s inliner) label(name string, from *corev3.ExtensionConfigSource) *anypb.Any {
	if there := s.labels[name]; there != nil {
		return there
	}
	return from.DefaultConfig
}

func (s inliner) cluster(m *clusterv3.Cluster) *clusterv3.Cluster {
	c := proto.Clone(m).(*clusterv3.Cluster)
	if c.GetType() != clusterv3.Cluster_EDS {
		return c
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.EdsClusterConfig = nil
	c.LoadAssignment = s.endpoints[m.Name]
	return c
}

func (s inliner) listener(m *listenerv3.Listener) (*listenerv3.Listener, error) {
	l := proto.Clone(m).(*listenerv3.Listener)
	for _, chain := range l.FilterChains {
		for _, f := range chain.Filters {
			if from := f.GetConfigDiscovery(); from != nil {
				f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: s.label(f.Name, from)}
			}
			manager := new(hcmv3.HttpConnectionManager)
			if !f.GetTypedConfig().MessageIs(manager) {
				continue
			}
			if err := f.GetTypedConfig().UnmarshalTo(manager); err != nil {
				return nil, fmt.Errorf("read the connection manager: %w", err)
			}
			if err := s.manager(manager); err != nil {
				return nil, err
			}
			f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: Pack(manager)}
		}
	}
	return l, nil
}

func (s inliner) manager(m *hcmv3.HttpConnectionManager) error {
	for _, f := range m.HttpFilters {
		if from := f.GetConfigDiscovery(); from != nil {
			f.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: s.label(f.Name, from)}
		}
	}
	if name := m.GetRds().GetRouteConfigName(); name != "" {
		routes := s.routes[name]
		if routes == nil {
			return fmt.Errorf("no route table named %s", name)
		}
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes}
		return nil
	}
	scoped := m.GetScopedRoutes()
	if scoped == nil {
		return nil
	}
	list := new(hcmv3.ScopedRouteConfigurationsList)
	for _, one := range s.scopes {
		inline := proto.Clone(one).(*routev3.ScopedRouteConfiguration)
		if inline.RouteConfiguration = s.routes[one.RouteConfigurationName]; inline.RouteConfiguration == nil {
			return fmt.Errorf("no route table named %s", one.RouteConfigurationName)
		}
		inline.RouteConfigurationName = ""
		list.ScopedRouteConfigurations = append(list.ScopedRouteConfigurations, inline)
	}
	if len(list.ScopedRouteConfigurations) == 0 { // Envoy takes no empty list
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{Name: scoped.Name}}
		return nil
	}
	scoped.RdsConfigSource = nil
	scoped.ConfigSpecifier = &hcmv3.ScopedRoutes_ScopedRouteConfigurationsList{ScopedRouteConfigurationsList: list}
	return nil
}
