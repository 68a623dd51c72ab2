package envoy

import (
	"cmp"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// loadAssignment is the endpoints of a service by priority and zone. Envoy wants the zones of one priority told apart,
// whether or not it weighs them.
func loadAssignment(name string, endpoints []policy.Endpoint) *endpointv3.ClusterLoadAssignment {
	type group struct {
		priority uint32
		zone     string
	}
	groups := make(map[group]*endpointv3.LocalityLbEndpoints)
	all := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for _, e := range endpoints {
		g := group{e.Priority, e.Zone}
		if groups[g] == nil {
			groups[g] = &endpointv3.LocalityLbEndpoints{
				Locality: &corev3.Locality{Zone: e.Zone},
				Priority: e.Priority,
				// The sum of its endpoints' weights, for those who weigh zones. gRPC's xDS clients leave out those without.
				LoadBalancingWeight: wrapperspb.UInt32(0),
			}
			all.Endpoints = append(all.Endpoints, groups[g])
		}
		groups[g].LbEndpoints = append(groups[g].LbEndpoints, lbEndpoint(e))
		groups[g].LoadBalancingWeight.Value += max(1, e.Weight)
	}
	slices.SortFunc(all.Endpoints, func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Locality.Zone, b.Locality.Zone))
	})
	return all
}

func lbEndpoint(e policy.Endpoint) *endpointv3.LbEndpoint {
	one := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
		Endpoint: &endpointv3.Endpoint{Address: socketAddress(e.Host, e.Port)},
	}}
	if e.Weight > 1 { // 1 is what Envoy takes it for by itself
		one.LoadBalancingWeight = wrapperspb.UInt32(e.Weight)
	}
	return one
}

const (
	// dnsFloor is how often a name is looked up at most, whatever its records say of their life.
	dnsFloor = 5 * time.Second
	// dnsRetry is how soon a name is looked up again that could not be resolved, and dnsRetryMax what that grows to. The
	// last addresses are kept meanwhile.
	dnsRetry, dnsRetryMax = time.Second, 30 * time.Second
)

// resolved is how Envoy finds the endpoints of a name.
func resolved(d *policy.DNS) *clusterv3.Cluster_ClusterType {
	config := &dnsv3.DnsCluster{
		DnsLookupFamily:              commondnsv3.DnsLookupFamily_V4_PREFERRED, // Envoy's AUTO takes IPv6 where the name has both
		AllAddressesInSingleEndpoint: d.Logical,
		DnsRefreshRate:               durationpb.New(cmp.Or(d.Refresh, dnsFloor)),
		DnsFailureRefreshRate: &dnsv3.DnsCluster_RefreshRate{
			BaseInterval: durationpb.New(dnsRetry), MaxInterval: durationpb.New(dnsRetryMax),
		},
	}
	if d.Refresh == 0 {
		config.RespectDnsTtl, config.DnsMinRefreshRate = true, durationpb.New(dnsFloor)
	}
	return &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
		Name: "envoy.cluster.dns", TypedConfig: Pack(config),
	}}
}
