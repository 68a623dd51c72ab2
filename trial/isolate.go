package trial

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// proxyFilter takes the address of a client that a case names.
const proxyFilter = "envoy.filters.listener.proxy_protocol"

// isolated is what the Envoys of a run are served: the resources of the policy, but with this machine's addresses alone.
//
//   - Listeners open on 127.0.0.1, at ports that the kernel chooses, and take a client's address by the PROXY protocol.
//   - Clusters lead to samples; names are not resolved. TLS to them is as the policy has it, with the run's authority.
//   - Access logs go to the journal, and nowhere else.
type isolated struct {
	model     *policy.Model
	authority *authority
	samples   *samples
	issuer    string // where Envoys fetch keys

	endpoints map[string][]*sample // by service
	each      int                  // samples for a service at most
}

// How many samples stand for the endpoints of a service at most, and of all services: each listens at a port of its own.
const (
	maxEndpoints = 8
	maxSamples   = 512
)

// resources makes the resources of some gateways. Those given stay as they are.
func (i *isolated) resources(of map[string][]envoy.Resource, gateways []string) (map[string][]envoy.Resource, error) {
	i.endpoints = map[string][]*sample{}
	all := make(map[string][]envoy.Resource, len(gateways))
	i.each = max(1, min(maxEndpoints, maxSamples/max(1, len(i.model.Services))))
	for _, gateway := range gateways {
		for _, r := range of[gateway] {
			r.Message = proto.Clone(r.Message)
			var err error
			switch m := r.Message.(type) {
			case *listenerv3.Listener:
				i.listener(m)
			case *clusterv3.Cluster:
				err = i.cluster(m)
			case *endpointv3.ClusterLoadAssignment:
				err = i.assignment(m)
			case *tlsv3.Secret:
				i.trust(m.GetValidationContext())
			}
			if err = errors.Join(err, alone(r.Message)); err != nil {
				return nil, fmt.Errorf("%s: %w", r.Pos, err)
			}
			all[gateway] = append(all[gateway], r)
		}
	}
	return all, nil
}

// alone tells of what leads away from this machine all the same: nothing of it may be served.
func alone(m proto.Message) error {
	var errs []error
	envoy.Walk(m, func(m proto.Message) bool {
		switch m := m.(type) {
		case *corev3.SocketAddress:
			if ip := net.ParseIP(m.Address); !ip.IsLoopback() {
				errs = append(errs, fmt.Errorf("%s would be called, and cases call nobody: leave it out of what is tested", m.Address))
			}
		case *corev3.Pipe:
			errs = append(errs, fmt.Errorf("the socket %s would be called, and cases call nobody", m.Path))
		case *corev3.GrpcService_GoogleGrpc:
			errs = append(errs, fmt.Errorf("%s would be called, and cases call nobody", m.TargetUri))
		}
		return false
	})
	return errors.Join(errs...)
}

// listener opens a listener on this machine alone.
func (i *isolated) listener(l *listenerv3.Listener) {
	l.Address = socket("127.0.0.1:0")
	l.AdditionalAddresses, l.AccessLog = nil, nil
	l.EnableReusePort = wrapperspb.Bool(false)
	if !slices.ContainsFunc(l.ListenerFilters, func(f *listenerv3.ListenerFilter) bool { return f.Name == proxyFilter }) {
		l.ListenerFilters = slices.Insert(l.ListenerFilters, 0, &listenerv3.ListenerFilter{
			Name: proxyFilter,
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{
				TypedConfig: envoy.Pack(&proxyv3.ProxyProtocol{AllowRequestsWithoutProxyProtocol: true}),
			},
		})
	}
	envoy.Walk(l, func(m proto.Message) bool {
		switch m := m.(type) {
		case *hcmv3.HttpConnectionManager:
			m.AccessLog, m.AccessLogOptions = []*accesslogv3.AccessLog{logged("http", &alsv3.HttpGrpcAccessLogConfig{CommonConfig: toJournal("http")})}, nil
		case *tcpproxyv3.TcpProxy:
			// Its entry names no route; the prefix does.
			m.AccessLog, m.AccessLogOptions = []*accesslogv3.AccessLog{logged("tcp", &alsv3.TcpGrpcAccessLogConfig{CommonConfig: toJournal("tcp", m.StatPrefix)})}, nil
		case *tlsv3.CertificateValidationContext:
			return i.trust(m)
		default:
			return false
		}
		return true
	})
}

func logged(kind string, config proto.Message) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{
		Name:       "envoy.access_loggers." + kind + "_grpc",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: envoy.Pack(config)},
	}
}

// routeTag names the route of a connection of bytes.
const routeTag = "route"

// toJournal has each entry sent at once, with the name of the route where there is only one.
func toJournal(name string, route ...string) *alsv3.CommonGrpcAccessLogConfig {
	c := &alsv3.CommonGrpcAccessLogConfig{
		LogName: name, TransportApiVersion: corev3.ApiVersion_V3, BufferSizeBytes: wrapperspb.UInt32(0),
		GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: envoy.Companion},
		}},
	}
	for _, one := range route {
		c.CustomTags = append(c.CustomTags, &tracingv3.CustomTag{
			Tag: routeTag, Type: &tracingv3.CustomTag_Literal_{Literal: &tracingv3.CustomTag_Literal{Value: one}},
		})
	}
	return c
}

// trust has the run's authority stand for whoever is trusted, and tells that it has.
func (i *isolated) trust(c *tlsv3.CertificateValidationContext) bool {
	if c == nil || c.TrustedCa == nil {
		return false
	}
	c.TrustedCa = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: i.authority.pem}}
	c.Crl, c.VerifyCertificateHash, c.VerifyCertificateSpki = nil, nil, nil
	return true
}

// service is the one that a cluster is of; nil of a cluster that is no service's.
func (i *isolated) service(cluster string) *policy.Service {
	at := slices.IndexFunc(i.model.Services, func(s *policy.Service) bool { return s.Name == cluster })
	if at < 0 {
		return nil
	}
	return i.model.Services[at]
}

// sampleName is what the samples of a service are called: an app behind a sidecar is its service.
func sampleName(s *policy.Service) string {
	if s.AppOf != nil {
		return s.AppOf.Name
	}
	return s.Name
}

// cluster leads a cluster to samples, or to the issuer.
func (i *isolated) cluster(c *clusterv3.Cluster) error {
	if strings.HasPrefix(c.Name, "outside/") {
		c.ClusterDiscoveryType, c.TransportSocket = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, nil
		c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.Name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
				Endpoint: &endpointv3.Endpoint{Address: socket(i.issuer)},
			}}},
		}}}
		return nil
	}
	if i.service(c.Name) == nil {
		return fmt.Errorf("the cluster %s is none of a service", c.Name)
	}
	c.UpstreamBindConfig = nil // an address of the policy's host
	names, healthy := i.presented(c), checked(c)
	if c.GetType() != clusterv3.Cluster_EDS {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		if err := i.assignment(c.LoadAssignment); err != nil {
			return err
		}
	}
	made, err := i.samplesOf(c.Name)
	for _, one := range made {
		one.names, one.healthy = names, healthy
	}
	return err
}

// presented is the names that a sample's certificate has to have, and has the run's authority trusted.
func (i *isolated) presented(c *clusterv3.Cluster) []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	envoy.Walk(c, func(m proto.Message) bool {
		switch m := m.(type) {
		case *tlsv3.UpstreamTlsContext:
			add(m.Sni)
		case *tlsv3.CertificateValidationContext:
			for _, s := range m.MatchTypedSubjectAltNames {
				add(s.GetMatcher().GetExact())
			}
			return i.trust(m)
		}
		return false
	})
	return names
}

// checked is the status that health checks want.
func checked(c *clusterv3.Cluster) int {
	for _, check := range c.HealthChecks {
		if wanted := check.GetHttpHealthCheck().GetExpectedStatuses(); len(wanted) > 0 {
			return int(wanted[0].Start)
		}
	}
	return 200
}

// samplesOf starts the samples of a service, once.
func (i *isolated) samplesOf(service string) ([]*sample, error) {
	if known, ok := i.endpoints[service]; ok {
		return known, nil
	}
	s := i.service(service)
	if s.Sidecar != nil {
		return nil, nil
	}
	count := max(1, min(len(s.Endpoints), i.each))
	for range count {
		one, err := i.samples.start(sampleName(s))
		if err != nil {
			return nil, fmt.Errorf("start a sample of %s: %w", service, err)
		}
		i.endpoints[service] = append(i.endpoints[service], one)
	}
	return i.endpoints[service], nil
}

// nowhere is where calls to a sidecar lead until its Envoy listens.
const nowhere = "127.0.0.1:1"

// assignment puts samples in the place of endpoints. What is beyond their number is left out.
func (i *isolated) assignment(a *endpointv3.ClusterLoadAssignment) error {
	if i.service(a.ClusterName) == nil {
		return fmt.Errorf("the endpoints of %s are none of a service", a.ClusterName)
	}
	made, err := i.samplesOf(a.ClusterName)
	if err != nil {
		return err
	}
	addresses := []string{nowhere}
	for n, one := range made {
		addresses = append(addresses[:n], one.address)
	}
	for _, locality := range a.Endpoints {
		var kept []*endpointv3.LbEndpoint
		for _, e := range locality.LbEndpoints {
			if len(addresses) > 0 {
				point(e.GetEndpoint(), addresses[0])
				kept, addresses = append(kept, e), addresses[1:]
			}
		}
		locality.LbEndpoints = kept
	}
	return nil
}

// point leads an endpoint elsewhere; it keeps the name that it has been resolved by.
func point(e *endpointv3.Endpoint, address string) {
	if name := e.GetAddress().GetSocketAddress().GetAddress(); e.Hostname == "" && net.ParseIP(name) == nil {
		e.Hostname = name
	}
	e.Address, e.AdditionalAddresses = socket(address), nil
}

// joined leads the calls of services that have sidecars to where their Envoys listen.
func joined(list []envoy.Resource, m *policy.Model, listening func(gateway, listener string) string) []envoy.Resource {
	list = slices.Clone(list)
	for n, r := range list {
		at := slices.IndexFunc(m.Services, func(s *policy.Service) bool { return s.Name == r.Name && s.Sidecar != nil })
		if at < 0 {
			continue
		}
		sidecar := m.Services[at].Sidecar
		inbound := slices.IndexFunc(sidecar.Listeners, func(l *policy.Listener) bool { return len(l.Peers) > 0 })
		moved := proto.Clone(r.Message)
		var to *endpointv3.ClusterLoadAssignment
		switch m := moved.(type) {
		case *endpointv3.ClusterLoadAssignment:
			to = m
		case *clusterv3.Cluster:
			to = m.LoadAssignment
		}
		if to == nil || inbound < 0 {
			continue
		}
		for _, locality := range to.Endpoints {
			for _, e := range locality.LbEndpoints {
				point(e.GetEndpoint(), listening(sidecar.Name, sidecar.Listeners[inbound].Name))
			}
		}
		list[n].Message = moved
	}
	return list
}

// renewed is the resources with a mark by which Envoy takes route tables, and clusters too, for others than it has: what it
// counts by itself begins anew.
func renewed(list []envoy.Resource, round int, clusters bool) []envoy.Resource {
	list = slices.Clone(list)
	mark := &structpb.Struct{Fields: map[string]*structpb.Value{"round": structpb.NewNumberValue(float64(round))}}
	const key = "legation.test"
	for n, r := range list {
		switch m := r.Message.(type) {
		case *routev3.RouteConfiguration:
			again := proto.Clone(m).(*routev3.RouteConfiguration)
			if again.Metadata == nil {
				again.Metadata = new(corev3.Metadata)
			}
			again.Metadata.FilterMetadata = map[string]*structpb.Struct{key: mark}
			list[n].Message = again
		case *clusterv3.Cluster:
			if !clusters {
				continue
			}
			again := proto.Clone(m).(*clusterv3.Cluster)
			if again.Metadata == nil {
				again.Metadata = new(corev3.Metadata)
			}
			if again.Metadata.FilterMetadata == nil {
				again.Metadata.FilterMetadata = map[string]*structpb.Struct{}
			}
			again.Metadata.FilterMetadata[key] = mark
			list[n].Message = again
		case *endpointv3.ClusterLoadAssignment:
			if clusters {
				list[n].Salt += strconv.Itoa(round)
			}
		}
	}
	return list
}

func socket(address string) *corev3.Address {
	host, port, err := net.SplitHostPort(address)
	number, _ := strconv.ParseUint(port, 10, 16)
	if err != nil {
		host = "127.0.0.1"
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(number)},
	}}}
}
