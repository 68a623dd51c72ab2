package protocol_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/protocol"
	"github.com/legation/legation/policy"
)

// bounds stands for the key timeouts, of which only the names of two fields matter.
type bounds struct {
	Request *policy.Duration `policy:"request"`
	Stream  *policy.Duration `policy:"stream"`
}

func (*bounds) Check(*policy.Check) {}

// streams stands for what bounds the requests on one connection.
type streams uint32

func (*streams) Check(*policy.Check) {}

func (s *streams) MaxStreamsPerConnection() uint32 { return uint32(*s) }

var kinds = []*policy.Kind{
	protocol.Kind,
	golden.UpstreamTLS,
	policy.Define[bounds]("timeouts", policy.Layers, ""),
	policy.Define[streams]("streams", policy.InService, ""),
}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

// serveH2C runs a server that speaks only HTTP/2, in plain text, until the test ends.
func serveH2C(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	t.Cleanup(server.Close)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	return server.Listener.Addr().String()
}

// serveTLS runs one over TLS, which offers HTTP/2 or only HTTP/1.1.
func serveTLS(t *testing.T, h http.HandlerFunc, http2 bool) string {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	t.Cleanup(server.Close)
	server.EnableHTTP2 = http2
	server.StartTLS()
	return server.Listener.Addr().String()
}

// version answers with the version of HTTP that it was asked in.
func version(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  plain: {endpoints: [%[1]q]}
  http1: {endpoints: [%[1]q], protocol: http1}
  http2: {endpoints: [%[2]q], protocol: http2}
  grpc: {endpoints: [%[2]q], protocol: grpc}
  wrong: {endpoints: [%[1]q], protocol: http2}
  tls-http2: {endpoints: [%[3]q], protocol: http2, tls: {}}
  tls-auto: {endpoints: [%[3]q], protocol: auto, tls: {}}
  tls-auto-old: {endpoints: [%[4]q], protocol: auto, tls: {}}
routes:
  plain: {hostnames: [plain.test], backends: {plain: 1}}
  http1: {hostnames: [http1.test], backends: {http1: 1}}
  http2: {hostnames: [http2.test], backends: {http2: 1}}
  grpc: {hostnames: [grpc.test], backends: {grpc: 1}}
  wrong: {hostnames: [wrong.test], backends: {wrong: 1}}
  tls-http2: {hostnames: [tls-http2.test], backends: {tls-http2: 1}}
  tls-auto: {hostnames: [tls-auto.test], backends: {tls-auto: 1}}
  tls-auto-old: {hostnames: [tls-auto-old.test], backends: {tls-auto-old: 1}}
`

func TestServiceIsSpokenToAsItSays(t *testing.T) {
	text := fmt.Sprintf(live,
		golden.Backend(t, version),
		serveH2C(t, version),
		serveTLS(t, version, true),
		serveTLS(t, version, false))
	envoy := golden.Serve(t, text, kinds...)
	for _, c := range []struct{ service, want string }{
		{"plain", "HTTP/1.1"},
		{"http1", "HTTP/1.1"},
		{"http2", "HTTP/2.0"},
		{"grpc", "HTTP/2.0"},
		{"tls-http2", "HTTP/2.0"},
		{"tls-auto", "HTTP/2.0"},
		{"tls-auto-old", "HTTP/1.1"},
	} {
		if got := envoy.Ask(t, "GET", c.service+".test", "/"); got.Status != 200 || got.Body != c.want {
			t.Errorf("%s: got %d %q, want 200 %q", c.service, got.Status, got.Body, c.want)
		}
	}
	if got := envoy.Ask(t, "GET", "wrong.test", "/"); got.Status != 502 && got.Status != 503 {
		t.Errorf("HTTP/2 to a server of HTTP/1.1: got %d %q, want 502 or 503", got.Status, got.Body)
	}
}
