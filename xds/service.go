package xds

import (
	"strings"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	extensionservice "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	runtimeservice "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	secretservice "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
)

// services are the discovery services, each with the type that it is about; the aggregated one is about any.
var services = []struct {
	desc grpc.ServiceDesc
	url  string
}{
	{discoveryv3.AggregatedDiscoveryService_ServiceDesc, resource.AnyType},
	{listenerservice.ListenerDiscoveryService_ServiceDesc, resource.ListenerType},
	{routeservice.RouteDiscoveryService_ServiceDesc, resource.RouteType},
	{routeservice.ScopedRoutesDiscoveryService_ServiceDesc, resource.ScopedRouteType},
	{routeservice.VirtualHostDiscoveryService_ServiceDesc, resource.VirtualHostType},
	{clusterservice.ClusterDiscoveryService_ServiceDesc, resource.ClusterType},
	{endpointservice.EndpointDiscoveryService_ServiceDesc, resource.EndpointType},
	{secretservice.SecretDiscoveryService_ServiceDesc, resource.SecretType},
	{extensionservice.ExtensionConfigDiscoveryService_ServiceDesc, resource.ExtensionConfigType},
	{runtimeservice.RuntimeDiscoveryService_ServiceDesc, resource.RuntimeType},
}

// Register adds the discovery services to r: the aggregated one, and one for each type, as streams of both protocols.
// There is no polling. Only the aggregated service keeps the order among the types.
//
// The gRPC server has to be made with [ServerOptions].
func (s *Server) Register(r grpc.ServiceRegistrar) {
	for _, service := range services {
		desc := service.desc
		desc.HandlerType, desc.Methods, desc.Streams = nil, nil, nil
		for _, stream := range service.desc.Streams {
			protocol := SotW
			if strings.HasPrefix(stream.StreamName, "Delta") {
				protocol = Delta
			}
			stream.Handler = func(_ any, str grpc.ServerStream) error { return s.hold(str, protocol, service.url) }
			desc.Streams = append(desc.Streams, stream)
		}
		r.RegisterService(&desc, nil)
	}
}
