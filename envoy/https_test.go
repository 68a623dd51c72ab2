package envoy_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/legation/legation/envoy/certtest"
	"github.com/legation/legation/policy"
)

// httpsListener has a certificate for each name, "" being those who ask for no other.
func httpsListener(name string, hostnames ...string) *policy.Listener {
	l := httpListener(name)
	l.Protocol = policy.HTTPS
	for _, h := range hostnames {
		l.Certificates = append(l.Certificates, policy.Certificate{Hostname: h, Secret: secretFor(h)})
	}
	return l
}

func secretFor(hostname string) string {
	return "tls/" + strings.ReplaceAll(cmp.Or(hostname, "default"), "*", "any")
}

// withCertificates gives the model the secrets that its listeners refer to, each for the names below its hostname.
func withCertificates(t *testing.T, m *policy.Model, ca *certtest.Authority) *policy.Model {
	t.Helper()
	for _, g := range m.Gateways {
		for _, l := range g.Listeners {
			for _, c := range l.Certificates {
				addSecret(m, certificateSecret(c.Secret, ca.Issue(t, cmp.Or(c.Hostname, "default.test"))))
			}
		}
	}
	return m
}

func certificateSecret(name string, c certtest.Certificate) *policy.Secret {
	return &policy.Secret{Kind: policy.CertificateSecret, Name: name, Value: c.Chain, Key: c.Key, Pos: entry(name).Pos}
}

// client speaks HTTPS to an address, and asks for a server name.
func client(t *testing.T, address, serverName string, ca *certtest.Authority, change ...func(*tls.Config)) *http.Client {
	t.Helper()
	config := &tls.Config{ServerName: serverName, RootCAs: ca.Pool(), NextProtos: []string{"h2", "http/1.1"}}
	if serverName == "" {
		config.InsecureSkipVerify = true // Go sends no server name, and has none to compare
	}
	for _, f := range change {
		f(config)
	}
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
		},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

func ask(t *testing.T, c *http.Client, host string) (answer, *http.Response) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+host+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}, resp
}

func TestCertificateByServerName(t *testing.T) {
	ca := certtest.NewAuthority(t, "ca")
	m := modelOf([]*policy.Listener{httpsListener("https", "one.test", "*.two.test")},
		named("one", "one.test", "/"), named("two", "*.two.test", "/"))
	address := live(t, withCertificates(t, m, ca))["https"]
	rows := []struct {
		name, certificate string
		protocols         []string
		want              string
	}{
		{"one.test", "one.test", []string{"h2", "http/1.1"}, "h2"},
		{"ONE.test", "one.test", []string{"http/1.1"}, "http/1.1"},
		{"a.two.test", "*.two.test", nil, ""},
		{"a.b.two.test", "*.two.test", []string{"spdy", "h2"}, "h2"},
	}
	for _, r := range rows {
		conn, err := tls.Dial("tcp", address, &tls.Config{
			ServerName: r.name, InsecureSkipVerify: true, NextProtos: r.protocols,
		})
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		state := conn.ConnectionState()
		conn.Close()
		if got := state.PeerCertificates[0].DNSNames[0]; got != r.certificate || state.NegotiatedProtocol != r.want ||
			state.Version != tls.VersionTLS13 {
			t.Errorf("%s: certificate %s, %q over %x, want %s, %q", r.name, got, state.NegotiatedProtocol, state.Version, r.certificate, r.want)
		}
	}
	for what, config := range map[string]*tls.Config{
		"an unknown name":       {ServerName: "three.test"},
		"no name":               {},
		"above the wildcard":    {ServerName: "two.test"},
		"TLS 1.1":               {ServerName: "one.test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"a cipher without AEAD": {ServerName: "one.test", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}},
	} {
		config.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", address, config)
		if err == nil {
			conn.Close()
			t.Errorf("%s: was let in", what)
		}
	}
	tls12 := client(t, address, "one.test", ca, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	if got, resp := ask(t, tls12, "one.test"); got.code != 200 || resp.ProtoMajor != 2 {
		t.Errorf("TLS 1.2: %d by %s", got.code, resp.Proto)
	}
}

// TestMisdirectedRequests holds that a connection serves the host that it was made for only.
func TestMisdirectedRequests(t *testing.T) {
	ca := certtest.NewAuthority(t, "ca")
	m := modelOf([]*policy.Listener{httpsListener("https", "*.a.test", "")},
		named("one", "one.a.test", "/"), named("two", "two.a.test", "/"), named("other", "other.test", "/"))
	address := live(t, withCertificates(t, m, ca))["https"]
	rows := []struct {
		serverName, host string
		want             int
	}{
		{"one.a.test", "one.a.test", 200},
		{"one.a.test", "ONE.a.Test", 200},
		{"ONE.A.TEST", "one.a.test", 200},
		{"one.a.test", "one.a.test:8443", 200},
		{"one.a.test", "two.a.test", 421},
		{"one.a.test", "other.test", 421},
		{"one.a.test", "nowhere.test", 421},
		{"other.test", "one.a.test", 421},
		{"unknown.test", "other.test", 421},
		{"", "one.a.test", 200},
		{"", "other.test", 200},
		{"other.test", "other.test", 200},
	}
	for _, protocol := range []string{"h2", "http/1.1"} {
		for _, r := range rows {
			c := client(t, address, r.serverName, ca, func(c *tls.Config) {
				c.NextProtos, c.InsecureSkipVerify = []string{protocol}, true
			})
			got, _ := ask(t, c, r.host)
			if got.code != r.want {
				t.Errorf("%s: %s for %s: %d %s, want %d", protocol, r.host, r.serverName, got.code, got.body, r.want)
			}
			if got.code == 421 && got.body != `{"error":"misdirected request"}`+"\n" {
				t.Errorf("421 says %q", got.body)
			}
		}
	}
}

func TestHTTPSRedirect(t *testing.T) {
	plain := httpListener("http")
	plain.RedirectPort = 8443
	usual := httpListener("usual")
	usual.RedirectPort, usual.PerHost = 443, true
	challenge := named("challenge", "app.test", "/.well-known/acme-challenge")
	challenge.Listeners = []string{"http"}
	addresses := live(t, modelOf([]*policy.Listener{plain, usual, httpListener("open")}, challenge, named("app", "app.test", "/")))

	rows := []struct {
		listener, request string
		code              int
		location          string
	}{
		{"http", "GET /x?y=1 HTTP/1.1\r\nHost: app.test", 301, "https://app.test:8443/x?y=1"},
		{"http", "HEAD / HTTP/1.1\r\nHost: app.test:80", 301, "https://app.test:8443/"},
		{"http", "POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0", 308, "https://app.test:8443/x"},
		{"http", "GET /admin HTTP/1.1\r\nHost: other.test", 301, "https://other.test:8443/admin"}, // the door is not asked
		{"http", "GET /.well-known/acme-challenge/z HTTP/1.1\r\nHost: app.test", 200, ""},
		{"http", "GET /.well-known/acme-challenge/z HTTP/1.1\r\nHost: other.test", 301, "https://other.test:8443/.well-known/acme-challenge/z"},
		{"http", "TRACE / HTTP/1.1\r\nHost: app.test", 405, ""},
		{"http", "TRACE / HTTP/1.1\r\nHost: other.test", 405, ""},
		{"http", "GET /;x HTTP/1.1\r\nHost: app.test", 400, ""},
		{"http", "GET / HTTP/1.1\r\nHost: a,b", 400, ""},
		{"usual", "GET /x HTTP/1.1\r\nHost: app.test:80", 301, "https://app.test/x"},
		{"open", "GET / HTTP/1.1\r\nHost: app.test", 200, ""},
		{"open", "GET /.well-known/acme-challenge/z HTTP/1.1\r\nHost: app.test", 200, ""},
		{"open", "GET / HTTP/1.1\r\nHost: other.test", 404, ""},
	}
	for _, r := range rows {
		got := raw(t, addresses[r.listener], r.request+"\r\nConnection: close\r\n\r\n")
		if got.code != r.code || got.header.Get("Location") != r.location {
			t.Errorf("%s: %q: %d to %q, want %d to %q", r.listener, r.request, got.code, got.header.Get("Location"), r.code, r.location)
		}
	}
	if got := get(t, addresses["open"], "app.test", "/.well-known/acme-challenge/z"); got.body != "app" {
		t.Errorf("a listener that the route does not name: %q", got.body)
	}
}
