package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unsafe"
)

// maxSkew is how far clocks may differ at most.
const maxSkew = 10 * time.Minute

// tokens is the way of a [JWT].
type tokens struct {
	*provider
	terms
	issuers    []string
	algorithms []string
	types      []string // "" = none is said
	places     places
	drop       bool // the backend isn't shown the token
	source     keySource
	cache      *cache
}

func compileJWT(c *compiler, p Provider, to *provider) (_ way, err error) {
	j := p.JWT
	if j.Issuer == "" || slices.Contains(j.Issuers, "") {
		return nil, errors.New("has no issuer")
	}
	w := &tokens{provider: to, issuers: append([]string{j.Issuer}, j.Issuers...), types: accessTypes, cache: newCache()}
	if w.algorithms, err = algorithmsOf(j); err != nil {
		return nil, err
	}
	if w.source, err = c.keysOf(j, w.algorithms); err != nil {
		return nil, err
	}
	if len(j.Types) > 0 {
		w.types = nil
	}
	for _, t := range j.Types {
		if t == "" {
			return nil, errors.New("a type is empty")
		}
		w.types = append(w.types, plainType(t))
	}
	if w.terms, err = newTerms(j.Audiences, j.Skew, j.MaxLifetime); err != nil {
		return nil, err
	}
	if w.places, err = newPlaces(j.From); err != nil {
		return nil, err
	}
	w.drop = j.Drop
	to.reading, err = newReading(j.Reading)
	return w, err
}

// algorithmsOf is what a provider takes: algorithms of keys or of a secret. Of both at once one could be taken for the
// other.
func algorithmsOf(j *JWT) ([]string, error) {
	if j.Secret == "" {
		if len(j.Algorithms) == 0 {
			return slices.Sorted(maps.Keys(algorithms)), nil
		}
		for _, a := range j.Algorithms {
			if _, ok := algorithms[a]; !ok {
				return nil, fmt.Errorf("the algorithm %q is none of a key", a)
			}
		}
		return j.Algorithms, nil
	}
	if len(j.Algorithms) == 0 {
		return []string{"HS256"}, nil
	}
	for _, a := range j.Algorithms {
		if _, ok := secretAlgorithms[a]; !ok {
			return nil, fmt.Errorf("the algorithm %q is none of a secret", a)
		}
	}
	return j.Algorithms, nil
}

// keysOf is where the keys of the tokens come from.
func (c *compiler) keysOf(j *JWT, algs []string) (keySource, error) {
	if j.Secret == "" {
		if j.JWKS.Discover && len(j.Issuers) > 0 {
			return nil, errors.New("discovery is of one issuer")
		}
		return c.source(j.JWKS, j.Issuer)
	}
	if j.JWKS.URL != "" || len(j.JWKS.Keys) > 0 || j.JWKS.Discover {
		return nil, errors.New("has both keys and a secret")
	}
	secret, err := c.secret(j.Secret)
	if err != nil {
		return nil, err
	}
	if need := SecretBytes(algs); len(secret) < need {
		return nil, fmt.Errorf("%w: it has fewer than %d bytes", errNoSecret, need)
	}
	return fixed{secretKeys(slices.Clone(secret), algs)}, nil
}

// SecretBytes is how many bytes a secret has to have at least for all of these algorithms.
func SecretBytes(algs []string) int {
	need := secretAlgorithms["HS256"]
	for _, a := range algs {
		need = max(need, secretAlgorithms[a])
	}
	return need
}

// Algorithms are the names of all algorithms that keys verify, sorted; SecretAlgorithms those of shared secrets.
func Algorithms() []string { return slices.Sorted(maps.Keys(algorithms)) }

// SecretAlgorithms are the names of all algorithms of shared secrets, sorted.
func SecretAlgorithms() []string { return slices.Sorted(maps.Keys(secretAlgorithms)) }

// same keeps the verified tokens, unless the keys come from elsewhere: a URL that was dropped in between has new ones,
// and so has a secret that was changed.
func (w *tokens) same(other way) bool {
	o, ok := other.(*tokens)
	if !ok {
		return false
	}
	mine, inline := w.source.(fixed)
	theirs, inline2 := o.source.(fixed)
	if inline && inline2 {
		return mine.k.sum == theirs.k.sum
	}
	return w.source == o.source
}

func (w *tokens) hides() []From {
	if w.drop {
		return w.places.all()
	}
	return nil
}

func (w *tokens) challenge() string { return `Bearer realm="` + w.name + `"` }

// look finds a token that was seen before. One that passes the gate and is new has to be verified.
func (w *tokens) look(d *decision, now time.Time) finding {
	raw, err := w.places.read(d)
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
	j := &judging{tokens: w, unverified: u}
	for _, c := range atOnce {
		if err := c.run(j, now); err != nil {
			return finding{err: err}
		}
	}
	return finding{work: j}
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

// judging is a token on its way over the hurdles; it is the work on it.
type judging struct {
	*tokens
	*unverified
	keys    *keySet
	expires time.Time
	grant   *grant
}

// A hurdle is one thing that a token has to pass after the gate.
type hurdle struct {
	name string
	run  func(j *judging, now time.Time) error
}

// The hurdles, in their order: those that cost nothing, and the others.
var (
	atOnce = []hurdle{
		{"type", (*judging).checkType},
		{"algorithm", (*judging).checkAlgorithm},
		{"issuer", (*judging).checkIssuer},
	}
	withKeys = []hurdle{
		{"keys", (*judging).checkKeys},
		{"signature", (*judging).checkSignature},
		{"audience", (*judging).checkAudience},
		{"times", (*judging).checkTimes},
		{"consumer", (*judging).checkConsumer},
	}
)

func (*judging) waits() bool { return false }

func (j *judging) do(_ context.Context, now time.Time) finding {
	if g := j.cached(&j.sum, now); g != nil { // another request has brought it meanwhile
		return finding{grant: g}
	}
	f := j.judge(now)
	if f.err == error(errKey) {
		if soon := j.source.missed(now); soon != nil && j.worthWaiting(now) {
			return finding{work: keyComing{j, soon}}
		}
	}
	return f
}

func (j *judging) judge(now time.Time) finding {
	for _, c := range withKeys {
		if err := c.run(j, now); err != nil {
			return finding{err: err}
		}
	}
	j.cache.put(&verified{sum: j.sum, keys: j.keys, grant: j.grant})
	return finding{grant: j.grant}
}

// worthWaiting tells whether a token whose key is not known claims what would be accepted.
func (j *judging) worthWaiting(now time.Time) bool {
	return j.checkAudience(now) == nil && j.checkTimes(now) == nil
}

// keyComing is the work on a token whose key may come with a fetch that is about to begin.
type keyComing struct {
	token   *judging
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
	return k.token.judge(time.Now())
}

func (j *judging) checkType(time.Time) error {
	if !slices.Contains(j.types, j.token.typ) {
		return errType
	}
	return nil
}

// checkAlgorithm comes before any key is looked at, so that a key never meets an algorithm that it is not for.
func (j *judging) checkAlgorithm(time.Time) error {
	if !slices.Contains(j.algorithms, j.token.alg) {
		return errAlgorithm
	}
	return nil
}

func (j *judging) checkIssuer(time.Time) error {
	if iss, _ := j.claims["iss"].(string); !slices.Contains(j.issuers, iss) {
		return errIssuer
	}
	return nil
}

func (j *judging) checkKeys(now time.Time) error {
	if j.keys = j.source.keySet(now); j.keys == nil {
		return denyNoKeys
	}
	return nil
}

func (j *judging) checkSignature(time.Time) error {
	return j.keys.verify(j.token)
}

func (j *judging) checkAudience(time.Time) error {
	if err := j.claims.checkAudience(j.audiences); err != nil {
		return err
	}
	return j.claims.checkSubject()
}

func (j *judging) checkTimes(now time.Time) (err error) {
	j.expires, err = j.claims.checkTimes(&j.terms, now)
	return err
}

func (j *judging) checkConsumer(time.Time) (err error) {
	if j.grant, err = j.newGrant(j.claims, j.expires); err != nil {
		return err
	}
	j.grant.marks = append(j.grant.marks, tokenMark(j.token.raw))
	return nil
}

// sumOf is the hash by which a token is known; it only reads.
func sumOf(raw string) [sha256.Size]byte {
	return sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw)))
}
