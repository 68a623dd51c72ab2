package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/auth/tokentest"
)

// tokenPolicy is a policy whose routes ask for tokens of the catalogue's issuer, and one that asks for somebody else's.
func tokenPolicy(t *testing.T, port int) string {
	t.Helper()
	dir := policyDir(t, fmt.Sprintf(`gateways:
  edge:
    listeners:
      http: {port: %d, address: 127.0.0.1}
auth:
  idp: {jwt: {issuer: %q, audiences: [%s], jwks: {file: keys.json}, headers: {x-user: sub}}}
  stranger: {jwt: {issuer: "https://stranger.test/", audiences: any, jwks: {file: strangers.json}}}
services:
  app: {endpoints: ["%s"]}
routes:
  strict:
    hostnames: [site.test]
    match: {path: /strict}
    auth: [idp]
    backends: {app: 1}
  other:
    hostnames: [site.test]
    match: {path: /other}
    auth: [stranger]
    backends: {app: 1}
  open:
    hostnames: [site.test]
    match: {path: /open}
    auth: none
    backends: {app: 1}
`, port, tokentest.Issuer, tokentest.Audience, upstream(t, "app")))
	write(t, filepath.Join(dir, "keys.json"), string(tokentest.JWKS()))
	write(t, filepath.Join(dir, "strangers.json"), string(tokentest.StrangersJWKS()))
	return dir
}

// answered is the answer to a request of the catalogue.
type answered struct {
	status    int
	challenge string // WWW-Authenticate
	body      string
	took      time.Duration
}

// try sends the request of a case as it is, on a connection of its own.
func try(t *testing.T, port int, path string, c tokentest.Case) answered {
	t.Helper()
	conn, err := net.Dial("tcp", local(port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	lines := append([]string{"GET " + path + "?" + c.Query + " HTTP/1.1", "Host: site.test", "Connection: close"}, c.Request()...)
	begin := time.Now()
	go func() { _, _ = io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n") }() // Envoy may answer before it has read all
	a, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answered{body: err.Error()}
	}
	defer a.Body.Close()
	took := time.Since(begin)
	body, _ := io.ReadAll(a.Body)
	return answered{a.StatusCode, a.Header.Get("WWW-Authenticate"), string(body), took}
}

// What the catalogue of hostile tokens and requests holds gets nowhere through the real Envoy, and is told why; what is
// unusual but good passes.
func TestHostileTokensThroughEnvoy(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, tokenPolicy(t, port))
	p.serve(t)
	p.envoy(t, "edge")
	eventually(t, "the companion", func() error {
		if a := try(t, port, "/strict", tokentest.Case{Token: tokentest.Good()}); a.status != http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
	var took []time.Duration
	for _, c := range tokentest.All() {
		a := try(t, port, "/strict", c)
		if a.status != c.Status() {
			t.Errorf("%s: got %d %s, want %d", c.Name, a.status, a.body, c.Status())
		}
		if a.status == http.StatusUnauthorized && !strings.HasPrefix(a.challenge, `Bearer realm="idp"`) {
			t.Errorf("%s: got the challenge %q, want one of idp", c.Name, a.challenge)
		}
		took = append(took, a.took)
	}
	slices.Sort(took)
	t.Logf("%d cases: p50 %v, p99 %v, at most %v", len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])

	if a := try(t, port, "/other", tokentest.Case{Token: tokentest.Good()}); a.status != http.StatusUnauthorized {
		t.Errorf("a good token of another entry: got %d %s, want 401", a.status, a.body)
	}
	h2 := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}, Timeout: 10 * time.Second}
	h2.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	for want, headers := range map[int][]string{
		http.StatusOK:         {"Authorization", "Bearer " + tokentest.Good()},
		http.StatusBadRequest: {"Authorization", "Bearer " + tokentest.Good(), "Authorization", "Bearer " + tokentest.Good()},
	} {
		a, err := requestBy(h2, "GET", "http://"+local(port)+"/strict", append(headers, "Host", "site.test")...)
		if err != nil || a.status != want {
			t.Errorf("HTTP/2, %d headers: got %d %s (%v), want %d", len(headers)/2, a.status, a.body, err, want)
		}
	}
}
