package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/examples"
)

// decode is the header and the claims of a token.
func decode(t testing.TB, token string) (header map[string]any, claims map[string]json.RawMessage) {
	t.Helper()
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no token", token)
	}
	for i, into := range []any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		must(t, err)
		must(t, json.Unmarshal(text, into))
	}
	return header, claims
}

// sign runs legation token.
func sign(t testing.TB, args ...string) string {
	t.Helper()
	status, out, errs := legation(append([]string{"token"}, args...)...)
	if status != 0 {
		t.Fatalf("token %v: %d %s", args, status, errs)
	}
	return out
}

func TestTokenClaims(t *testing.T) {
	t.Parallel()
	began := time.Now().Unix()
	header, claims := decode(t, sign(t, "--sub", "alice", "--ttl", "5m", "--claim", "plan=gold", "--claim", `roles=["admin", 1]`,
		"--claim", "id=12345678901234567890", "--claim", "on=true", "--claim", "empty=", "--claim", "pair=a=b", "--claim", "quoted=\"7\""))
	if header["alg"] != "ES256" && header["alg"] != "EdDSA" && header["alg"] != "RS256" || header["kid"] != examples.TestKeyID || header["typ"] != "JWT" {
		t.Errorf("got the header %v", header)
	}
	for name, want := range map[string]string{
		"sub": `"alice"`, "iss": `"` + examples.Issuer + `"`, "aud": `"` + examples.Audience + `"`,
		"plan": `"gold"`, "roles": `["admin",1]`, "id": "12345678901234567890", "on": "true", "empty": `""`, "pair": `"a=b"`, "quoted": `"7"`,
	} {
		if string(claims[name]) != want {
			t.Errorf("%s: got %s, want %s", name, claims[name], want)
		}
	}
	var issued, expires int64
	must(t, json.Unmarshal(claims["iat"], &issued))
	must(t, json.Unmarshal(claims["exp"], &expires))
	if issued < began || issued > time.Now().Unix() || expires != issued+300 {
		t.Errorf("issued at %d, expires at %d, want 5 minutes", issued, expires)
	}
}

func TestTokenOverrides(t *testing.T) {
	t.Parallel()
	_, claims := decode(t, sign(t, "--sub", "bob", "--issuer", "https://id.example.com/", "--audience", "orders", "--claim", "sub=eve"))
	for name, want := range map[string]string{"iss": `"https://id.example.com/"`, "aud": `"orders"`, "sub": `"eve"`} {
		if string(claims[name]) != want {
			t.Errorf("%s: got %s, want %s", name, claims[name], want)
		}
	}
}

// service accepts the tokens of one key set.
func service(t testing.TB, keys []byte) func(token string) (status int) {
	t.Helper()
	s := auth.New(auth.Options{})
	rule := auth.Rule{Name: "edge/app", Providers: []auth.Provider{{Name: "demo", JWT: &auth.JWT{
		Issuer: examples.Issuer, Audiences: []string{examples.Audience}, JWKS: auth.JWKS{Keys: keys},
	}}}}
	must(t, s.Load(auth.Table{Rules: []auth.Rule{rule}}))
	return func(token string) int {
		r, err := s.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			ContextExtensions: map[string]string{auth.RuleExtension: rule.ID()},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: "GET", Host: "app.test", Path: "/",
				Headers: map[string]string{"authorization": "Bearer " + strings.TrimSpace(token)},
			}},
		}})
		must(t, err)
		if r.GetOkResponse() != nil {
			return 200
		}
		return int(r.GetDeniedResponse().GetStatus().GetCode())
	}
}

// What token signs, auth accepts; until it expires.
func TestTokenIsGood(t *testing.T) {
	t.Parallel()
	keys, err := os.ReadFile("../../examples/quickstart/test-keys.json")
	must(t, err)
	ask := service(t, keys)
	for _, row := range []struct {
		args []string
		want int
	}{
		{[]string{"--sub", "alice"}, 200},
		{[]string{"--sub", "alice", "--ttl", "-10m"}, 401},
		{[]string{"--sub", "alice", "--audience", "other"}, 401},
		{[]string{"--sub", "alice", "--issuer", "https://other/"}, 401},
		{[]string{"--sub", "alice", "--kid", "other"}, 401},
	} {
		if got := ask(sign(t, row.args...)); got != row.want {
			t.Errorf("%v: got %d, want %d", row.args, got, row.want)
		}
	}
}

// Keys of one's own may be PEM or a JWK; the JWK's key id goes into the header.
func TestTokenKeys(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	point, err := key.PublicKey.Bytes()
	must(t, err)
	secret, err := key.Bytes()
	must(t, err)
	text := base64.RawURLEncoding.EncodeToString
	public := `"kty":"EC","crv":"P-256","x":"` + text(point[1:33]) + `","y":"` + text(point[33:]) + `"`
	dir := policyDir(t,
		"key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"key.json", `{`+public+`,"kid":"mine","d":"`+text(secret)+`"}`,
		"public.json", `{`+public+`}`,
	)
	ask := service(t, []byte(`{"keys":[{`+public+`,"kid":"mine","alg":"ES256","use":"sig"}]}`))
	for _, row := range []struct {
		args []string
		kid  any
		want int
	}{
		{[]string{"--key", filepath.Join(dir, "key.json")}, "mine", 200},
		{[]string{"--key", filepath.Join(dir, "key.pem"), "--kid", "mine"}, "mine", 200},
		{[]string{"--key", filepath.Join(dir, "key.json"), "--kid", "other"}, "other", 401},
		{nil, examples.TestKeyID, 401},
	} {
		token := sign(t, append([]string{"--sub", "alice"}, row.args...)...)
		header, _ := decode(t, token)
		if header["kid"] != row.kid {
			t.Errorf("%v: got the key id %v, want %v", row.args, header["kid"], row.kid)
		}
		if got := ask(token); got != row.want {
			t.Errorf("%v: got %d, want %d", row.args, got, row.want)
		}
	}
	header, _ := decode(t, sign(t, "--sub", "alice", "--key", filepath.Join(dir, "key.pem")))
	if _, ok := header["kid"]; ok {
		t.Errorf("a PEM key has the key id %v", header["kid"])
	}
	if status, _, errs := legation("token", "--sub", "a", "--key", filepath.Join(dir, "public.json")); status != 1 || !strings.Contains(errs, "not a private key") {
		t.Errorf("a public key: got %d %q", status, errs)
	}
}
