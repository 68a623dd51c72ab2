package auth

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/auth/login/logintest"
	"github.com/legation/legation/store"
)

// shelf keeps records of sessions, without an end.
type shelf struct {
	store.Records // what logins don't call
	mu            sync.Mutex
	kept          map[string][]byte
}

func (s *shelf) Get(_ context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[name], nil
}

func (s *shelf) Add(_ context.Context, name string, value []byte, _ time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[name] = value
	return true, nil
}

func (s *shelf) Extend(context.Context, string, time.Duration) (bool, error) { return true, nil }

// loginHost is where the tests' browsers are.
const loginHost = "localhost:8000"

// withLogin loads a rule of the providers, of which the one called staff is a login.
func withLogin(t *testing.T, rule Rule) (*Service, *logintest.Provider) {
	t.Helper()
	site := logintest.New(t, "http://"+loginHost+"/oauth2/callback")
	i := slices.IndexFunc(rule.Providers, func(p Provider) bool { return p.Name == "staff" })
	rule.Providers[i].OIDC = &OIDC{Issuer: site.URL, Client: logintest.ClientID, Secret: "client"}
	s := load(t, Options{Sessions: &shelf{kept: map[string][]byte{}}}, Table{Rules: []Rule{rule}, Secrets: map[string][]byte{"client": []byte(logintest.Secret)}})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) }) // returns nil
	t.Cleanup(func() { stop(); wg.Wait() })
	return s, site
}

// visit is what a browser asks for that goes to a page.
func visit(rule Rule, path, cookie, authorization string) *authv3.CheckRequest {
	q := ask(rule.Name, authorization, "accept", "text/html", "cookie", cookie)
	h := q.Attributes.Request.Http
	h.Path, h.Host, h.Scheme = path, loginHost, "http"
	return q
}

// sent is the answer to a browser that is sent to the provider, once that is known.
func sent(t *testing.T, s *Service, q *authv3.CheckRequest) (location string, cookies []string) {
	t.Helper()
	for {
		r, err := s.Check(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		d := r.GetDeniedResponse()
		if d.GetStatus().GetCode() == 503 && t.Context().Err() == nil { // the provider is being asked about itself
			continue
		}
		for _, h := range d.GetHeaders() {
			switch h.Header.Key {
			case "location":
				location = h.Header.Value
			case "set-cookie":
				cookie, _, _ := strings.Cut(h.Header.Value, ";")
				cookies = append(cookies, cookie)
			}
		}
		if location == "" {
			t.Fatalf("got %v, want to be sent on", r)
		}
		return location, cookies
	}
}

// decided is what Check says.
func decided(t *testing.T, s *Service, q *authv3.CheckRequest) answer {
	t.Helper()
	r, err := s.Check(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return flatten(r)
}

// loggedIn gives the cookie of a new session.
func loggedIn(t *testing.T, s *Service, rule Rule, authorization string) (cookie string) {
	t.Helper()
	location, cookies := sent(t, s, visit(rule, "/", "", authorization))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := browser.PostForm(location, url.Values{"user": {logintest.User}, "password": {logintest.Password}})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	back, err := r.Location()
	if err != nil {
		t.Fatal(err)
	}
	_, cookies = sent(t, s, visit(rule, back.RequestURI(), cookies[0], authorization))
	return cookies[0]
}

func TestNoBackendIsShownTheSession(t *testing.T) {
	keys := Provider{Name: "keys", APIKey: &APIKey{Places: []KeyPlace{{Cookie: "key"}}}}
	for _, row := range []struct {
		name   string
		rule   Rule
		others string // cookies
		token  bool
		want   string
	}{
		{name: "alone", rule: Rule{Name: "edge/a", Providers: []Provider{{Name: "staff"}}}, others: "a=1; b=2", want: "a=1; b=2"},
		{name: "beside another secret cookie", rule: Rule{Name: "edge/b", Providers: []Provider{{Name: "staff"}, keys}}, others: "a=1; key=x", want: "a=1"},
		{name: "beside nothing but secrets", rule: Rule{Name: "edge/c", Providers: []Provider{{Name: "staff"}, keys}}, others: "key=x", want: ""},
		{name: "of a provider that was not asked", rule: Rule{Name: "edge/d", Providers: append(staticRule().Providers, Provider{Name: "staff"})}, others: "a=1", token: true, want: "a=1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, _ := withLogin(t, row.rule)
			session, bearer := loggedIn(t, s, row.rule, ""), ""
			if row.token {
				bearer = "Bearer " + rsaPair().sign(t, goodClaims(nil))
			}
			for _, header := range []string{session + "; " + row.others, row.others + "; " + session} {
				got := decided(t, s, visit(row.rule, "/", header, bearer))
				if got.status != 200 {
					t.Fatalf("got %+v", got)
				}
				if removed := slices.Contains(got.removed, "cookie"); removed != (row.want == "") || got.headers["cookie"] != row.want {
					t.Errorf("removed %t, cookie %q, want %q", removed, got.headers["cookie"], row.want)
				}
			}
		})
	}
}

func TestLoginBesideOthersThatAreNeededToo(t *testing.T) {
	for _, row := range []struct {
		name      string
		providers []Provider
	}{
		{"first", append([]Provider{{Name: "staff"}}, staticRule().Providers...)},
		{"last", append(staticRule().Providers, Provider{Name: "staff"})},
	} {
		t.Run(row.name, func(t *testing.T) {
			rule := Rule{Name: "edge/both", Providers: row.providers, All: true}
			s, _ := withLogin(t, rule)
			bearer := "Bearer " + rsaPair().sign(t, goodClaims(nil))
			session := loggedIn(t, s, rule, bearer)
			got := map[string]int{
				"both":         decided(t, s, visit(rule, "/", session, bearer)).status,
				"no token":     decided(t, s, visit(rule, "/", session, "")).status,
				"a bad token":  decided(t, s, visit(rule, "/", session, "Bearer x")).status,
				"no session":   decided(t, s, visit(rule, "/", "", bearer)).status,
				"a script":     decided(t, s, ask(rule.Name, bearer)).status,
				"neither good": decided(t, s, visit(rule, "/", session+"x", "Bearer x")).status,
			}
			want := map[string]int{"both": 200, "no token": 401, "a bad token": 401, "no session": 302, "a script": 401, "neither good": 401}
			if row.name == "first" {
				want["neither good"] = 302 // the token is asked for after the login
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
