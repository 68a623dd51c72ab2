package proxyless

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/xds"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// plane is a control plane that can be stopped and started again at the same address.
type plane struct {
	t        *testing.T
	address  string
	revision int
	server   *xds.Server
	stop     func()
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{t: t, address: "127.0.0.1:0", stop: func() {}}
	p.start()
	t.Cleanup(func() { p.stop() })
	return p
}

func (p *plane) start() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.address = l.Addr().String()
	p.server = xds.New(xds.Options{})
	g := grpc.NewServer(xds.ServerOptions()...)
	p.server.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.server.Run(ctx) })
	wg.Go(func() { _ = g.Serve(l) })
	p.stop = sync.OnceFunc(func() {
		cancel()
		g.Stop()
		wg.Wait()
	})
}

// bootstrap is the client's configuration.
func (p *plane) bootstrap(id string) string {
	return fmt.Sprintf(`{
		"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
		"node": {"id": %q, "cluster": "mesh", "locality": {"zone": "here"}}
	}`, p.address, id)
}

// serve publishes for the group mesh.
func (p *plane) serve(messages ...proto.Message) {
	p.t.Helper()
	p.revision++
	var list []xds.Resource
	for _, m := range messages {
		name := ""
		switch m := m.(type) {
		case *endpointv3.ClusterLoadAssignment:
			name = m.GetClusterName()
		case interface{ GetName() string }:
			name = m.GetName()
		}
		r, err := xds.NewResource(name, m, "test", "")
		if err != nil {
			p.t.Fatal(err)
		}
		list = append(list, r)
	}
	s, err := xds.NewSnapshot(strconv.Itoa(p.revision), list)
	if err != nil {
		p.t.Fatal(err)
	}
	p.server.Publish(map[string]*xds.Snapshot{"mesh": s})
}

// service is the name that clients call.
const service = "svc.test"

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

// listener has its routes in the table of that name.
func listener(table string) *listenerv3.Listener {
	return &listenerv3.Listener{Name: service, ApiListener: &listenerv3.ApiListener{ApiListener: pack(&hcmv3.HttpConnectionManager{
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: table}},
		HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})}}},
	})}}
}

// routes leads every call to the clusters, by their weights.
func routes(table string, weights map[string]uint32) *routev3.RouteConfiguration {
	split := &routev3.WeightedCluster{}
	for name, weight := range weights {
		split.Clusters = append(split.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: name, Weight: wrapperspb.UInt32(weight)})
	}
	return &routev3.RouteConfiguration{Name: table, VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{service},
		Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_WeightedClusters{WeightedClusters: split},
			}},
		}},
	}}}
}

func cluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
	}
}

func endpoints(cluster, address string) *endpointv3.ClusterLoadAssignment {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		panic(err)
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		Locality:            &corev3.Locality{Zone: "here"},
		LoadBalancingWeight: wrapperspb.UInt32(1),
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(number)},
			}}},
		}}}},
	}}}
}

func pack(m proto.Message) *anypb.Any {
	packed, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return packed
}

// backend is a server that answers every call with its name.
func backend(t *testing.T, name string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, str grpc.ServerStream) error {
		if err := str.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		return str.SendMsg(wrapperspb.String(name))
	}))
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return l.Addr().String()
}
