package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/envoy/certtest"
)

// mesh is the example of that name at work: an edge and two sidecars, each a real Envoy, with certificates of the test's
// own authority. The app of orders calls payments and answers what that answers.
type mesh struct {
	*plane
	ca              *certtest.Authority
	secrets         string
	edge            string // the URL of a route to orders
	orders, outside string // where the sidecar of orders takes calls of peers, and of its app
	payments        string // where that of payments takes those of peers
}

// sampled is how the example says that legation run answers as the apps.
const sampled = "sample: true"

// newMesh copies the example with ports that are free; what its services say last is replaced.
func newMesh(t *testing.T, last string) *mesh {
	t.Helper()
	n := ports(t, 4)
	text, err := os.ReadFile("../examples/mesh/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := &mesh{
		ca: certtest.NewAuthority(t, "mesh"), secrets: t.TempDir(), edge: fmt.Sprintf("http://localhost:%d/orders", n[0]),
		orders: local(n[1]), outside: local(n[2]), payments: local(n[3]),
	}
	apps := []string{appOfOrders(t, m.outside), serveApp(t, app.Echo{Name: "payments"})}
	if strings.Contains(last, sampled) {
		free := ports(t, 2)
		apps = []string{local(free[0]), local(free[1])}
	}
	swap := strings.NewReplacer(
		"10000", strconv.Itoa(n[0]), "15106", strconv.Itoa(n[1]), "15101", strconv.Itoa(n[2]), "15206", strconv.Itoa(n[3]),
		"127.0.0.1:9001", apps[0], "127.0.0.1:9002", apps[1], ", "+sampled, last,
	)
	m.plane = newPlane(t, policyDir(t, swap.Replace(string(text))))
	write(t, filepath.Join(m.secrets, "mesh/ca.crt"), string(m.ca.PEM()))
	for _, name := range []string{"edge", "orders", "payments"} {
		m.issue(t, name)
	}
	return m
}

// issue puts a certificate among the secrets: the key first, so that the chain completes the pair.
func (m *mesh) issue(t *testing.T, name string, names ...string) {
	t.Helper()
	if len(names) == 0 {
		names = []string{name}
	}
	c := m.ca.Issue(t, names...)
	base := filepath.Join(m.secrets, "mesh", name)
	if err := os.WriteFile(base+".next", c.Key, 0o600); err != nil { // a key that others can read is refused
		t.Fatal(err)
	}
	if err := os.Rename(base+".next", base+".key"); err != nil {
		t.Fatal(err)
	}
	write(t, base+".crt", string(c.Chain))
}

// start serves the policy to the three Envoys.
func (m *mesh) start(t *testing.T) {
	t.Helper()
	m.serve(t, "--secrets-dir", m.secrets)
	for _, group := range []string{"edge", "orders", "payments"} {
		m.envoy(t, group)
	}
}

// appOfOrders calls http://payments/ through its sidecar as through any proxy, and hands on who calls.
func appOfOrders(t *testing.T, sidecar string) (address string) {
	t.Helper()
	through := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: sidecar})}
	t.Cleanup(through.CloseIdleConnections)
	return serveApp(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://payments/for"+r.URL.Path, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for _, name := range []string{"X-User", "X-Request-Id", "X-Forwarded-For", "X-Forwarded-Proto"} {
			call.Header[name] = r.Header[name]
		}
		call.Header.Set("X-Envoy-Max-Retries", "7") // steers Envoy: no app's business
		answer, err := through.RoundTrip(call)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		w.Header().Set("X-Orders-Id", r.Header.Get("X-Request-Id"))
		w.Header().Set("X-Orders-For", r.Header.Get("X-Forwarded-For"))
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
	}))
}

// serveApp answers in HTTP/1.1 and in HTTP/2 with prior knowledge.
func serveApp(t *testing.T, handler http.Handler) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// A call goes from a stranger through the edge and both sidecars to the app of payments, which learns who it is for from
// nobody but the edge.
func TestMesh(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]string{"HTTP1": "", "HTTP2": ", protocol: http2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, last)
			write(t, filepath.Join(m.dir, "open.yaml"), "routes: {open: {hostnames: [localhost], match: {path: /open}, backends: {orders: 1}}}\n")
			m.start(t)
			eventually(t, "the whole way", func() error { _, err := get(m.edge, token(t, "alice")); return err })
			m.handsOn(t)
		})
	}
}

// handsOn sends requests of which nothing is to be believed but the token.
func (m *mesh) handsOn(t *testing.T) {
	t.Helper()
	forged := []string{"X-User", "mallory", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Request-Id", "mine"}
	if a := mustRequest(t, "GET", m.edge, forged...); a.status != http.StatusUnauthorized {
		t.Errorf("without a token: got %d, want 401", a.status)
	}
	for _, row := range []struct {
		url, user string
		headers   []string
	}{
		{strings.Replace(m.edge, "/orders", "/open/7", 1), "", forged},
		{m.edge + "/7", "alice", append(forged, "Authorization", "Bearer "+token(t, "alice"))},
	} {
		a := mustRequest(t, "GET", row.url, row.headers...)
		var got heard
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != http.StatusOK {
			t.Fatalf("%s: got %d %s (%v), want 200", row.url, a.status, a.body, err)
		}
		if got.Service != "payments" || !strings.HasPrefix(got.Path, "/for/o") {
			t.Errorf("got the answer of %s for %s, want that of payments for what orders asked", got.Service, got.Path)
		}
		for name, want := range map[string]string{
			"x-user": row.user, "x-forwarded-proto": "http", "x-forwarded-for": a.header.Get("X-Orders-For"),
			"x-request-id": a.header.Get("X-Orders-Id"), "x-envoy-max-retries": "",
		} {
			if got.Headers[name] != want || strings.Contains(want, "6.6.6.6") || want == "mine" {
				t.Errorf("%s: payments got %s: %q, want %q as orders did, and nothing of mallory", row.url, name, got.Headers[name], want)
			}
		}
	}
	// The app may call nobody else.
	if a := mustRequest(t, "GET", "http://"+m.outside+"/", "Host", "orders"); a.status != http.StatusNotFound {
		t.Errorf("the app calls itself by name: got %d, want 404", a.status)
	}
}

// The mesh lets nobody in but peers, by whatever certificate.
func TestMeshTakesPeersOnly(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "")
	m.start(t)
	pair := func(ca *certtest.Authority, names ...string) []tls.Certificate {
		return []tls.Certificate{ca.Issue(t, names...).TLS(t)}
	}
	other := certtest.NewAuthority(t, "mesh")
	for _, row := range []struct {
		what   string
		config *tls.Config
		ok     bool
	}{
		{"a peer by its DNS name", &tls.Config{Certificates: pair(m.ca, "edge")}, true},
		{"a peer by its URI", &tls.Config{Certificates: pair(m.ca, "spiffe://other.test/gateway/edge")}, true},
		{"a peer among other names", &tls.Config{Certificates: pair(m.ca, "a.test", "edge", "b.test")}, true},
		{"no certificate", &tls.Config{}, false},
		{"a sidecar that is no peer", &tls.Config{Certificates: pair(m.ca, "payments")}, false},
		{"its own certificate", &tls.Config{Certificates: pair(m.ca, "orders")}, false},
		{"a URI of another path", &tls.Config{Certificates: pair(m.ca, "spiffe://other.test/ns/gateway/edge")}, false},
		{"a URI that goes on", &tls.Config{Certificates: pair(m.ca, "spiffe://other.test/gateway/edge/x")}, false},
		{"a URI without a trust domain", &tls.Config{Certificates: pair(m.ca, "spiffe:///gateway/edge")}, false},
		{"a wildcard", &tls.Config{Certificates: pair(m.ca, "*")}, false},
		{"a name below", &tls.Config{Certificates: pair(m.ca, "edge.test")}, false},
		{"another authority of the same name", &tls.Config{Certificates: pair(other, "edge")}, false},
		{"TLS 1.2", &tls.Config{Certificates: pair(m.ca, "edge"), MaxVersion: tls.VersionTLS12}, false},
	} {
		err := m.callInbound(t, row.config)
		if (err == nil) != row.ok {
			t.Errorf("%s: got %v, want let in: %t", row.what, err, row.ok)
		}
	}
	if code, body := raw(t, portOf(t, m.orders), "GET / HTTP/1.1", "Host: orders"); code != 0 {
		t.Errorf("in plain text: got %d %s, want no answer", code, body)
	}
}

// callInbound asks the sidecar of orders for something; the error is that of the connection.
func (m *mesh) callInbound(t *testing.T, config *tls.Config) error {
	t.Helper()
	config.ServerName, config.RootCAs = "orders", m.ca.Pool()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", m.orders, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: any.test\r\n\r\n"); err != nil {
		return err
	}
	a, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	return a.Body.Close()
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A gateway sends nothing to what answers at the address of a sidecar and is another one.
func TestMeshChecksWhoIsCalled(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "")
	m.serve(t, "--secrets-dir", m.secrets)
	m.envoy(t, "edge")
	reached := make(chan string, 100)
	wrong, right := m.ca.Issue(t, "payments").TLS(t), m.ca.Issue(t, "spiffe://example.com/gateway/orders").TLS(t)
	var shown atomic.Pointer[tls.Certificate]
	shown.Store(&wrong)
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil }}
	l, err := tls.Listen("tcp", m.orders, config)
	if err != nil {
		t.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0) // of handshakes that fail
	s := &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: quiet, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- r.URL.Path
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	bearer := []string{"Authorization", "Bearer " + token(t, "alice")}
	eventually(t, "an answer of the edge", func() error {
		a, err := request("GET", m.edge, bearer...)
		if err == nil && a.status != http.StatusServiceUnavailable {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	if a := mustRequest(t, "GET", m.edge, bearer...); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "error") {
		t.Errorf("someone else at the address: got %d %s, want 503", a.status, a.body)
	}
	select {
	case path := <-reached:
		t.Errorf("it got a request for %s", path)
	default:
	}
	shown.Store(&right)
	eventually(t, "the right one", func() error { _, err := get(m.edge, bearer[1][len("Bearer "):]); return err })
}

// Certificates are renewed while requests go through all three Envoys, on connections that last for few requests only.
func TestMeshRotation(t *testing.T) {
	t.Parallel()
	m := newMesh(t, ", connections: {requestsPerConnection: 3}")
	m.start(t)
	bearer := token(t, "alice")
	eventually(t, "the whole way", func() error { _, err := get(m.edge, bearer); return err })
	stop := load(t, m.edge, http.StatusOK, "Authorization", "Bearer "+bearer)
	for range 3 {
		for _, name := range []string{"orders", "payments", "edge"} {
			m.issue(t, name, "spiffe://example.com/gateway/"+name, name)
		}
		wants := m.served(t)
		eventually(t, "new certificates", func() error {
			for address, want := range wants {
				if got := m.serial(t, address); got != want {
					return fmt.Errorf("%s shows %s, want %s", address, got, want)
				}
			}
			return nil
		})
		for range 30 { // by themselves enough for new connections everywhere
			if _, err := get(m.edge, bearer); err != nil {
				t.Error(err)
			}
		}
	}
	good, bad := stop()
	if len(bad) > 0 || good == 0 {
		t.Errorf("%d requests were answered, and %d not, such as %q", good, len(bad), slices.Compact(bad)[:min(3, len(bad))])
	}
	t.Logf("%d requests while the certificates of three Envoys were renewed three times", good)
}

// served is the serial numbers of the certificates among the secrets, by where they are shown.
func (m *mesh) served(t *testing.T) map[string]string {
	t.Helper()
	wants := map[string]string{}
	for name, address := range map[string]string{"orders": m.orders, "payments": m.payments} {
		base := filepath.Join(m.secrets, "mesh", name)
		pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
		if err != nil {
			t.Fatal(err)
		}
		wants[address] = pair.Leaf.SerialNumber.String()
	}
	return wants
}

// serial is that of the certificate that a sidecar shows, whoever asks.
func (m *mesh) serial(t *testing.T, address string) string {
	t.Helper()
	shown := ""
	_, err := tls.Dial("tcp", address, &tls.Config{
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			shown = s.PeerCertificates[0].SerialNumber.String()
			return errors.New("seen")
		},
	})
	if shown == "" {
		return fmt.Sprint(err)
	}
	return shown
}

// `legation run` starts all of the example: three Envoys and two samples, with certificates from its script.
func TestMeshExample(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("the script of the example needs openssl: ", err)
	}
	m := newMesh(t, ", "+sampled)
	m.secrets = t.TempDir()
	if out, err := exec.Command("sh", "../examples/mesh/certificates.sh", m.secrets).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.envoyAdmin = local(consecutive(t, 3))
	m.child = start(t, binary, m.args("run", "--secrets-dir", m.secrets)...)
	m.says(0, "ready: sidecar payments")
	m.says(0, "curl -i -H 'Host: payments' http://"+m.outside+"/")
	for _, row := range []struct{ url, want, name, value string }{
		{m.edge, "orders", "Authorization", "Bearer " + token(t, "alice")},
		{"http://" + m.outside + "/", "payments", "Host", "payments"},
	} {
		if a := mustRequest(t, "GET", row.url, row.name, row.value); a.status != http.StatusOK || a.header.Get("X-Service") != row.want {
			t.Errorf("%s: got %d of %q: %s, want 200 of %s", row.url, a.status, a.header.Get("X-Service"), a.body, row.want)
		}
	}
}

// consecutive gives the first of n ports in a row, each of them free.
func consecutive(t *testing.T, n int) int {
	t.Helper()
	for {
		list := ports(t, 4*n)
		for i := range len(list) - n + 1 {
			if list[i+n-1]-list[i] == n-1 {
				return list[i]
			}
		}
	}
}
