package e2e

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/legation/legation/auth/login/logintest"
)

// greeting greets whom it is told, and shows which cookies it gets.
func greeting(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html><title>Shop</title><style>body{font:1rem/1.5 system-ui,sans-serif;margin:2rem}</style>
<h1>Hello, %s</h1><p>%s</p><p id="cookies">cookies: %s</p><a id="logout" href="/oauth2/logout">Log out</a>`,
		html.EscapeString(r.Header.Get("x-user")), html.EscapeString(r.RequestURI), html.EscapeString(strings.Join(r.Header["Cookie"], "; ")))
}

const (
	loginPolicy = `gateways:
  edge:
    listeners:
      http: {port: %[1]d, address: 127.0.0.1}
auth:
  staff: {oidc: {issuer: %[2]q, client: %[3]s, secret: auth/shop, headers: {x-user: name}, port: %[1]d}}
services:
  app: {endpoints: ["%[4]s"]}
routes:
  app: {hostnames: ["*"], auth: [staff], backends: {app: 1}}
`
	callAPI = `fetch("/api", {headers: {accept: "application/json"}}).then(r => r.status + " " + r.redirected)`
)

// A browser logs in through the real Envoy at a provider, is known at two replicas that share a Redis, and at neither once
// it has logged out.
func TestLoginInABrowser(t *testing.T) {
	t.Parallel()
	browser := logintest.StartBrowser(t)
	at := ports(t, 2)
	here := func(i int) string { return fmt.Sprintf("http://127.0.0.1:%d", at[i]) }
	provider := logintest.New(t, here(0)+"/oauth2/callback", here(0)+"/", here(1)+"/oauth2/callback")
	backend := httptest.NewServer(http.HandlerFunc(greeting))
	t.Cleanup(backend.Close)
	url, _ := redis(t)
	for _, port := range at {
		dir := policyDir(t, fmt.Sprintf(loginPolicy, port, provider.URL, logintest.ClientID, strings.TrimPrefix(backend.URL, "http://")))
		secrets := t.TempDir()
		writeSecret(t, secrets, "auth/shop", []byte(logintest.Secret))
		p := newPlane(t, dir)
		p.serve(t, "--redis", url, "--secrets-dir", secrets)
		p.envoy(t, "edge")
	}
	eventually(t, "the login", func() error {
		a, err := request("GET", here(0)+"/", "Accept", "text/html", "Sec-Fetch-Mode", "navigate")
		if err == nil && a.status != http.StatusOK && a.status != http.StatusFound && a.status != http.StatusSeeOther {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})

	tab := browser.Open(here(0) + "/orders?page=2")
	tab.LogIn(logintest.User, "a wrong password")
	tab.LogIn(logintest.User, logintest.Password)
	tab.Shoot("envoy-1-app")
	if got := tab.URL(); got != here(0)+"/orders?page=2" {
		t.Errorf("the login returns to %s", got)
	}
	if got := tab.Text(); !strings.Contains(got, "Hello, Ada Lovelace") || strings.Contains(got, "legation") {
		t.Errorf("the app shows %q", got)
	}
	if got := tab.Script(callAPI); got != "200 false" {
		t.Errorf("a call of the API: got %s", got)
	}
	other := browser.Open(here(1) + "/from/the/other") // cookies know no ports
	if got := other.Text(); !strings.Contains(got, "Hello, Ada Lovelace") {
		t.Errorf("the other replica shows %q", got)
	}

	tab.Click("#logout")
	tab.Shoot("envoy-2-confirm")
	tab.Click("button")
	tab.Shoot("envoy-3-out")
	eventually(t, "the logout at the other replica", func() error {
		if got := other.Script(callAPI); got != "401 false" {
			return fmt.Errorf("the API answers %s", got)
		}
		return nil
	})
	tab.Go(here(0) + "/oauth2/callback?code=made&state=up")
	if got := tab.Text(); !strings.Contains(got, "This login is not known here") {
		t.Errorf("a made up callback shows %q", got)
	}
}
