package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"time"
)

// RuleExtension is the context extension of a callout that names the rule: the rule's ID for our own Envoys, its bare
// name (then the current rule of that name is meant) for an Envoy that others configure.
const RuleExtension = "legation.rule"

// Rule is what one route asks of its callers.
type Rule struct {
	Name      string     `json:"name"`             // the route, "edge/orders"; shown in logs and metrics; no "@"
	Providers []Provider `json:"providers"`        // any one that accepts is enough, in this order; at least one
	All       bool       `json:"all,omitempty"`    // every provider has to accept; the first tells who calls
	Limits    []string   `json:"limits,omitempty"` // limit IDs counted in the same call, through the Counter
	Plan      PlanUse    `json:"plan,omitempty"`   // whether the consumer's plan is counted too
	// Metadata are the claims that Envoy is told, as texts: in the filter's dynamic metadata as "claims", each under its
	// path, for what Envoy itself counts by.
	Metadata []string `json:"metadata,omitempty"`
	// Authorize is what the layers ask of callers that are known, from the outermost inwards: all of it has to hold.
	Authorize []Authorization `json:"authorize,omitempty"`

	Known string `json:"-"` // the ID, where it was worked out before: who changes the rest has to empty it
}

// ID is the name and a hash over the whole rule, so that an Envoy and a companion that mean different rules by the
// same name find out.
func (r Rule) ID() string {
	if r.Known != "" {
		return r.Known
	}
	b, err := json.Marshal(r) // sorted maps, fields in order, nil and empty alike
	if err != nil {
		panic(err) // strings, bytes and integers only: cannot happen
	}
	sum := sha256.Sum256(b)
	return r.Name + "@" + hex.EncodeToString(sum[:6])
}

// Provider is one way to accept a caller: one of the fields that follow the name.
type Provider struct {
	Name string `json:"name"` // scheme of the identities: "idp"; no "/"

	JWT           *JWT           `json:"jwt,omitempty"`
	Introspection *Introspection `json:"introspection,omitempty"`
	OIDC          *OIDC          `json:"oidc,omitempty"`
	APIKey        *APIKey        `json:"apiKey,omitempty"`
	Basic         *Basic         `json:"basic,omitempty"`
	MTLS          *MTLS          `json:"mtls,omitempty"`
	Anonymous     *Anonymous     `json:"anonymous,omitempty"`
}

// Reading is what is read of a caller's claims.
type Reading struct {
	Consumer string            `json:"consumer,omitempty"` // claim that names the consumer, dotted when nested; "" = "sub"
	Plan     string            `json:"plan,omitempty"`     // claim that names the consumer's plan, dotted when nested
	Headers  map[string]string `json:"headers,omitempty"`  // request header (lower case) -> claim
}

// JWT accepts tokens that one issuer signed, or several that sign with the same keys.
type JWT struct {
	Issuer    string   `json:"issuer"`              // "iss" has to be exactly this; needed
	Audiences []string `json:"audiences,omitempty"` // "aud" has to name one of them; empty = any
	JWKS      JWKS     `json:"jwks"`                // or a Secret
	Reading
	Skew    time.Duration `json:"skew,omitempty"`    // how far clocks may differ; 0 = 30 s
	Issuers []string      `json:"issuers,omitempty"` // further issuers that sign with the same keys

	Algorithms  []string      `json:"algorithms,omitempty"`  // only these; empty = all that the keys allow; of a secret HS256
	Secret      string        `json:"secret,omitempty"`      // name of the secret that signs (HS256, HS384, HS512), in the place of JWKS
	Types       []string      `json:"types,omitempty"`       // "typ" has to be one of them; empty = "JWT", "at+jwt", or none
	MaxLifetime time.Duration `json:"maxLifetime,omitempty"` // from "iat" to "exp"; 0 = any
	From        []From        `json:"from,omitempty"`        // empty = Authorization: Bearer
	Drop        bool          `json:"drop,omitempty"`        // backends are not shown the token
}

// Introspection accepts tokens that their issuer, asked about them, calls active (RFC 7662).
type Introspection struct {
	URL       string   `json:"url"`                 // https, or http to loopback
	Client    string   `json:"client"`              // who we are to the issuer
	Secret    string   `json:"secret"`              // name of the client's secret
	Issuer    string   `json:"issuer,omitempty"`    // "iss" has to be exactly this; empty = any
	Audiences []string `json:"audiences,omitempty"` // "aud" has to name one of them; empty = any
	Reading
	Skew  time.Duration `json:"skew,omitempty"`  // how far clocks may differ; 0 = 30 s
	Cache time.Duration `json:"cache,omitempty"` // how long a good answer holds; 0 = 1 minute, at most 1 hour
	From  []From        `json:"from,omitempty"`  // empty = Authorization: Bearer
	Drop  bool          `json:"drop,omitempty"`  // backends are not shown the token
}

// From is a place that a token is brought in: a header, a query parameter or a cookie.
type From struct {
	Header string `json:"header,omitempty"` // in lower case
	Prefix string `json:"prefix,omitempty"` // the word before the token in the header, and a space; letter case does not count
	Query  string `json:"query,omitempty"`
	Cookie string `json:"cookie,omitempty"`
}

// JWKS is where the public keys come from: exactly one of these.
type JWKS struct {
	URL      string `json:"url,omitempty"`      // https, or http to loopback
	Keys     []byte `json:"keys,omitempty"`     // a JWK set, JSON
	Discover bool   `json:"discover,omitempty"` // the URL is in the issuer's metadata (OpenID Connect Discovery, RFC 8414)
}

// OIDC logs browsers in at an OpenID Connect provider and accepts the sessions that follow: see package login.
type OIDC struct {
	Issuer     string            `json:"issuer"`
	Client     string            `json:"client"`
	Secret     string            `json:"secret"` // the name of the client's secret in [Table.Secrets]
	Scopes     []string          `json:"scopes,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"` // of the authorization request
	UserInfo   bool              `json:"userInfo,omitempty"`
	Reading
	Callback    string        `json:"callback,omitempty"`    // path; "" = login.DefaultCallback
	Logout      string        `json:"logout,omitempty"`      // path; "" = login.DefaultLogout
	AfterLogout string        `json:"afterLogout,omitempty"` // path
	Idle        time.Duration `json:"idle,omitempty"`        // without a request; 0 = 1 h
	Lifetime    time.Duration `json:"lifetime,omitempty"`    // in all; 0 = 12 h
	Cookie      string        `json:"cookie,omitempty"`      // name
	Port        uint16        `json:"port,omitempty"`        // that browsers use; 0 = the scheme's. Envoy strips it from the host
}

// PlanUse says whether requests count against their consumer's plan.
type PlanUse string

// The choices of PlanUse.
const (
	NoPlan       PlanUse = ""
	PlanOptional PlanUse = "optional"
	PlanRequired PlanUse = "required" // a consumer without one gets 403
)

// Consumer is a name for one or more identities.
type Consumer struct {
	Name       string   // no "/", so that it never equals an identity
	Plan       string   // goes before what a token says; empty: the token's
	Identities []string // "idp/alice"
	Keys       []Key
}

// Table is all that the service decides by. During a change it holds the old rules and the new: of several rules with
// one name the last is the current one.
type Table struct {
	Rules     []Rule
	Consumers []Consumer
	Secrets   map[string][]byte // what the providers name by reference: contents by name ("idp/client"), which no rule's ID tells of
}

// Counter counts requests against limits in the same call. The app wires it to the rate limit service.
type Counter interface {
	// Count answers all asks of a turn at once. The asks and the texts in them are its own only until it returns: what it
	// keeps it has to copy.
	Count(asks []*Ask)
}

// Ask is one request that wants to be counted.
type Ask struct {
	Limits  []string
	Plans   PlanUse
	Caller  Caller
	Verdict Verdict // the answer
}

// Caller is what limits may count by. Of a caller that is not identified only those limits count that go by IP and by
// nothing else: whoever has no token must not use up what others share, or what the name in a header has.
type Caller struct {
	Identified bool
	Consumer   string
	Plan       string // what the consumer has; empty: none that is known here
	Route      string // the rule's name
	Method     string
	Host       string
	Path       string // with the query
	Scheme     string
	IP         netip.Addr               // the client's, not a balancer's; not valid when unknown
	Header     func(name string) string // lower-case name; "" when absent
	Claim      func(path string) string // "" when absent or not identified
}

// Verdict is what the limits say.
type Verdict struct {
	Allowed bool
	Status  int         // of a refusal: 429, 403 without the plan that is required, or 503 when the count could not be had; else 429 is taken
	Headers [][2]string // for the answer, allowed or not
	Limit   string      // the limit that refused
	Shadow  string      // one in shadow that would have refused
}
