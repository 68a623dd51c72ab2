package tls_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
)

const clients = `
gateways:
  edge:
    listeners:
      must: {port: 1, protocol: HTTPS, certificates: [{secret: tls/a}], tls: {clientCertificates: {ca: {secret: mesh/ca}}}}
      may: {port: 2, protocol: HTTPS, certificates: [{secret: tls/a}], tls: {clientCertificates: {ca: {secret: mesh/ca}, required: false, forward: [uri, dns, subject]}}}
      some:
        port: 3
        protocol: HTTPS
        certificates: [{secret: tls/a}]
        routeTables: perHost
        tls: {clientCertificates: {ca: {secret: mesh/ca}, subjects: [{uri: spiffe://mesh/*}, {dns: "*.Below.Test"}, {dns: api.test}]}}
      open: {port: 4, protocol: HTTPS, certificates: [{secret: tls/a}]}
      plain: {port: 5}
      bytes: {port: 6, protocol: TLS, certificates: [{secret: tls/a}], tls: {clientCertificates: {ca: {secret: mesh/ca}}}}
services: {echo: {endpoints: [%q]}}
routes:
  any: {hostnames: [a.test], backends: {echo: 1}}
  wild: {hostnames: ["*.wild.test"], backends: {echo: 1}}
  orders: {hostnames: [a.test], match: {path: /orders, headers: {x-legation-peer: spiffe://mesh/orders}}, backends: {echo: 1}}
  others: {hostnames: [a.test], match: {path: /orders, headers: {x-legation-peer: {present: true}}}, backends: {empty: 1}}
  nobody: {hostnames: [a.test], match: {path: /orders}, backends: {gone: 1}}
  bytes: {listeners: [bytes], hostnames: [a.test], backends: {echo: 1}}
-- more.yaml --
services:
  empty: {endpoints: [%q]}
  gone: {endpoints: [%q]}
-- secrets --
tls/a certificate a.test
mesh/ca authority
mesh/orders certificate spiffe://mesh/orders by mesh/ca
`

func serveClients(t *testing.T) *golden.Envoy {
	t.Helper()
	status := func(code int) string {
		return golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	return golden.Serve(t, fmt.Sprintf(clients, golden.Backend(t, golden.Echo), status(403), status(410)), kinds...)
}

// names makes a certificate for names that the usual ways would refuse to write.
func names(values ...asn1.RawValue) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		all, _ := asn1.Marshal(values) // bytes always pack
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: all})
	}
}

func uriName(s string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(s)}
}

func dnsName(s string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(s)}
}

// TestClientCertificates holds who gets in where, and by which name routes and backends know the client.
func TestClientCertificates(t *testing.T) {
	e := serveClients(t)
	ca := e.Secrets.Authority(t, "mesh/ca")
	subjectOnly := func(name pkix.Name) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject, c.DNSNames = name, nil }
	}
	const refused = "refused"
	rows := []struct {
		what             string
		cert             *golden.Certificate
		must, may, named string // the name, "" for none, or refused
	}{
		{"no certificate", nil, refused, "", refused},
		{"a URI", new(e.Secrets.Certificate(t, "mesh/orders")), "spiffe://mesh/orders", "spiffe://mesh/orders", "spiffe://mesh/orders"},
		{"two URIs and a name", new(ca.Issue(t, "a.test", "spiffe://mesh/b", "spiffe://mesh/a")), "spiffe://mesh/b", "spiffe://mesh/b", "spiffe://mesh/b"},
		{"two names", new(ca.Issue(t, "b.test", "api.test")), "b.test", "b.test", "b.test"},
		{"a name below", new(ca.Issue(t, "x.y.beLow.test")), "x.y.beLow.test", "x.y.beLow.test", "x.y.beLow.test"},
		{"the name itself", new(ca.Issue(t, "below.test")), "below.test", "below.test", refused},
		{"a wildcard", new(ca.Issue(t, "*.test")), "*.test", "*.test", "*.test"},
		{"another trust domain", new(ca.Issue(t, "spiffe://mesh2/orders")), "spiffe://mesh2/orders", "spiffe://mesh2/orders", refused},
		{"not below the URI", new(ca.Issue(t, "spiffe://mesh")), "spiffe://mesh", "spiffe://mesh", refused},
		{"a subject", new(ca.IssueOdd(t, subjectOnly(pkix.Name{CommonName: "bob", Organization: []string{"acme"}}), "bob")), "CN=bob,O=acme", "CN=bob,O=acme", refused},
		{"an odd subject", new(ca.IssueOdd(t, subjectOnly(pkix.Name{CommonName: "Ä\r\nx: 1"}), "odd")), `CN=\C3\84\0D\0Ax: 1`, `CN=\C3\84\0D\0Ax: 1`, refused},
		{"no name", new(ca.IssueOdd(t, subjectOnly(pkix.Name{}), "none")), "", "", refused},
		{"a name that looks like a URI", new(ca.IssueOdd(t, names(dnsName("spiffe://mesh/orders")), "x")), "", "", refused},
		{"a URI that looks like a name", new(ca.IssueOdd(t, names(uriName("api.test")), "x")), "", "", refused},
		{"expired", new(ca.IssueOdd(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "spiffe://mesh/x")), refused, refused, refused},
		{"for servers", new(ca.IssueOdd(t, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, "spiffe://mesh/x")), refused, refused, refused},
		{"another authority", new(golden.NewAuthority(t, "mesh/ca").Issue(t, "spiffe://mesh/x")), refused, refused, refused},
	}
	for _, r := range rows {
		for _, protocol := range []string{"h2", "http/1.1"} {
			for listener, want := range map[string]string{"must": r.must, "may": r.may, "some": r.named} {
				config := e.TLS(t, "a.test")
				if r.cert != nil {
					config = showing(t, config, *r.cert)
				}
				config.NextProtos = []string{protocol}
				got := refused
				if answer, err := ask(t, e, listener, config, "/", "X-Legation-Peer", "forged", "x-forwarded-client-cert", "URI=forged"); err == nil {
					header := answer.Received(t).Header
					got = header.Get("X-Legation-Peer")
					checkForwarded(t, r.what, header.Values("X-Forwarded-Client-Cert"), listener == "may" && r.cert != nil)
				}
				if got != want {
					t.Errorf("%s at %s by %s: got %q, want %q", r.what, listener, protocol, got, want)
				}
			}
		}
	}
}

func checkForwarded(t *testing.T, what string, values []string, told bool) {
	t.Helper()
	if strings.Contains(strings.Join(values, ","), "forged") || told != (len(values) == 1) || told && !strings.HasPrefix(values[0], "Hash=") {
		t.Errorf("%s: x-forwarded-client-cert is %q, told %t", what, values, told)
	}
}

// TestLineEndsInACertificate holds that they never reach a backend.
func TestLineEndsInACertificate(t *testing.T) {
	e := serveClients(t)
	ca := e.Secrets.Authority(t, "mesh/ca")
	for _, name := range []string{"spiffe://mesh/\r\nx-evil: 1", "spiffe://mesh/orders\x00", "spiffe://mesh/\xff"} {
		c := ca.IssueOdd(t, names(uriName(name)), "x")
		got, err := ask(t, e, "must", showing(t, e.TLS(t, "a.test"), c), "/")
		if err != nil || got.Status != 200 {
			t.Errorf("%q: got %d, %v, want 200", name, got.Status, err)
			continue
		}
		if header := got.Received(t).Header; header.Get("X-Legation-Peer") != "" || header.Get("X-Evil") != "" {
			t.Errorf("%q: the backend got %v", name, header)
		}
		// Envoy sends no headers on that hold such bytes.
		if got, err := ask(t, e, "may", showing(t, e.TLS(t, "a.test"), c), "/"); err == nil && got.Status == 200 && strings.ContainsAny(name, "\r\x00") {
			t.Errorf("%q: was forwarded: %s", name, got.Body)
		}
	}
}

// TestRoutesByPeer has routes choose by the certificate, which no header of a client's can stand in for.
func TestRoutesByPeer(t *testing.T) {
	e := serveClients(t)
	orders := showing(t, e.TLS(t, "a.test"), e.Secrets.Certificate(t, "mesh/orders"))
	other := showing(t, e.TLS(t, "a.test"), e.Secrets.Authority(t, "mesh/ca").Issue(t, "spiffe://mesh/other"))
	rows := []struct {
		listener string
		config   *tls.Config
		want     int
	}{
		{"must", orders, 200},
		{"some", orders, 200},
		{"may", orders, 200},
		{"must", other, 403},
		{"may", other, 403},
		{"may", e.TLS(t, "a.test"), 410},
		{"open", e.TLS(t, "a.test"), 410},
		{"open", orders, 410}, // nobody asks for it there
	}
	for _, r := range rows {
		for _, protocol := range []string{"h2", "http/1.1"} {
			for _, header := range []string{"X-None", "x-legation-peer", "X-LEGATION-PEER"} {
				config := r.config.Clone()
				config.NextProtos = []string{protocol}
				if got, err := ask(t, e, r.listener, config, "/orders", header, "spiffe://mesh/orders"); err != nil || got.Status != r.want {
					t.Errorf("%s by %s with %s: got %d, %v, want %d", r.listener, protocol, header, got.Status, err, r.want)
				}
			}
		}
	}
	for _, header := range []string{"x-legation-peer", "X-Legation-Peer"} {
		if got := e.AskAt(t, "plain", "GET", "a.test", "/orders", header, "spiffe://mesh/orders").Status; got != 410 {
			t.Errorf("plain with %s: got %d, want 410", header, got)
		}
	}
	for _, header := range []string{"x_legation_peer", "X_Legation-Peer", "x-legation_peer"} {
		if got := e.AskAt(t, "plain", "GET", "a.test", "/orders", header, "spiffe://mesh/orders").Status; got != 400 {
			t.Errorf("plain with %s: got %d, want 400", header, got)
		}
	}
}

const revoking = `
gateways:
  edge:
    listeners:
      https: {port: 1, protocol: HTTPS, certificates: [{secret: tls/a}], tls: {clientCertificates: {ca: {file: ca.pem}}}}
services: {echo: {endpoints: [%q]}}
routes: {any: {hostnames: [a.test], backends: {echo: 1}}}
-- secrets --
tls/a certificate a.test
-- ca.pem --
%s`

func TestRevokedCertificates(t *testing.T) {
	ca := golden.NewAuthority(t, "ca")
	good, bad := ca.Issue(t, "spiffe://mesh/good"), ca.Issue(t, "spiffe://mesh/bad")
	e := golden.Serve(t, fmt.Sprintf(revoking, golden.Backend(t, golden.Echo), string(ca.PEM())+string(ca.Revoke(t, bad))), kinds...)
	if got, err := ask(t, e, "https", showing(t, e.TLS(t, "a.test"), good), "/"); err != nil || got.Status != 200 {
		t.Errorf("a good certificate: got %d, %v, want 200", got.Status, err)
	}
	if got, err := ask(t, e, "https", showing(t, e.TLS(t, "a.test"), bad), "/"); err == nil {
		t.Errorf("a revoked certificate: got %d, want it refused", got.Status)
	}
}

// TestSessionsAreNotTakenUpAgain holds that every connection shows its certificate anew.
func TestSessionsAreNotTakenUpAgain(t *testing.T) {
	e := serveClients(t)
	for listener, want := range map[string]bool{"must": false, "may": false, "open": true} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := showing(t, e.TLS(t, "a.test"), e.Secrets.Certificate(t, "mesh/orders"))
			config.MaxVersion, config.ClientSessionCache, config.NextProtos = version, tls.NewLRUClientSessionCache(1), nil
			resumed := false
			for range 2 {
				resp, err := e.Client(t, listener, config).Get("https://a.test/")
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				resumed = resp.TLS.DidResume
			}
			if resumed != want {
				t.Errorf("%s, version %x: resumed %t, want %t", listener, version, resumed, want)
			}
		}
	}
}

func TestConnectionsOfTLSShowCertificates(t *testing.T) {
	e := serveClients(t)
	exchange := func(config *tls.Config) error {
		conn, err := e.DialTLS(t, "bytes", config)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
			return err
		}
		_, err = http.ReadResponse(bufio.NewReader(conn), nil)
		return err
	}
	if err := exchange(showing(t, e.TLS(t, "a.test"), e.Secrets.Certificate(t, "mesh/orders"))); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := exchange(e.TLS(t, "a.test")); err == nil {
		t.Error("without a certificate: was let in")
	}
}

const parameters = `
gateways:
  edge:
    listeners:
      new: {port: 1, protocol: HTTPS, certificates: [{secret: tls/a}], tls: {minVersion: 1.3, curves: [X25519MLKEM768, P-256]}}
      old: {port: 2, protocol: HTTPS, certificates: [{secret: tls/a}], tls: {maxVersion: "1.2", ciphers: [ECDHE-ECDSA-AES256-GCM-SHA384], curves: [P-384]}}
services: {echo: {endpoints: ["127.0.0.1:1"]}}
routes: {any: {hostnames: [a.test], backends: {echo: 1}}}
-- secrets --
tls/a certificate a.test
`

func TestParameters(t *testing.T) {
	e := golden.Serve(t, parameters, kinds...)
	type agreed struct {
		Version, Cipher uint16
		Curve           tls.CurveID
	}
	rows := []struct {
		listener string
		change   func(*tls.Config)
		want     *agreed // nil: no handshake
	}{
		{"new", func(*tls.Config) {}, &agreed{tls.VersionTLS13, 0, tls.X25519MLKEM768}},
		{"new", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }, &agreed{tls.VersionTLS13, 0, tls.CurveP256}},
		{"new", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }, nil},
		{"new", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, nil},
		{"old", func(*tls.Config) {}, &agreed{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.CurveP384}},
		{"old", func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, nil},
		{"old", func(c *tls.Config) { c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256} }, nil},
	}
	for i, r := range rows {
		config := e.TLS(t, "a.test")
		r.change(config)
		conn, err := e.DialTLS(t, r.listener, config)
		if r.want == nil || err != nil {
			if (r.want == nil) != (err != nil) {
				t.Errorf("row %d: got the error %v, want a handshake %t", i, err, r.want != nil)
			}
			continue
		}
		state := conn.ConnectionState()
		got := agreed{state.Version, state.CipherSuite, state.CurveID}
		if got.Version == tls.VersionTLS13 {
			got.Cipher = 0 // any of them
		}
		if diff := cmp.Diff(*r.want, got); diff != "" {
			t.Errorf("row %d (-want +got):\n%s", i, diff)
		}
	}
}
