package envoy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstreamcodecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// httpOptions is the key of a cluster's HTTP settings.
const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// clusterKey is what a cluster is made of: a service, for all gateways, or for this one where the service has a sidecar,
// which each gateway shows its own certificate to.
type clusterKey struct {
	service *policy.Service
	gateway *policy.Gateway
}

// clusterPair is a service's cluster, and its endpoints unless the cluster has them itself.
type clusterPair struct {
	cluster   *clusterv3.Cluster
	endpoints *endpointv3.ClusterLoadAssignment

	resources []Resource // the cluster first
	secrets   []string   // that the cluster asks for
}

// assignment is the list of endpoints, wherever it stands.
func (p *clusterPair) assignment() *endpointv3.ClusterLoadAssignment {
	return cmp.Or(p.endpoints, p.cluster.LoadAssignment)
}

// cluster makes the cluster of a service once, if it was not made before.
func (t *translation) cluster(gw *policy.Gateway, s *policy.Service) *clusterPair {
	key := clusterKey{service: s}
	if s.Sidecar != nil {
		key.gateway = gw
	}
	p := t.clusters[key]
	if p == nil && t.before != nil {
		p = t.before.clusters[key]
	}
	if p == nil {
		p = t.newCluster(gw, s)
	}
	t.clusters[key] = p
	return p
}

func (t *translation) newCluster(gw *policy.Gateway, s *policy.Service) *clusterPair {
	c := ServiceContext{Model: t.model, Service: s}
	p := &clusterPair{cluster: baseCluster(s)}
	if s.DNS == nil {
		p.endpoints = loadAssignment(s.Name, s.Endpoints)
	}
	for _, k := range policy.Each[ClusterContributor](s.Settings) {
		if m := k.Cluster(c); m != nil {
			overlay(p.cluster, m)
		}
	}
	fillCluster(p.cluster)
	t.patch(p.cluster, s.Settings)
	t.patchDNS(p.cluster, s.Settings)
	upstream := baseUpstream()
	for _, k := range policy.Each[UpstreamContributor](s.Settings) {
		if m := k.Upstream(c); m != nil {
			overlay(upstream, m)
		}
	}
	if s.Sidecar != nil {
		t.secure(gw, s, p.cluster, upstream)
	}
	fillUpstream(upstream)
	t.patch(upstream, s.Settings)
	p.cluster.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: Pack(upstream)}
	for _, k := range policy.Each[EndpointContributor](s.Settings) {
		if m := k.Endpoints(c); m != nil {
			overlay(p.assignment(), m)
		}
	}
	p.finish(t, s)
	return p
}

// finish makes the resources.
func (p *clusterPair) finish(t *translation, s *policy.Service) {
	a := asksOf(t.valid(Resource{Type: resource.ClusterType, Name: s.Name, Message: p.cluster, Pos: s.Pos}))
	p.resources, p.secrets = []Resource{a.Resource}, a.secrets
	if p.endpoints != nil {
		// An Envoy whose cluster changed does not ask for the endpoints again, and warms until it has them.
		p.resources = append(p.resources, t.valid(Resource{
			Type: resource.EndpointType, Name: s.Name, Message: p.endpoints, Pos: s.Pos,
			Salt: fmt.Sprintf("%016x", xxhash.Sum64(stableBytes(p.cluster))),
		}))
	}
}

// baseCluster is what no setting changes.
func baseCluster(s *policy.Service) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                          s.Name,
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{
			TcpKeepalive: &corev3.TcpKeepalive{KeepaliveTime: wrapperspb.UInt32(60)},
		},
	}
	if s.DNS != nil {
		c.ClusterDiscoveryType = resolved(s.DNS)
		c.LoadAssignment = loadAssignment(s.Name, []policy.Endpoint{s.DNS.Endpoint})
		return c
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{
		// Bounded: a cluster that waits for its endpoints for ever would hold up all that comes after it.
		EdsConfig: ads(durationpb.New(5 * time.Second)),
	}
	return c
}

// fillCluster is what holds where no setting said otherwise.
func fillCluster(c *clusterv3.Cluster) {
	if c.ConnectTimeout == nil {
		c.ConnectTimeout = durationpb.New(5 * time.Second)
	}
	fillCircuitBreakers(c)
	if c.CommonLbConfig == nil {
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{}
	}
	// With health checks, an endpoint gets no requests before its first check has passed.
	c.CommonLbConfig.IgnoreNewHostsUntilFirstHc = true
}

// baseUpstream is how backends are spoken to. The idle time lies below what most servers close after (60 s and up), so
// that a request seldom meets a connection that is being closed.
func baseUpstream() *httpv3.HttpProtocolOptions {
	return &httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(50 * time.Second)},
	}
}

// fillUpstream makes it HTTP/1.1 where no setting says what to speak, and ends the chain of the filters that settings
// have put there.
func fillUpstream(o *httpv3.HttpProtocolOptions) {
	if len(o.HttpFilters) > 0 {
		o.HttpFilters = append(o.HttpFilters, &hcmv3.HttpFilter{
			Name:       "legation.codec",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: Pack(&upstreamcodecv3.UpstreamCodec{})},
		})
	}
	if o.UpstreamProtocolOptions == nil {
		o.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
					HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
				},
			},
		}
	}
}

// fillCircuitBreakers keeps one slow backend from taking all of Envoy's memory and sockets. Envoy's 1,024 of each is
// little for an edge; its 3 retries at a time are none, so they are a share of the requests in flight. What a setting
// says stays; Envoy reads only one threshold of a priority, so it can't stand beside ours.
func fillCircuitBreakers(c *clusterv3.Cluster) {
	if c.CircuitBreakers == nil {
		c.CircuitBreakers = new(clusterv3.CircuitBreakers)
	}
	all := c.CircuitBreakers.Thresholds
	i := slices.IndexFunc(all, func(t *clusterv3.CircuitBreakers_Thresholds) bool {
		return t.Priority == corev3.RoutingPriority_DEFAULT
	})
	if i < 0 {
		i, all = len(all), append(all, new(clusterv3.CircuitBreakers_Thresholds))
	}
	t := all[i]
	t.MaxConnections = cmp.Or(t.MaxConnections, wrapperspb.UInt32(4096))
	t.MaxPendingRequests = cmp.Or(t.MaxPendingRequests, wrapperspb.UInt32(4096))
	t.MaxRequests = cmp.Or(t.MaxRequests, wrapperspb.UInt32(4096))
	if t.MaxRetries == nil && t.RetryBudget == nil {
		t.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: 20},
			MinRetryConcurrency: wrapperspb.UInt32(3),
		}
	}
	c.CircuitBreakers.Thresholds = all
}

// stableBytes is the message's bytes, the same in every run.
func stableBytes(m proto.Message) []byte {
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return b
}
