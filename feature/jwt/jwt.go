// Package jwt is the keys about tokens: jwt in an auth entry, signed tokens as a way to tell who calls, and introspection,
// tokens that their issuer is asked about. feature/auth asks it for the provider, envoy for the headers that only tokens may
// set.
package jwt

import (
	_ "embed"
	"fmt"
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
	Issuer      Issuers             `policy:"issuer,required" doc:"who signs: exactly the iss of the tokens, mostly a URL; or a list of issuers that sign with the same keys"`
	Audiences   Audiences           `policy:"audiences,required" doc:"whom the tokens are for: their aud has to name one of these, else any service could use the tokens that it gets elsewhere; the word any takes all"`
	JWKS        JWKS                `policy:"jwks" doc:"the public keys: a URL, the word discover for those that the issuer's metadata names, {file: keys.json}, or inline {keys: […]}; needed unless there is a secret"`
	Secret      policy.SecretName   `policy:"secret" doc:"the secret that the issuer shares with us and signs with (HS256, HS384, HS512), in the place of jwks"`
	Algorithms  []string            `policy:"algorithms" doc:"only these signatures are taken; default: all that the keys allow, HS256 with a secret"`
	Types       []string            `policy:"types" doc:"the typ in the header of the tokens has to be one of these; default: JWT, at+jwt, or none"`
	From        From                `policy:"from" doc:"where the token is brought: a list of {header: …}, {query: …} and {cookie: …}; default: [{header: authorization, prefix: Bearer}]"`
	Forward     *bool               `policy:"forward" doc:"whether backends are shown the token; default: true"`
	Consumer    string              `policy:"consumer" doc:"the claim that names the caller, dotted where it is nested; default sub"`
	Plan        string              `policy:"plan" doc:"the claim that names the caller's plan, dotted where it is nested; default: only consumers have plans"`
	Headers     policy.ClaimHeaders `policy:"headers" doc:"headers for the backend, each with the claim that it takes its value from"`
	Metadata    []string            `policy:"metadata" doc:"claims for the dynamic metadata of Envoy, where access logs find them, dotted where they are nested"`
	Skew        policy.Duration     `policy:"skew" doc:"how far the issuer's clock may be off, at most 10m; default 30s"`
	MaxLifetime policy.Duration     `policy:"maxLifetime" doc:"how long tokens may be good, from iat to exp; default: as long as they say"`
	Verify      Verifier            `policy:"verify" doc:"who verifies: companion, or envoy itself where nothing else needs the companion, which costs less and checks less; default companion"`
}

const (
	maxSkew     = policy.Duration(10 * time.Minute)
	minLifetime = policy.Duration(time.Second)
)

// Check holds the entry against what the companion takes, and the routes against the headers that it sets.
func (j *JWT) Check(c *policy.Check) {
	j.Issuer.check(c)
	j.Audiences.check(c)
	j.checkKeys(c)
	j.checkAlgorithms(c)
	j.checkTypes(c)
	j.checkVerify(c)
	r := j.reading()
	r.check(c)
	if j.Skew > maxSkew {
		c.Errorf("skew", "want at most %s, got %s", maxSkew, j.Skew).Hintf("mend the clocks: tokens that have expired stay good for so long")
	}
	if j.MaxLifetime != 0 && j.MaxLifetime < minLifetime {
		c.Errorf("maxLifetime", "want at least %s, got %s", minLifetime, j.MaxLifetime)
	}
}

// checkKeys asks for one source of keys.
func (j *JWT) checkKeys(c *policy.Check) {
	keys := j.JWKS.URL != "" || j.JWKS.Keys != nil || j.JWKS.Discover
	switch {
	case keys && j.Secret != "":
		c.Errorf("secret", "stands beside jwks: what verifies with public keys must not verify with a secret too").
			Hintf("write two auth entries, and both into the routes' auth")
	case !keys && j.Secret == "":
		c.Errorf("", "needs the keys of the issuer").Hintf("write jwks: with a URL, discover, {file: keys.json} or {keys: […]}")
	case j.JWKS.Discover && len(j.Issuer) > 1:
		c.Errorf("jwks", "the keys of several issuers can't be discovered").Hintf("write an auth entry for each issuer, and all into the routes' auth")
	case j.JWKS.Discover && len(j.Issuer) == 1:
		if err := auth.CheckDiscovery(j.Issuer[0]); err != nil {
			c.Errorf("jwks", "the keys can't be discovered: %v", err).Hintf("write the URL of the keys")
		}
	}
}

// checkAlgorithms holds the algorithms against what the entry verifies with, and the secret against them.
func (j *JWT) checkAlgorithms(c *policy.Check) {
	known, of := auth.Algorithms(), "public keys"
	if j.Secret != "" {
		known, of = auth.SecretAlgorithms(), "a secret"
	}
	if j.Algorithms != nil && len(j.Algorithms) == 0 {
		c.Errorf("algorithms", "name at least one").Hintf("leave algorithms out for all that the keys allow")
	}
	for i, a := range j.Algorithms {
		at := fmt.Sprintf("algorithms[%d]", i)
		switch {
		case !slices.Contains(known, a):
			c.Errorf(at, "%q is no algorithm of %s", a, of).Hintf("those are %s", strings.Join(known, ", "))
			return
		case slices.Contains(j.Algorithms[:i], a):
			c.Errorf(at, "%s stands here twice", a).Hintf("remove one of the two")
		}
	}
	if j.Secret == "" {
		return
	}
	c.CompanionText("secret", string(j.Secret), func(content []byte) error {
		if need := auth.SecretBytes(j.Algorithms); len(content) < need {
			return fmt.Errorf("it has fewer than %d bytes, so that it could be guessed", need)
		}
		return nil
	})
}

// otherTypes are types of tokens that are for something else than access; whoever took them would be fooled.
var otherTypes = []string{"dpop+jwt", "logout+jwt", "secevent+jwt", "entity-statement+jwt", "oauth-authz-req+jwt"}

func (j *JWT) checkTypes(c *policy.Check) {
	if j.Types != nil && len(j.Types) == 0 {
		c.Errorf("types", "name at least one").Hintf("leave types out for JWT, at+jwt, or none")
	}
	for i, t := range j.Types {
		at := fmt.Sprintf("types[%d]", i)
		switch lower := strings.TrimPrefix(strings.ToLower(t), "application/"); {
		case lower == "" || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
			c.Errorf(at, "want the typ of the tokens, got %q", t).Hintf("mostly at+jwt")
		case slices.Contains(otherTypes, lower):
			c.Errorf(at, "tokens of the type %s are not for access", lower).Hintf("mostly at+jwt")
		}
	}
}

// reading is what the entry has in common with others that read tokens.
func (j *JWT) reading() reading {
	return reading{From: j.From, Consumer: j.Consumer, Plan: j.Plan, Headers: j.Headers, Metadata: j.Metadata}
}

// Provider is the companion's half.
func (j *JWT) Provider(name string) auth.Provider {
	r := j.reading()
	first, others := "", []string(nil)
	for i, issuer := range j.Issuer {
		if i == 0 {
			first = issuer
		} else {
			others = append(others, issuer)
		}
	}
	return auth.Provider{Name: name, JWT: &auth.JWT{
		Reading:     r.companion(),
		Issuer:      first,
		Issuers:     others,
		Audiences:   j.Audiences.Names,
		JWKS:        auth.JWKS{URL: j.JWKS.URL, Keys: j.JWKS.Keys, Discover: j.JWKS.Discover},
		Secret:      string(j.Secret),
		Algorithms:  j.Algorithms,
		Types:       j.Types,
		From:        j.From.companion(),
		Drop:        j.Forward != nil && !*j.Forward,
		Skew:        time.Duration(j.Skew),
		MaxLifetime: time.Duration(j.MaxLifetime),
	}}
}

// PlanClaim is the claim that names the caller's plan; empty for none.
func (j *JWT) PlanClaim() string { return j.Plan }

// Claims are those that Envoy is told.
func (j *JWT) Claims() []string { return j.Metadata }

// StripHeaders are the headers that tokens set: what clients send under them is removed before routing.
func (j *JWT) StripHeaders() []string { return j.Headers.StripHeaders() }
