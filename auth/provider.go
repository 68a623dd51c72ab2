package auth

import (
	"crypto/sha256"
	"sync/atomic"
	"time"
)

// provider is a compiled [Provider].
type provider struct {
	name      string
	issuer    string
	audiences []string
	consumer  string // claim
	plan      string // claim; "" = none
	headers   []claimHeader
	skew      time.Duration
	source    keySource
	cache     *cache
}

type claimHeader struct{ name, claim string }

// grant is what a verified token gives; immutable.
type grant struct {
	sum      [sha256.Size]byte // of the token
	keys     *keySet           // that verified it; the grant ends with the set
	expires  time.Time
	provider string
	identity string // provider/value
	plan     string // "" = none
	claims   claims
	headers  []pair
	wire     []byte // headers, as they stand in an OkHttpResponse
}

// cached finds the grant of a token that was seen before.
func (p *provider) cached(sum *[sha256.Size]byte, now time.Time) *grant {
	g := p.cache.get(sum)
	if g == nil || !now.Before(g.expires) || g.keys != p.source.keySet(now) {
		return nil
	}
	return g
}

// verify checks a token that passed the gate. It returns errNoKeys when there are no keys to check it with.
func (p *provider) verify(t *token, c claims, sum [sha256.Size]byte, now time.Time) (*grant, error) {
	if iss, _ := c["iss"].(string); iss != p.issuer {
		return nil, errIssuer
	}
	keys := p.source.keySet(now)
	if keys == nil {
		return nil, errNoKeys
	}
	if err := keys.verify(t); err != nil {
		if err == errKey {
			p.source.missed()
		}
		return nil, err
	}
	expires, err := c.check(p, now)
	if err != nil {
		return nil, err
	}
	value := c.name(p.consumer)
	if value == "" {
		return nil, errConsumer
	}
	g := &grant{sum: sum, keys: keys, expires: expires, provider: p.name, identity: p.name + "/" + value, plan: c.plan(p.plan), claims: c}
	for _, h := range p.headers {
		if v := c.text(h.claim); v != "" {
			g.headers = append(g.headers, pair{name: h.name, value: v})
			g.wire = appendHeader(g.wire, okHeaders, h.name, v)
		}
	}
	p.cache.put(g)
	return g, nil
}

// The cache holds at most cacheSets × cacheWays grants of a provider.
const (
	cacheSets = 2048
	cacheWays = 4
)

// cache holds verified tokens without locks: a token has cacheWays places that its hash gives.
type cache struct {
	places [cacheSets * cacheWays]atomic.Pointer[grant]
	turn   atomic.Uint32
}

func newCache() *cache { return &cache{} }

func (c *cache) set(sum *[sha256.Size]byte) []atomic.Pointer[grant] {
	i := (int(sum[0]) | int(sum[1])<<8) % cacheSets * cacheWays
	return c.places[i : i+cacheWays]
}

func (c *cache) get(sum *[sha256.Size]byte) *grant {
	if c == nil {
		return nil
	}
	for i := range c.set(sum) {
		if g := c.set(sum)[i].Load(); g != nil && g.sum == *sum {
			return g
		}
	}
	return nil
}

// put takes the token's own place, a free one, one whose grant came from an older key set or expires first.
func (c *cache) put(g *grant) {
	if c == nil {
		return
	}
	places := c.set(&g.sum)
	victim := &places[c.turn.Add(1)%cacheWays]
	for i := range places {
		old := places[i].Load()
		if old == nil || old.sum == g.sum || old.keys != g.keys {
			victim = &places[i]
			if old != nil && old.sum == g.sum {
				break
			}
		}
	}
	victim.Store(g)
}
