package envoys

import (
	"context"
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// reader is an Envoy that looks at what it gets: grpc-go's client.
type reader struct {
	stream grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	script *Script
	asked  bool
}

// read opens one, until ctx ends.
func (f *Fleet) read(ctx context.Context, s *Script) (*reader, func() error, error) {
	security := insecure.NewCredentials()
	if f.TLS != nil {
		security = credentials.NewTLS(f.TLS)
	}
	conn, err := grpc.NewClient(f.Address, grpc.WithTransportCredentials(security), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return nil, nil, err
	}
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%w (%v)", err, conn.Close())
	}
	return &reader{stream: stream, script: s}, conn.Close, nil
}

// ask gives the first response to a question. Only what is about other types may come in between.
func (r *reader) ask(a Ask) ([]*discoveryv3.Resource, error) {
	m := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: a.URL, ResourceNamesSubscribe: a.Names}
	if !r.asked {
		m.Node, r.asked = r.script.Node, true
	}
	if err := r.stream.Send(m); err != nil {
		return nil, err
	}
	for {
		got, err := r.stream.Recv()
		if err != nil {
			return nil, err
		}
		if err := r.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: got.GetTypeUrl(), ResponseNonce: got.GetNonce()}); err != nil {
			return nil, err
		}
		if got.GetTypeUrl() == a.URL {
			return got.GetResources(), nil
		}
	}
}

// Learn asks for what a script does, and gives the versions of what there is, by type and name.
func (f *Fleet) Learn(ctx context.Context, s *Script) (map[string]map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, end, err := f.read(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { _ = end() }()
	known := map[string]map[string]string{}
	for _, a := range s.Asks {
		all, err := r.ask(a)
		if err != nil {
			return nil, err
		}
		known[a.URL] = map[string]string{}
		for _, one := range all {
			known[a.URL][one.GetName()] = one.GetVersion()
		}
	}
	return known, nil
}

// Follow asks as an Envoy does that has nothing, and gives what it asked for in the end: all clusters and listeners, and
// what these name.
func (f *Fleet) Follow(ctx context.Context, s *Script) ([]Ask, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, end, err := f.read(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { _ = end() }()
	asks := []Ask{{URL: resource.ClusterType}}
	for i := 0; i < len(asks); i++ {
		all, err := r.ask(asks[i])
		if err != nil {
			return nil, err
		}
		more, err := leads(asks[i].URL, all)
		if err != nil {
			return nil, err
		}
		asks = append(asks, more...)
	}
	return asks, nil
}

// leads is what an Envoy asks for next that has got all of a type.
func leads(url string, all []*discoveryv3.Resource) ([]Ask, error) {
	switch url {
	case resource.ClusterType:
		names, err := named(all, func(c *clusterv3.Cluster) []string {
			if c.GetType() != clusterv3.Cluster_EDS {
				return nil
			}
			return []string{c.GetName()}
		})
		next := []Ask{{URL: resource.ListenerType}}
		if len(names) > 0 {
			next = append([]Ask{{resource.EndpointType, names}}, next...)
		}
		return next, err
	case resource.ListenerType:
		scoped := false
		names, err := named(all, func(l *listenerv3.Listener) (tables []string) {
			for _, chain := range append(slices.Clone(l.GetFilterChains()), l.GetDefaultFilterChain()) {
				for _, filter := range chain.GetFilters() {
					var m hcmv3.HttpConnectionManager
					if filter.GetTypedConfig().UnmarshalTo(&m) != nil {
						continue
					}
					scoped = scoped || m.GetScopedRoutes() != nil
					if name := m.GetRds().GetRouteConfigName(); name != "" {
						tables = append(tables, name)
					}
				}
			}
			return tables
		})
		var next []Ask
		if scoped {
			next = append(next, Ask{URL: resource.ScopedRouteType})
		}
		if len(names) > 0 {
			next = append(next, Ask{resource.RouteType, names})
		}
		return next, err
	case resource.ScopedRouteType:
		names, err := named(all, func(s *routev3.ScopedRouteConfiguration) []string { return []string{s.GetRouteConfigurationName()} })
		return []Ask{{resource.RouteType, names}}, err
	}
	return nil, nil
}

// named collects names from resources, each once, sorted.
func named[T any, M interface {
	*T
	proto.Message
}](all []*discoveryv3.Resource, names func(M) []string) (list []string, err error) {
	for _, one := range all {
		m := M(new(T))
		if err := one.GetResource().UnmarshalTo(m); err != nil {
			return nil, fmt.Errorf("%s: %w", one.GetName(), err)
		}
		list = append(list, names(m)...)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
