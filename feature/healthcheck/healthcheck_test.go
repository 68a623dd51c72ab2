package healthcheck_test

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/healthcheck"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/anypb"
)

// protocol stands for the key of that name.
type protocol string

func (protocol) Values() []string { return []string{"http1", "http2", "auto", "grpc"} }

func (*protocol) Check(*policy.Check) {}

func (p *protocol) AlwaysHTTP2() bool { return *p == "http2" || *p == "grpc" }

func (p *protocol) Negotiated() bool { return *p == "auto" }

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

// upstreamTLS stands for the key tls: a service is spoken to over TLS, and whatever it presents is believed.
type upstreamTLS struct{}

func (*upstreamTLS) Check(*policy.Check) {}

func (*upstreamTLS) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	config, _ := anypb.New(&tlsv3.UpstreamTlsContext{}) // an empty message always packs
	return &clusterv3.Cluster{TransportSocket: &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config},
	}}
}

var kinds = []*policy.Kind{
	healthcheck.Kind,
	policy.Define[protocol]("protocol", policy.InService, ""),
	policy.Define[upstreamTLS]("tls", policy.InService, ""),
}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  orders:
    endpoints: [%q, %q, %q]
    healthCheck: {path: /healthz, interval: 100ms, unhealthyThreshold: 2, expectedStatuses: [200-204]}
routes:
  orders: {hostnames: [a.test], backends: {orders: 1}}
`

func TestSickEndpointIsLeftOut(t *testing.T) {
	var sick atomic.Bool
	var host atomic.Value
	fickle := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			host.Store(r.Host)
		}
		if sick.Load() {
			w.WriteHeader(500)
		}
		io.WriteString(w, "fickle")
	})
	well := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	envoy := golden.Serve(t, fmt.Sprintf(live, fickle, well, golden.Backend(t, golden.Echo)), healthcheck.Kind)

	asked := func() bool {
		for range 6 {
			if envoy.Ask(t, "GET", "a.test", "/").Body == "fickle" {
				return true
			}
		}
		return false
	}
	eventually(t, "the endpoint is asked", asked)
	if got := host.Load(); got != "orders" {
		t.Errorf("the check asks for the host %v, want the service's name", got)
	}
	sick.Store(true)
	eventually(t, "the sick endpoint is left out", func() bool { return !asked() })
	sick.Store(false)
	eventually(t, "the endpoint is back", asked)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after 20 s still not: %s", what)
		}
	}
}
