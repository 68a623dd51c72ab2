package feature_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
)

const secureServices = `
gateways: {edge: {listeners: {http: {port: 1}}}}
services:
  http1: {endpoints: [%[1]q], tls: {hostname: api.internal, ca: {secret: mesh/ca}, certificate: {secret: mesh/edge}}}
  http2: {endpoints: [%[1]q], protocol: http2, tls: {hostname: api.internal, ca: {secret: mesh/ca}, certificate: {secret: mesh/edge}}}
  auto: {endpoints: [%[1]q], protocol: auto, tls: {hostname: api.internal, ca: {secret: mesh/ca}, certificate: {secret: mesh/edge}}}
  checked:
    endpoints: [%[1]q]
    protocol: http2
    tls: {hostname: api.internal, ca: {secret: mesh/ca}, certificate: {secret: mesh/edge}}
    healthCheck: {path: /healthz, interval: 100ms}
routes:
  http1: {hostnames: [http1.test], backends: {http1: 1}}
  http2: {hostnames: [http2.test], backends: {http2: 1}}
  auto: {hostnames: [auto.test], backends: {auto: 1}}
  checked: {hostnames: [checked.test], backends: {checked: 1}}
-- secrets --
mesh/ca authority
mesh/edge certificate edge.internal by mesh/ca
`

// TestServicesOverTLS holds which HTTP is spoken over it, by requests and by health checks.
func TestServicesOverTLS(t *testing.T) {
	checks := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := fmt.Sprintf("%s from %s", r.Proto, r.TLS.PeerCertificates[0].Subject.CommonName)
		if r.URL.Path == "/healthz" {
			select {
			case checks <- who:
			default:
			}
		}
		fmt.Fprint(w, who)
	}))
	t.Cleanup(server.Close)
	e := golden.Serve(t, fmt.Sprintf(secureServices, server.Listener.Addr().String()), feature.All()...)
	ca := e.Secrets.Authority(t, "mesh/ca")
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, "api.internal").TLS(t)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}
	server.EnableHTTP2 = true
	server.StartTLS()

	for service, want := range map[string]string{
		"http1": "HTTP/1.1 from edge.internal",
		"http2": "HTTP/2.0 from edge.internal",
		"auto":  "HTTP/2.0 from edge.internal",
	} {
		if got := e.Ask(t, "GET", service+".test", "/"); got.Status != 200 || got.Body != want {
			t.Errorf("%s: got %d %q, want 200 %q", service, got.Status, got.Body, want)
		}
	}
	select {
	case got := <-checks:
		if want := "HTTP/2.0 from edge.internal"; got != want {
			t.Errorf("the health check came by %s, want %s", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Error("no health check came")
	}
}
