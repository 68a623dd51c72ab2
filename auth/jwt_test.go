package auth

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// changed is the static rule with its JWT changed.
func changed(change func(*JWT)) Rule {
	r := staticRule()
	change(r.Providers[0].JWT)
	return r
}

// signedBySecret signs claims with a shared secret.
func signedBySecret(t testing.TB, alg jwa.SignatureAlgorithm, secret []byte, c map[string]any) string {
	t.Helper()
	header := jws.NewHeaders()
	if err := header.Set(jws.KeyIDKey, "any"); err != nil {
		t.Fatal(err)
	}
	signed, err := jws.Sign([]byte(must(jsonOf(c))), jws.WithKey(alg, secret, jws.WithProtectedHeaders(header)))
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

func TestWhatAnEntryAsksOfTokens(t *testing.T) {
	now := time.Now().Unix()
	rs, es := rsaPair().sign(t, goodClaims(nil)), ecPair().sign(t, goodClaims(nil))
	typed := func(typ string) string {
		return forge(t, `{"alg":"RS256","kid":"rsa-1"`+typ+`}`, must(jsonOf(goodClaims(nil))))
	}
	lasting := func(iat, exp int64) string {
		return rsaPair().sign(t, goodClaims(map[string]any{"iat": iat, "exp": exp}))
	}
	for _, test := range []struct {
		name   string
		change func(*JWT)
		token  string
		want   *refusal // nil: good
	}{
		{"an algorithm of those named", func(j *JWT) { j.Algorithms = []string{"ES256", "RS256"} }, rs, nil},
		{"another", func(j *JWT) { j.Algorithms = []string{"RS256"} }, es, errAlgorithm},
		{"another of the same key", func(j *JWT) { j.Algorithms = []string{"PS256"} }, rs, errAlgorithm},
		{"a further issuer", func(j *JWT) { j.Issuer, j.Issuers = "https://first/", []string{"https://second/", issuer} }, rs, nil},
		{"none of the issuers", func(j *JWT) { j.Issuer, j.Issuers = "https://first/", []string{"https://second/"} }, rs, errIssuer},
		{"the type asked for", func(j *JWT) { j.Types = []string{"at+jwt"} }, typed(`,"typ":"application/AT+jwt"`), nil},
		{"no type", func(j *JWT) { j.Types = []string{"at+jwt"} }, typed(""), errType},
		{"another type", func(j *JWT) { j.Types = []string{"at+jwt"} }, rs, errType},
		{"a type of one's own", func(j *JWT) { j.Types = []string{"Shop+jwt"} }, typed(`,"typ":"shop+JWT"`), nil},
		{"a type of one's own that nobody asked for", func(*JWT) {}, typed(`,"typ":"shop+jwt"`), errType},
		{"as long as allowed", func(j *JWT) { j.MaxLifetime = time.Hour }, lasting(now, now+3600), nil},
		{"longer", func(j *JWT) { j.MaxLifetime = time.Hour }, lasting(now, now+3601), errLifetime},
		{"longer, and begun long ago", func(j *JWT) { j.MaxLifetime = time.Hour }, lasting(now-86400, now+60), errLifetime},
		{"no iat where it is needed", func(j *JWT) { j.MaxLifetime = time.Hour }, rsaPair().sign(t, goodClaims(map[string]any{"iat": nil})), errClaims},
		{"no iat where it isn't", func(*JWT) {}, rsaPair().sign(t, goodClaims(map[string]any{"iat": nil})), nil},
	} {
		rule := changed(test.change)
		got := check(t, dial(t, load(t, Options{}, Table{Rules: []Rule{rule}})), ask(rule.ID(), "Bearer "+test.token))
		switch {
		case test.want == nil && got.status != 200:
			t.Errorf("%s: %d %s", test.name, got.status, got.body)
		case test.want != nil && (got.status != 401 || got.meta["reason"] != test.want.deny.reason):
			t.Errorf("%s: %d %v, want %s", test.name, got.status, got.meta["reason"], test.want.deny.reason)
		}
	}
}

// secretRule takes tokens that a shared secret signed.
func secretRule(algs ...string) Rule {
	return changed(func(j *JWT) { j.JWKS, j.Secret, j.Algorithms = JWKS{}, "idp/shared", algs })
}

func TestSharedSecrets(t *testing.T) {
	secret := bytes.Repeat([]byte("s3cret.."), 8)
	public := must(jsonOf(rsaPair().jwk()))
	with := func(value []byte, r Rule) *Service {
		return load(t, Options{}, Table{Rules: []Rule{r}, Secrets: map[string][]byte{"idp/shared": value}})
	}
	for _, test := range []struct {
		name  string
		s     *Service
		token string
		want  int
	}{
		{"HS256", with(secret, secretRule()), signedBySecret(t, jwa.HS256(), secret, goodClaims(nil)), 200},
		{"HS512", with(secret, secretRule("HS512")), signedBySecret(t, jwa.HS512(), secret, goodClaims(nil)), 200},
		{"HS512 where HS256 is the default", with(secret, secretRule()), signedBySecret(t, jwa.HS512(), secret, goodClaims(nil)), 401},
		{"another secret", with(secret, secretRule()), signedBySecret(t, jwa.HS256(), append(secret[:63:63], '!'), goodClaims(nil)), 401},
		{"a part of the secret", with(secret, secretRule()), signedBySecret(t, jwa.HS256(), secret[:32], goodClaims(nil)), 401},
		{"RS256", with(secret, secretRule()), rsaPair().sign(t, goodClaims(nil)), 401},
		{"expired", with(secret, secretRule()), signedBySecret(t, jwa.HS256(), secret, goodClaims(map[string]any{"exp": 1})), 401},
		{"31 bytes", with(secret[:31], secretRule()), signedBySecret(t, jwa.HS256(), secret[:31], goodClaims(nil)), 503},
		{"32 bytes for HS384", with(secret[:32], secretRule("HS256", "HS384")), signedBySecret(t, jwa.HS256(), secret[:32], goodClaims(nil)), 503},
		{"no secret", with(nil, secretRule()), signedBySecret(t, jwa.HS256(), secret, goodClaims(nil)), 503},
		{"HS256 by a key set", with(secret, staticRule()), signedBySecret(t, jwa.HS256(), secret, goodClaims(nil)), 401},
		{"HS256 by the public key, PEM", with(secret, staticRule()), signedBySecret(t, jwa.HS256(), rsaPair().pem, goodClaims(nil)), 401},
		{"HS256 by the public key, JWK", with(secret, staticRule()), signedBySecret(t, jwa.HS256(), []byte(public), goodClaims(nil)), 401},
	} {
		r, err := test.s.Check(t.Context(), ask("edge/orders", "Bearer "+test.token))
		if err != nil {
			t.Fatal(err)
		}
		if got := flatten(r).status; got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// A secret that was changed ends the tokens that the old one signed, also those that were seen before.
func TestSecretIsChanged(t *testing.T) {
	old, next := bytes.Repeat([]byte("o"), 32), bytes.Repeat([]byte("n"), 32)
	table := Table{Rules: []Rule{secretRule()}, Secrets: map[string][]byte{"idp/shared": old}}
	s := load(t, Options{}, table)
	token := signedBySecret(t, jwa.HS256(), old, goodClaims(nil))
	want(t, "before", status(t, s, token), 200)
	if err := s.Load(table); err != nil {
		t.Fatal(err)
	}
	want(t, "the same again", status(t, s, token), 200)
	table.Secrets = map[string][]byte{"idp/shared": next}
	if err := s.Load(table); err != nil {
		t.Fatal(err)
	}
	want(t, "after", status(t, s, token), 401)
	want(t, "by the new one", status(t, s, signedBySecret(t, jwa.HS256(), next, goodClaims(nil))), 200)
}

func TestEntriesThatContradictThemselvesAreRefused(t *testing.T) {
	for name, change := range map[string]func(*JWT){
		"a secret beside keys":         func(j *JWT) { j.Secret = "idp/shared" },
		"HS256 beside keys":            func(j *JWT) { j.Algorithms = []string{"RS256", "HS256"} },
		"none":                         func(j *JWT) { j.Algorithms = []string{"none"} },
		"RS256 with a secret":          func(j *JWT) { j.JWKS, j.Secret, j.Algorithms = JWKS{}, "idp/shared", []string{"HS256", "RS256"} },
		"no keys":                      func(j *JWT) { j.JWKS = JWKS{} },
		"keys and a URL":               func(j *JWT) { j.JWKS.URL = "https://id.test/" },
		"keys and discovery":           func(j *JWT) { j.JWKS.Discover = true },
		"discovery of two issuers":     func(j *JWT) { j.JWKS, j.Issuers = JWKS{Discover: true}, []string{"https://b/"} },
		"discovery over http":          func(j *JWT) { j.JWKS, j.Issuer = JWKS{Discover: true}, "http://id.test/" },
		"discovery of no URL":          func(j *JWT) { j.JWKS, j.Issuer = JWKS{Discover: true}, "accounts" },
		"discovery with a query":       func(j *JWT) { j.JWKS, j.Issuer = JWKS{Discover: true}, "https://id.test/?a" },
		"an empty issuer":              func(j *JWT) { j.Issuers = []string{""} },
		"an empty type":                func(j *JWT) { j.Types = []string{""} },
		"a negative lifetime":          func(j *JWT) { j.MaxLifetime = -1 },
		"a place of two kinds":         func(j *JWT) { j.From = []From{{Header: "x-a", Query: "a"}} },
		"a place of none":              func(j *JWT) { j.From = []From{{}} },
		"a place twice":                func(j *JWT) { j.From = []From{{Header: "x-a"}, {Header: "x-a", Prefix: "A"}} },
		"authorization without prefix": func(j *JWT) { j.From = []From{{Header: "authorization"}} },
		"a header in capitals":         func(j *JWT) { j.From = []From{{Header: "X-A"}} },
		"the cookie header":            func(j *JWT) { j.From = []From{{Header: "cookie"}} },
		"a prefix of two words":        func(j *JWT) { j.From = []From{{Header: "x-a", Prefix: "a b"}} },
		"a prefix of a cookie":         func(j *JWT) { j.From = []From{{Cookie: "a", Prefix: "b"}} },
		"a parameter with =":           func(j *JWT) { j.From = []From{{Query: "a=b"}} },
	} {
		table := Table{Rules: []Rule{changed(change)}, Secrets: map[string][]byte{"idp/shared": make([]byte, 64)}}
		if New(Options{}).Load(table) == nil {
			t.Errorf("%s was loaded", name)
		}
	}
}

// Two tokens at once are refused whatever else would be accepted; the token of one entry is kept from the backend also
// when another entry let the request pass.
func TestPlacesOfSeveralEntries(t *testing.T) {
	rule := changed(func(j *JWT) { j.From, j.Drop = []From{{Header: "x-token"}, {Cookie: "token"}}, true })
	rule.Providers = append(rule.Providers, Provider{Name: "plain", JWT: staticRule().Providers[0].JWT})
	c := dial(t, load(t, Options{}, Table{Rules: []Rule{rule}}))
	token := rsaPair().sign(t, goodClaims(nil))
	for _, test := range []struct {
		name          string
		authorization string
		headers       []string
		status        int
		removed       []string
	}{
		{"the second alone", "Bearer " + token, nil, 200, []string{}},
		{"both", "Bearer " + token, []string{"x-token", token}, 200, []string{"x-token"}},
		{"a bad one at the first", "Bearer " + token, []string{"x-token", "x"}, 200, []string{"x-token"}},
		{"two at the first", "Bearer " + token, []string{"x-token", token, "cookie", "token=" + token}, 400, nil},
		{"two in one header", "Bearer " + token, []string{"x-token", token + "," + token}, 400, nil},
		{"too long", "", []string{"x-token", strings.Repeat("a", maxToken+1)}, 401, nil},
		{"a cookie among others", "", []string{"cookie", "a=1; token=" + token + " ; b"}, 200, []string{}},
	} {
		got := check(t, c, ask(rule.ID(), test.authorization, test.headers...))
		var removed []string
		if got.status == 200 {
			removed = slices.DeleteFunc(append([]string{}, got.removed...), func(h string) bool { return strings.HasPrefix(h, "x-auth-") })
		}
		if diff := cmp.Diff(test.removed, removed); got.status != test.status || diff != "" {
			t.Errorf("%s: %d, want %d %s", test.name, got.status, test.status, diff)
		}
	}
}

func TestCookies(t *testing.T) {
	for header, want := range map[string][]string{
		"": nil, ";": nil, "a=1": {"a=1"}, " a=1 ;b=2;": {"a=1", "b=2"}, "a=1,b=2": {"a=1", "b=2"}, "a=1,2; b=3": {"a=1,2", "b=3"},
		"a=1, b=2": {"a=1", "b=2"}, "a=x,y,z": {"a=x,y,z"}, "a;b,c": {"a", "b,c"}, `a="1,b=2"`: {`a="1`, `b=2"`},
	} {
		if diff := cmp.Diff(want, slices.Clip(cookiePairs(header))); diff != "" && len(want)+len(cookiePairs(header)) > 0 {
			t.Errorf("%q: %s", header, diff)
		}
	}
}

// documents are those of a provider, by URL.
type documents map[string]string

func (m documents) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := m[r.URL.String()]
	i := &idp{status: http.StatusOK, body: []byte(body)}
	if !ok {
		i.status = http.StatusNotFound
	}
	return i.RoundTrip(r)
}

func TestDiscovery(t *testing.T) {
	const well, server = "https://id.test/tenant/.well-known/openid-configuration", "https://id.test/.well-known/oauth-authorization-server/tenant"
	says := func(issuer, keys string) string { return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, keys) }
	keys := map[string]string{"https://keys.test/k": string(jwks(rsaPair().jwk()))}
	for _, test := range []struct {
		name, issuer string
		documents    documents
		why          string // "" = the keys are there
	}{
		{"OpenID Connect", "https://id.test/tenant", documents{well: says("https://id.test/tenant", "https://keys.test/k")}, ""},
		{"issuer with a slash", "https://id.test/tenant/", documents{well: says("https://id.test/tenant/", "https://keys.test/k")}, ""},
		{"RFC 8414", "https://id.test/tenant", documents{server: says("https://id.test/tenant", "https://keys.test/k")}, ""},
		{"none", "https://id.test/tenant", documents{}, "discovery: answered 404"},
		{"another issuer", "https://id.test/tenant", documents{well: says("https://id.test/", "https://keys.test/k")}, "discovery: the document is another issuer's"},
		{"less the slash", "https://id.test/tenant/", documents{well: says("https://id.test/tenant", "https://keys.test/k")}, "discovery: the document is another issuer's"},
		{"no keys", "https://id.test/tenant", documents{well: `{"issuer":"https://id.test/tenant"}`}, "discovery: the document has no jwks_uri"},
		{"two issuers", "https://id.test/tenant", documents{well: `{"issuer":"x","issuer":"https://id.test/tenant","jwks_uri":"https://keys.test/k"}`}, "discovery: not one strict JSON object"},
		{"metadata service", "https://id.test/tenant", documents{well: says("https://id.test/tenant", "https://169.254.169.254/")}, "discovery: a link-local, metadata"},
		{"a plain URL", "https://id.test/tenant", documents{well: says("https://id.test/tenant", "http://id.test/k")}, "discovery: the URL has to be https"},
		{"from https to loopback", "https://id.test/tenant", documents{well: says("https://id.test/tenant", "http://127.0.0.1/k")}, "discovery: the jwks_uri leads from https to http"},
		{"capitals", "HTTPS://id.test/tenant", documents{well: says("HTTPS://id.test/tenant", "http://127.0.0.1/k")}, "discovery: the jwks_uri leads from https to http"},
		{"a file", "https://id.test/tenant", documents{well: says("https://id.test/tenant", "file:///etc/passwd")}, "discovery: the URL"},
		{"huge", "https://id.test/tenant", documents{well: strings.Repeat(" ", maxDiscovery+1)}, "discovery: more than 65536 bytes"},
		{"keys are gone", "https://id.test/tenant", documents{well: says("https://id.test/tenant", "https://gone.test/k")}, "answered 404"},
	} {
		maps.Copy(test.documents, keys)
		rule := changed(func(j *JWT) { j.Issuer, j.JWKS = test.issuer, JWKS{Discover: true} })
		s := load(t, Options{Transport: test.documents}, Table{Rules: []Rule{rule}})
		r := s.fetched()[0]
		_, err := r.refresh(t.Context())
		switch {
		case test.why == "" && err != nil, test.why != "" && (err == nil || !strings.HasPrefix(err.Error(), test.why)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.why)
		case test.why == "":
			want(t, test.name, status(t, s, rsaPair().sign(t, goodClaims(map[string]any{"iss": test.issuer}))), 200)
		}
	}
}

// Issuers that differ in nothing but the slash are two: each document is good for its own.
func TestDiscoveryIsPerIssuer(t *testing.T) {
	a := changed(func(j *JWT) { j.Issuer, j.JWKS = "https://id.test", JWKS{Discover: true} })
	b := changed(func(j *JWT) { j.Issuer, j.JWKS = "https://id.test/", JWKS{Discover: true} })
	b.Name = "edge/b"
	if n := len(load(t, Options{}, Table{Rules: []Rule{a, b}}).wanted()); n != 2 {
		t.Errorf("%d key sets, want 2", n)
	}
}
