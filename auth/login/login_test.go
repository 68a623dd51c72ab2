package login

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth/login/logintest"
)

func TestLogin(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Scopes = []string{"email"}; c.UserInfo = true })
	v := s.visitor()
	v.extra = map[string]string{"cookie": "theme=dark"}
	a := v.visit("GET", "/orders?page=2").Answer
	v.extra = nil
	wantCookie := regexp.MustCompile(`^__Host-legation-staff\.login\.[\w-]{12}=[\w-]+; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure$`)
	if a.Status != 302 || a.Body != "" || !wantCookie.MatchString(a.header("set-cookie")) || a.header("cache-control") != "no-store" {
		t.Errorf("got %+v", a)
	}
	to, err := url.Parse(a.header("location"))
	if err != nil {
		t.Fatal(err)
	}
	got := to.Query()
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(got.Get(name)) < 43 {
			t.Errorf("%s is %q", name, got.Get(name))
		}
		got.Del(name)
	}
	want := url.Values{
		"client_id": {"shop"}, "response_type": {"code"}, "scope": {"openid email"}, "code_challenge_method": {"S256"},
		"redirect_uri": {shop + "/oauth2/callback"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("authorization request (-want +got):\n%s", diff)
	}

	done := v.visit("GET", v.atProvider(a.header("location"))).Answer
	if done.Status != 302 || done.header("location") != shop+"/orders?page=2" {
		t.Fatalf("got %+v", done)
	}
	wantSession := regexp.MustCompile(`^__Host-legation-staff=[\w-]{64}; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure$`)
	if cookies := done.all("set-cookie"); len(cookies) != 2 || !wantSession.MatchString(cookies[0]) || !strings.Contains(cookies[1], "; Max-Age=0;") {
		t.Errorf("cookies are %q", cookies)
	}
	token := v.session().Value
	v.extra = map[string]string{"cookie": "a=1; __Host-legation-staff=" + token + "; theme=dark"}
	o := v.visit("GET", "/orders?page=2")
	if o.Claims["sub"] != logintest.Subject || o.Claims["email"] != "ada@example.com" || o.Claims["name"] != "Ada Lovelace" {
		t.Errorf("claims are %v", o.Claims)
	}
	if others := s.flow.Others(v.extra["cookie"]); others != "a=1; theme=dark" {
		t.Errorf("the backend is shown the cookies %q", others)
	}
	if o.ID != idOf(token) || !o.Expires.Equal(s.clock.read().Add(12*time.Hour)) {
		t.Errorf("got %+v", o)
	}
	if again, waits := s.flow.Look(v.request("GET", "/"), s.clock.read()); waits || again.ID != o.ID {
		t.Errorf("a known session waits: %t, %+v", waits, again)
	}
	for name, kept := range s.records.kept {
		if name != "login/staff/"+o.ID || strings.Contains(name+string(kept.value), token) || strings.Contains(string(kept.value), "Ada") {
			t.Errorf("record %q tells too much", name)
		}
	}
}

func TestLoginOnLoopback(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.origin = "http://localhost:8080"
	s.provider.Set(func(p *logintest.Settings) { p.Redirects = []string{v.origin + "/oauth2/callback"} })
	v.logIn("/")
	if c := v.session(); c.Name != "legation-staff" || c.Secure {
		t.Errorf("cookie is %v", c)
	}
	if o := v.visit("GET", "/"); o.Claims == nil {
		t.Errorf("got %+v", o.Answer)
	}
}

func TestPlainHTTPKeepsNoSession(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	v.session().Name = "legation-staff"
	v.origin = "http://shop.example"
	for _, path := range []string{"/", "/oauth2/callback?state=x&code=y", "/oauth2/logout"} {
		if a := v.visit("GET", path).Answer; a == nil || a.Reason != "login_insecure" || a.Status != 400 {
			t.Errorf("%s: got %+v", path, a)
		}
	}
}

func TestAnonymousRequestsWriteNothing(t *testing.T) {
	s := newSite(t, nil)
	for range 100 {
		s.visitor().visit("GET", "/")
		v := s.visitor()
		v.extra = map[string]string{"cookie": "__Host-legation-staff=" + strings.Repeat("A", tokenLength)}
		if _, waits := s.flow.Look(v.request("GET", "/"), s.clock.read()); waits {
			t.Error("a made up cookie waits for the records")
		}
		v.visit("GET", "/")
	}
	if got := s.records.calls; got != (records{}.calls) {
		t.Errorf("the records were asked: %+v", got)
	}
}

func TestSeveralTabs(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	var callbacks []string
	for i := range 6 {
		callbacks = append(callbacks, v.begin(fmt.Sprintf("/tab/%d?%s", i, strings.Repeat("x", 900))))
	}
	if len(v.cookies) != maxLogins {
		t.Fatalf("%d cookies, want %d", len(v.cookies), maxLogins)
	}
	for _, i := range []int{5, 2, 4, 3} {
		a := v.visit("GET", callbacks[i]).Answer
		if to := a.header("location"); !strings.HasPrefix(to, fmt.Sprintf("%s/tab/%d?xxx", shop, i)) {
			t.Errorf("tab %d: got %d %s, location %q", i, a.Status, a.Reason, to)
		}
	}
	for _, i := range []int{0, 1} {
		if a := v.visit("GET", callbacks[i]).Answer; a.Reason != "login_state" {
			t.Errorf("tab %d, the oldest: got %s", i, a.Reason)
		}
	}
	if len(v.cookies) != 1 || len(s.records.kept) != 1 {
		t.Errorf("%d cookies and %d sessions left", len(v.cookies), len(s.records.kept))
	}
}

func TestChallengeSendsPeopleOnly(t *testing.T) {
	s := newSite(t, nil)
	for _, row := range []struct {
		name, method  string
		header, value string
		want          int
	}{
		{name: "a page", method: "GET", want: 302},
		{name: "its head", method: "HEAD", want: 302},
		{name: "an old browser", method: "GET", header: "sec-fetch-mode", value: "", want: 302},
		{name: "a post", method: "POST", want: 401},
		{name: "a preflight", method: "OPTIONS", want: 401},
		{name: "fetch", method: "GET", header: "sec-fetch-mode", value: "cors", want: 401},
		{name: "a frame", method: "GET", header: "sec-fetch-dest", value: "iframe", want: 401},
		{name: "an image", method: "GET", header: "sec-fetch-dest", value: "image", want: 401},
		{name: "jQuery", method: "GET", header: "x-requested-with", value: "XMLHttpRequest", want: 401},
		{name: "a prefetch", method: "GET", header: "sec-purpose", value: "prefetch;prerender", want: 401},
		{name: "an old prefetch", method: "GET", header: "purpose", value: "prefetch", want: 401},
		{name: "JSON", method: "GET", header: "accept", value: "application/json", want: 401},
		{name: "curl", method: "GET", header: "accept", value: "*/*", want: 401},
		{name: "nothing accepted", method: "GET", header: "accept", value: "", want: 401},
	} {
		v := s.visitor()
		if row.header != "" {
			v.extra = map[string]string{row.header: row.value}
		}
		a := v.visit(row.method, "/").Answer
		if a.Status != row.want {
			t.Errorf("%s: got %d, want %d", row.name, a.Status, row.want)
		}
		if a.Status == 401 && (a.header("www-authenticate") != `Cookie realm="staff"` || len(v.cookies) > 0 || a.header("cache-control") != "no-store") {
			t.Errorf("%s: got %+v", row.name, a)
		}
		if a.Status == 401 && !strings.Contains(a.Body, `"error":"unauthorized"`) {
			t.Errorf("%s: got the body %s, want the error of every other 401", row.name, a.Body)
		}
	}
}

func TestReturnStaysOnTheHost(t *testing.T) {
	s := newSite(t, nil)
	long := "/" + strings.Repeat("p", maxReturn)
	for _, row := range []struct{ path, want string }{
		{"/", "/"},
		{"/a/b?c=d&e=https://evil.example/", "/a/b?c=d&e=https://evil.example/"},
		{"/%2f%2fevil.example", "/%2f%2fevil.example"},
		{"//evil.example", "/"},
		{"///evil.example", "/"},
		{"/\\evil.example", "/"},
		{"\\\\evil.example", "/"},
		{"/a\\b", "/"},
		{"/\t/evil.example", "/"},
		{"/\n/evil.example", "/"},
		{"/a\r\nset-cookie: x=y", "/"},
		{"/a\x00b", "/"},
		{"/é", "/"},
		{"/a#b", "/"},
		{"https://evil.example/", "/"},
		{"@evil.example", "/"},
		{"", "/"},
		{"*", "/"},
		{"/search?q=" + long, "/search"},
		{long, "/"},
	} {
		if got := s.flow.returnPath(row.path); got != row.want {
			t.Errorf("%q: got %q, want %q", row.path, got, row.want)
		}
	}
}

func TestRecordsHoldNothingUseful(t *testing.T) {
	s := newSite(t, nil)
	v, w := s.visitor(), s.visitor()
	v.logIn("/")
	w.logIn("/")
	one, two := "login/staff/"+idOf(v.session().Value), "login/staff/"+idOf(w.session().Value)
	for _, row := range []struct {
		name   string
		record []byte
	}{
		{"another's record", s.records.kept[two].value},
		{"an altered record", append([]byte{s.records.kept[one].value[0] ^ 1}, s.records.kept[one].value[1:]...)},
		{"a made up record", []byte(`{"claims":{"sub":"root"}}`)},
		{"an empty record", []byte{}},
	} {
		s.records.put(one, row.record, time.Hour)
		if o := v.visit("GET", "/"); o.Claims != nil {
			t.Errorf("%s gives %v", row.name, o.Claims)
		}
	}
	other := s.replica(func(c *Config) { c.Secret = []byte("another secret of the client") })
	w.flow = other
	if o := w.visit("GET", "/"); o.Claims != nil {
		t.Errorf("another secret opens %v", o.Claims)
	}
}

func TestCookieHeader(t *testing.T) {
	s := newSite(t, nil)
	token, other := s.flow.keys.newToken(), s.flow.keys.newToken()
	const name = "__Host-legation-staff="
	altered := token[:10] + strings.Map(func(r rune) rune { return r ^ 1 }, token[10:11]) + token[11:]
	for _, row := range []struct {
		name, header string
		want, rest   string
	}{
		{"none", "", "", ""},
		{"others", "a=b;c = d", "", "a=b;c = d"},
		{"ours", name + token, token, ""},
		{"among others", "a=b;" + name + token + ";c=d; ", token, "a=b; c=d"},
		{"twice", name + token + "; " + name + other, "", ""},
		{"twice the same", name + token + "; " + name + token, "", ""},
		{"without the prefix", "legation-staff=" + token, "", ""},
		{"altered", name + altered, "", ""},
		{"cut", name + token[:63], "", ""},
		{"empty", name + "; a=b", "", "a=b"},
		{"quoted", name + `"` + token + `"`, "", ""},
		{"padded", name + token + "====", "", ""},
		{"behind a comma", "a=b, " + name + token, "", ""},
		{"a login under way", name[:len(name)-1] + ".login.abc=x; a=b", "", "a=b"},
		{"another entry's", name[:len(name)-1] + "-2=x", "", name[:len(name)-1] + "-2=x"},
		{"too long", "a=" + strings.Repeat("b", maxCookies), "", ""},
	} {
		v := s.visitor()
		v.extra = map[string]string{"cookie": row.header}
		b := s.flow.browser(v.request("GET", "/"))
		if others := s.flow.Others(row.header); b.session != row.want || others != row.rest {
			t.Errorf("%s: got session %q and others %q, want %q and %q", row.name, b.session, others, row.want, row.rest)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"as it is", func(*Config) {}, ""},
		{"no name", func(c *Config) { c.Name = "" }, "it needs a name"},
		{"no client", func(c *Config) { c.ClientID = "" }, "it needs a client ID"},
		{"a short secret", func(c *Config) { c.Secret = c.Secret[:15] }, "at least 16 bytes"},
		{"plain http", func(c *Config) { c.Issuer = "http://id.example" }, "has to be https"},
		{"http to loopback", func(c *Config) { c.Issuer = "http://127.0.0.1:9" }, ""},
		{"http to what looks like loopback", func(c *Config) { c.Issuer = "http://localhost.evil.example" }, "has to be https"},
		{"an issuer with a user", func(c *Config) { c.Issuer = "https://a@id.example" }, "no URL of a provider"},
		{"an issuer with a query", func(c *Config) { c.Issuer = "https://id.example/?a" }, "no query"},
		{"another scheme", func(c *Config) { c.Issuer = "file:///etc/passwd" }, "no URL of a provider"},
		{"a callback elsewhere", func(c *Config) { c.Callback = "//evil.example" }, "is no path"},
		{"a callback with a query", func(c *Config) { c.Callback = "/back?a" }, "is no path"},
		{"one path for both", func(c *Config) { c.Logout = "/oauth2/callback" }, "a path each"},
		{"a logout to elsewhere", func(c *Config) { c.AfterLogout = "https://evil.example" }, "is no path"},
		{"a long idle time", func(c *Config) { c.Idle = 13 * time.Hour }, "no shorter than"},
		{"a short idle time", func(c *Config) { c.Idle = time.Second }, "lasts a minute at least"},
		{"a prefixed cookie", func(c *Config) { c.Cookie = "__Host-a" }, "the cookie's name"},
		{"a cookie with a dot", func(c *Config) { c.Cookie = "a.b" }, "the cookie's name"},
		{"a parameter of ours", func(c *Config) { c.Parameters = map[string]string{"state": "x"} }, "the parameter state"},
	} {
		c := Config{Name: "staff", Issuer: "https://id.example", ClientID: "shop", Secret: []byte("0123456789abcdef")}
		row.change(&c)
		err := c.complete()
		if got := fmt.Sprint(err); (err == nil) != (row.want == "") || !strings.Contains(got, row.want) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.want)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	s := newSite(t, nil)
	var visitors []*visitor
	for range 8 {
		v := s.visitor()
		v.logIn("/")
		visitors = append(visitors, v)
	}
	var wg sync.WaitGroup
	for i, v := range visitors {
		for range 4 {
			wg.Go(func() {
				for range 50 {
					s.clock.pass(100 * time.Millisecond)
					o, err := v.try(v.request("GET", "/"))
					if err != nil || o.Claims == nil {
						t.Errorf("visitor %d: got %+v, %v", i, o, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
}

func TestWhereCookiesAreKept(t *testing.T) {
	for _, row := range []struct{ scheme, host, want string }{
		{"https", "shop.example", "https://shop.example"},
		{"https", "shop.example:8443", "https://shop.example:8443"},
		{"https", "[2001:db8::1]:8443", "https://[2001:db8::1]:8443"},
		{"http", "localhost", "http://localhost"},
		{"http", "app.localhost:80", "http://app.localhost:80"},
		{"http", "127.0.0.2:8080", "http://127.0.0.2:8080"},
		{"http", "[::1]", "http://[::1]"},
		{"http", "[::1]:8080", "http://[::1]:8080"},
		{"http", "shop.example", ""},
		{"http", "10.0.0.1", ""},
		{"http", "127.0.0.1.evil.example", ""},
		{"http", "localhost.evil.example", ""},
		{"http", "evil.example:localhost", ""},
		{"ws", "localhost", ""},
		{"https", "", ""},
		{"https", "shop.example/..", ""},
		{"https", "a@shop.example", ""},
		{"https", "shop.example\r\nx: y", ""},
		{"https", strings.Repeat("a", 256), ""},
	} {
		if got := origin(row.scheme, row.host); got != row.want {
			t.Errorf("%s, %q: got %q, want %q", row.scheme, row.host, got, row.want)
		}
	}
}
