package golden_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

// answer is a key whose routes answer by themselves; it does nothing else.
type answer struct{}

func (*answer) Check(*policy.Check) {}
func (*answer) Answers() bool       { return true }

var kinds = []*policy.Kind{policy.Define[answer]("answer", policy.InRoute, "")}

// TestFiles shows each selector once.
func TestFiles(t *testing.T) { golden.Run(t, "testdata", kinds...) }

// TestServe has the harness serve several listeners and protocols.
func TestServe(t *testing.T) {
	backend := golden.Backend(t, golden.Echo)
	e := golden.Serve(t, fmt.Sprintf(`
gateways:
  edge:
    listeners:
      http: {port: 1}
      https: {port: 2, protocol: HTTPS, certificates: [{hostname: "*.example.test", secret: tls/example}, {secret: mesh/orders}]}
      tcp: {port: 3, protocol: TCP}
      tls: {port: 4, protocol: TLS, certificates: [{secret: tls/example}]}
services:
  web: {endpoints: [%q]}
routes:
  web: {hostnames: ["*"], backends: {web: 1}}
  tcp: {listeners: [tcp], backends: {web: 1}}
  tls: {listeners: [tls], hostnames: ["*"], backends: {web: 1}}
-- secrets --
# a comment
tls/example certificate example.test *.example.test
mesh/ca authority
mesh/orders certificate orders.test 127.0.0.1 by mesh/ca
`, backend))
	if got := e.Ask(t, "GET", "app.test", "/x").Received(t); got.Path != "/x" {
		t.Errorf("http: %v", got)
	}
	if got := e.AskTLS(t, "https", "GET", "a.example.test", "/x", "x-a", "b").Received(t); got.Host != "a.example.test" || got.Header.Get("x-a") != "b" {
		t.Errorf("https: %v", got)
	}
	mesh := e.TLS(t, "orders.test")
	mesh.RootCAs = e.Secrets.Authority(t, "mesh/ca").Pool()
	if got := e.AskWith(t, e.Client(t, "https", mesh), "GET", "orders.test", "/"); got.Status != http.StatusOK {
		t.Errorf("by another authority: %d %s", got.Status, got.Body)
	}
	request := "GET /raw HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"
	tcp := e.Dial(t, "tcp")
	fmt.Fprint(tcp, request)
	if resp, err := http.ReadResponse(bufio.NewReader(tcp), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("tcp: %v, %v", resp, err)
	}
	ended, err := e.DialTLS(t, "tls", e.TLS(t, "example.test"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(ended, request)
	if resp, err := http.ReadResponse(bufio.NewReader(ended), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("tls: %v, %v", resp, err)
	}
	if _, err := e.DialTLS(t, "tls", &tls.Config{ServerName: "example.test", RootCAs: golden.NewAuthority(t, "other").Pool()}); err == nil {
		t.Error("a certificate of somebody else is taken")
	}
	if got := e.Admin(t, "/stats?filter=listener_manager.listener_added"); !strings.Contains(got, "4") {
		t.Errorf("listeners: %s", got)
	}
}
