package main

import (
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	setmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/legation/legation/bench/envoys"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// The resources that both engines serve.

func clusterNames(s settings) []string { return numbered("service-%05d", s.clusters) }

func tableNames(s settings) []string {
	if s.layout == oneTable {
		return []string{"all-hosts"}
	}
	return numbered("host-%05d.example.com", s.routes/perTable)
}

func numbered(format string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(format, i)
	}
	return names
}

func cluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		ConnectTimeout:       durationpb.New(5 * time.Second),
		LbPolicy:             clusterv3.Cluster_LEAST_REQUEST,
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ResourceApiVersion:    corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		}},
	}
}

func endpoints(name string) *endpointv3.ClusterLoadAssignment {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{}}}
	for i := range 2 {
		a.Endpoints[0].LbEndpoints = append(a.Endpoints[0].LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
				Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: fmt.Sprintf("10.0.0.%d", i+1), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 8080},
				}},
			}}},
		})
	}
	return a
}

// table is the nth route configuration; the change is in its first route.
func table(s settings, n, change int) *routev3.RouteConfiguration {
	hosts := s.routes / perTable
	t := &routev3.RouteConfiguration{Name: tableNames(s)[n]}
	from, to := n, n+1
	if s.layout == oneTable {
		from, to = 0, hosts
	}
	for h := from; h < to; h++ {
		t.VirtualHosts = append(t.VirtualHosts, host(s, h, change))
	}
	return t
}

func host(s settings, n, change int) *routev3.VirtualHost {
	name := fmt.Sprintf("host-%05d.example.com", n)
	h := &routev3.VirtualHost{Name: name, Domains: []string{name}}
	for i := range perTable {
		path := fmt.Sprintf("/api/v1/thing-%d", i)
		if i == 0 && change > 0 {
			path = fmt.Sprintf("/api/v1/change-%d", change)
		}
		h.Routes = append(h.Routes, &routev3.Route{
			Name:  fmt.Sprintf("%s/%d", name, i),
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: path}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: fmt.Sprintf("service-%05d", (n*perTable+i)%s.clusters)},
			}},
		})
	}
	return h
}

// labelName is that of the label.
const labelName = "revision"

// label is what names the revision to access logs.
func label(change int) *corev3.TypedExtensionConfig {
	filter, err := anypb.New(&setmetadatav3.Config{Metadata: []*setmetadatav3.Metadata{{
		MetadataNamespace: "legation",
		Value:             &structpb.Struct{Fields: map[string]*structpb.Value{"revision": structpb.NewStringValue(fmt.Sprintf("%012d", change))}},
	}}})
	if err != nil {
		panic(err) // of a text it cannot be
	}
	return &corev3.TypedExtensionConfig{Name: labelName, TypedConfig: filter}
}

func listener() *listenerv3.Listener { return &listenerv3.Listener{Name: "http", StatPrefix: "http"} }

func secret() *tlsv3.Secret {
	return &tlsv3.Secret{Name: envoys.Marker, Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
		Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "x"}},
	}}}
}
