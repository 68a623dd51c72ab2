// Package logintest is a small OpenID Connect provider for tests: a login page with a form, the authorization code flow
// with PKCE enforced, refresh tokens that are good once, userinfo and a logout. Tests change what it answers.
package logintest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The one client and the one user.
const (
	ClientID = "shop"
	Secret   = "a secret: with %, + and 32 bytes"
	User     = "ada"
	Password = "correct horse"
	Subject  = "user/1815"
)

// Provider serves until the test ends.
type Provider struct {
	URL string // the issuer

	mu       sync.Mutex
	settings Settings
	codes    map[string]grant  // each for one use
	refresh  map[string]grant  // each for one use
	access   map[string]string // to subject
	sessions map[string]bool   // cookies of who is logged in here
	asked    map[string]int    // by path
}

// Settings are how the provider behaves. [Provider.Set] changes them.
type Settings struct {
	Redirects []string // that the client has registered, also for after a logout
	Now       func() time.Time
	Lasts     time.Duration // of tokens; default 1 h
	Refresh   bool          // gives refresh tokens
	Down      bool          // answers 500
	Metadata  func(map[string]any)
	Claims    func(map[string]any) // of ID tokens
	Token     func(map[string]any) // the token endpoint's answer
	UserInfo  func(map[string]any)
	Return    func(url.Values) // what the browser is sent back with
}

type grant struct {
	subject, nonce, challenge, redirect string
}

// New starts a provider on loopback, whose client has registered those redirects.
func New(t testing.TB, redirects ...string) *Provider {
	t.Helper()
	p := &Provider{
		codes: map[string]grant{}, refresh: map[string]grant{}, access: map[string]string{},
		sessions: map[string]bool{}, asked: map[string]int{},
		settings: Settings{Redirects: redirects, Now: time.Now, Lasts: time.Hour},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.metadata)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /authorize", p.logIn)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /jwks", p.jwks)
	mux.HandleFunc("GET /userinfo", p.userinfo)
	mux.HandleFunc("GET /logout", p.logOut)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked[r.URL.Path]++
		if p.settings.Down {
			http.Error(w, "down", http.StatusInternalServerError)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Set changes how the provider behaves.
func (p *Provider) Set(change func(*Settings)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.settings)
}

// Asked tells how often a path was asked for.
func (p *Provider) Asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// Revoke makes all refresh tokens invalid.
func (p *Provider) Revoke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.refresh)
}

func (p *Provider) metadata(w http.ResponseWriter, _ *http.Request) {
	m := map[string]any{
		"issuer":                                         p.URL,
		"authorization_endpoint":                         p.URL + "/authorize",
		"token_endpoint":                                 p.URL + "/token",
		"userinfo_endpoint":                              p.URL + "/userinfo",
		"end_session_endpoint":                           p.URL + "/logout",
		"jwks_uri":                                       p.URL + "/jwks",
		"response_types_supported":                       []string{"code"},
		"code_challenge_methods_supported":               []string{"S256"},
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post"},
		"id_token_signing_alg_values_supported":          []string{"RS256"},
		"authorization_response_iss_parameter_supported": true,
	}
	answer(w, http.StatusOK, m, p.settings.Metadata)
}

const loginPage = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in</title><style>
body{font:1rem/1.5 system-ui,sans-serif;max-width:20rem;margin:15vh auto}label,input,button{display:block;width:100%%;box-sizing:border-box}
input,button{font:inherit;padding:.4rem;margin-bottom:1rem}</style></head>
<body><h1>Sign in to %s</h1><form method="post"><p id="problem">%s</p>
<label for="user">Name</label><input id="user" name="user" autocomplete="off">
<label for="password">Password</label><input id="password" name="password" type="password">
<button id="submit">Sign in</button></form></body></html>
`

// authorize shows the login form, unless the browser is logged in here already.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	if problem := p.checkAuthorize(r.URL.Query()); problem != "" {
		http.Error(w, problem, http.StatusBadRequest)
		return
	}
	if c, err := r.Cookie("provider"); err == nil && p.sessions[c.Value] {
		p.sendBack(w, r)
		return
	}
	showLogin(w, "")
}

func showLogin(w http.ResponseWriter, problem string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, loginPage, html.EscapeString(ClientID), html.EscapeString(problem))
}

func (p *Provider) checkAuthorize(v url.Values) (problem string) {
	switch {
	case v.Get("client_id") != ClientID:
		return "unknown client"
	case !slices.Contains(p.settings.Redirects, v.Get("redirect_uri")):
		return "unknown redirect_uri"
	case v.Get("response_type") != "code" || v.Get("state") == "" || v.Get("nonce") == "":
		return "not an authorization request with state and nonce"
	case v.Get("code_challenge_method") != "S256" || len(v.Get("code_challenge")) != 43:
		return "PKCE with S256 is needed"
	case !slices.Contains(strings.Fields(v.Get("scope")), "openid"):
		return "the scope openid is needed"
	}
	return ""
}

func (p *Provider) logIn(w http.ResponseWriter, r *http.Request) {
	if problem := p.checkAuthorize(r.URL.Query()); problem != "" {
		http.Error(w, problem, http.StatusBadRequest)
		return
	}
	if r.PostFormValue("user") != User || r.PostFormValue("password") != Password {
		showLogin(w, "Name or password is wrong.")
		return
	}
	session := rand.Text()
	p.sessions[session] = true
	http.SetCookie(w, &http.Cookie{Name: "provider", Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	p.sendBack(w, r)
}

// sendBack sends the browser to the client with a code.
func (p *Provider) sendBack(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	code := rand.Text()
	p.codes[code] = grant{Subject, v.Get("nonce"), v.Get("code_challenge"), v.Get("redirect_uri")}
	back := url.Values{"code": {code}, "state": {v.Get("state")}, "iss": {p.URL}}
	if p.settings.Return != nil {
		p.settings.Return(back)
	}
	http.Redirect(w, r, v.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	if !authenticated(r) {
		fail(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	var g grant
	var ok bool
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		code := r.PostFormValue("code")
		g, ok = p.codes[code]
		delete(p.codes, code)
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		ok = ok && g.redirect == r.PostFormValue("redirect_uri") && g.challenge == encode(sum[:])
	case "refresh_token":
		token := r.PostFormValue("refresh_token")
		g, ok = p.refresh[token]
		delete(p.refresh, token)
	}
	if !ok {
		fail(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	answer(w, http.StatusOK, p.tokens(g), p.settings.Token)
}

func authenticated(r *http.Request) bool {
	id, secret, ok := r.BasicAuth()
	if ok {
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	return id == ClientID && secret == Secret
}

func (p *Provider) tokens(g grant) map[string]any {
	now := p.settings.Now()
	access := rand.Text()
	p.access[access] = g.subject
	sum := sha256.Sum256([]byte(access))
	claims := map[string]any{
		"iss": p.URL, "aud": ClientID, "sub": g.subject, "nonce": g.nonce, "at_hash": encode(sum[:16]),
		"iat": now.Unix(), "exp": now.Add(p.settings.Lasts).Unix(), "name": "Ada Lovelace",
	}
	if p.settings.Claims != nil {
		p.settings.Claims(claims)
	}
	t := map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": int(p.settings.Lasts / time.Second), "id_token": Sign(claims),
	}
	if p.settings.Refresh {
		token := rand.Text()
		p.refresh[token] = g
		t["refresh_token"] = token
	}
	return t
}

func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) {
	subject, ok := p.access[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	if !ok {
		fail(w, http.StatusUnauthorized, "invalid_token")
		return
	}
	answer(w, http.StatusOK, map[string]any{"sub": subject, "email": "ada@example.com", "name": "of userinfo"}, p.settings.UserInfo)
}

func (p *Provider) logOut(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie("provider"); err == nil {
		delete(p.sessions, c.Value)
	}
	http.SetCookie(w, &http.Cookie{Name: "provider", Path: "/", MaxAge: -1})
	v := r.URL.Query()
	after := v.Get("post_logout_redirect_uri")
	if v.Get("client_id") != ClientID || v.Get("id_token_hint") == "" || !slices.Contains(p.settings.Redirects, after) {
		http.Error(w, "not the logout of a client", http.StatusBadRequest)
		return
	}
	http.Redirect(w, r, after, http.StatusSeeOther)
}

// key signs for all providers of a test's process.
var key = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// Sign makes an ID token, as RS256.
func Sign(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	signed := encode([]byte(`{"alg":"RS256","kid":"one","typ":"JWT"}`)) + "." + encode(payload)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, key(), crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + encode(signature)
}

func (p *Provider) jwks(w http.ResponseWriter, _ *http.Request) {
	k := key().PublicKey
	answer(w, http.StatusOK, map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256",
		"n": encode(k.N.Bytes()), "e": encode(big.NewInt(int64(k.E)).Bytes()),
	}}}, nil)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func fail(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]any{"error": code}, nil)
}

func answer(w http.ResponseWriter, status int, m map[string]any, change func(map[string]any)) {
	m = maps.Clone(m)
	if change != nil {
		change(m)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(m) // a client that left
}
