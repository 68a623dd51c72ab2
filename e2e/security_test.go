package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guarded is a policy whose /admin asks for a token while /public and the rest do not; the backend tells the path.
func guarded(port int, upstream string) string {
	return fmt.Sprintf(`gateways:
  edge:
    listeners:
      http: {port: %d, address: 127.0.0.1}
auth:
  demo:
    jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: {file: test-keys.json}, headers: {x-user: sub}}
services:
  app: {endpoints: ["%s"]}
routes:
  admin:
    hostnames: [site.test]
    match: {path: /admin}
    auth: [demo]
    backends: {app: 1}
  public:
    hostnames: [site.test]
    match: {path: /public}
    auth: none
    backends: {app: 1}
  host:
    hostnames: [admin.test, admin.wild.test]
    auth: [demo]
    backends: {app: 1}
  wild:
    hostnames: ["*.wild.test"]
    backends: {app: 1}
  read:
    hostnames: [site.test]
    match: {path: /items, methods: [GET]}
    cors: {allowOrigins: ["https://app.test"]}
    backends: {app: 1}
  items:
    hostnames: [site.test]
    match: {path: /items}
    auth: [demo]
    backends: {app: 1}
`, port, upstream)
}

// adminPaths are spellings that one reader or another may take for /admin of [guarded].
var adminPaths = []string{
	"/admin", "/admin/", "/admin/x", "//admin", "/./admin", "/x/../admin", "/%61dmin", "/%2e%2e/admin", "/public/../admin",
	"/public/..%2fadmin", "/public/..%2Fadmin", "/public%2f..%2fadmin", "/public/..%5cadmin", `/public/..\admin`, `/\admin`,
	"/public/..;/admin", "/public/..;x=1/admin", "/;/admin", "/admin;x=1", "/public/%252e%252e%252fadmin",
	"/public/%25%32%65%25%32%65/admin", "/public/%c0%ae%c0%ae/admin", "/public/..%c0%afadmin", "/public/%uff0e%uff0e/admin",
	"/public/%zz/admin", "/public/%", "/%00/admin", "/admin%00", "/admin?x=/public", "/public/%2e%2e/admin",
	"/public/%2E%2E/admin", "/public/.%2e/admin", "/admin%20", "/ADMIN", "/Admin", "http://site.test/admin",
	"http://admin.test/public", "/public/../public/../admin", "/public/./../admin", "///admin", "/admin//",
	"/admin%3bx", "/%3b/admin", "/public/..%3b/admin", "/public/..%e0%80%afadmin", "/public/..%f0%80%80%afadmin", "/public/%0a",
	"/public/x%0d%0a", "/public/%09", "/public/%1f", "/public/%7f", "/public/x%20", "/public/x./", "/public/x.",
}

// adminHosts are spellings of hosts that [guarded] asks for a token at.
var adminHosts = []string{
	"admin.test", "ADMIN.test", "admin.test:80", "admin.test:8443", "admin.test.", "admin.test..", "admin.test:", "x@admin.test",
	"admin.test,site.test", "admin%2etest", "", " admin.test", "admin.wild.test", "ADMIN.wild.test", "admin.wild.test.",
	"admin.wild.test,admin.wild.test", "admin.wild.test:.wild.test", "admin.wild.test:80.wild.test", "x@admin.wild.test",
	"admin.wild.test\r\nHost: admin.wild.test", "admin.test\r\nHost: x.wild.test", "admin.wild.test/.wild.test",
}

// spoofed is what only we may say.
var spoofed = []string{
	"X-User: root", "X-Forwarded-For: 1.2.3.4", "X-Envoy-Retry-On: 5xx", "X-Envoy-Upstream-Rq-Timeout-Ms: 1", "X-Original-Url: /admin",
	"X-Rewrite-Url: /admin", "X-Forwarded-Host: admin.test", "X-Http-Method-Override: DELETE", "X-Real-Ip: 1.2.3.4",
	"X-Forwarded-Client-Cert: By=x", "Forwarded: for=1.2.3.4", "Proxy: http://evil.test", "X-Forwarded-Scheme: evil", "X-Host: admin.test",
	"X-Original-Uri: /admin", "X-Forwarded-Path: /admin", "True-Client-Ip: 1.2.3.4", "Remote-User: root", "X-Forwarded-User: root",
}

// raw sends bytes as they are and returns the status and the body of the answer.
func raw(t *testing.T, port int, lines ...string) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", local(port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
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

// No spelling of a path or a host reaches what is behind auth. (A path that differs in case is another path, and no
// route here leads it anywhere.)
func TestNoWayAroundAuth(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, guarded(port, upstream(t, "app"))))
	p.serve(t)
	p.envoy(t, "edge")
	eventually(t, "public", func() error {
		if code, body := raw(t, port, "GET /public HTTP/1.1", "Host: site.test", "Connection: close"); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	for _, path := range adminPaths {
		code, body := raw(t, port, "GET "+path+" HTTP/1.1", "Host: site.test", "Connection: close")
		if code == http.StatusOK {
			t.Errorf("%s reached the backend: %s", path, body)
		}
	}
	// What normalisation resolves to a public path is that path, for us and for the backend.
	for _, path := range []string{"/public/;/../admin", "/public/%zz/../admin", "/x/../public/admin"} {
		code, body := raw(t, port, "GET "+path+" HTTP/1.1", "Host: site.test", "Connection: close")
		if code == http.StatusOK && !strings.Contains(body, `"path": "/public/admin"`) {
			t.Errorf("%s reached the backend as another path: %s", path, body)
		}
	}
	for _, host := range adminHosts {
		code, body := raw(t, port, "GET / HTTP/1.1", "Host: "+host, "Connection: close")
		if code == http.StatusOK {
			t.Errorf("host %q reached the backend: %s", host, body)
		}
	}
	code, _ := raw(t, port, "GET /public HTTP/1.1", "Host: site.test", "Host: admin.test", "Connection: close")
	if code == http.StatusOK {
		t.Error("two Host lines reached the backend")
	}
	if code, body := raw(t, port, "GET / HTTP/1.1", "Host: x.wild.test:80", "Connection: close"); code != http.StatusOK {
		t.Errorf("below the wildcard: %d %s, want 200", code, body)
	}
}

// A request that looks like a preflight doesn't reach the backend by the route of the method that it asks for.
func TestNoWayAroundAuthByPreflight(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, guarded(port, upstream(t, "app"))))
	p.serve(t)
	p.envoy(t, "edge")
	eventually(t, "items", func() error {
		if code, body := raw(t, port, "GET /items HTTP/1.1", "Host: site.test", "Connection: close"); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	for _, tt := range []struct {
		method, origin, asked string
		code                  int
	}{
		{"OPTIONS", "https://app.test", "GET", http.StatusOK}, // by the filter: no body
		{"OPTIONS", "https://evil.test", "GET", http.StatusOK},
		{"OPTIONS", "", "GET", http.StatusUnauthorized},
		{"OPTIONS", "https://app.test", "", http.StatusUnauthorized},
		{"OPTIONS", "", "", http.StatusUnauthorized},
		{"POST", "", "GET", http.StatusUnauthorized},
	} {
		code, body := raw(t, port, tt.method+" /items HTTP/1.1", "Host: site.test", "Origin: "+tt.origin,
			"Access-Control-Request-Method: "+tt.asked, "Connection: close")
		if code != tt.code || strings.Contains(body, "/items") {
			t.Errorf("%s from %q for %q: %d %s, want %d and nothing from the backend", tt.method, tt.origin, tt.asked, code, body, tt.code)
		}
	}
}

// What only we may say, a client can't: identity, forwarding and Envoy's own headers are gone or replaced.
func TestHeaderHygiene(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, guarded(port, upstream(t, "app"))))
	p.serve(t)
	p.envoy(t, "edge")
	var body string
	eventually(t, "public", func() error {
		var code int
		code, body = raw(t, port, append([]string{"GET /public HTTP/1.1", "Host: site.test", "Connection: close"}, spoofed...)...)
		if code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	for _, bad := range []string{"root", "1.2.3.4", "retry-on", "timeout-ms", "/admin", "admin.test", "DELETE", "By=x", "evil"} {
		if strings.Contains(body, bad) {
			t.Errorf("the backend saw %q:\n%s", bad, body)
		}
	}
	bearer := "Authorization: Bearer " + token(t, "alice")
	code, body := raw(t, port, "GET /admin HTTP/1.1", "Host: site.test", "Connection: close", bearer, "X-User: root")
	if code != http.StatusOK || !strings.Contains(body, `"x-user": "alice"`) {
		t.Errorf("with a token: got %d and %s, want 200 and x-user alice", code, body)
	}
	if code, body := raw(t, port, "GET /public HTTP/1.1", "Host: site.test", "Connection: close", "x_user: root"); code != http.StatusBadRequest {
		t.Errorf("a header with an underscore: got %d %s, want 400", code, body)
	}
	if code, _ := raw(t, port, "TRACE /public HTTP/1.1", "Host: site.test", "Connection: close"); code != http.StatusMethodNotAllowed {
		t.Errorf("TRACE: got %d, want 405", code)
	}
}

// authority is a CA of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert, key, t.TempDir()}
	writePEM(t, a.path("ca.crt"), "CERTIFICATE", der)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issue writes NAME.crt and NAME.key for the DNS names, and returns them as flags.
func (a *authority) issue(t *testing.T, name string, serial int64, dns ...string) []string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: dns, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.path(name+".crt"), "CERTIFICATE", der)
	writePEM(t, a.path(name+".key"), "PRIVATE KEY", private)
	return []string{"--tls-cert", a.path(name + ".crt"), "--tls-key", a.path(name + ".key"), "--tls-ca", a.path("ca.crt")}
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// With mutual TLS an Envoy gets the gateway that its certificate names, and calls the companion with it; any other
// Envoy gets nothing.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	p.serve(t, ca.issue(t, "legation", 2, "legation.test", "localhost")...)

	good := p.envoyUnready(t, "edge", ca.issue(t, "edge-1", 3, "edge")...)
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/")
	if a := mustRequest(t, "GET", base+"/private", "Authorization", "Bearer "+token(t, "alice")); a.status != http.StatusOK {
		t.Errorf("checked by the companion over TLS: got %d %s, want 200", a.status, a.body)
	}
	_ = good
	strangers := map[string][]string{
		"certificate of another gateway": ca.issue(t, "inner-1", 4, "inner"),
		"certificate of another CA":      other.issue(t, "edge-2", 5, "edge"),
		"no certificate":                 nil,
	}
	for name, flags := range strangers {
		e := p.envoyUnready(t, "edge", flags...)
		eventually(t, name+" is refused", func() error {
			failed, err := e.lookUp("cluster.legation_xds.upstream_cx_connect_fail")
			if err == nil && failed == "0" {
				failed, err = e.lookUp("cluster.legation_xds.upstream_rq_5xx")
			}
			if err == nil && (failed == "0" || failed == "") {
				failed, err = e.lookUp("cluster_manager.cds.update_failure")
			}
			if err == nil && (failed == "0" || failed == "") {
				err = fmt.Errorf("nothing was refused yet")
			}
			return err
		})
		if got := e.stat(t, "cluster_manager.cds.update_success"); got != "0" {
			t.Errorf("%s: cds.update_success is %s, want 0", name, got)
		}
	}
	if n := len(p.status(t).Nodes); n != 1 {
		t.Errorf("status knows %d Envoys, want 1", n)
	}
}

// No port beyond loopback without a word that says so.
func TestPortsAreLoopbackUnlessSecured(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, edge(1, "127.0.0.1:1"))
	for flag, cure := range map[string]string{
		"--xds-address": "--tls-cert", "--companion-address": "--tls-cert", "--admin-address": "--admin-token-file",
	} {
		out, status := legation(t, "serve", dir, "--data-dir", "", flag, "0.0.0.0:0")
		if status != 2 || !strings.Contains(out, flag) || !strings.Contains(out, cure) || !strings.Contains(out, "--insecure") {
			t.Errorf("%s 0.0.0.0:0: got status %d and %q; want 2, the flag, and %s or --insecure", flag, status, out, cure)
		}
	}
}

// The admin port takes its token, and no name but loopback's.
func TestAdminToken(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "token")
	write(t, secret, "an-admin-token-of-some-length\n")
	p := newPlane(t, policyDir(t, edge(ports(t, 1)[0], "127.0.0.1:1")))
	p.serve(t, "--admin-token-file", secret)
	for _, path := range []string{"/status", "/metrics", "/"} {
		if a := mustRequest(t, "GET", "http://"+p.admin+path); a.status != http.StatusUnauthorized {
			t.Errorf("%s without a token: got %d, want 401", path, a.status)
		}
		if a := mustRequest(t, "GET", "http://"+p.admin+path, "Authorization", "Bearer wrong"); a.status != http.StatusUnauthorized {
			t.Errorf("%s with a wrong token: got %d, want 401", path, a.status)
		}
		if a := mustRequest(t, "GET", "http://"+p.admin+path, "Authorization", "Bearer an-admin-token-of-some-length"); a.status != http.StatusOK {
			t.Errorf("%s with the token: got %d, want 200", path, a.status)
		}
	}
	if a := mustRequest(t, "GET", "http://"+p.admin+"/healthz", "Host", "evil.test"); a.status != http.StatusForbidden {
		t.Errorf("a rebound name: got %d, want 403", a.status)
	}
	if a := mustRequest(t, "GET", "http://"+p.admin+"/healthz", "Origin", "https://evil.test"); a.status != http.StatusForbidden {
		t.Errorf("another site's page: got %d, want 403", a.status)
	}
	if out, status := legation(t, "status", "--server", "http://"+p.admin, "--token-file", secret); status != 0 {
		t.Errorf("status with the token: %d %s", status, out)
	}
}
