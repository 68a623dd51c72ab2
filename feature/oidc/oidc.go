// Package oidc is the key oidc of an auth entry: browsers log in at an OpenID Connect provider, and are known by a session
// from then on. feature/auth asks it for the provider and the time that a login may take, envoy for the headers that only
// sessions may set.
package oidc

import (
	_ "embed"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key oidc of an auth entry.
var Kind = policy.Define[OIDC]("oidc", policy.InAuth, doc)

// OIDC is what stands under oidc in an auth entry: where browsers log in, and what becomes of it.
type OIDC struct {
	Issuer      string              `policy:"issuer,required" doc:"the provider: exactly its issuer, an https URL, below which /.well-known/openid-configuration tells the rest"`
	Client      string              `policy:"client,required" doc:"the ID that the provider knows this client by"`
	Secret      policy.SecretName   `policy:"secret,required" doc:"the name of the secret with the client's secret, at least 16 bytes; sessions are sealed with it too"`
	Scopes      []string            `policy:"scopes" doc:"what is asked for besides openid; a refresh token mostly takes offline_access"`
	Parameters  map[string]string   `policy:"parameters" doc:"further parameters of the authorization request, such as audience or prompt"`
	UserInfo    bool                `policy:"userInfo" doc:"whether the claims of the provider's userinfo endpoint are added"`
	Consumer    string              `policy:"consumer" doc:"the claim that names the caller, dotted where it is nested; default sub"`
	Plan        string              `policy:"plan" doc:"the claim that names the caller's plan, dotted where it is nested; default: only consumers have plans"`
	Headers     policy.ClaimHeaders `policy:"headers" doc:"headers for the backend, each with the claim that it takes its value from"`
	Callback    string              `policy:"callback" doc:"the path that the provider sends browsers back to; default /oauth2/callback"`
	Logout      string              `policy:"logout" doc:"the path that ends a session; default /oauth2/logout"`
	AfterLogout string              `policy:"afterLogout" doc:"the path that follows on a logout; default a page that says so, or / where the provider logs out as well"`
	Idle        policy.Duration     `policy:"idle" doc:"how long a session lasts without a request; default 1h"`
	Lifetime    policy.Duration     `policy:"lifetime" doc:"how long a session lasts in all; default 12h"`
	Cookie      string              `policy:"cookie" doc:"the name of the session's cookie; default legation-ENTRY, on https with the prefix __Host-"`
	Port        *uint16             `policy:"port" doc:"the port that browsers use, where it isn't the scheme's own; default 443 for https and 80 for http, whatever the listener's"`
}

const (
	defaultCallback = "/oauth2/callback"
	defaultLogout   = "/oauth2/logout"

	maxLifetime = policy.Duration(30 * 24 * time.Hour)
)

// Check holds the entry against what the companion takes.
func (o *OIDC) Check(c *policy.Check) {
	o.checkProvider(c)
	paths := map[string]string{"callback": o.callback(), "logout": o.logout(), "afterLogout": o.AfterLogout}
	for _, key := range slices.Sorted(maps.Keys(paths)) {
		if p := paths[key]; p != "" && !isPath(p) {
			c.Errorf(key, "want a path such as %s, got %q", defaultCallback, p)
		}
	}
	if o.callback() == o.logout() {
		c.Errorf("logout", "is the path of callback too").Hintf("choose another, such as %s", defaultLogout)
	}
	if o.Lifetime > maxLifetime {
		c.Errorf("lifetime", "want at most %s, got %s", maxLifetime, o.Lifetime)
	}
	if o.Idle > 0 && o.Idle < policy.Duration(time.Minute) {
		c.Errorf("idle", "want at least 1m, got %s", o.Idle)
	} else {
		try(c, "idle", auth.OIDC{Idle: time.Duration(o.Idle), Lifetime: time.Duration(o.Lifetime)})
	}
	try(c, "cookie", auth.OIDC{Cookie: o.Cookie})
	try(c, "parameters", auth.OIDC{Parameters: o.Parameters})
	o.Headers.Check(c, auth.CheckClaimHeader)
}

// try refuses what no login of the companion can have: the whole policy would not be served for it.
func try(c *policy.Check, at string, l auth.OIDC) {
	if err := tried(l, make([]byte, 64)); err != nil {
		c.Errorf(at, "%v", err)
	}
}

// tried tells what is wrong with some settings of a login whose others are good.
func tried(l auth.OIDC, secret []byte) error {
	l.Issuer, l.Client = "https://id.example.com", "client"
	return auth.CheckLogin(l, secret)
}

func (o *OIDC) checkProvider(c *policy.Check) {
	u, err := url.Parse(o.Issuer)
	switch {
	case strings.Contains(o.Issuer, "@"):
		c.Errorf("issuer", "the URL may not hold a user or a password").Hide()
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || auth.CheckURL(o.Issuer) != nil:
		c.Errorf("issuer", "want the issuer of the provider, an https URL (http to this machine only)").Hintf("such as https://id.example.com")
	}
	if strings.TrimSpace(o.Client) == "" {
		c.Errorf("client", "want the ID that the provider knows this client by")
	}
	if o.Secret != "" {
		c.CompanionText("secret", string(o.Secret), func(content []byte) error { return tried(auth.OIDC{}, content) })
	}
	for i, s := range o.Scopes {
		if s == "" || strings.ContainsAny(s, " \t\"\\") {
			c.Errorf(fmt.Sprintf("scopes[%d]", i), "want one scope, got %q", s)
		}
	}
}

func isPath(p string) bool {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`?#%\"`, r) }
	return strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "//") && !strings.ContainsFunc(p, odd) && len(p) <= 200
}

func (o *OIDC) callback() string {
	if o.Callback == "" {
		return defaultCallback
	}
	return o.Callback
}

func (o *OIDC) logout() string {
	if o.Logout == "" {
		return defaultLogout
	}
	return o.Logout
}

// Provider is the companion's half.
func (o *OIDC) Provider(name string) auth.Provider {
	return auth.Provider{Name: name, OIDC: &auth.OIDC{
		Issuer: o.Issuer, Client: o.Client, Secret: string(o.Secret), Scopes: o.Scopes, Parameters: o.Parameters, UserInfo: o.UserInfo,
		Reading:  auth.Reading{Consumer: o.Consumer, Plan: o.Plan, Headers: o.Headers.Lower()},
		Callback: o.Callback, Logout: o.Logout, AfterLogout: o.AfterLogout,
		Idle: time.Duration(o.Idle), Lifetime: time.Duration(o.Lifetime), Cookie: o.Cookie, Port: policy.Or(o.Port, 0),
	}}
}

// Takes is how long a request may take to be judged: one that comes back from the provider exchanges its code there.
func (*OIDC) Takes() time.Duration { return 15 * time.Second }

// ComesBack is the path that the provider sends browsers back to: some route with the entry has to take it.
func (o *OIDC) ComesBack() string { return o.callback() }

// PlanClaim is the claim that names the caller's plan; empty for none.
func (o *OIDC) PlanClaim() string { return o.Plan }

// StripHeaders are the headers that sessions set: what clients send under them is removed before routing.
func (o *OIDC) StripHeaders() []string { return o.Headers.StripHeaders() }
