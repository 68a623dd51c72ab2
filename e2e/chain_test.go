package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/envoy/certtest"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// chained is what [guarded] asks of callers, at all sorts of listeners, with sidecars before the apps: that of vault asks
// for a token itself, where the edge lets anybody pass.
const chained = `gateways:
  edge:
    mesh: {certificate: mesh/edge, ca: {secret: mesh/ca}}
    listeners:
      http: {port: PLAIN, address: 127.0.0.1}
      https: {port: SECURE, address: 127.0.0.1, protocol: HTTPS, certificates: &certificates}
      known:
        port: KNOWN
        address: 127.0.0.1
        protocol: HTTPS
        certificates: &certificates
        tls: {clientCertificates: {ca: {secret: mesh/ca}, required: false, forward: [uri, dns]}}
      behind: {port: BEHIND, address: 127.0.0.1, protocol: HTTPS, trustedHops: 1, proxyProtocol: {from: [127.0.0.0/8], optional: true}, certificates: &certificates}
auth:
  demo:
    jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: {file: test-keys.json}, headers: {x-user: sub}}
services:
  app: {endpoints: ["127.0.0.1:APP"]}
  vault: {endpoints: ["127.0.0.1:VAULT"]}
sidecars:
  app: {app: "UPSTREAM", certificate: mesh/app, ca: {secret: mesh/ca}, inbound: {port: APP, address: 127.0.0.1, peers: [edge]}}
  vault: {app: "UPSTREAM", certificate: mesh/vault, ca: {secret: mesh/ca}, inbound: {port: VAULT, address: 127.0.0.1, peers: [edge], auth: [demo]}}
routes:
  admin: {gateways: [edge], hostnames: [site.test], match: {path: /admin}, auth: [demo], backends: {app: 1}}
  public: {gateways: [edge], hostnames: [site.test], match: {path: /public}, auth: none, backends: {app: 1}}
  vault: {gateways: [edge], hostnames: [site.test], match: {path: /vault}, auth: none, backends: {vault: 1}}
  host: {gateways: [edge], hostnames: [admin.test, admin.wild.test], auth: [demo], backends: {app: 1}}
  wild: {gateways: [edge], hostnames: ["*.wild.test"], auth: none, backends: {app: 1}}
  peer: {gateways: [edge], hostnames: [site.test], match: {path: /peer, headers: {x-legation-peer: billing}}, auth: none, backends: {app: 1}}
  peers: {gateways: [edge], hostnames: [site.test], match: {path: /peer}, auth: [demo], backends: {app: 1}}
`

// door is one way in.
type door struct {
	name  string
	port  int
	plain bool
	alpn  string // http/1.1 or h2
	cert  []tls.Certificate
}

// serveChained runs the policy with an edge and two sidecars, and tells the ways in.
func serveChained(t *testing.T) (doors []door, ca *certtest.Authority) {
	t.Helper()
	n, secrets := ports(t, 6), t.TempDir()
	ca = certtest.NewAuthority(t, "test")
	for name, hosts := range map[string][]string{
		"tls/site": {"site.test", "admin.test"}, "tls/wild": {"*.wild.test"}, "mesh/edge": {"edge"}, "mesh/app": {"app"}, "mesh/vault": {"vault"},
	} {
		c := ca.Issue(t, hosts...)
		writeSecret(t, secrets, name+".crt", c.Chain)
		writeSecret(t, secrets, name+".key", c.Key)
	}
	writeSecret(t, secrets, "mesh/ca.crt", ca.PEM())
	var swap []string
	for i, name := range []string{"SECURE", "PLAIN", "KNOWN", "BEHIND", "APP", "VAULT"} {
		swap = append(swap, name, strconv.Itoa(n[i]))
	}
	swap = append(swap, "UPSTREAM", upstream(t, "app"), "&certificates", `[{secret: tls/site}, {hostname: "*.wild.test", secret: tls/wild}]`)
	p := newPlane(t, policyDir(t, strings.NewReplacer(swap...).Replace(chained)))
	p.serve(t, "--secrets-dir", secrets)
	for _, group := range []string{"edge", "app", "vault"} {
		p.envoy(t, group)
	}
	stranger := []tls.Certificate{ca.Issue(t, "stranger").TLS(t)}
	doors = []door{
		{"plain", n[1], true, "http/1.1", nil},
		{"TLS", n[0], false, "http/1.1", nil},
		{"TLS", n[0], false, "h2", nil},
		{"no client certificate", n[2], false, "http/1.1", nil},
		{"no client certificate", n[2], false, "h2", nil},
		{"a client certificate", n[2], false, "http/1.1", stranger},
		{"a client certificate", n[2], false, "h2", stranger},
		{"behind a proxy", n[3], false, "http/1.1", nil},
		{"behind a proxy", n[3], false, "h2", nil},
	}
	for _, d := range doors {
		eventually(t, d.String(), func() error {
			if code, body := d.ask(t, "", "/public", "site.test"); code != http.StatusOK {
				return fmt.Errorf("%d %s", code, body)
			}
			return nil
		})
	}
	return doors, ca
}

func (d door) String() string { return d.name + " " + d.alpn }

// ask sends a request as it is written, over a connection of its own, and returns the status and the body; the status is
// 0 where there was no answer. Headers are lines; a line end in the host begins another header.
func (d door) ask(t *testing.T, sni, path, host string, headers ...string) (int, string) {
	t.Helper()
	if d.plain {
		return raw(t, d.port, append([]string{"GET " + path + " HTTP/1.1", "Host: " + host, "Connection: close"}, headers...)...)
	}
	// What certificate is shown is tested elsewhere.
	config := &tls.Config{ServerName: sni, NextProtos: []string{d.alpn}, InsecureSkipVerify: true, Certificates: d.cert}
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", local(d.port), config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if d.alpn == "h2" {
		return overHTTP2(t, c, path, host, headers)
	}
	lines := append([]string{"GET " + path + " HTTP/1.1", "Host: " + host, "Connection: close"}, headers...)
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer a.Body.Close()
	body, _ := io.ReadAll(a.Body)
	return a.StatusCode, string(body)
}

// overHTTP2 writes the frames itself: a client would refuse to send half of what is tried.
func overHTTP2(t *testing.T, c net.Conn, path, host string, headers []string) (int, string) {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	put := func(name, value string) { _ = encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) }
	host, more, two := strings.Cut(host, "\r\nHost: ")
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", host}, {":path", path}} {
		put(f[0], f[1])
	}
	if two {
		put("host", more)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		put(strings.ToLower(name), value)
	}
	framer := http2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	code, body := 0, ""
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return code, body + err.Error()
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			code, _ = strconv.Atoi(f.PseudoValue("status"))
		case *http2.DataFrame:
			body += string(f.Data())
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return code, body
		}
		if frame.Header().Flags.Has(http2.FlagDataEndStream) && frame.Header().StreamID == 1 {
			return code, body
		}
	}
}

// What does not get past auth in plain text gets past it at no other listener either, over HTTP/1.1 or HTTP/2, with or
// without a certificate, nor with sidecars behind; and nobody gets around a sidecar that asks for a token itself.
func TestNoWayAroundAuthThroughSidecars(t *testing.T) {
	t.Parallel()
	doors, ca := serveChained(t)
	for _, d := range doors {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel() // Envoy takes a second to close a connection of HTTP/2 that it does not like
			for _, path := range adminPaths {
				if code, body := d.ask(t, "", path, "site.test"); code == http.StatusOK {
					t.Errorf("%s reached the app: %s", path, body)
				}
			}
			for _, host := range adminHosts {
				for _, sni := range []string{"", "x.wild.test"} {
					if code, body := d.ask(t, sni, "/", host); code == http.StatusOK {
						t.Errorf("host %q asked for as %q reached the app: %s", host, sni, body)
					}
				}
			}
			for _, path := range []string{"/vault", "/vault/x?y", "/public/../vault", "/vault/../vault", "//vault", "/%76ault"} {
				if code, body := d.ask(t, "", path, "site.test", "X-User: root", "X-Legation-Peer: edge"); code != http.StatusUnauthorized {
					t.Errorf("%s: got %d %s, want 401 of the sidecar", path, code, body)
				}
			}
			d.believesNobody(t)
			d.peers(t, ca)
		})
	}
}

// believesNobody sends what only we may say, and looks at what came through.
func (d door) believesNobody(t *testing.T) {
	t.Helper()
	proxied := d.name == "behind a proxy" // whose last word on the client's address is taken
	for _, headers := range [][]string{spoofed, {"X-User: root", "X-User: root"}} {
		code, body := d.ask(t, "", "/public", "site.test", headers...)
		var got heard
		if code != http.StatusOK || json.Unmarshal([]byte(body), &got) != nil {
			t.Errorf("%q: got %d %s, want 200", headers, code, body)
		}
		for _, bad := range []string{"root", "1.2.3.4", "retry-on", "timeout-ms", "/admin", "admin.test", "DELETE", "By=x", "evil"} {
			if strings.Contains(body, bad) && !(proxied && bad == "1.2.3.4") {
				t.Errorf("the app saw %q:\n%s", bad, body)
			}
		}
	}
}

// peers tries to be the client that may come without a token.
func (d door) peers(t *testing.T, ca *certtest.Authority) {
	t.Helper()
	for _, headers := range [][]string{
		nil,
		{"X-Legation-Peer: billing"},
		{"x-legation-peer: billing", "X-LEGATION-PEER: billing"},
		{"X-Legation-Peer: billing", "X-Forwarded-Client-Cert: DNS=billing"},
		{"X-Legation-Peer : billing"},
		{"X-Legation-Peer:billing"},
		{"X_Legation_Peer: billing"},
	} {
		if code, body := d.ask(t, "", "/peer", "site.test", headers...); code == http.StatusOK {
			t.Errorf("%q reached the app: %s", headers, body)
		}
	}
	if d.cert == nil {
		return
	}
	d.cert = []tls.Certificate{ca.Issue(t, "billing").TLS(t)}
	if code, body := d.ask(t, "", "/peer", "site.test", "X-Legation-Peer: stranger"); code != http.StatusOK || !strings.Contains(body, `"x-legation-peer": "billing"`) {
		t.Errorf("billing itself: got %d %s, want 200", code, body)
	}
	if code, body := d.ask(t, "", "/admin", "site.test"); code != http.StatusUnauthorized {
		t.Errorf("billing at /admin: got %d %s, want 401", code, body)
	}
}
