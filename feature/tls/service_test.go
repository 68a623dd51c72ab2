package tls_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/legation/legation/feature/golden"
)

// backend is a server of TLS, which tells how it was asked.
type backend struct {
	*httptest.Server
	mu       sync.Mutex
	versions []uint16 // of TLS, of each request
}

// newBackend has an address; it answers once it is given a certificate.
func newBackend(t *testing.T) *backend {
	t.Helper()
	b := new(backend)
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			peer = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		b.mu.Lock()
		b.versions = append(b.versions, r.TLS.Version)
		b.mu.Unlock()
		fmt.Fprintf(w, "%s %s from %s for %q", r.Proto, r.URL.Path, peer, r.TLS.ServerName)
	}))
	b.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(b.Close)
	return b
}

func (b *backend) start(t *testing.T, c golden.Certificate, http2 bool, change func(*tls.Config)) {
	t.Helper()
	b.TLS = &tls.Config{Certificates: []tls.Certificate{c.TLS(t)}}
	b.EnableHTTP2 = http2
	change(b.TLS)
	b.StartTLS()
}

func (b *backend) address() string { return b.Listener.Addr().String() }

const upstreams = `
gateways: {edge: {listeners: {http: {port: 1}, bytes: {port: 2, protocol: TCP}}}}
services:
  good: {endpoints: [GOOD], tls: {hostname: api.internal, ca: {secret: mesh/ca}}}
  file: {endpoints: [FILE], tls: {hostname: API.internal, ca: {file: certs/ca.pem}}}
  newest: {endpoints: [GOOD], tls: {hostname: api.internal, ca: {secret: mesh/ca}, minVersion: "1.3"}}
  below: {endpoints: [GOOD], tls: {hostname: x.wild.internal, ca: {secret: mesh/ca}}}
  deeper: {endpoints: [GOOD], tls: {hostname: x.y.wild.internal, ca: {secret: mesh/ca}}}
  name: {endpoints: [GOOD], tls: {hostname: other.internal, ca: {secret: mesh/ca}}}
  uri: {endpoints: [GOOD], tls: {hostname: other.internal, ca: {secret: mesh/ca}, subjectAltNames: [{uri: spiffe://mesh/api}]}}
  ip: {endpoints: [GOOD], tls: {ca: {secret: mesh/ca}, subjectAltNames: [{dns: nobody.internal}, {ip: 127.0.0.1}]}}
  wrong-uri: {endpoints: [GOOD], tls: {hostname: api.internal, ca: {secret: mesh/ca}, subjectAltNames: [{uri: spiffe://mesh/web}]}}
  other-ca: {endpoints: [GOOD], tls: {hostname: api.internal, ca: {secret: other/ca}}}
  system: {endpoints: [GOOD], tls: {hostname: api.internal}}
  blind: {endpoints: [GOOD], tls: {verify: false}}
  dns: {dns: "localhost:PORT", tls: {ca: {secret: mesh/ca}}}
  mutual: {endpoints: [MUTUAL], tls: {hostname: api.internal, ca: {secret: mesh/ca}, certificate: {secret: mesh/edge}}}
  unknown: {endpoints: [MUTUAL], tls: {hostname: api.internal, ca: {secret: mesh/ca}}}
  old: {endpoints: [OLD], tls: {hostname: api.internal, ca: {secret: mesh/ca}}}
  too-old: {endpoints: [OLD], tls: {hostname: api.internal, ca: {secret: mesh/ca}, minVersion: "1.3"}}
  plain: {endpoints: [PLAIN], tls: {hostname: api.internal, ca: {secret: mesh/ca}}}
  forgotten: {endpoints: [GOOD]}
routes:
  bytes: {listeners: [bytes], backends: {good: 1}}
  forgotten: {hostnames: [forgotten.test], backends: {forgotten: 1}}
`

const upstreamSecrets = `
-- secrets --
mesh/ca authority
other/ca authority
mesh/edge certificate edge.internal by mesh/ca
`

func quoted(b *backend) string { return strconv.Quote(b.address()) }

func TestServices(t *testing.T) {
	good, mutual, old, file := newBackend(t), newBackend(t), newBackend(t), newBackend(t)
	_, port, _ := strings.Cut(good.address(), ":")
	text := strings.NewReplacer("GOOD", quoted(good), "MUTUAL", quoted(mutual), "OLD", quoted(old), "FILE", quoted(file),
		"PLAIN", strconv.Quote(golden.Backend(t, golden.Echo)), "PORT", port).Replace(upstreams)
	rows := []struct{ service, want string }{ // "" for 503
		{"good", `HTTP/1.1 / from nobody for "api.internal"`},
		{"file", `HTTP/1.1 / from nobody for "api.internal"`},
		{"newest", `HTTP/1.1 / from nobody for "api.internal"`},
		{"below", `HTTP/1.1 / from nobody for "x.wild.internal"`},
		{"deeper", ""},
		{"name", ""},
		{"uri", `HTTP/1.1 / from nobody for "other.internal"`},
		{"ip", `HTTP/1.1 / from nobody for ""`},
		{"wrong-uri", ""},
		{"other-ca", ""},
		{"system", ""},
		{"blind", `HTTP/1.1 / from nobody for ""`},
		{"dns", `HTTP/1.1 / from nobody for "localhost"`},
		{"mutual", `HTTP/1.1 / from edge.internal for "api.internal"`},
		{"unknown", ""},
		{"old", `HTTP/1.1 / from nobody for "api.internal"`},
		{"too-old", ""},
		{"plain", ""},
	}
	for _, r := range rows {
		text += fmt.Sprintf("  %s: {hostnames: [%[1]s.test], backends: {%[1]s: 1}}\n", r.service)
	}
	beside := golden.NewAuthority(t, "beside")
	e := golden.Serve(t, text+upstreamSecrets+"-- certs/ca.pem --\n"+string(beside.PEM()), kinds...)
	ca := e.Secrets.Authority(t, "mesh/ca")
	cert := ca.Issue(t, "api.internal", "*.wild.internal", "localhost", "spiffe://mesh/api", "127.0.0.1")
	good.start(t, cert, true, func(*tls.Config) {})
	file.start(t, beside.Issue(t, "api.internal"), false, func(*tls.Config) {})
	mutual.start(t, cert, false, func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool() })
	old.start(t, cert, false, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })

	for _, r := range rows {
		got := e.AskAt(t, "http", "GET", r.service+".test", "/")
		switch {
		case r.want == "" && got.Status != 503:
			t.Errorf("%s: got %d %q, want 503", r.service, got.Status, got.Body)
		case r.want != "" && (got.Status != 200 || got.Body != r.want):
			t.Errorf("%s: got %d %q, want 200 %q", r.service, got.Status, got.Body, r.want)
		}
	}
	if got := e.AskAt(t, "http", "GET", "forgotten.test", "/"); got.Status == 200 {
		t.Errorf("plain text to a server of TLS: got %d %q", got.Status, got.Body)
	}
	if got := good.versions[0]; got != tls.VersionTLS13 {
		t.Errorf("the service was spoken to in version %x, want TLS 1.3", got)
	}
	conn := e.Dial(t, "bytes")
	if _, err := io.WriteString(conn, "GET /bytes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || !strings.Contains(string(got), `/bytes from nobody for "api.internal"`) {
		t.Errorf("a connection of TCP: got %q, %v", got, err)
	}
}
