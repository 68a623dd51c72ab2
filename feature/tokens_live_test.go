package feature_test

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

const tokensPolicy = `
gateways: {edge: {listeners: {http: {port: PORT, address: 127.0.0.1}}}}
auth:
  kept: {jwt: {issuer: ISSUER, audiences: [AUDIENCE], jwks: {file: keys.json}, from: [{header: authorization}, {header: X-Token}, {header: x-own, prefix: Own}, {query: access_token}, {cookie: token}]}}
  taken: {jwt: {issuer: [ISSUER, other], audiences: [AUDIENCE], jwks: {file: keys.json}, from: [{header: authorization}, {header: X-Token}, {header: x-own, prefix: Own}, {query: access_token}, {cookie: token}], forward: false}}
services: {echo: {endpoints: ["UPSTREAM"]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny}, backends: {echo: 1}}
  kept: {hostnames: [a.test], match: {path: /kept}, auth: [kept], backends: {echo: 1}}
  taken: {hostnames: [a.test], match: {path: /taken}, auth: [taken], backends: {echo: 1}}
`

// seen is what a backend is shown of a request; the token as TOKEN.
type seen struct {
	Path                              string
	Authorization, Token, Own, Cookie []string
}

// brought sends lines as a request, in which TOKEN is the token, and gives the status and what the backend saw.
func brought(t *testing.T, address, token, path string, headers ...string) (status int, backend seen) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	lines := append([]string{"GET " + path + " HTTP/1.1", "Host: a.test", "Connection: close"}, headers...)
	request := strings.Join(lines, "\r\n") + "\r\n\r\n"
	if _, err := conn.Write([]byte(strings.ReplaceAll(request, "TOKEN", token))); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return res.StatusCode, seen{}
	}
	if err := json.NewDecoder(res.Body).Decode(&backend); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, backend
}

// TestTokensInPlacesThroughEnvoy brings tokens in every place, in two at once, and holds what backends are shown.
func TestTokensInPlacesThroughEnvoy(t *testing.T) {
	token := strings.TrimPrefix(bearer(t, "alice"), "Bearer ")
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hide := func(all []string) []string {
			for i := range all {
				all[i] = strings.ReplaceAll(all[i], token, "TOKEN")
			}
			return all
		}
		json.NewEncoder(w).Encode(seen{
			hide([]string{r.RequestURI})[0], hide(r.Header["Authorization"]), hide(r.Header["X-Token"]), hide(r.Header["X-Own"]), hide(r.Header["Cookie"]),
		})
	}))
	defer upstream.Close()
	port := golden.FreePort(t)
	m := loadText(t, tokensPolicy, port, upstream.Listener.Addr().String())
	_, address := companions(t, m)
	golden.Start(t, m, feature.All(), address)
	client{t, "http://127.0.0.1:" + strconv.Itoa(port)}.waitReady()

	for _, row := range []struct {
		name, path  string // below /kept and /taken
		headers     []string
		want        int
		kept, taken seen // by the backend
	}{
		{"none", "/", nil, 401, seen{}, seen{}},
		{
			"authorization", "/",
			[]string{"Authorization: bearer TOKEN"},
			200,
			seen{Path: "/", Authorization: []string{"bearer TOKEN"}},
			seen{Path: "/"},
		},
		{"header", "/", []string{"x-token: TOKEN"}, 200, seen{Path: "/", Token: []string{"TOKEN"}}, seen{Path: "/"}},
		{"header with a prefix", "/", []string{"x-own: OWN TOKEN"}, 200, seen{Path: "/", Own: []string{"OWN TOKEN"}}, seen{Path: "/"}},
		{
			"query", "/?b=2&access_token=TOKEN&a=%31", nil, 200,
			seen{Path: "/?b=2&access_token=TOKEN&a=%31"},
			seen{Path: "/?a=%31&b=2"}, // Envoy sorts them
		},
		{"query alone", "/?access_token=TOKEN", nil, 200, seen{Path: "/?access_token=TOKEN"}, seen{Path: "/"}},
		{
			"query, name escaped", "/?access%5ftoken=TOKEN&x=", nil, 200,
			seen{Path: "/?access%5ftoken=TOKEN&x="},
			seen{Path: "/?x="},
		},
		{
			"cookie", "/",
			[]string{"Cookie: a=b; token=TOKEN; c=1,2"},
			200,
			seen{Path: "/", Cookie: []string{"a=b; token=TOKEN; c=1,2"}},
			seen{Path: "/", Cookie: []string{"a=b; c=1,2"}},
		},
		{"cookie alone", "/", []string{"Cookie: token=TOKEN"}, 200, seen{Path: "/", Cookie: []string{"token=TOKEN"}}, seen{Path: "/"}},
		{
			"cookie beside a second header", "/",
			[]string{"Cookie: a=b", "Cookie: token=TOKEN"},
			200,
			seen{Path: "/", Cookie: []string{"a=b", "token=TOKEN"}},
			seen{Path: "/", Cookie: []string{"a=b"}},
		},
		{"two authorization headers", "/", []string{"Authorization: Bearer TOKEN", "Authorization: Bearer TOKEN"}, 400, seen{}, seen{}},
		{"two headers", "/", []string{"x-token: TOKEN", "x-token: TOKEN"}, 400, seen{}, seen{}},
		{"two headers with a prefix", "/", []string{"x-own: Own TOKEN", "x-own: Own TOKEN"}, 400, seen{}, seen{}},
		{"authorization and query", "/?access_token=TOKEN", []string{"Authorization: Bearer TOKEN"}, 400, seen{}, seen{}},
		{"authorization and another in the query", "/?access_token=x", []string{"Authorization: Bearer TOKEN"}, 400, seen{}, seen{}},
		{"header and cookie", "/", []string{"x-token: TOKEN", "Cookie: token=TOKEN"}, 400, seen{}, seen{}},
		{"query twice", "/?access_token=TOKEN&access_token=TOKEN", nil, 400, seen{}, seen{}},
		{"query twice, once escaped", "/?access_token=TOKEN&%61ccess_token=x", nil, 400, seen{}, seen{}},
		{"query twice, once empty", "/?access_token=TOKEN&access_token", nil, 400, seen{}, seen{}},
		{"cookie twice", "/", []string{"Cookie: token=TOKEN; token=TOKEN"}, 400, seen{}, seen{}},
		{"cookie in two headers", "/", []string{"Cookie: a=b; token=TOKEN", "Cookie: token=x"}, 400, seen{}, seen{}},
		{"query escaped twice", "/?access_token=" + strings.ReplaceAll(token, ".", "%252e"), nil, 401, seen{}, seen{}},
		{"query with a semicolon", "/?a=1;access_token=TOKEN", nil, 401, seen{}, seen{}},
		{"query in capitals", "/?Access_Token=TOKEN", nil, 401, seen{}, seen{}},
		{"empty in the query", "/?access_token=", nil, 401, seen{}, seen{}},
		{"in quotes", "/", []string{`Cookie: token="TOKEN"`}, 401, seen{}, seen{}},
		{"cookie in capitals", "/", []string{"Cookie: Token=TOKEN"}, 401, seen{}, seen{}},
	} {
		for route, want := range map[string]seen{"/kept": row.kept, "/taken": row.taken} {
			status, got := brought(t, "127.0.0.1:"+strconv.Itoa(port), token, route+row.path, row.headers...)
			got.Path = strings.TrimPrefix(got.Path, route)
			if diff := cmp.Diff(want, got); status != row.want || diff != "" {
				t.Errorf("%s: %s: got %d, want %d (-want +got):\n%s", route, row.name, status, row.want, diff)
			}
		}
	}
}

const secretsPolicy = `
gateways: {edge: {listeners: {http: {port: PORT, address: 127.0.0.1}}}}
auth:
  legacy: {jwt: {issuer: legacy, audiences: [orders], secret: auth/legacy}}
  opaque: {introspection: {url: "ORACLE", client: legation, secret: auth/introspect, audiences: [orders], headers: {x-token: sub}, forward: false}}
services: {echo: {endpoints: ["UPSTREAM"]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny}, backends: {echo: 1}}
  both: {hostnames: [a.test], auth: [legacy, opaque], backends: {echo: 1}}
`

// TestSecretsThroughEnvoy verifies tokens by a shared secret, and others by asking their issuer.
func TestSecretsThroughEnvoy(t *testing.T) {
	oracle := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, secret, _ := r.BasicAuth()
		switch token := r.PostFormValue("token"); {
		case client != "legation" || secret != "abc":
			w.WriteHeader(http.StatusUnauthorized)
		case token == "down":
			w.WriteHeader(http.StatusBadGateway)
		default:
			json.NewEncoder(w).Encode(map[string]any{"active": token == "good", "sub": "alice", "aud": "orders"})
		}
	}))
	defer oracle.Close()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(seen{Authorization: r.Header["Authorization"], Token: r.Header["X-Token"]})
	}))
	defer upstream.Close()
	port := golden.FreePort(t)
	address := "127.0.0.1:" + strconv.Itoa(port)
	const shared = "0123456789abcdef0123456789abcdef"
	text := strings.NewReplacer("PORT", strconv.Itoa(port), "UPSTREAM", upstream.Listener.Addr().String(), "ORACLE", oracle.URL).Replace(secretsPolicy)
	secrets := golden.NewSecrets(t, "auth/legacy text "+shared+"\nauth/introspect text abc")
	m, problems := feature.Language().WithSecrets(secrets).Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	_, companion := companions(t, m)
	golden.Start(t, m, feature.All(), companion)
	client{t, "http://" + address}.waitReady()

	hs256 := func(secret string) string {
		text := base64.RawURLEncoding.EncodeToString
		claims := fmt.Sprintf(`{"iss":"legacy","aud":"orders","sub":"bob","exp":%d}`, time.Now().Add(time.Hour).Unix())
		input := text([]byte(`{"alg":"HS256"}`)) + "." + text([]byte(claims))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(input))
		return input + "." + text(mac.Sum(nil))
	}
	signed := hs256(shared)
	for _, row := range []struct {
		name, token string
		want        int
		backend     seen
	}{
		{"shared secret", signed, 200, seen{}},
		{"another secret", hs256(shared + "!"), 401, seen{}},
		{"opaque", "good", 200, seen{Token: []string{"alice"}}},
		{"opaque, not active", "bad", 401, seen{}},
		{"issuer in trouble", "down", 503, seen{}},
	} {
		status, got := brought(t, address, row.token, "/", "authorization: Bearer TOKEN", "x-token: forged")
		if diff := cmp.Diff(row.backend, got); status != row.want || diff != "" {
			t.Errorf("%s: got %d, want %d (-want +got):\n%s", row.name, status, row.want, diff)
		}
	}
}
