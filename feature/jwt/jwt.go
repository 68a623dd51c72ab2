// Package jwt is the key jwt of an auth entry: bearer tokens as a way to tell who calls. feature/auth asks it for the
// provider, envoy for the headers that only tokens may set.
package jwt

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

// Kind is the key jwt of an auth entry.
var Kind = policy.Define[JWT]("jwt", policy.InAuth, doc)

// JWT is what stands under jwt in an auth entry: whose tokens are good, and what is read from them.
type JWT struct {
	Issuer    string            `policy:"issuer,required" doc:"who signs: exactly the iss of the tokens, mostly a URL"`
	Audiences Audiences         `policy:"audiences,required" doc:"whom the tokens are for: their aud has to name one of these, else any service could use the tokens that it gets elsewhere; the word any takes all"`
	JWKS      JWKS              `policy:"jwks,required" doc:"the public keys: a URL, {file: keys.json}, or inline {keys: […]}"`
	Consumer  string            `policy:"consumer" doc:"the claim that names the caller, dotted where it is nested; default sub"`
	Plan      string            `policy:"plan" doc:"the claim that names the caller's plan, dotted where it is nested; default: only consumers have plans"`
	Headers   map[string]string `policy:"headers" doc:"headers for the backend, each with the claim that it takes its value from"`
	Skew      policy.Duration   `policy:"skew" doc:"how far the issuer's clock may be off, at most 10m; default 30s"`
	Verify    Verifier          `policy:"verify" doc:"who verifies: companion, or envoy itself where nothing else needs the companion, which costs less and checks less; default companion"`
}

// Audiences is a list of audiences, or the word any.
type Audiences struct {
	Any   bool
	Names []string
}

// DecodePolicy reads a list or any.
func (a *Audiences) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar && n.Text == "any" {
		a.Any = true
		return
	}
	d.Decode(n, &a.Names)
}

// PolicySchema describes both forms.
func (*Audiences) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{
		map[string]any{"const": "any"},
		map[string]any{"type": "array", "minItems": 1, "items": map[string]any{"type": "string"}},
	}}
}

const maxSkew = policy.Duration(10 * time.Minute)

// Check holds the entry against what the companion takes, and the routes against the headers that it sets.
func (j *JWT) Check(c *policy.Check) {
	checkIssuer(c, j.Issuer)
	checkAudiences(c, j.Audiences)
	if j.Consumer != strings.TrimSpace(j.Consumer) {
		c.Errorf("consumer", "want the name of a claim, dotted where it is nested, got %q", j.Consumer)
	}
	if j.Plan != strings.TrimSpace(j.Plan) {
		c.Errorf("plan", "want the name of a claim, dotted where it is nested, got %q", j.Plan)
	}
	if j.Skew > maxSkew {
		c.Errorf("skew", "want at most %s, got %s", maxSkew, j.Skew).Hintf("mend the clocks: tokens that have expired stay good for so long")
	}
	j.checkVerify(c)
	written := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(j.Headers)) {
		if other, ok := written[strings.ToLower(name)]; ok {
			c.Errorf("headers."+name, "the headers %q and %q are the same", other, name).Hintf("remove one of the two")
			continue
		}
		written[strings.ToLower(name)] = name
		checkHeader(c, name, j.Headers[name])
		checkRoutes(c, name)
	}
}

func checkIssuer(c *policy.Check, issuer string) {
	u, err := url.Parse(issuer)
	switch {
	case strings.Contains(issuer, "://") && strings.Contains(issuer, "@"):
		c.Errorf("issuer", "the URL may not hold a user or a password").Hide()
	case issuer == "" || strings.ContainsAny(issuer, " \t\n\r"):
		c.Errorf("issuer", "want the iss of the tokens: a text without spaces").Hintf("mostly a URL, such as https://id.example.com/")
	case strings.Contains(issuer, "://") && (err != nil || u.Host == ""):
		c.Errorf("issuer", "the URL is not valid")
	}
}

// checkAudiences asks for the audience: a token that was made for another service of the same issuer is no proof.
func checkAudiences(c *policy.Check, a Audiences) {
	if a.Any {
		return
	}
	if len(a.Names) == 0 {
		c.Errorf("audiences", "name whom the tokens are for: any service could use the tokens that it gets elsewhere").
			Hintf("write audiences: [orders] with the aud of your tokens; audiences: any where the issuer signs for this gateway alone")
	}
	for i, name := range a.Names {
		if strings.TrimSpace(name) == "" {
			c.Errorf(fmt.Sprintf("audiences[%d]", i), "want the aud of the tokens, got %q", name)
		}
	}
}

func checkHeader(c *policy.Check, name, claim string) {
	at, lower := "headers."+name, strings.ToLower(name)
	switch err := auth.CheckHeader(lower); {
	case err != nil:
		c.Errorf(at, "%v", err).Hintf("choose a name of your own, such as x-user")
	case auth.Steers(lower):
		c.Errorf(at, "the header %q steers proxies or backends: it may not be set from a claim", lower).
			Hintf("choose a name of your own, such as x-user")
	case claim == "" || strings.TrimSpace(claim) != claim:
		c.Errorf(at, "want the name of a claim, dotted where it is nested, got %q", claim)
	}
}

// checkRoutes refuses routes that are chosen by a header of ours: clients' copies are removed before routing, and ours
// is set after it, so that such a route never matches.
func checkRoutes(c *policy.Check, name string) {
	for _, r := range c.Model().Routes {
		for _, m := range r.Match.Headers {
			if m.Name != strings.ToLower(name) {
				continue
			}
			p := c.Errorf("headers."+name, "the route %q matches on the header %q, which only this auth entry may set: routes are chosen before auth", r.Name, m.Name).
				Hintf("match on something that clients send, or pass the claim on under another name")
			p.Also = append(p.Also, m.Pos)
		}
	}
}

// Provider is the companion's half.
func (j *JWT) Provider(name string) auth.Provider {
	headers := make(map[string]string, len(j.Headers))
	for header, claim := range j.Headers {
		headers[strings.ToLower(header)] = claim
	}
	return auth.Provider{Name: name, JWT: &auth.JWT{
		Reading:   auth.Reading{Consumer: j.Consumer, Plan: j.Plan, Headers: headers},
		Issuer:    j.Issuer,
		Audiences: j.Audiences.Names,
		JWKS:      auth.JWKS{URL: j.JWKS.URL, Keys: j.JWKS.Keys},
		Skew:      time.Duration(j.Skew),
	}}
}

// PlanClaim is the claim that names the caller's plan; empty for none.
func (j *JWT) PlanClaim() string { return j.Plan }

// StripHeaders are the headers that tokens set: what clients send under them is removed before routing.
func (j *JWT) StripHeaders() []string {
	var names []string
	for name := range j.Headers {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	return names
}
