package jwt

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Issuers is one issuer or a list of them.
type Issuers []string

// DecodePolicy reads one or a list.
func (s *Issuers) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.List {
		d.Decode(n, (*[]string)(s))
		return
	}
	*s = make(Issuers, 1)
	d.Decode(n, &(*s)[0])
}

// PolicySchema describes both forms.
func (*Issuers) PolicySchema(*policy.Schemas) map[string]any {
	one := map[string]any{"type": "string", "minLength": 1}
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "uniqueItems": true, "items": one}}}
}

func (s Issuers) check(c *policy.Check) {
	if len(s) == 0 {
		c.Errorf("issuer", "name at least one issuer")
	}
	for i, issuer := range s {
		at := "issuer"
		if len(s) > 1 {
			at = fmt.Sprintf("issuer[%d]", i)
		}
		if slices.Contains(s[:i], issuer) {
			c.Errorf(at, "the issuer stands here twice").Hintf("remove one of the two")
			continue
		}
		checkIssuer(c, at, issuer)
	}
}

func checkIssuer(c *policy.Check, at, issuer string) {
	u, err := url.Parse(issuer)
	switch {
	case strings.Contains(issuer, "://") && strings.Contains(issuer, "@"):
		c.Errorf(at, "the URL may not hold a user or a password").Hide()
	case issuer == "" || strings.ContainsAny(issuer, " \t\n\r"):
		c.Errorf(at, "want the iss of the tokens: a text without spaces").Hintf("mostly a URL, such as https://id.example.com/")
	case strings.Contains(issuer, "://") && (err != nil || u.Host == ""):
		c.Errorf(at, "the URL is not valid")
	}
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

// check asks for the audience: a token that was made for another service of the same issuer is no proof.
func (a Audiences) check(c *policy.Check) {
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

// From is where tokens are brought.
type From []Place

// Place is one of the fields header, query and cookie.
type Place struct {
	Header string `policy:"header" doc:"the name of a request header"`
	Prefix string `policy:"prefix" doc:"the word before the token in the header; default: Bearer in authorization, else none"`
	Query  string `policy:"query" doc:"the name of a query parameter: such tokens show in logs of all who see the URL"`
	Cookie string `policy:"cookie" doc:"the name of a cookie"`
}

// maxPlaces is how many places tokens may be brought in.
const maxPlaces = 8

func (f From) companion() []auth.From {
	var all []auth.From
	for _, p := range f {
		header, prefix := strings.ToLower(p.Header), p.Prefix
		if header == "authorization" && prefix == "" {
			prefix = "Bearer"
		}
		all = append(all, auth.From{Header: header, Prefix: prefix, Query: p.Query, Cookie: p.Cookie})
	}
	return all
}

func (f From) check(c *policy.Check) {
	if f != nil && len(f) == 0 || len(f) > maxPlaces {
		c.Errorf("from", "want 1 to %d places", maxPlaces).Hintf("leave from out for authorization: Bearer")
		return
	}
	for i, p := range f.companion() {
		at := fmt.Sprintf("from[%d]", i)
		if err := auth.CheckFrom(f.companion()[:i+1]); err != nil {
			c.Errorf(at, "%v", err).Hintf("write {header: x-token}, {header: authorization, prefix: Bearer}, {query: access_token} or {cookie: token}")
			return
		}
		if p.Header == "" {
			continue
		}
		if p.Header != "authorization" && auth.CheckClaimHeader(p.Header) != nil {
			c.Errorf(at+".header", "the header %q steers proxies or backends: it can't bring tokens", p.Header).Hintf("choose a name of your own, such as x-token")
		}
		for _, a := range c.Common().Auth {
			for _, s := range policy.Each[envoy.Stripper](a.Settings) {
				if slices.Contains(s.StripHeaders(), p.Header) {
					c.Errorf(at+".header", "the auth entry %q sets the header %q: what clients send under it is removed", a.Name, p.Header).Hintf("choose another name in one of the two")
				}
			}
		}
	}
}

// reading is what is read of tokens, however they are verified.
type reading struct {
	From     From
	Consumer string
	Plan     string
	Headers  policy.ClaimHeaders
	Metadata []string
}

func (r *reading) check(c *policy.Check) {
	r.From.check(c)
	checkClaim(c, "consumer", r.Consumer)
	checkClaim(c, "plan", r.Plan)
	for i, claim := range r.Metadata {
		at := fmt.Sprintf("metadata[%d]", i)
		switch checkClaim(c, at, claim); {
		case claim == "":
			c.Errorf(at, "want the name of a claim, dotted where it is nested, got nothing")
		case slices.Contains(r.Metadata[:i], claim):
			c.Errorf(at, "the claim %q stands here twice", claim).Hintf("remove one of the two")
		}
	}
	r.Headers.Check(c, auth.CheckClaimHeader)
}

func checkClaim(c *policy.Check, at, claim string) {
	if claim != strings.TrimSpace(claim) {
		c.Errorf(at, "want the name of a claim, dotted where it is nested, got %q", claim)
	}
}

func (r *reading) companion() auth.Reading {
	return auth.Reading{Consumer: r.Consumer, Plan: r.Plan, Headers: r.Headers.Lower()}
}
