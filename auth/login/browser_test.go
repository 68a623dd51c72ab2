package login

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/auth/login/logintest"
)

// front is a proxy in front of an app that greets whom it is told, and shows which cookies it gets.
type front struct {
	flow *Flow
	site *site
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := f.site.clock.read()
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	q := Request{Method: r.Method, Scheme: scheme, Host: r.Host, Path: r.RequestURI, Header: func(name string) string {
		return strings.Join(r.Header.Values(name), "; ")
	}}
	o, waits := f.flow.Look(q, now)
	if waits {
		var err error
		if o, err = f.flow.Handle(r.Context(), q, now); err != nil {
			http.Error(w, "no records", http.StatusServiceUnavailable)
			return
		}
	}
	if o.Answer == nil && o.Claims == nil {
		a := f.flow.Challenge(q, now)
		o.Answer = &a
	}
	if o.Answer == nil {
		f.app(w, r, o)
		return
	}
	for _, h := range o.Answer.Headers {
		w.Header().Add(h[0], h[1])
	}
	w.WriteHeader(o.Answer.Status)
	fmt.Fprint(w, o.Answer.Body)
}

func (f *front) app(w http.ResponseWriter, r *http.Request, o Outcome) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html><title>Shop</title><style>body{font:1rem/1.5 system-ui,sans-serif;margin:2rem}</style>
<h1>Hello, %s</h1><p>%s</p><p id="cookies">cookies: %s</p><a id="logout" href="/oauth2/logout">Log out</a>`,
		html.EscapeString(fmt.Sprint(o.Claims["name"])), html.EscapeString(r.RequestURI), html.EscapeString(f.flow.Others(strings.Join(r.Header["Cookie"], "; "))))
}

// serveFront starts the proxy, known to the provider.
func serveFront(t *testing.T, start func(http.Handler) *httptest.Server) (*site, string) {
	t.Helper()
	s := newSite(t, nil)
	server := start(&front{flow: s.flow, site: s})
	t.Cleanup(server.Close)
	s.provider.Set(func(p *logintest.Settings) { p.Redirects = []string{server.URL + "/oauth2/callback", server.URL + "/"} })
	return s, server.URL
}

const callAPI = `fetch("/api", {headers: {accept: "application/json"}}).then(r => r.status + " " + r.redirected)`

func TestInABrowser(t *testing.T) {
	for _, row := range []struct {
		name, cookie string
		start        func(http.Handler) *httptest.Server
	}{
		{"https", "__Host-legation-staff", httptest.NewTLSServer},
		{"http", "legation-staff", httptest.NewServer},
	} {
		t.Run(row.name, func(t *testing.T) {
			browser := logintest.StartBrowser(t) // anew: hosts share their cookies across ports
			s, at := serveFront(t, row.start)
			tab := browser.Open(at + "/orders?page=2")
			tab.Shoot(row.name + "-1-provider")
			tab.LogIn(logintest.User, "a wrong password")
			tab.Shoot(row.name + "-2-wrong")
			tab.LogIn(logintest.User, logintest.Password)
			tab.Shoot(row.name + "-3-app")
			if got := tab.URL(); got != at+"/orders?page=2" {
				t.Errorf("the login returns to %s", got)
			}
			checkCookies(t, tab, at, row.cookie)
			if got := tab.Script(callAPI); got != "200 false" {
				t.Errorf("a call of the API: got %s", got)
			}

			other := browser.Open(at + "/orders?page=3")
			if got := other.Text(); !strings.Contains(got, "Hello, Ada Lovelace") {
				t.Errorf("another tab shows %q", got)
			}
			checkLogout(t, browser, tab, at, row.name)
			if got := other.Script(callAPI); got != "401 false" {
				t.Errorf("a call of the API after the logout: got %s", got)
			}
			if len(s.records.kept) != 0 {
				t.Errorf("%d records are left", len(s.records.kept))
			}
		})
	}
}

// checkCookies looks at what the browser made of the cookies, and at what the app got of them.
func checkCookies(t *testing.T, tab *logintest.Tab, at, name string) {
	t.Helper()
	secure := strings.HasPrefix(at, "https")
	var names []string
	for _, c := range tab.Cookies(at) {
		names = append(names, c.Name)
		if c.Name == name && (!c.HTTPOnly || c.Secure != secure || c.SameSite != "Lax" || c.Path != "/") {
			t.Errorf("the browser keeps %+v", c)
		}
	}
	slices.Sort(names)
	if want := []string{name, "provider"}; !slices.Equal(names, want) {
		t.Errorf("the browser keeps the cookies %q, want %q", names, want)
	}
	if got := tab.Script(`document.cookie = "theme=dark"; document.cookie`); got != "theme=dark" {
		t.Errorf("scripts see the cookies %q", got)
	}
	tab.Go(at + "/")
	if got := tab.Text(); !strings.Contains(got, "theme=dark") || strings.Contains(got, "legation") {
		t.Errorf("the app shows %q", got)
	}
}

// checkLogout has another site try it, then a person.
func checkLogout(t *testing.T, browser *logintest.Browser, tab *logintest.Tab, at, name string) {
	t.Helper()
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<form id="f" method="post" action="%s/oauth2/logout"><button id="b">Win</button></form>`, at)
	}))
	defer evil.Close()
	foreign := browser.Open(strings.Replace(evil.URL, "127.0.0.1", "localhost", 1))
	foreign.Click("#b")
	foreign.Shoot(name + "-4-foreign")
	if got := foreign.Text(); !strings.Contains(got, "Another site asked for that") {
		t.Errorf("another site's logout shows %q", got)
	}
	tab.Go(at + "/")
	tab.Click("#logout")
	tab.Shoot(name + "-5-confirm")
	tab.Click("button")
	tab.Shoot(name + "-6-out")
	if got := tab.Text(); !strings.Contains(got, "Sign in to shop") {
		t.Errorf("after the logout the tab shows %q, want the provider's login", got)
	}
	tab.Go(at + "/oauth2/callback?code=made&state=up")
	tab.Shoot(name + "-7-error")
	if got := tab.Text(); !strings.Contains(got, "This login is not known here") {
		t.Errorf("a made up callback shows %q", got)
	}
}

func TestTwoTabsLogInInABrowser(t *testing.T) {
	browser := logintest.StartBrowser(t)
	_, at := serveFront(t, httptest.NewTLSServer)
	one, two := browser.Open(at+"/one"), browser.Open(at+"/two")
	two.LogIn(logintest.User, logintest.Password)
	one.LogIn(logintest.User, logintest.Password)
	for path, tab := range map[string]*logintest.Tab{"/one": one, "/two": two} {
		if got := tab.URL(); got != at+path {
			t.Errorf("the tab of %s is at %s", path, got)
		}
	}
	if got := one.Cookies(at); len(got) != 2 {
		t.Errorf("%d cookies are left, want the session's and the provider's", len(got))
	}
}
