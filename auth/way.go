package auth

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// provider is a compiled [Provider].
type provider struct {
	name    string
	kind    string // "jwt"
	reading reading
	way     way
	allowed prometheus.Counter
	content string // what it was compiled of
}

// way is how a provider tells who calls. A new one is a file of its own and a line in kinds.
type way interface {
	// look reads the credential that a request brings for this way, as far as that takes no time to speak of. The zero
	// finding says that it brings none.
	look(d *decision, now time.Time) finding
	// challenge is what a caller without credentials is told in WWW-Authenticate (RFC 9110, 11.6.1): `Bearer realm="idp"`,
	// empty for nothing.
	challenge() string
	// same tells whether other, made of the same [Provider] by a later Load, would judge alike: then this one stays, and
	// with it what it remembers.
	same(other way) bool
}

// hider is a way whose credentials the backend isn't shown, whoever the caller is found to be.
type hider interface{ hides() []From }

// keeper is a way that keeps cookies of its own in browsers, which the backend isn't shown either.
type keeper interface {
	others(cookies string) string // a Cookie header without them
}

// shut is the way of a provider that lacks what it needs to judge anyone.
type shut struct{}

func (shut) look(*decision, time.Time) finding { return finding{err: denyNoSecret} }
func (shut) challenge() string                 { return "" }
func (shut) same(way) bool                     { return false }

// finding is what a way says of a request; at most one of grant, err and work.
type finding struct {
	grant *grant
	err   error // what is wrong with the credential: a *refusal, or a *denial where nothing could be decided
	work  work  // to be done before more is known

	answer *response // is given in the place of a refusal, or of a pass: a redirect, a page
}

// work is what takes time: a signature, a trip to somewhere else.
type work interface {
	// waits tells whether do waits for others (Redis, the network). What only computes goes on in place.
	waits() bool
	// do returns when ctx ends, at the latest: with its error, of which a 503 becomes.
	do(ctx context.Context, now time.Time) finding
}

// response is an HTTP answer that stops the request, in the place of a denial's own.
type response struct {
	status  int
	headers []pair
	body    string
}

// reading is a compiled [Reading].
type reading struct {
	consumer string // claim
	plan     string // claim; "" = none
	headers  []claimHeader
}

type claimHeader struct{ name, claim string }

// grant is what an accepted credential gives; immutable, but for fine.
type grant struct {
	expires  time.Time // zero: never
	issued   time.Time // zero: not known, so that it is older than any revocation of its identity
	marks    []string  // the names of further revocations that stop it: "jti:idp/7"
	provider string
	identity string // provider/value
	consumer string // whom the credential was made for, one that the table has; "" = the one that has the identity
	plan     string // "" = none
	claims   claims
	headers  []pair
	wire     []byte                // headers, as they stand in an OkHttpResponse
	fine     atomic.Pointer[stamp] // of the revocations by which it was last found good
}

// newGrant reads claims that were found good.
func (p *provider) newGrant(c claims, expires time.Time) (*grant, error) {
	value := c.name(p.reading.consumer)
	if value == "" {
		return nil, errConsumer
	}
	g := &grant{expires: expires, provider: p.name, identity: p.name + "/" + value, plan: c.plan(p.reading.plan), claims: c}
	if at, set, ok := c.date("iat"); set && ok {
		g.issued = at
	}
	if jti, ok := c["jti"].(string); ok {
		g.marks = append(g.marks, "jti:"+p.name+"/"+jti)
	}
	for _, h := range p.reading.headers {
		if v := c.text(h.claim); v != "" {
			g.headers = append(g.headers, pair{name: h.name, value: v})
			g.wire = appendHeader(g.wire, okHeaders, h.name, v)
		}
	}
	return g, nil
}
