package tls_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/ratelimit"
	"github.com/legation/legation/policy"
	companion "github.com/legation/legation/ratelimit"
	"google.golang.org/grpc"
)

const limited = `
gateways:
  edge:
    listeners:
      https: {port: %d, address: 127.0.0.1, protocol: HTTPS, certificates: [{secret: tls/a}], tls: {clientCertificates: {ca: {secret: mesh/ca}}}}
services: {echo: {endpoints: [%q]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny}, backends: {echo: 1}}
  each: {hostnames: [a.test], rateLimit: {rate: 2/day, by: {header: x-legation-peer}}, backends: {echo: 1}}
`

// TestLimitsByPeer counts by the certificate, whatever a client says of itself.
func TestLimitsByPeer(t *testing.T) {
	secrets := golden.NewSecrets(t, "tls/a certificate a.test\nmesh/ca authority\nmesh/one certificate spiffe://mesh/one by mesh/ca\nmesh/two certificate spiffe://mesh/two by mesh/ca")
	port := golden.FreePort(t)
	text := fmt.Sprintf(limited, port, golden.Backend(t, golden.Echo))
	m, problems := policy.New(kinds...).WithSecrets(secrets).Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	limits := companion.New(companion.Options{})
	t.Cleanup(func() { limits.Close() })
	limits.Load(ratelimit.Limits(m))
	golden.Start(t, m, kinds, serveLimits(t, limits))

	client := func(certificate string) *http.Client {
		config := &tls.Config{
			ServerName: "a.test", RootCAs: secrets.Authority(t, "").Pool(), NextProtos: []string{"h2"},
			Certificates: []tls.Certificate{secrets.Certificate(t, certificate).TLS(t)},
		}
		transport := &http.Transport{DialTLS: func(string, string) (net.Conn, error) {
			return tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), config)
		}, ForceAttemptHTTP2: true}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	get := func(c *http.Client, path, pretend string) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://a.test"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("x-legation-peer", pretend)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	one, two := client("mesh/one"), client("mesh/two")
	ready := false
	for range 200 { // until Envoy has reached the companion
		if ready = get(one, "/ready", "") == 200; ready {
			break
		}
	}
	if !ready {
		t.Fatal("the companion does not answer")
	}
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

func serveLimits(t *testing.T, limits *companion.Service) string {
	t.Helper()
	server := grpc.NewServer(companion.AnyText(), grpc.MaxRecvMsgSize(1<<20))
	limits.Register(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String()
}
