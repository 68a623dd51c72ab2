package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/legation/legation/envoy/certtest"
)

// closed is a policy whose root is open, and below it a route with auth for each key that has a word in what becomes of
// a request. Nothing of it may reach a backend without a token, by whatever way.
func closed(port, secure int, upstream, shadow string) string {
	return fmt.Sprintf(`gateways:
  edge:
    listeners:
      http: {port: %d, address: 127.0.0.1}
      https:
        port: %d
        address: 127.0.0.1
        protocol: HTTPS
        certificates: [{secret: tls/site}, {hostname: "*.wild.test", secret: tls/wild}]
auth:
  demo:
    jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: {file: test-keys.json}, headers: {x-user: sub}}
services:
  app: {endpoints: ["%s"]}
  shadow: {endpoints: ["%s"]}
  calls: {endpoints: ["127.0.0.1:1"], protocol: grpc}
routes:
  open: {hostnames: [site.test], auth: none, backends: {app: 1}}
  case: {hostnames: [site.test], match: {path: {prefix: /case, ignoreCase: true}}, auth: [demo], backends: {app: 1}}
  template: {hostnames: [site.test], match: {path: {template: "/users/{id}/keys/{rest=**}"}}, auth: [demo], backends: {app: 1}}
  regex: {hostnames: [site.test], match: {path: {regex: "/v[0-9]+/keys(/.*)?"}}, auth: [demo], backends: {app: 1}}
  inner: {hostnames: [site.test], match: {path: /inner}, auth: [demo], backends: {app: 1}}
  outside: {hostnames: [site.test], match: {path: /inner, source: [10.0.0.0/8]}, auth: none, backends: {app: 1}}
  door: {hostnames: [site.test], match: {path: /door}, access: {allow: [10.0.0.0/8]}, auth: none, backends: {app: 1}, cors: {allowOrigins: ["https://app.test"]}}
  page: {hostnames: [site.test], match: {path: /page}, auth: [demo], directResponse: {body: planted}}
  moved: {hostnames: [site.test], match: {path: /moved}, auth: [demo], redirect: {prefix: /planted}}
  socket: {hostnames: [site.test], match: {path: /socket}, auth: [demo], upgrades: [websocket], backends: {app: 1}}
  bare: {hostnames: [site.test], match: {path: /bare}, auth: none, backends: {app: 1}}
  copied: {hostnames: [site.test], match: {path: /copied}, auth: [demo], mirror: {shadow: 100%%}, backends: {app: 1}, cors: {allowOrigins: ["https://app.test"]}}
  broken: {hostnames: [site.test], match: {path: /broken}, auth: [demo], fault: {abort: {status: 418, percent: 100%%}}, backends: {app: 1}}
  short: {hostnames: [site.test], match: {path: /short}, auth: [demo], requestBody: {max: 10B, buffer: true}, backends: {app: 1}}
  calls: {hostnames: [site.test], match: {path: /calls}, auth: [demo], grpcWeb: true, backends: {calls: 1}}
  wild: {hostnames: ["*.wild.test"], auth: none, backends: {app: 1}}
  admin: {hostnames: [admin.wild.test], auth: [demo], backends: {app: 1}}
`, port, secure, upstream, shadow)
}

// serveClosed serves the policy to an Envoy, and tells its ports and what the mirrored service has got.
func serveClosed(t *testing.T) (port, secure int, mirrored *atomic.Int32) {
	t.Helper()
	mirrored = new(atomic.Int32)
	shadow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { mirrored.Add(1) }))
	t.Cleanup(shadow.Close)
	n, secrets, ca := ports(t, 2), t.TempDir(), certtest.NewAuthority(t, "test")
	for name, hosts := range map[string][]string{"tls/site": {"site.test"}, "tls/wild": {"*.wild.test"}} {
		c := ca.Issue(t, hosts...)
		writeSecret(t, secrets, name+".crt", c.Chain)
		writeSecret(t, secrets, name+".key", c.Key)
	}
	p := newPlane(t, policyDir(t, closed(n[0], n[1], upstream(t, "app"), strings.TrimPrefix(shadow.URL, "http://"))))
	p.serve(t, "--secrets-dir", secrets)
	p.envoy(t, "edge")
	eventually(t, "open", func() error {
		if code, body := raw(t, n[0], "GET / HTTP/1.1", "Host: site.test", "Connection: close"); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	return n[0], n[1], mirrored
}

func TestNoWayAroundAuthByOtherKeys(t *testing.T) {
	t.Parallel()
	port, _, mirrored := serveClosed(t)
	const preflight, upgrade = "Origin: https://app.test\r\nAccess-Control-Request-Method: GET", "Connection: Upgrade\r\nUpgrade: "
	for _, tt := range []struct {
		line, header string
		want         int
	}{
		{"GET /CASE", "", 401},
		{"GET /%43ase/x", "", 401},
		{"GET /x/../cAsE", "", 401},
		{"GET /case.", "", 400},
		{"GET /users/7/keys/", "", 401},
		{"GET /users/7/keys/a/b", "", 401},
		{"GET /users//7/keys/a", "", 401},
		{"GET /users/7[x]/keys/a", "", 400}, // Envoy's templates don't match brackets
		{"GET /users/7/keys/a[", "", 400},
		{"GET /users/7/keys/]a", "", 400},
		{"GET /users/7%5b/keys/a", "", 401},
		{`GET /users/7"<|>^{}/keys/*`, "", 401},
		{"GET /users/7;x/keys/a", "", 400},
		{"GET /v1/keys?x", "", 401},
		{"GET /v1/keys%0a", "", 400},
		{"GET /v1//keys/", "", 401},
		{"GET /inner", "X-Forwarded-For: 10.1.1.1", 401},
		{"GET /inner", "X-Envoy-External-Address: 10.1.1.1", 401},
		{"GET /door", "X-Forwarded-For: ::ffff:10.1.1.1", 403},
		{"OPTIONS /door", preflight, 403},
		{"GET /page", "", 401},
		{"OPTIONS /page", preflight, 401},
		{"TRACE /page", "", 405},
		{"GET /moved/x", "", 401},
		{"GET /moved//evil.test", "", 401},
		{"GET /socket", upgrade + "websocket", 401},
		{"GET /socket", upgrade + "WebSocket", 401},
		{"GET /socket", upgrade + "h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", 401},
		{"GET /socket", upgrade + "websocket, h2c", 403},
		{"GET /socket", upgrade + "connect-udp", 404},
		{"GET /bare", upgrade + "websocket", 403},
		{"CONNECT site.test:80", "", 404},
		{"GET /copied", "", 401},
		{"GET /copied;x", "", 400},
		{"GET /copied", upgrade + "websocket", 403},
		{"OPTIONS /copied", preflight, 200}, // by the filter
		{"GET /broken", "", 401},
		{"GET /broken", "X-Envoy-Fault-Abort-Request: 200", 401},
		{"POST /short", "Content-Length: 20", 401},
		{"POST /short", "Transfer-Encoding: chunked", 401},
		{"POST /calls/a", "Content-Type: application/grpc-web", 401},
		{"POST /calls/a", "Content-Type: application/grpc-web-text", 401},
		{"POST /calls/a", "Content-Type: application/json", 401},
		{"GET /case", "Connection: x-user, authorization\r\nX-User: root", 401},
	} {
		lines := []string{tt.line + " HTTP/1.1", "Host: site.test"}
		if tt.header != "" {
			lines = append(lines, tt.header)
		}
		code, body := raw(t, port, lines...)
		if code != tt.want || strings.Contains(body, `"path"`) || strings.Contains(body, "planted") {
			t.Errorf("%s with %q: %d %s, want %d and nothing from behind", tt.line, tt.header, code, body, tt.want)
		}
	}
	if n := mirrored.Load(); n != 0 {
		t.Errorf("%d requests were mirrored before auth", n)
	}
	code, _ := raw(t, port, "GET /copied HTTP/1.1", "Host: site.test", "Authorization: Bearer "+token(t, "alice"))
	if code != http.StatusOK {
		t.Fatalf("with a token: %d", code)
	}
	eventually(t, "a copy", func() error {
		if mirrored.Load() != 1 {
			return fmt.Errorf("%d copies", mirrored.Load())
		}
		return nil
	})
}

// What was asked for by SNI is the host, or no request is answered: over HTTP/1.1 and HTTP/2.
func TestNoWayAroundAuthByServerName(t *testing.T) {
	t.Parallel()
	_, secure, _ := serveClosed(t)
	for _, tt := range []struct {
		sni, host, path string
		want            int
	}{
		{"a.wild.test", "a.wild.test", "/", 200},
		{"A.WILD.test", "a.Wild.test", "/", 200},
		{"a.wild.test", "a.wild.test:1", "/", 200},
		{"a.wild.test", "a.wild.test.", "/", 200},
		{"a.wild.test", "admin.wild.test", "/", 421},
		{"a.wild.test", "ADMIN.wild.test", "/", 421},
		{"a.wild.test", "admin.wild.test:443", "/", 421},
		{"a.wild.test", "admin.wild.test.", "/", 421},
		{"a.wild.test", "site.test", "/", 421},
		{"a.wild.test", "a.wild.test,admin.wild.test", "/", 400},
		{"a.wild.test", "a.wild.test:1:1", "/", 400},
		{"admin.wild.test", "admin.wild.test", "/", 401},
		{"Admin.Wild.test", "admin.wild.test", "/", 401},
		{"", "admin.wild.test", "/", 401},
		{"", "ADMIN.wild.test", "/", 401},
		{"site.test", "site.test", "/x/../case", 401},
		{"site.test", "site.test", "/CASE", 401},
		{"site.test", "site.test", "/users/[/keys/a", 400},
	} {
		for _, alpn := range []string{"http/1.1", "h2"} {
			if got := overTLS(t, secure, tt.sni, alpn, tt.host, tt.path); got != tt.want {
				t.Errorf("%s, %q asked for %s%s: %d, want %d", alpn, tt.sni, tt.host, tt.path, got, tt.want)
			}
		}
	}
	for path, want := range map[string]int{"https://admin.wild.test/": 421, "http://admin.wild.test/": 421, "https://a.wild.test/": 200} {
		if got := overTLS(t, secure, "a.wild.test", "http/1.1", "a.wild.test", path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

// overTLS asks once, over HTTP/1.1 or HTTP/2 by ALPN, and returns the status.
func overTLS(t *testing.T, port int, sni, alpn, host, path string) int {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(alpn == "http/1.1")
	protocols.SetHTTP2(alpn == "h2")
	through := &http.Transport{Protocols: protocols, DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		// What certificate is shown is tested elsewhere.
		config := &tls.Config{ServerName: sni, NextProtos: []string{alpn}, InsecureSkipVerify: true}
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, local(port))
	}}
	defer through.CloseIdleConnections()
	r, err := http.NewRequestWithContext(within(t), http.MethodGet, "https://"+local(port), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.URL.Opaque = host, path
	a, err := through.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s for %s: %v", path, host, err)
	}
	a.Body.Close()
	if want := map[string]int{"http/1.1": 1, "h2": 2}[alpn]; a.ProtoMajor != want {
		t.Fatalf("spoke %s, want %s", a.Proto, alpn)
	}
	return a.StatusCode
}
