package login

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/legation/legation/auth/login/logintest"
)

const shop = "https://shop.example"

// site is a flow at work: a provider, records, and a clock that all of them share.
type site struct {
	t        *testing.T
	flow     *Flow
	provider *logintest.Provider
	records  *records
	clock    *clock
}

func newSite(t *testing.T, change func(*Config)) *site {
	t.Helper()
	c := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s := &site{t: t, clock: c, records: &records{clock: c, kept: map[string]kept{}}}
	s.provider = logintest.New(t, shop+"/oauth2/callback", shop+"/")
	s.provider.Set(func(p *logintest.Settings) { p.Now = c.read })
	s.flow = s.replica(change)
	return s
}

// replica is another flow on the same records.
func (s *site) replica(change func(*Config)) *Flow {
	s.t.Helper()
	config := Config{Name: "staff", Issuer: s.provider.URL, ClientID: logintest.ClientID, Secret: []byte(logintest.Secret)}
	if change != nil {
		change(&config)
	}
	f, err := New(config, Options{Client: &http.Client{}, Records: s.records, Verify: s.provider.Verify, Now: s.clock.read})
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := f.discover(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	p.fetched = s.clock.read()
	f.provider.Store(p)
	return f
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// records keeps values as Redis does, and counts what it is asked.
type records struct {
	clock *clock
	mu    sync.Mutex
	kept  map[string]kept
	down  bool
	calls struct{ get, add, replace, extend, remove int }
	// These are called before a record is read, or replaced.
	beforeGet     func(name string)
	beforeReplace func()
}

type kept struct {
	value []byte
	end   time.Time
}

var errDown = errors.New("down")

func (r *records) at(name string) ([]byte, bool) {
	k, ok := r.kept[name]
	return k.value, ok && r.clock.read().Before(k.end)
}

func (r *records) put(name string, value []byte, ttl time.Duration) {
	r.kept[name] = kept{value, r.clock.read().Add(ttl)}
}

func (r *records) Get(_ context.Context, name string) ([]byte, error) {
	if r.beforeGet != nil {
		r.beforeGet(name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls.get++
	if r.down {
		return nil, errDown
	}
	value, _ := r.at(name)
	return value, nil
}

func (r *records) Add(_ context.Context, name string, value []byte, ttl time.Duration) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls.add++
	if r.down {
		return false, errDown
	}
	_, there := r.at(name)
	if !there {
		r.put(name, value, ttl)
	}
	return !there, nil
}

func (r *records) Replace(_ context.Context, name string, value []byte, ttl time.Duration) (bool, error) {
	if r.beforeReplace != nil {
		r.beforeReplace()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls.replace++
	if r.down {
		return false, errDown
	}
	_, there := r.at(name)
	if there {
		r.put(name, value, ttl)
	}
	return there, nil
}

func (r *records) Extend(_ context.Context, name string, ttl time.Duration) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls.extend++
	if r.down {
		return false, errDown
	}
	value, there := r.at(name)
	if there {
		r.put(name, value, ttl)
	}
	return there, nil
}

func (r *records) Delete(_ context.Context, names ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls.remove++
	if r.down {
		return errDown
	}
	for _, name := range names {
		delete(r.kept, name)
	}
	return nil
}

func (r *records) setDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// visitor is a browser.
type visitor struct {
	*site
	flow    *Flow
	origin  string
	cookies []*http.Cookie    // of the site, the oldest first
	outside *http.Client      // for the provider, with its cookies
	extra   map[string]string // headers
}

func (s *site) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &visitor{site: s, flow: s.flow, origin: shop, outside: &http.Client{Jar: jar, CheckRedirect: stay}}
}

// request is what the browser sends when a person goes to a page.
func (v *visitor) request(method, path string) Request {
	scheme, host, _ := strings.Cut(v.origin, "://")
	headers := map[string]string{"accept": "text/html,*/*;q=0.8", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "same-origin"}
	var pairs []string
	for _, c := range v.cookies {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	headers["cookie"] = strings.Join(pairs, "; ")
	for name, value := range v.extra {
		headers[name] = value
	}
	return Request{Method: method, Scheme: scheme, Host: host, Path: path, Header: func(name string) string { return headers[name] }}
}

// visit asks as the core of auth does, and keeps the cookies that come of it. Anonymous requests are challenged.
func (v *visitor) visit(method, path string) Outcome {
	v.t.Helper()
	o, err := v.try(v.request(method, path))
	if err != nil {
		v.t.Fatal(err)
	}
	return o
}

func (v *visitor) try(q Request) (Outcome, error) {
	now := v.clock.read()
	o, waits := v.flow.Look(q, now)
	if waits {
		var err error
		if o, err = v.flow.Handle(v.t.Context(), q, now); err != nil {
			return o, err
		}
	}
	if o.Answer == nil && o.Claims == nil {
		a := v.flow.Challenge(q, now)
		o.Answer = &a
	}
	v.keep(o.Answer)
	return o, nil
}

func (v *visitor) keep(a *Answer) {
	if a == nil {
		return
	}
	for _, text := range a.all("set-cookie") {
		c, err := http.ParseSetCookie(text)
		if err != nil {
			v.t.Fatalf("set-cookie %q: %v", text, err)
		}
		if len(text) > 4096 {
			v.t.Errorf("a cookie of %d bytes", len(text))
		}
		v.drop(c.Name)
		if c.MaxAge > 0 {
			v.cookies = append(v.cookies, c)
		}
	}
}

func (v *visitor) drop(name string) {
	var others []*http.Cookie
	for _, c := range v.cookies {
		if c.Name != name {
			others = append(others, c)
		}
	}
	v.cookies = others
}

// session is the cookie of the visitor's session.
func (v *visitor) session() *http.Cookie {
	for _, c := range v.cookies {
		if !strings.Contains(c.Name, loginInfix) {
			return c
		}
	}
	return nil
}

func (a *Answer) all(name string) (values []string) {
	for _, h := range a.Headers {
		if h[0] == name {
			values = append(values, h[1])
		}
	}
	return values
}

func (a *Answer) header(name string) string { return strings.Join(a.all(name), "|") }

// begin goes to a page that needs a login, logs in at the provider, and returns the path of the callback.
func (v *visitor) begin(path string) (callback string) {
	v.t.Helper()
	a := v.visit("GET", path).Answer
	if a == nil || a.Status != 302 {
		v.t.Fatalf("got %+v, want to be sent to the provider", a)
	}
	return v.atProvider(a.header("location"))
}

func (v *visitor) atProvider(location string) (callback string) {
	v.t.Helper()
	res, err := v.outside.Get(location)
	if err != nil {
		v.t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if res.StatusCode == 200 {
		res, err = v.outside.PostForm(location, url.Values{"user": {logintest.User}, "password": {logintest.Password}})
		if err != nil {
			v.t.Fatal(err)
		}
		res.Body.Close()
	}
	back, ok := strings.CutPrefix(res.Header.Get("Location"), v.origin)
	if !ok {
		v.t.Fatalf("the provider answered %d and sent to %q", res.StatusCode, res.Header.Get("Location"))
	}
	return back
}

// logIn does all of a login.
func (v *visitor) logIn(path string) Outcome {
	v.t.Helper()
	o := v.visit("GET", v.begin(path))
	if o.Answer == nil || o.Answer.Reason != "login_done" {
		v.t.Fatalf("got %+v, want a login", o.Answer)
	}
	return o
}
