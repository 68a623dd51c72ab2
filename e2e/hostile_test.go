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
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
  fast: {jwt: {issuer: %q, audiences: [%s], jwks: {file: keys.json}, headers: {x-user: sub}, verify: envoy}}
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
  fast:
    hostnames: [site.test]
    match: {path: /fast}
    auth: [fast]
    backends: {app: 1}
  open:
    hostnames: [site.test]
    match: {path: /open}
    auth: none
    backends: {app: 1}
`, port, tokentest.Issuer, tokentest.Audience, tokentest.Issuer, tokentest.Audience, upstream(t, "app")))
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

// acceptedByEnvoy are the cases that the companion refuses and Envoy alone, with verify: envoy, lets in. The
// documentation of jwt tells of them.
var acceptedByEnvoy = []string{
	// Another text of a signature that is good, of whoever has the token.
	"ES256, longer", "ES256, padded to 33 bytes each", "stray bits in the signature",
	// The rest takes the issuer's own signature.
	"ES256 by a P-384 key",
	"JKU", "alg twice, capitals", "header in single quotes", "header with a comma", "kid empty",
	"claims a control character", "claims deep", "sub huge",
	"exp in milliseconds", "iat 2^63", "iat ahead", "iat in seconds",
	"just over 8 KiB", "of 20 KiB", "thousands of claims",
}

// With verify: envoy a good token passes without the companion; what else passes is known.
func TestHostileTokensVerifiedByEnvoy(t *testing.T) {
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
	var accepted []string
	for _, c := range tokentest.All() {
		a := try(t, port, "/fast", c)
		switch {
		case a.status == c.Status():
		case a.status == http.StatusOK:
			accepted = append(accepted, c.Name)
		default:
			t.Errorf("%s: got %d %s, want %d", c.Name, a.status, a.body, c.Status())
		}
	}
	slices.Sort(accepted)
	p.kill()
	for path, want := range map[string]int{"/fast": http.StatusOK, "/strict": http.StatusServiceUnavailable} {
		if a := try(t, port, path, tokentest.Case{Token: tokentest.Good()}); a.status != want {
			t.Errorf("%s without the companion: got %d %s, want %d", path, a.status, a.body, want)
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(acceptedByEnvoy)), accepted); diff != "" {
		t.Errorf("accepted (-want +got):\n%s", diff)
	}
}

// keyServer publishes key sets as an issuer does, once it is started.
type keyServer struct {
	address string
	set     atomic.Pointer[[]byte]
}

func newKeyServer(t *testing.T) *keyServer {
	return &keyServer{address: local(ports(t, 1)[0])}
}

func (k *keyServer) publish(set []byte) { k.set.Store(&set) }

func (k *keyServer) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", k.address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(*k.set.Load())
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// Nobody gets in while nobody has the keys. Envoy verifies once it has them, and the companion until then, as it does
// with keys that Envoy has not fetched yet.
func TestKeysOfEnvoyComeAndChange(t *testing.T) {
	t.Parallel()
	keys := newKeyServer(t)
	keys.publish(tokentest.StrangersJWKS())
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, fmt.Sprintf(`gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1}}}}
auth: {idp: {jwt: {issuer: %q, audiences: any, jwks: "http://%s/keys", verify: envoy}}}
services: {app: {endpoints: ["%s"]}}
routes: {app: {hostnames: [site.test], auth: [idp], backends: {app: 1}}}
`, port, tokentest.Issuer, keys.address, upstream(t, "app"))))
	p.serve(t)
	e := p.envoy(t, "edge")
	answer := func(token string, want int) func() error {
		return func() error {
			if a := try(t, port, "/", tokentest.Case{Token: token}); a.status != want {
				return fmt.Errorf("got %d %s, want %d", a.status, a.body, want)
			}
			return nil
		}
	}
	old, next := tokentest.Strangers(), tokentest.Good()
	eventually(t, "503 without keys", answer(old, http.StatusServiceUnavailable))
	keys.start(t)
	eventually(t, "a good token", answer(old, http.StatusOK))
	eventually(t, "keys at Envoy", func() error {
		if n, err := e.lookUp(`http\.http\.jwt_authn\.jwks_fetch_success`); err != nil || n == "0" || n == "" {
			return fmt.Errorf("%s %v", n, err)
		}
		return nil
	})
	eventually(t, "401 for a key that is not published", answer(next, http.StatusUnauthorized))
	keys.publish(tokentest.JWKS())
	eventually(t, "a new key by way of the companion", answer(next, http.StatusOK))
	p.kill()
	if err := answer(old, http.StatusOK)(); err != nil {
		t.Error("Envoy alone, with its keys:", err)
	}
}
