package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"
	"unsafe"
)

// maxSkew is how far clocks may differ at most.
const maxSkew = 10 * time.Minute

// tokens is the way of a [JWT].
type tokens struct {
	*provider
	issuers   []string
	audiences []string
	skew      time.Duration
	source    keySource
	cache     *cache
}

func compileJWT(c *compiler, p Provider, to *provider) (_ way, err error) {
	j := p.JWT
	if j.Issuer == "" || slices.Contains(j.Issuers, "") {
		return nil, errors.New("has no issuer")
	}
	w := &tokens{provider: to, issuers: append([]string{j.Issuer}, j.Issuers...), audiences: slices.Clone(j.Audiences), skew: j.Skew, cache: newCache()}
	if w.source, err = c.source(j.JWKS); err != nil {
		return nil, err
	}
	if w.skew == 0 {
		w.skew = 30 * time.Second
	}
	if w.skew < 0 || w.skew > maxSkew {
		return nil, errors.New("skew must lie between 0 and 10m")
	}
	to.reading, err = newReading(j.Reading)
	return w, err
}

// same keeps the verified tokens, unless the keys come from elsewhere: a URL that was dropped in between has new ones.
func (w *tokens) same(other way) bool {
	o, ok := other.(*tokens)
	if !ok {
		return false
	}
	_, inline := w.source.(fixed)
	return inline || w.source == o.source
}

func (w *tokens) challenge() string { return `Bearer realm="` + w.name + `"` }

// look finds a token that was seen before. One that passes the gate and is new has to be verified.
func (w *tokens) look(d *decision, now time.Time) finding {
	raw, err := d.bearer()
	if raw == "" || err != nil {
		return finding{err: err}
	}
	sum := d.tokenSum(raw)
	if g := w.cached(sum, now); g != nil {
		d.hits++
		return finding{grant: g}
	}
	d.misses++
	u, err := d.parseToken(raw)
	if err != nil {
		return finding{err: err}
	}
	return finding{work: &verification{w, u}}
}

// cached finds the grant of a token that was seen before.
func (w *tokens) cached(sum *[sha256.Size]byte, now time.Time) *grant {
	v := w.cache.get(sum)
	if v == nil || !now.Before(v.grant.expires) || v.keys != w.source.keySet(now) {
		return nil
	}
	return v.grant
}

// unverified is a token that passed the gate, and what it claims.
type unverified struct {
	token  *token
	claims claims
	sum    [sha256.Size]byte
}

// verification is the work on a token.
type verification struct {
	by *tokens
	*unverified
}

func (verification) waits() bool { return false }

func (v verification) do(_ context.Context, now time.Time) finding {
	if g := v.by.cached(&v.sum, now); g != nil { // another request has brought it meanwhile
		return finding{grant: g}
	}
	g, err := v.by.verify(v.unverified, now)
	if err == errKey {
		if soon := v.by.source.missed(now); soon != nil && v.by.worthWaiting(v.claims, now) {
			return finding{work: keyComing{v, soon}}
		}
	}
	return finding{grant: g, err: err}
}

// worthWaiting tells whether a token whose key is not known claims what would be accepted.
func (w *tokens) worthWaiting(c claims, now time.Time) bool {
	_, err := c.check(w, now)
	return err == nil
}

// keyComing is the work on a token whose key may come with a fetch that is about to begin.
type keyComing struct {
	verification
	fetched <-chan struct{}
}

func (keyComing) waits() bool { return true }

func (k keyComing) do(ctx context.Context, _ time.Time) finding {
	patience := time.NewTimer(missedWait)
	defer patience.Stop()
	select {
	case <-k.fetched:
	case <-patience.C:
	case <-ctx.Done():
	}
	g, err := k.by.verify(k.unverified, time.Now())
	return finding{grant: g, err: err}
}

// verify checks a token that passed the gate.
func (w *tokens) verify(u *unverified, now time.Time) (*grant, error) {
	if !w.issued(u.claims) {
		return nil, errIssuer
	}
	keys := w.source.keySet(now)
	if keys == nil {
		return nil, denyNoKeys
	}
	if err := keys.verify(u.token); err != nil {
		return nil, err
	}
	expires, err := w.judge(u, now)
	if err != nil {
		return nil, err
	}
	g, err := w.newGrant(u.claims, expires)
	if err != nil {
		return nil, err
	}
	g.marks = append(g.marks, tokenMark(u.token.raw))
	w.cache.put(&verified{sum: u.sum, keys: keys, grant: g})
	return g, nil
}

func (w *tokens) issued(c claims) bool {
	iss, _ := c["iss"].(string)
	return slices.Contains(w.issuers, iss)
}

// judge tells whether a token whose signature is good is for us, and now.
func (w *tokens) judge(u *unverified, now time.Time) (expires time.Time, err error) {
	if !w.issued(u.claims) {
		return time.Time{}, errIssuer
	}
	return u.claims.check(w, now)
}

// sumOf is the hash by which a token is known; it only reads.
func sumOf(raw string) [sha256.Size]byte {
	return sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw)))
}
