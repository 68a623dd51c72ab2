package feature_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/store"
	"golang.org/x/crypto/bcrypt"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const credentialsPolicy = `
gateways:
  edge:
    listeners:
      http: {port: %d, address: 127.0.0.1}
      https:
        port: %d
        address: 127.0.0.1
        protocol: HTTPS
        certificates: [{secret: tls/a}]
        tls: {clientCertificates: {ca: {secret: clients/ca}, required: false}}
auth:
  keys: {apiKey: {header: x-api-key, query: key, cookie: k, headers: {x-consumer: consumer}}}
  shown: {apiKey: {header: x-api-key, query: key, cookie: k, forward: true}}
  staff: {basic: {secret: auth/staff, realm: Staff only, headers: {x-staff: sub}}}
  work: {mtls: {identity: spiffe, allow: ["spiffe://a.test/*"], headers: {x-work: sub}}}
  guests: {anonymous: {}}
consumers: {acme: {apiKeys: [{secret: consumers/acme}]}, boss: {identities: {staff: alice}}}
services: {echo: {endpoints: [%q]}}
routes:
  keys: {hostnames: [a.test], match: {path: /keys}, auth: [keys], backends: {echo: 1}}
  shown: {hostnames: [a.test], match: {path: /shown}, auth: [shown], backends: {echo: 1}}
  staff: {hostnames: [a.test], match: {path: /staff}, auth: [staff, keys], backends: {echo: 1}}
  guests: {hostnames: [a.test], match: {path: /guests}, auth: [guests, keys, staff], backends: {echo: 1}}
  work: {hostnames: [a.test], match: {path: /work}, listeners: [https], auth: [work], backends: {echo: 1}}
`

// The password of alice is "correct horse".
const credentialsSecrets = `
tls/a certificate a.test
clients/ca authority
clients/one certificate spiffe://a.test/one by clients/ca
clients/other certificate spiffe://b.test/one by clients/ca
clients/nobody certificate one.test by clients/ca
consumers/acme text 0123456789-made-elsewhere
auth/staff text alice:%s
`

// credentials are the real Envoy between a client and an echo, and the service that it asks.
type credentials struct {
	service *auth.Service
	secrets *golden.Secrets
	http    int
	https   int
}

func serveCredentials(t *testing.T) credentials {
	t.Helper()
	c := credentials{
		service: auth.New(auth.Options{Keys: sharedStore(t).Board("keys")}),
		secrets: golden.NewSecrets(t, fmt.Sprintf(credentialsSecrets, must(bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)))),
		http:    golden.FreePort(t), https: golden.FreePort(t),
	}
	text := fmt.Sprintf(credentialsPolicy, c.http, c.https, golden.Backend(t, golden.Echo))
	m, problems := feature.Language().WithSecrets(c.secrets).Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	table, _ := feature.Companions(m)
	if err := c.service.Load(table); err != nil {
		t.Fatal(err)
	}
	golden.Start(t, m, feature.All(), golden.GRPC(t, c.service.Register))
	return c
}

// raw sends a request as it is, which may have a header twice, and gives the answer with what the backend received.
func (c credentials) raw(t *testing.T, path string, lines ...string) (status int, body string, got golden.Received) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.http))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n"+strings.Join(append(lines, ""), "\r\n")+"\r\n")
	return readEcho(t, must(http.ReadResponse(bufio.NewReader(conn), nil)))
}

// readEcho reads an answer; got is empty unless it is the echo's.
func readEcho(t *testing.T, answer *http.Response) (status int, body string, got golden.Received) {
	t.Helper()
	defer answer.Body.Close()
	text := must(io.ReadAll(answer.Body))
	if answer.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return answer.StatusCode, string(text), got
}

func basic(name, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

func TestCredentialsThroughEnvoy(t *testing.T) {
	c := serveCredentials(t)
	k := must(c.service.MakeKey(t.Context(), auth.KeyOrder{Consumer: "acme"})).Key
	const elsewhere = "0123456789-made-elsewhere"
	for _, test := range []struct {
		name, path string
		lines      []string
		status     int
		received   string // path that the backend got
		cookie     string // and header
		set        string // header that auth set
	}{
		{name: "header", path: "/keys", lines: []string{"X-Api-Key: " + k}, status: 200, received: "/keys", set: "X-Consumer: acme"},
		{name: "of a secret", path: "/keys", lines: []string{"X-Api-Key: " + elsewhere}, status: 200, received: "/keys", set: "X-Consumer: acme"},
		{name: "query", path: "/keys?a=b%20c&key=" + k + "&d=%2Fx&e=&f=+g", status: 200, received: "/keys?a=b%20c&d=%2Fx&e=&f=+g"},
		{name: "query alone", path: "/keys?key=" + k, status: 200, received: "/keys"},
		{name: "escaped value", path: "/keys?key=" + strings.Replace(k, "_", "%5F", 2), status: 200, received: "/keys"},
		{name: "escaped name", path: "/keys?%6Bey=" + k, status: 401},
		{name: "no value", path: "/keys?key=", status: 401},
		{name: "cookie", path: "/keys", lines: []string{"Cookie: a=1; k=" + k + "; b=x,y"}, status: 200, received: "/keys", cookie: "a=1; b=x,y"},
		{name: "cookie alone", path: "/keys", lines: []string{"Cookie: k=" + k}, status: 200, received: "/keys"},
		{name: "other cookies", path: "/keys", lines: []string{"X-Api-Key: " + k, "Cookie: a=1"}, status: 200, received: "/keys", cookie: "a=1"},
		{name: "consumer of the client", path: "/keys", lines: []string{"X-Api-Key: " + k, "X-Consumer: root"}, status: 200, received: "/keys", set: "X-Consumer: acme"},
		{name: "two headers", path: "/keys", lines: []string{"X-Api-Key: " + k, "X-Api-Key: " + k}, status: 400},
		{name: "two parameters", path: "/keys?key=" + k + "&key=" + k, status: 400},
		{name: "two cookies", path: "/keys", lines: []string{"Cookie: k=" + k + "; k=" + k}, status: 400},
		{name: "two cookie headers", path: "/keys", lines: []string{"Cookie: a=1", "Cookie: k=" + k}, status: 400},
		{name: "header and query", path: "/keys?key=" + k, lines: []string{"X-Api-Key: " + k}, status: 400},
		{name: "two keys and a password", path: "/staff?key=" + k + "&key=" + k, status: 400},
		{name: "typing error", path: "/keys", lines: []string{"X-Api-Key: " + k[:20] + "a" + k[20:]}, status: 401},
		{name: "unknown", path: "/keys", lines: []string{"X-Api-Key: " + unknownKey()}, status: 401},
		{name: "none", path: "/keys", status: 401},
		{name: "passed on", path: "/shown?key=" + k, status: 200, received: "/shown?key=" + k},
		{name: "password", path: "/staff", lines: []string{basic("alice", "correct horse")}, status: 200, received: "/staff", set: "X-Staff: alice"},
		{name: "wrong password", path: "/staff", lines: []string{basic("alice", "wrong")}, status: 401},
		{name: "nobody's password", path: "/staff", lines: []string{basic("bob", "correct horse")}, status: 401},
		{name: "password, then a key that stops here too", path: "/staff?key=" + k, lines: []string{basic("alice", "correct horse")}, status: 200, received: "/staff"},
		{name: "key where passwords are taken", path: "/staff", lines: []string{"X-Api-Key: " + k}, status: 200, received: "/staff"},
		{name: "guest", path: "/guests", status: 200, received: "/guests"},
		{name: "key where guests are taken", path: "/guests", lines: []string{"X-Api-Key: " + k}, status: 200, received: "/guests", set: "X-Consumer: acme"},
		{name: "bad key is no guest", path: "/guests", lines: []string{"X-Api-Key: " + k + "x"}, status: 401},
		{name: "bad password is no guest", path: "/guests", lines: []string{basic("alice", "wrong")}, status: 401},
		{name: "two keys are no guest", path: "/guests?key=" + k + "&key=" + k, status: 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body, got := c.raw(t, test.path, test.lines...)
			if status != test.status {
				t.Fatalf("got %d %s, want %d", status, body, test.status)
			}
			if got.Path != test.received || got.Header.Get("Cookie") != test.cookie {
				t.Errorf("the backend got %s with cookie %q, want %s with %q", got.Path, got.Header.Get("Cookie"), test.received, test.cookie)
			}
			if name, value, _ := strings.Cut(test.set, ": "); got.Header.Get(name) != value {
				t.Errorf("the backend got %s %q, want %q", name, got.Header.Get(name), value)
			}
			if test.path != "/shown?key="+k && (got.Header.Get("Authorization") != "" || strings.Contains(fmt.Sprint(got), k)) {
				t.Errorf("the backend got the credentials: %v", got)
			}
		})
	}
}

// unknownKey is a key that was never given to anybody.
func unknownKey() string {
	_, key := auth.NewKey()
	return key
}

func TestKeyLivesThroughEnvoy(t *testing.T) {
	c := serveCredentials(t)
	ask := func(key string) string {
		status, _, _ := c.raw(t, "/keys", "X-Api-Key: "+key)
		return fmt.Sprint(status)
	}
	first := must(c.service.MakeKey(t.Context(), auth.KeyOrder{Consumer: "acme", Entries: []string{"keys"}, Name: "ci"}))
	second := must(c.service.RotateKey(t.Context(), first.ID, time.Hour))
	got := []string{ask(first.Key), ask(second.Key)}
	must(c.service.RevokeKey(t.Context(), first.ID))
	got = append(got, ask(first.Key), ask(second.Key))
	status, _, _ := c.raw(t, "/shown", "X-Api-Key: "+second.Key) // which the key was not made for
	got = append(got, fmt.Sprint(status))
	if diff := cmp.Diff([]string{"200", "200", "401", "200", "401"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestCertificatesThroughEnvoy(t *testing.T) {
	c := serveCredentials(t)
	for _, test := range []struct {
		certificate string // "" for none
		want        string
	}{
		{"clients/one", "200 spiffe://a.test/one"},
		{"clients/other", "401 "},
		{"clients/nobody", "401 "},
		{"", "401 "},
	} {
		t.Run(test.certificate, func(t *testing.T) {
			config := &tls.Config{ServerName: "a.test", RootCAs: c.secrets.Authority(t, "").Pool()}
			if test.certificate != "" {
				config.Certificates = []tls.Certificate{c.secrets.Certificate(t, test.certificate).TLS(t)}
			}
			transport := &http.Transport{DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&tls.Dialer{Config: config}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", c.https))
			}}
			defer transport.CloseIdleConnections()
			r := must(http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.test/work", nil))
			// Neither is believed: what Envoy verified counts alone.
			r.Header.Set("X-Forwarded-Client-Cert", "URI=spiffe://a.test/one")
			r.Header.Set("X-Work", "spiffe://a.test/root")
			answer := must(transport.RoundTrip(r))
			status, _, received := readEcho(t, answer)
			if got := fmt.Sprint(status, " ", received.Header.Get("X-Work")); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// sharedStore keeps what auth shares in this process.
func sharedStore(t *testing.T) *store.Shared {
	t.Helper()
	s, err := store.OpenShared(store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
