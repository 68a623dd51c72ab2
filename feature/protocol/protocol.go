// Package protocol tells which HTTP a service speaks: the key protocol. [envoy.Translate] calls it.
package protocol

import (
	_ "embed"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key protocol.
var Kind = policy.Define[Setting]("protocol", policy.InService, doc).ForApp()

// Setting is what stands under protocol.
type Setting string

const (
	http1 Setting = "http1" // HTTP/1.1, the default
	http2 Setting = "http2" // with prior knowledge, or "h2" in ALPN where there is TLS
	auto  Setting = "auto"  // what ALPN settles on, so with TLS only
	grpc  Setting = "grpc"  // http2, for routes that let calls take their time
)

// Values are the choices.
func (Setting) Values() []string {
	return []string{string(http1), string(http2), string(auto), string(grpc)}
}

// AlwaysHTTP2 tells whether every connection speaks HTTP/2; health checks ask.
func (s *Setting) AlwaysHTTP2() bool { return *s == http2 || *s == grpc }

// Negotiated tells whether ALPN decides between HTTP/2 and HTTP/1.1; health checks ask.
func (s *Setting) Negotiated() bool { return *s == auto }

// Check holds auto to services with TLS: without ALPN there is nobody to ask, and Envoy would refuse the cluster.
func (s *Setting) Check(c *policy.Check) {
	const tls = "tls"
	if s.Negotiated() && !c.Entry().Settings.Has(tls) && !c.Broken(tls) {
		c.Errorf("", "auto goes by what TLS negotiates, and the service has no tls").
			Hintf("write protocol: http2 or http1, whichever the service speaks in plain text")
	}
}

// Upstream says how the service is spoken to.
func (s *Setting) Upstream(c envoy.ServiceContext) *httpv3.HttpProtocolOptions {
	switch {
	case s.Negotiated():
		return &httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_AutoConfig{
			AutoConfig: &httpv3.HttpProtocolOptions_AutoHttpConfig{
				HttpProtocolOptions:  &corev3.Http1ProtocolOptions{},
				Http2ProtocolOptions: s.http2Options(c.Service),
			},
		}}
	case s.AlwaysHTTP2():
		return explicit(&httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
				Http2ProtocolOptions: s.http2Options(c.Service),
			},
		})
	default:
		return explicit(&httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
			},
		})
	}
}

func explicit(config *httpv3.HttpProtocolOptions_ExplicitHttpConfig) *httpv3.HttpProtocolOptions {
	return &httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: config,
	}}
}

const (
	// defaultStreams is what a server should take at least (RFC 9113, 6.5.2). Envoy's 1,024 are sent before the
	// server has told its own bound, which then refuses some.
	defaultStreams = 100
	// The windows are those that Envoy advises for an edge: what a backend may have on its way to us. The defaults of
	// 16 MiB and 24 MiB would let slow clients fill the memory.
	streamWindow     = 64 << 10
	connectionWindow = 1 << 20
	// pingTimeout is how long the answer to a ping may take before the connection is given up.
	pingTimeout = 10 * time.Second
)

// streamBound is a setting of the service that bounds the requests on one connection; 0 leaves the default.
type streamBound interface{ MaxStreamsPerConnection() uint32 }

func (s *Setting) http2Options(service *policy.Service) *corev3.Http2ProtocolOptions {
	streams := uint32(defaultStreams)
	if bound, ok := policy.Find[streamBound](service.Settings); ok && bound.MaxStreamsPerConnection() > 0 {
		streams = bound.MaxStreamsPerConnection()
	}
	return &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(streams),
		InitialStreamWindowSize:     wrapperspb.UInt32(streamWindow),
		InitialConnectionWindowSize: wrapperspb.UInt32(connectionWindow),
		// Without pings all requests go to a dead connection until TCP gives it up, a quarter of an hour later.
		ConnectionKeepalive: &corev3.KeepaliveSettings{
			Interval: durationpb.New(s.pingInterval()),
			Timeout:  durationpb.New(pingTimeout),
		},
	}
}

// pingInterval heeds that gRPC's servers close the connection of a client that pings more often than each 5 minutes
// (too_many_pings). Envoy adds up to 15% to each interval and takes nothing off.
func (s *Setting) pingInterval() time.Duration {
	if *s == grpc {
		return 5 * time.Minute
	}
	return 30 * time.Second
}

// Route lets gRPC calls last as long as their client gives them (grpc-timeout), or as they like: the default of 15s
// would end every stream. It leaves routes alone that also send elsewhere, and what the route's own timeouts say.
func (s *Setting) Route(c envoy.RouteContext) envoy.RouteParts {
	if *s != grpc || !allGRPC(c.Route.Backends) {
		return envoy.RouteParts{}
	}
	action := new(routev3.RouteAction)
	if !bounded(c.Route, "request") {
		action.Timeout = durationpb.New(0)
	}
	// The client's word would stand in place of the bound, so that there is none with a bound.
	if !bounded(c.Route, "stream") {
		action.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{GrpcTimeoutHeaderMax: durationpb.New(0)}
	}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}

func allGRPC(backends []policy.Backend) bool {
	for _, b := range backends {
		if s, ok := policy.Find[*Setting](b.Service.Settings); !ok || *s != grpc {
			return false
		}
	}
	return true
}

// bounded tells whether the route's timeouts, of whatever layer, have the field.
func bounded(r *policy.BoundRoute, field string) bool {
	for set := range r.Settings.All("timeouts") {
		if set.Node.Get(field) != nil {
			return true
		}
	}
	return false
}
