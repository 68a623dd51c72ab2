package login

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/auth/login/logintest"
)

// callback is a login that is about to end, as an attacker may change it.
type callback struct {
	*visitor
	method string
	query  url.Values
	raw    string // "" = query
}

func (c *callback) other() *visitor { return c.site.visitor() }

// swap puts another login's cookie value under this one's name.
func (c *callback) swap() {
	c.begin("/another")
	c.cookies[0].Value, c.cookies[1].Value = c.cookies[1].Value, c.cookies[0].Value
}

func (c *callback) claims(change func(map[string]any)) {
	c.provider.Set(func(p *logintest.Settings) { p.Claims = change })
}

func (c *callback) tokens(change func(map[string]any)) {
	c.provider.Set(func(p *logintest.Settings) { p.Token = change })
}

// A browser that does all of it right logs in; each of these changes one thing.
func TestCallbackRefuses(t *testing.T) {
	const marked = "<script>marked</script>"
	for _, row := range []struct {
		name   string
		attack func(*callback)
		status int
		reason string
	}{
		{"nothing", func(*callback) {}, 302, "login_done"},
		{"HEAD", func(c *callback) { c.method = "HEAD" }, 405, "login_method"},
		{"POST", func(c *callback) { c.method = "POST" }, 405, "login_method"},

		{"no state", func(c *callback) { c.query.Del("state") }, 400, "login_state"},
		{"an altered state", func(c *callback) { c.query.Set("state", altered(c.query.Get("state"))) }, 400, "login_state"},
		{"a state of nobody", func(c *callback) { c.query.Set("state", randomText()) }, 400, "login_state"},
		{"a hostile state", func(c *callback) { c.query.Set("state", marked) }, 400, "login_state"},
		{"another tab's state", func(c *callback) {
			other, _ := url.Parse(c.begin("/another"))
			c.query.Set("state", other.Query().Get("state"))
		}, 502, "login_refused_invalid_grant"},
		{"another browser", func(c *callback) { c.cookies = nil }, 400, "login_state"},
		{"another browser that began a login", func(c *callback) {
			o := c.other()
			o.begin("/")
			c.cookies = o.cookies
		}, 400, "login_state"},
		{"an altered cookie", func(c *callback) { c.cookies[0].Value = altered(c.cookies[0].Value) }, 400, "login_state"},
		{"a cut cookie", func(c *callback) { c.cookies[0].Value = c.cookies[0].Value[:20] }, 400, "login_state"},
		{"another login's cookie", func(c *callback) { c.swap() }, 400, "login_state"},
		{"a session's cookie", func(c *callback) { c.cookies[0].Value = c.flow.keys.newToken() }, 400, "login_state"},
		{"another host of ours", func(c *callback) { c.origin = "https://admin.example" }, 400, "login_state"},
		{"ten minutes and a second", func(c *callback) { c.clock.pass(loginLasts + time.Second) }, 400, "login_expired"},
		{"a login from the future", func(c *callback) { c.clock.pass(-2 * time.Minute) }, 400, "login_expired"},

		{"two codes", func(c *callback) { c.query.Add("code", "x") }, 400, "login_malformed"},
		{"two states", func(c *callback) { c.query.Add("state", "x") }, 400, "login_malformed"},
		{"two of another parameter", func(c *callback) { c.query["a"] = []string{"b", "c"} }, 400, "login_malformed"},
		{"code and error", func(c *callback) { c.query.Set("error", "access_denied") }, 400, "login_malformed"},
		{"neither", func(c *callback) { c.query.Del("code") }, 400, "login_malformed"},
		{"no query", func(c *callback) { c.raw = "?" }, 400, "login_malformed"},
		{"a semicolon", func(c *callback) { c.raw = "?" + c.query.Encode() + ";a=b" }, 400, "login_malformed"},
		{"a long query", func(c *callback) { c.query.Set("a", strings.Repeat("a", maxQuery)) }, 400, "login_malformed"},
		{"a long code", func(c *callback) { c.query.Set("code", strings.Repeat("a", maxCode+1)) }, 400, "login_malformed"},
		{"a code of nobody", func(c *callback) { c.query.Set("code", marked) }, 502, "login_refused_invalid_grant"},
		{"a code that was used", func(c *callback) {
			before := c.cookies
			c.visit("GET", "/oauth2/callback?"+c.query.Encode())
			c.cookies = before
		}, 502, "login_refused_invalid_grant"},
		{"the same again", func(c *callback) {
			c.visit("GET", "/oauth2/callback?"+c.query.Encode())
			c.drop("__Host-legation-staff")
		}, 400, "login_state"},

		{"another issuer", func(c *callback) { c.query.Set("iss", "https://evil.example") }, 400, "login_issuer"},
		{"no issuer, where it is told", func(c *callback) { c.query.Del("iss") }, 400, "login_issuer"},
		{"another issuer's error", func(c *callback) {
			c.query.Set("iss", c.provider.URL+"/")
			c.query.Set("error", "access_denied")
			c.query.Del("code")
		}, 400, "login_issuer"},
		{"access denied", func(c *callback) {
			c.query.Set("error", "access_denied")
			c.query.Set("error_description", marked)
			c.query.Del("code")
		}, 403, "login_refused_access_denied"},
		{"an unknown error", func(c *callback) {
			c.query.Set("error", marked)
			c.query.Del("code")
		}, 502, "login_refused_otherwise"},

		{"another login's nonce", func(c *callback) { c.claims(func(m map[string]any) { m["nonce"] = "x" }) }, 502, "login_token"},
		{"no nonce", func(c *callback) { c.claims(func(m map[string]any) { delete(m, "nonce") }) }, 502, "login_token"},
		{"a token of another issuer", func(c *callback) { c.claims(func(m map[string]any) { m["iss"] = "https://evil.example" }) }, 502, "login_token"},
		{"a token for another client", func(c *callback) { c.claims(func(m map[string]any) { m["aud"] = "other" }) }, 502, "login_token"},
		{"a token for several, given to nobody", func(c *callback) { c.claims(func(m map[string]any) { m["aud"] = []string{"shop", "other"} }) }, 502, "login_token"},
		{"a token for several, given to us", func(c *callback) {
			c.claims(func(m map[string]any) { m["aud"], m["azp"] = []string{"shop", "other"}, "shop" })
		}, 302, "login_done"},
		{"a token given to another", func(c *callback) { c.claims(func(m map[string]any) { m["azp"] = "other" }) }, 502, "login_token"},
		{"a token given to no text", func(c *callback) { c.claims(func(m map[string]any) { m["azp"] = nil }) }, 502, "login_token"},
		{"another access token's hash", func(c *callback) { c.claims(func(m map[string]any) { m["at_hash"] = "x" }) }, 502, "login_token"},
		{"no hash", func(c *callback) { c.claims(func(m map[string]any) { delete(m, "at_hash") }) }, 302, "login_done"},
		{"no subject", func(c *callback) { c.claims(func(m map[string]any) { delete(m, "sub") }) }, 502, "login_token"},
		{"an empty subject", func(c *callback) { c.claims(func(m map[string]any) { m["sub"] = "" }) }, 502, "login_token"},
		{"a token that has ended", func(c *callback) { c.claims(func(m map[string]any) { m["exp"] = 1 }) }, 502, "login_token"},
		{"more claims than a session takes", func(c *callback) {
			c.claims(func(m map[string]any) { m["groups"] = strings.Repeat("g", 8<<10) })
			c.provider.Set(func(p *logintest.Settings) {
				p.UserInfo = func(m map[string]any) { m["more"] = strings.Repeat("m", maxRecord) }
			})
		}, 502, "login_token"},
		{"an altered signature", func(c *callback) {
			c.tokens(func(m map[string]any) {
				m["id_token"] = m["id_token"].(string)[:100] + "AAAA" + m["id_token"].(string)[104:]
			})
		}, 502, "login_token"},
		{"no ID token", func(c *callback) { c.tokens(func(m map[string]any) { delete(m, "id_token") }) }, 502, "login_token"},
		{"an ID token of 20 KiB", func(c *callback) { c.claims(func(m map[string]any) { m["x"] = strings.Repeat("x", 20<<10) }) }, 502, "login_token"},
		{"no access token", func(c *callback) { c.tokens(func(m map[string]any) { delete(m, "access_token") }) }, 502, "login_token"},
		{"another kind of token", func(c *callback) { c.tokens(func(m map[string]any) { m["token_type"] = "mac" }) }, 502, "login_token"},
		{"other capitals", func(c *callback) {
			c.tokens(func(m map[string]any) { m["ID_Token"] = m["id_token"]; delete(m, "id_token") })
		}, 502, "login_token"},
		{"userinfo of another", func(c *callback) {
			c.provider.Set(func(p *logintest.Settings) { p.UserInfo = func(m map[string]any) { m["sub"] = "root" } })
		}, 502, "login_token"},

		{"a provider that is down", func(c *callback) { c.provider.Set(func(p *logintest.Settings) { p.Down = true }) }, 503, "login_provider_unknown"},
		{"a provider out of sight for a day", func(c *callback) { c.flow.provider.Store(nil) }, 503, "login_provider_unknown"},
		{"records that are down", func(c *callback) { c.records.setDown(true) }, 503, "login_records"},
		{"too many at once", func(c *callback) {
			for range maxExchanges {
				c.flow.exchanges <- struct{}{}
			}
		}, 503, "login_busy"},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := newSite(t, func(c *Config) { c.UserInfo = true }).visitor()
			at, err := url.Parse(v.begin("/orders"))
			if err != nil {
				t.Fatal(err)
			}
			c := &callback{visitor: v, method: "GET", query: at.Query()}
			row.attack(c)
			path := at.Path + "?" + c.query.Encode()
			if c.raw != "" {
				path = at.Path + c.raw
			}
			a := v.visit(c.method, path).Answer
			if a.Status != row.status || a.Reason != row.reason {
				t.Errorf("got %d %s, want %d %s", a.Status, a.Reason, row.status, row.reason)
			}
			if a.Status == 302 {
				return
			}
			if c := v.session(); c != nil {
				t.Errorf("a session began: %v", c)
			}
			if strings.Contains(a.Body, "marked") || strings.Contains(a.Body, a.Reason) || strings.Contains(a.header("content-type")+a.header("location"), "marked") {
				t.Errorf("the page repeats what it was sent:\n%s", a.Body)
			}
			if a.header("cache-control") != "no-store" || !strings.Contains(a.header("content-security-policy"), "default-src 'none'") {
				t.Errorf("headers are %v", a.Headers)
			}
		})
	}
}

func TestProviderMayKeepTheIssuerToItself(t *testing.T) {
	s := newSite(t, nil)
	s.provider.Set(func(p *logintest.Settings) {
		p.Metadata = func(m map[string]any) { delete(m, "authorization_response_iss_parameter_supported") }
		p.Return = func(v url.Values) { v.Del("iss") }
	})
	s.flow = s.replica(nil)
	s.visitor().logIn("/")
}

func TestSecretInTheForm(t *testing.T) {
	s := newSite(t, nil)
	s.provider.Set(func(p *logintest.Settings) {
		p.Metadata = func(m map[string]any) { m["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"} }
	})
	s.flow = s.replica(nil)
	s.visitor().logIn("/")
}

func TestLoginEndsTheSessionBefore(t *testing.T) {
	v := newSite(t, nil).visitor()
	v.logIn("/")
	before := v.session().Value
	again := v.flow.Challenge(v.request("GET", "/"), v.clock.read())
	v.keep(&again)
	o := v.visit("GET", v.atProvider(again.header("location")))
	if o.Answer.Reason != "login_done" || o.Ended != idOf(before) {
		t.Errorf("got %s, ended %q", o.Answer.Reason, o.Ended)
	}
	after := v.session().Value
	v.session().Value = before
	if o := v.visit("GET", "/"); o.Claims != nil || after == before {
		t.Error("the session of before goes on")
	}
}

// An attacker who gets a cookie into somebody's browser before the login must not know the session after it.
func TestNoSessionFixation(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	planted := s.flow.keys.newToken()
	v.cookies = []*http.Cookie{{Name: "__Host-legation-staff", Value: planted}}
	v.logIn("/")
	if v.session().Value == planted {
		t.Error("the login took the cookie that was there")
	}
	v.session().Value = planted
	if o := v.visit("GET", "/"); o.Claims != nil {
		t.Error("the planted cookie is logged in")
	}
}

func TestAccessHashByAlgorithm(t *testing.T) {
	// The example of OpenID Connect Core 1.0, A.4 is for RS256; the others were made with openssl dgst.
	const access = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"
	want := map[string]string{
		"RS256": "77QmUPtjPfzWtF2AnpK9RQ", "ES256": "77QmUPtjPfzWtF2AnpK9RQ", "PS256": "77QmUPtjPfzWtF2AnpK9RQ",
		"ES384": "jtAeDp945y1dDqU3nkIVGNZP1HjH_MFs",
		"PS512": "q7nS86GgvvFaZkzALLWqJYaJIKw2wCDAVfCAsm5CrBM", "EdDSA": "q7nS86GgvvFaZkzALLWqJYaJIKw2wCDAVfCAsm5CrBM",
		"none": "", "": "",
	}
	got := map[string]string{}
	for alg := range want {
		got[alg] = accessHash(tokens{id: strict.EncodeToString([]byte(`{"alg":"`+alg+`"}`)) + ".e30.x", access: access})
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// altered is the text with another first character.
func altered(text string) string {
	if text[0] == 'A' {
		return "B" + text[1:]
	}
	return "A" + text[1:]
}
