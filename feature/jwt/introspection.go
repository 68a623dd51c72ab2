package jwt

import (
	_ "embed"
	"strings"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

//go:embed introspection.md
var introspectionDoc string

// IntrospectionKind is the key introspection of an auth entry.
var IntrospectionKind = policy.Define[Introspection]("introspection", policy.InAuth, introspectionDoc)

// Introspection is what stands under introspection: who is asked about tokens, and what is read from the answer.
type Introspection struct {
	URL       string              `policy:"url,required" doc:"where the issuer is asked about tokens (RFC 7662): https, or http to this machine"`
	Client    string              `policy:"client,required" doc:"who we are to the issuer: the client's ID"`
	Secret    policy.SecretName   `policy:"secret,required" doc:"the name of the client's secret"`
	Audiences Audiences           `policy:"audiences,required" doc:"whom the tokens are for: the aud of the answer has to name one of these; the word any takes all, also answers without aud"`
	Issuer    string              `policy:"issuer" doc:"exactly the iss of the answer; default: any, or none"`
	From      From                `policy:"from" doc:"where the token is brought: a list of {header: …}, {query: …} and {cookie: …}; default: [{header: authorization, prefix: Bearer}]"`
	Forward   *bool               `policy:"forward" doc:"whether backends are shown the token; default: true"`
	Cache     policy.Duration     `policy:"cache" doc:"how long an answer holds, 1s to 1h, never longer than the token: a revoked token stays good for so long; default 1m"`
	Consumer  string              `policy:"consumer" doc:"the member of the answer that names the caller, dotted where it is nested; default sub"`
	Plan      string              `policy:"plan" doc:"the member that names the caller's plan; default: only consumers have plans"`
	Headers   policy.ClaimHeaders `policy:"headers" doc:"headers for the backend, each with the member that it takes its value from"`
	Metadata  []string            `policy:"metadata" doc:"members for the dynamic metadata of Envoy, where access logs find them"`
	Skew      policy.Duration     `policy:"skew" doc:"how far the issuer's clock may be off, at most 10m; default 30s"`
}

const (
	minCache = policy.Duration(time.Second)
	maxCache = policy.Duration(time.Hour)
)

// Check holds the entry against what the companion takes.
func (i *Introspection) Check(c *policy.Check) {
	if err := auth.CheckURL(i.URL); err != nil {
		p := c.Errorf("url", "%v", err).Hintf("write the issuer's introspection_endpoint")
		if strings.ContainsAny(i.URL, "@?") {
			p.Hide()
		}
	}
	if i.Client == "" || strings.ContainsFunc(i.Client, func(r rune) bool { return r < ' ' || r > '~' }) {
		c.Errorf("client", "want the client's ID in ASCII, got %q", i.Client)
	}
	c.CompanionSecret("secret", string(i.Secret))
	i.Audiences.check(c)
	if i.Issuer != "" {
		checkIssuer(c, "issuer", i.Issuer)
	}
	if i.Cache != 0 && (i.Cache < minCache || i.Cache > maxCache) {
		c.Errorf("cache", "want %s to %s, got %s", minCache, maxCache, i.Cache)
	}
	if i.Skew > maxSkew {
		c.Errorf("skew", "want at most %s, got %s", maxSkew, i.Skew)
	}
	r := i.reading()
	r.check(c)
}

func (i *Introspection) reading() reading {
	return reading{From: i.From, Consumer: i.Consumer, Plan: i.Plan, Headers: i.Headers, Metadata: i.Metadata}
}

// Provider is the companion's half.
func (i *Introspection) Provider(name string) auth.Provider {
	r := i.reading()
	return auth.Provider{Name: name, Introspection: &auth.Introspection{
		Reading:   r.companion(),
		URL:       i.URL,
		Client:    i.Client,
		Secret:    string(i.Secret),
		Issuer:    i.Issuer,
		Audiences: i.Audiences.Names,
		Skew:      time.Duration(i.Skew),
		Cache:     time.Duration(i.Cache),
		From:      i.From.companion(),
		Drop:      i.Forward != nil && !*i.Forward,
	}}
}

// PlanClaim is the member that names the caller's plan; empty for none.
func (i *Introspection) PlanClaim() string { return i.Plan }

// Claims are those that Envoy is told.
func (i *Introspection) Claims() []string { return i.Metadata }

// StripHeaders are the headers that tokens set: what clients send under them is removed before routing.
func (i *Introspection) StripHeaders() []string { return i.Headers.StripHeaders() }
