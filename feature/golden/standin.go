package golden

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Protocol stands for the key of that name in the tests of features that go by what a service speaks.
var Protocol = policy.Define[protocol]("protocol", policy.InService, "")

type protocol string

var _ envoy.HTTPVersion = (*protocol)(nil)

// Values are those of the key.
func (protocol) Values() []string { return []string{"http1", "http2", "auto", "grpc"} }

// Check takes all of them.
func (*protocol) Check(*policy.Check) {}

// AlwaysHTTP2 is as the key has it.
func (p *protocol) AlwaysHTTP2() bool { return *p == "http2" || *p == "grpc" }

// Negotiated is as the key has it.
func (p *protocol) Negotiated() bool { return *p == "auto" }

// Upstream has Envoy speak it, with Envoy's own defaults; nil is HTTP/1.1.
func (p *protocol) Upstream(envoy.ServiceContext) *httpv3.HttpProtocolOptions {
	http2 := new(corev3.Http2ProtocolOptions)
	switch {
	case p.Negotiated():
		return &httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_AutoConfig{
			AutoConfig: &httpv3.HttpProtocolOptions_AutoHttpConfig{Http2ProtocolOptions: http2},
		}}
	case p.AlwaysHTTP2():
		return &httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: http2},
			},
		}}
	}
	return nil
}

// UpstreamTLS stands for the key tls of services: one is spoken to over TLS, and whatever it presents is believed.
var UpstreamTLS = policy.Define[upstreamTLS]("tls", policy.InService, "")

type upstreamTLS struct{}

// Check has nothing to look at.
func (*upstreamTLS) Check(*policy.Check) {}

// Cluster has Envoy speak it.
func (*upstreamTLS) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	return &clusterv3.Cluster{TransportSocket: &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: envoy.Pack(new(tlsv3.UpstreamTlsContext))},
	}}
}
