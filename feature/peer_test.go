package feature_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

const peerPolicy = `
gateways:
  edge:
    listeners:
      https: {port: %d, address: 127.0.0.1, protocol: HTTPS, certificates: [{secret: tls/a}], tls: {clientCertificates: {ca: {secret: mesh/ca}}}}
services: {echo: {endpoints: [%q]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny}, backends: {echo: 1}}
  each: {hostnames: [a.test], rateLimit: {rate: 2/day, by: {header: x-legation-peer}}, backends: {echo: 1}}
`

const peerSecrets = `
tls/a certificate a.test
mesh/ca authority
mesh/one certificate spiffe://mesh/one by mesh/ca
mesh/two certificate spiffe://mesh/two by mesh/ca
`

// TestLimitsByCertificate counts by who a client is, whatever it says of itself.
func TestLimitsByCertificate(t *testing.T) {
	secrets := golden.NewSecrets(t, peerSecrets)
	port := golden.FreePort(t)
	text := fmt.Sprintf(peerPolicy, port, golden.Backend(t, golden.Echo))
	m, problems := feature.Language().WithSecrets(secrets).Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	_, address := companions(t, m)
	golden.Start(t, m, feature.All(), address)

	caller := func(certificate string) *http.Client {
		config := &tls.Config{
			ServerName: "a.test", RootCAs: secrets.Authority(t, "").Pool(), NextProtos: []string{"h2"},
			Certificates: []tls.Certificate{secrets.Certificate(t, certificate).TLS(t)},
		}
		transport := &http.Transport{DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&tls.Dialer{Config: config}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
		}, ForceAttemptHTTP2: true}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	get := func(c *http.Client, path, pretend string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.test"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Legation-Peer", pretend)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	one, two := caller("mesh/one"), caller("mesh/two")
	golden.Eventually(t, "the companion answers", func() bool { return get(one, "/ready", "") == http.StatusOK })
	for i, want := range []int{200, 200, 429, 429} {
		pretend := fmt.Sprintf("spiffe://mesh/%d", i)
		if got := get(one, "/", pretend); got != want {
			t.Errorf("one, request %d as %s: got %d, want %d", i, pretend, got, want)
		}
	}
	if got := get(two, "/", "spiffe://mesh/one"); got != 200 {
		t.Errorf("two: got %d, want 200", got)
	}
}
