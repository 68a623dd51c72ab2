package trial

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/legation/legation/feature/jwt"
	"github.com/legation/legation/feature/oidc"
	"github.com/legation/legation/policy"
)

// issuer stands for all identity providers of a policy. The companion asks it in the place of the network: it is the
// companion's transport, so that whatever URL is asked, nobody else answers.
type issuer struct {
	signer *signer
	others *signer // of forged tokens
	keys   []byte
	jwts   map[string]*jwt.JWT
	opaque map[string]*jwt.Introspection
	logins map[string]*oidc.OIDC
	secret func(name string) []byte // of the policy
	answer map[string][]byte        // what tests say that URLs answer

	mu     sync.Mutex                // guards what follows
	tokens map[string]map[string]any // claims of the opaque ones
	codes  map[string]map[string]any // claims of the logins under way
	users  map[string]map[string]any // claims by the access tokens of logins
}

func newIssuer(m *policy.Model, fetched map[string][]byte) *issuer {
	i := &issuer{
		jwts: map[string]*jwt.JWT{}, opaque: map[string]*jwt.Introspection{}, logins: map[string]*oidc.OIDC{},
		answer: fetched, tokens: map[string]map[string]any{}, codes: map[string]map[string]any{}, users: map[string]map[string]any{},
		secret: func(name string) []byte {
			if s := m.Secret((&policy.Secret{Kind: policy.CompanionSecret, Name: name}).ID()); s != nil {
				return s.Value
			}
			return nil
		},
	}
	withRSA := false
	for _, a := range m.Auth {
		if j, ok := policy.Find[*jwt.JWT](a.Settings); ok {
			i.jwts[a.Name] = j
			withRSA = withRSA || len(j.Algorithms) > 0 && strings.Contains("RSPS", algorithm(j)[:2])
		}
		if o, ok := policy.Find[*jwt.Introspection](a.Settings); ok {
			i.opaque[a.Name] = o
		}
		if o, ok := policy.Find[*oidc.OIDC](a.Settings); ok {
			i.logins[a.Name] = o
		}
	}
	i.signer, i.others = newSigner(withRSA), newSigner(withRSA)
	i.keys = i.signer.keySet()
	return i
}

// algorithm is what tokens of an entry are signed with.
func algorithm(j *jwt.JWT) string {
	known := j.Algorithms
	switch {
	case len(known) > 0:
	case j.Secret != "":
		return "HS256"
	default:
		return preferred[0]
	}
	for _, one := range preferred {
		if slices.Contains(known, one) {
			return one
		}
	}
	return known[0]
}

// adopt adds the run's keys to those that stand in the policy itself. It changes the settings: nothing else has them.
func (i *issuer) adopt() error {
	for name, j := range i.jwts {
		if j.JWKS.Keys == nil {
			continue
		}
		var set map[string]any
		if err := json.Unmarshal(j.JWKS.Keys, &set); err != nil {
			return fmt.Errorf("the keys of %s: %w", name, err)
		}
		keys, _ := set["keys"].([]any)
		for _, key := range i.signer.public() {
			keys = append(keys, key)
		}
		set["keys"] = keys
		j.JWKS.Keys = must(json.Marshal(set))
	}
	return nil
}

// credential is a token as a request brings it.
type credential struct{ header, prefix, query, cookie, token string }

// token makes what a case asks for.
func (i *issuer) token(t *Token) (credential, error) {
	if j := i.jwts[t.Entry]; j != nil {
		return i.signed(t, j)
	}
	o := i.opaque[t.Entry]
	claims := i.claims(t, o.Issuer, o.Audiences.Names)
	token := rand.Text()
	if !t.Forged {
		i.mu.Lock()
		i.tokens[token] = claims
		i.mu.Unlock()
	}
	return brought(o.From, token), nil
}

func (i *issuer) signed(t *Token, j *jwt.JWT) (credential, error) {
	signer, key := i.signer, []byte(nil)
	if j.Secret != "" {
		key = i.secret(string(j.Secret))
	}
	if t.Forged {
		signer, key = i.others, []byte(rand.Text())
	}
	kind := "JWT"
	if len(j.Types) > 0 {
		kind = j.Types[0]
	}
	claims := i.claims(t, j.Issuer[0], j.Audiences.Names)
	if exp, ok := claims["exp"].(int64); ok && j.MaxLifetime > 0 && !t.Expired && t.Claims["exp"].json == nil {
		claims["exp"] = min(exp, claims["iat"].(int64)+int64(time.Duration(j.MaxLifetime).Seconds()))
	}
	token, err := signer.sign(algorithm(j), kind, claims, key)
	return brought(j.From, token), err
}

// claims are those of a token that is good, but for what the case says.
func (i *issuer) claims(t *Token, issuer string, audiences []string) map[string]any {
	now := time.Now()
	if t.Expired {
		now = now.Add(-2 * time.Hour)
	}
	claims := map[string]any{"sub": "test", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	if issuer != "" {
		claims["iss"] = issuer
	}
	if len(audiences) > 0 {
		claims["aud"] = audiences[0]
	}
	for _, name := range t.Without {
		delete(claims, name)
	}
	for name, v := range t.Claims {
		claims[name] = v.json
	}
	return claims
}

// brought puts a token where the entry looks for it first.
func brought(from jwt.From, token string) credential {
	if len(from) == 0 {
		return credential{header: "authorization", prefix: "Bearer ", token: token}
	}
	p := from[0]
	c := credential{header: strings.ToLower(p.Header), query: p.Query, cookie: p.Cookie, token: token}
	switch {
	case p.Prefix != "":
		c.prefix = p.Prefix + " "
	case c.header == "authorization":
		c.prefix = "Bearer "
	}
	return c
}

// authorize is what the provider's page does with somebody who logs in there: it sends the browser back with a code.
func (i *issuer) authorize(t *Token, location string) (back string, err error) {
	o := i.logins[t.Entry]
	u, err := url.Parse(location)
	if err != nil || !strings.HasPrefix(location, i.endpoint(o.Issuer, "authorize")) {
		return "", errors.New("the answer does not send the browser to the provider")
	}
	q := u.Query()
	claims := i.claims(t, o.Issuer, []string{o.Client})
	claims["nonce"] = q.Get("nonce")
	code := rand.Text()
	i.mu.Lock()
	i.codes[code] = claims
	i.mu.Unlock()
	return q.Get("redirect_uri") + "?" + url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), nil
}

// endpoint is a URL of a provider's.
func (*issuer) endpoint(issuer, name string) string {
	return strings.TrimSuffix(issuer, "/") + "/legation-test/" + name
}

// RoundTrip answers what the companion asks of the world.
func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		defer r.Body.Close()
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, 1<<20)); err != nil {
			return nil, err
		}
	}
	status, answer := i.serve(r.URL, r.Method, body)
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && r.Method == http.MethodGet && status == http.StatusNotFound {
		status, answer = i.user(bearer)
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(answer)), Body: io.NopCloser(bytes.NewReader(answer)),
	}, nil
}

// ServeHTTP answers what an Envoy asks that verifies tokens by itself.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, scheme := range []string{"https", "http"} {
		u := *r.URL
		u.Scheme, u.Host = scheme, r.Host
		if status, answer := i.serve(&u, r.Method, nil); status == http.StatusOK {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer)
			return
		}
	}
	http.NotFound(w, r)
}

func (i *issuer) serve(u *url.URL, method string, body []byte) (status int, answer []byte) {
	at := u.String()
	if method == http.MethodPost {
		return i.posted(at, body)
	}
	if said, ok := i.answer[at]; ok {
		return http.StatusOK, said
	}
	for _, j := range i.jwts {
		if at == j.JWKS.URL || j.JWKS.Discover && at == i.endpoint(j.Issuer[0], "keys") {
			return http.StatusOK, i.keys
		}
		if j.JWKS.Discover && isMetadata(at, j.Issuer[0]) {
			return http.StatusOK, i.metadata(j.Issuer[0])
		}
	}
	for _, o := range i.logins {
		switch {
		case isMetadata(at, o.Issuer):
			return http.StatusOK, i.metadata(o.Issuer)
		case at == i.endpoint(o.Issuer, "keys"):
			return http.StatusOK, i.keys
		}
	}
	return http.StatusNotFound, []byte(`{"error":"not_found"}`)
}

// user is what the provider of a login tells of somebody.
func (i *issuer) user(access string) (status int, answer []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	claims, ok := i.users[access]
	if !ok {
		return http.StatusUnauthorized, []byte(`{"error":"invalid_token"}`)
	}
	return http.StatusOK, must(json.Marshal(claims))
}

func isMetadata(at, issuer string) bool {
	return at == strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration"
}

// metadata is what a provider says of itself.
func (i *issuer) metadata(issuer string) []byte {
	return must(json.Marshal(map[string]any{
		"issuer": issuer, "jwks_uri": i.endpoint(issuer, "keys"), "authorization_endpoint": i.endpoint(issuer, "authorize"),
		"token_endpoint": i.endpoint(issuer, "token"), "userinfo_endpoint": i.endpoint(issuer, "userinfo"),
	}))
}

// posted answers questions about opaque tokens, and gives tokens for codes.
func (i *issuer) posted(at string, body []byte) (status int, answer []byte) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return http.StatusBadRequest, []byte(`{"error":"invalid_request"}`)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, o := range i.opaque {
		if at != o.URL {
			continue
		}
		said := map[string]any{"active": false}
		if claims, ok := i.tokens[form.Get("token")]; ok {
			said = maps.Clone(claims)
			said["active"] = true
		}
		return http.StatusOK, must(json.Marshal(said))
	}
	for _, o := range i.logins {
		claims, ok := i.codes[form.Get("code")]
		if at != i.endpoint(o.Issuer, "token") || !ok {
			continue
		}
		delete(i.codes, form.Get("code"))
		token, err := i.signer.sign(preferred[0], "JWT", claims, nil)
		if err != nil {
			break
		}
		access := rand.Text()
		i.users[access] = claims
		return http.StatusOK, must(json.Marshal(map[string]any{
			"access_token": access, "token_type": "Bearer", "expires_in": 3600, "id_token": token,
		}))
	}
	return http.StatusBadRequest, []byte(`{"error":"invalid_grant"}`)
}
