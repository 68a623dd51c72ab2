package envoy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// xdsCluster leads to the control plane.
const xdsCluster = "legation_xds"

// self is the cluster that stands for the Envoy's own zone.
const self = "legation_self"

// BootstrapOptions is what an Envoy has to know before it can ask.
type BootstrapOptions struct {
	Group     string // the gateway; becomes node.cluster
	Node      string // node.id; default the group
	Zone      string // where the Envoy stands, as zones of endpoints are written; empty where that is not told
	XDS       string // host:port of the control plane, several separated by commas; default 127.0.0.1:18000
	Companion string // the same for the companion; default 127.0.0.1:18001
	Admin     string // where Envoy's admin interface listens; default 127.0.0.1:19000
	// Files on Envoy's host, PEM, for mutual TLS to both: all or none, or with a TokenFile the CA alone.
	TLSCert, TLSKey, TLSCA string
	// SDS is a directory on Envoy's host with the files of BootstrapSecrets: by them Envoy reads the three files again when
	// they change. Empty: it reads them when it starts.
	SDS string
	// TokenFile is a file on Envoy's host with a token that it shows to the control plane, by TLS. Envoy reads it again when
	// another is moved in its place.
	TokenFile string
	// Secrets is a directory on Envoy's host: the static form names the files in it instead of holding their contents.
	Secrets string
	// Quiet is an Envoy that does not report how many requests it sends to which service.
	Quiet bool
	// MaxHeap is what Envoy may take of memory, in bytes; default 1 GiB. Some of what it needs comes on top, such as its
	// code and stacks: leave a fifth of a container's memory to that.
	MaxHeap uint64
}

// Bootstrap is the configuration that an Envoy connects to Legation with.
func Bootstrap(o BootstrapOptions) *bootstrapv3.Bootstrap {
	b := base(o)
	b.DynamicResources = &bootstrapv3.Bootstrap_DynamicResources{
		AdsConfig: adsConfig(),
		// Bounded: without a control plane Envoy is up in half a minute, serving nothing, rather than stuck in its start.
		CdsConfig: ads(durationpb.New(15 * time.Second)),
		LdsConfig: ads(durationpb.New(15 * time.Second)),
	}
	if !o.Quiet {
		if b.ClusterManager == nil {
			b.ClusterManager = &bootstrapv3.ClusterManager{}
		}
		b.ClusterManager.LoadStatsConfig = loadStats()
	}
	b.StaticResources = &bootstrapv3.Bootstrap_StaticResources{
		Clusters: append([]*clusterv3.Cluster{xdsClusterOf(o), companionCluster(o)}, selfClusters(o)...),
	}
	return b
}

// base is what every bootstrap of ours has.
func base(o BootstrapOptions) *bootstrapv3.Bootstrap {
	b := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{
			Id:      cmp.Or(o.Node, o.Group, "legation"),
			Cluster: cmp.Or(o.Group, "legation"),
		},
		Admin:           &bootstrapv3.Admin{Address: address(cmp.Or(o.Admin, "127.0.0.1:19000"))},
		OverloadManager: overloadManager(o),
	}
	if o.Zone != "" {
		b.Node.Locality = &corev3.Locality{Zone: o.Zone}
		b.ClusterManager = &bootstrapv3.ClusterManager{LocalClusterName: self}
	}
	return b
}

// selfClusters is what Envoy wants before it prefers its own zone: a cluster of the Envoys themselves, by which it would
// leave so much of the zone to each. We don't know them all, and services say by a number of endpoints when the zone is
// enough; so one place in the zone, that nobody ever connects to, stands for them.
func selfClusters(o BootstrapOptions) []*clusterv3.Cluster {
	if o.Zone == "" {
		return nil
	}
	assignment := loadAssignment(self, []policy.Endpoint{{Host: "127.0.0.1", Port: 1, Zone: o.Zone}})
	return []*clusterv3.Cluster{{
		Name:                 self,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment:       assignment,
	}}
}

// adsConfig is one delta stream for everything. The node, 61 kB of it, is sent once and not with every ACK; the
// back-off is Envoy's, shortened: a restarted control plane has all its Envoys back within some seconds.
func adsConfig() *corev3.ApiConfigSource {
	return &corev3.ApiConfigSource{
		ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
		TransportApiVersion:       corev3.ApiVersion_V3,
		SetNodeOnFirstMessageOnly: true,
		GrpcServices:              controlPlane(),
	}
}

// loadStats has Envoy report its load over the connection that xDS has already, as often as the control plane says. One
// that takes no reports is asked again every few seconds, at no other cost.
func loadStats() *corev3.ApiConfigSource {
	return &corev3.ApiConfigSource{
		ApiType:             corev3.ApiConfigSource_GRPC,
		TransportApiVersion: corev3.ApiVersion_V3,
		GrpcServices:        controlPlane(),
	}
}

func controlPlane() []*corev3.GrpcService {
	return []*corev3.GrpcService{{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
			ClusterName: xdsCluster,
			RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
				BaseInterval: durationpb.New(500 * time.Millisecond),
				MaxInterval:  durationpb.New(5 * time.Second),
			}},
		}},
	}}
}

func xdsClusterOf(o BootstrapOptions) *clusterv3.Cluster {
	c := grpcCluster(xdsCluster, cmp.Or(o.XDS, "127.0.0.1:18000"), o)
	if o.TokenFile != "" {
		options := http2Upstream()
		options.HttpFilters = []*hcmv3.HttpFilter{
			filter("envoy.filters.http.credential_injector", tokenInjector(o)),
			filter("envoy.filters.http.upstream_codec", &codecv3.UpstreamCodec{}),
		}
		c.TypedExtensionProtocolOptions[httpOptions] = Pack(options)
	}
	return c
}

// companionCluster leads to the companion, which knows Envoys by their certificates: one without has a companion in plain
// text, on its own machine.
func companionCluster(o BootstrapOptions) *clusterv3.Cluster {
	if o.TLSCert == "" {
		o.TLSCA = ""
	}
	c := grpcCluster(Companion, cmp.Or(o.Companion, "127.0.0.1:18001"), o)
	// Every request of every route may be a call, and a call that is not made is a request refused or not counted.
	c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     wrapperspb.UInt32(1024),
		MaxPendingRequests: wrapperspb.UInt32(65536),
		MaxRequests:        wrapperspb.UInt32(65536),
	}}}
	if c.OutlierDetection != nil || c.GetType() == clusterv3.Cluster_STRICT_DNS { // a name may have several addresses
		askHealth(c)
	}
	return c
}

// askHealth has Envoy ask each of several companions, each second, whether it is well. One that is about to stop says so
// while it still answers, so that no call is lost over it; one that is gone isn't tried again with calls until it is back.
// A companion that says no is out at once, whatever the threshold, which is for those that don't answer. When all are out,
// they are called all the same. And one that was ejected over calls that failed is back once it says that it is well, so
// that it is there when the other one stops.
func askHealth(c *clusterv3.Cluster) {
	c.HealthChecks = []*corev3.HealthCheck{{
		Interval:           durationpb.New(time.Second),
		NoTrafficInterval:  durationpb.New(time.Second), // or it would be a minute before the first call
		Timeout:            durationpb.New(time.Second),
		UnhealthyThreshold: wrapperspb.UInt32(2),
		HealthyThreshold:   wrapperspb.UInt32(1),
		HealthChecker:      &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{}},
	}}
	c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{
		HealthyPanicThreshold: &typev3.Percent{Value: 1}, // Envoy's 50 would have two of three that are gone called too
		UpdateMergeWindow:     durationpb.New(0),         // Envoy's threads would learn of a second change up to 1 s late
	}
}

// grpcCluster is one of our own servers. With more than one address, those that fail are left out for a while: by
// itself Envoy would go on trying an address that does not answer.
func grpcCluster(name, addresses string, o BootstrapOptions) *clusterv3.Cluster {
	var endpoints []policy.Endpoint
	discovery := clusterv3.Cluster_STATIC
	for a := range strings.SplitSeq(addresses, ",") {
		host, port := hostPort(strings.TrimSpace(a))
		if _, err := netip.ParseAddr(host); err != nil {
			discovery = clusterv3.Cluster_STRICT_DNS
		}
		endpoints = append(endpoints, policy.Endpoint{Host: host, Port: port})
	}
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: discovery},
		DnsLookupFamily:      clusterv3.Cluster_V4_PREFERRED,
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment:       loadAssignment(name, endpoints),
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{
			TcpKeepalive: &corev3.TcpKeepalive{KeepaliveTime: wrapperspb.UInt32(60)},
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpOptions: Pack(http2Upstream())},
		TransportSocket:               clientTLS(o, endpoints),
	}
	if len(endpoints) > 1 {
		c.OutlierDetection = &clusterv3.OutlierDetection{
			Consecutive_5Xx:    wrapperspb.UInt32(2),
			Interval:           durationpb.New(time.Second),
			BaseEjectionTime:   durationpb.New(5 * time.Second),
			MaxEjectionPercent: wrapperspb.UInt32(50),
		}
	}
	return c
}

// http2Upstream notices within 20 s that a server is gone whose host went away without a word.
func http2Upstream() *httpv3.HttpProtocolOptions {
	return &httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
						ConnectionKeepalive: &corev3.KeepaliveSettings{
							Interval: durationpb.New(15 * time.Second),
							Timeout:  durationpb.New(5 * time.Second),
						},
					},
				},
			},
		},
	}
}

// JSON is a message as JSON, the same text in every run; protojson varies its spaces on purpose. Envoy gets JSON and
// not YAML, where it reads y as true.
func JSON(m proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return nil, fmt.Errorf("indent JSON: %w", err)
	}
	return b.Bytes(), nil
}

// hostPort splits an address; without a port, or with a bad one, the port is 0, which Envoy refuses with the name.
func hostPort(a string) (string, uint32) {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return a, 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return host, 0
	}
	return host, uint32(n)
}

func address(a string) *corev3.Address {
	host, port := hostPort(a)
	return socketAddress(cmp.Or(host, "0.0.0.0"), port)
}
