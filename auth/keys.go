package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// The bounds of a key set. A token without a kid is tried against no more than maxTries keys.
const (
	maxKeySet = 1 << 20
	maxKeys   = 64
	maxTries  = 4
	minRSA    = 2048
	maxRSA    = 8192
)

// ParseKeys tells whether b is a key set that may verify tokens, and if not, why. Keys that are for something else
// (encryption, algorithms that we do not know) are skipped, as RFC 7517 asks; one private or symmetric key, or a bad
// key among ours, refuses the whole set.
func ParseKeys(b []byte) error {
	_, err := parseKeySet(b)
	return err
}

// keySource is where a provider's keys come from: a [fixed] set or a [remote] one.
type keySource interface {
	keySet(now time.Time) *keySet // nil: not to be had now
	// missed is told of a token that names a key that the set does not have. What it returns is closed when there may be
	// another set; nil where that is not to be waited for.
	missed(now time.Time) <-chan struct{}
}

type fixed struct{ k *keySet }

func (f fixed) keySet(time.Time) *keySet         { return f.k }
func (f fixed) missed(time.Time) <-chan struct{} { return nil }

// keySet holds public keys that parseKeySet found sound; immutable.
type keySet struct {
	keys []*key
	sum  [sha256.Size]byte // of the text that it was read from
}

type key struct {
	kid    string
	algs   []string
	public any
}

func parseKeySet(b []byte) (*keySet, error) {
	if len(b) > maxKeySet {
		return nil, fmt.Errorf("key set: more than %d bytes", maxKeySet)
	}
	o, err := strictObject(b)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	list, ok := o["keys"].([]any)
	if !ok {
		return nil, errors.New(`key set: "keys" is not a list`)
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("key set: %d keys, more than %d", len(list), maxKeys)
	}
	set := &keySet{sum: sha256.Sum256(b)}
	for i, v := range list {
		members, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("key set: key %d is not an object", i+1)
		}
		k, err := parseKey(members)
		if err != nil {
			return nil, fmt.Errorf("key set: key %d: %w", i+1, err)
		}
		if k == nil {
			continue
		}
		if k.kid != "" && slices.ContainsFunc(set.keys, func(o *key) bool { return o.kid == k.kid }) {
			return nil, fmt.Errorf("key set: key %d: its kid stands twice", i+1)
		}
		set.keys = append(set.keys, k)
	}
	if len(set.keys) == 0 {
		return nil, errors.New("key set: no key that can verify a signature")
	}
	return set, nil
}

// ErrPrivateKey is what [ParseKeys] wraps when a key set gives away what signs tokens.
var ErrPrivateKey = errors.New("is a private or symmetric key; publish only public ones")

// parseKey returns nil for a key that is for something else.
func parseKey(m map[string]any) (*key, error) {
	for _, secret := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
		if _, ok := m[secret]; ok {
			return nil, ErrPrivateKey
		}
	}
	text := map[string]string{}
	for _, name := range []string{"kty", "use", "alg", "crv", "kid"} {
		v, ok := m[name]
		if text[name], _ = v.(string); ok && text[name] == "" {
			return nil, fmt.Errorf("%q is not a text, or empty", name)
		}
	}
	kty, alg, crv := text["kty"], text["alg"], text["crv"]
	if kty == "" || kty == "oct" {
		return nil, errors.New("has no type, or is a symmetric key")
	}
	if use := text["use"]; use != "" && use != "sig" {
		return nil, nil
	}
	if v, ok := m["key_ops"]; ok {
		ops, list := v.([]any)
		if !list {
			return nil, errors.New(`"key_ops" is not a list`)
		}
		if !slices.Contains(ops, any("verify")) {
			return nil, nil
		}
	}
	if need, ok := algorithms[alg]; ok && (need.kty != kty || need.crv != crv) {
		return nil, fmt.Errorf("alg %s does not fit kty %.16q and crv %.16q", alg, kty, crv)
	}
	k := &key{kid: text["kid"]}
	for name, need := range algorithms {
		if need.kty == kty && need.crv == crv && (alg == "" || alg == name) {
			k.algs = append(k.algs, name)
		}
	}
	if len(k.algs) == 0 {
		return nil, nil
	}
	var err error
	k.public, err = publicKey(kty, crv, m)
	return k, err
}

// publicKey hands only the members that make the key to the library, in canonical form: certificates and what else
// stands beside them are of no use here.
func publicKey(kty, crv string, m map[string]any) (any, error) {
	need := map[string][]string{"RSA": {"n", "e"}, "EC": {"x", "y"}, "OKP": {"x"}}[kty]
	reduced := map[string]string{"kty": kty}
	if crv != "" {
		reduced["crv"] = crv
	}
	numbers := map[string]*big.Int{}
	for _, name := range need {
		s, _ := m[name].(string)
		b, err := base64.RawURLEncoding.Strict().DecodeString(s)
		if err != nil || len(b) == 0 || base64.RawURLEncoding.EncodeToString(b) != s {
			return nil, fmt.Errorf("%q is not base64url", name)
		}
		reduced[name], numbers[name] = s, new(big.Int).SetBytes(b)
	}
	if kty == "RSA" {
		if err := checkRSA(numbers["n"], numbers["e"]); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(reduced)
	if err != nil {
		return nil, err
	}
	parsed, err := jwk.ParseKey(b)
	if err != nil {
		return nil, errBadKey
	}
	var public any
	if err := jwk.Export(parsed, &public); err != nil {
		return nil, errBadKey
	}
	if p, ok := public.(*ecdsa.PublicKey); ok {
		if _, err := p.ECDH(); err != nil {
			return nil, errors.New("its point is not on its curve")
		}
	}
	return public, nil
}

var errBadKey = errors.New("is not a valid public key") // the library's words could repeat what it read

func checkRSA(n, e *big.Int) error {
	switch bits := n.BitLen(); {
	case bits < minRSA || bits > maxRSA:
		return fmt.Errorf("RSA with %d bits; %d to %d are accepted", bits, minRSA, maxRSA)
	case n.Bit(0) == 0:
		return errors.New("RSA with an even modulus")
	case e.BitLen() < 2 || e.BitLen() > 31 || e.Bit(0) == 0:
		return errors.New("RSA with a bad exponent")
	case roca(n):
		return errors.New("RSA key of the ROCA kind (CVE-2017-15361): its private half can be computed")
	}
	return nil
}

// roca tells keys that one maker's chips made: modulo every small prime, their modulus is a power of 65537. A sound
// key is taken for one with a chance of about 2^-27 or less.
func roca(n *big.Int) bool {
	for p := int64(3); p <= 167; p += 2 {
		prime := big.NewInt(p)
		if !prime.ProbablyPrime(0) {
			continue
		}
		residue, power, found := new(big.Int).Mod(n, prime).Int64(), int64(1), false
		for range p {
			found = found || power == residue
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}

// verify tells whether one of the keys that fit the token signed it.
func (s *keySet) verify(t *token) error {
	tries := 0
	for _, k := range s.keys {
		if t.kid != "" && t.kid != k.kid {
			continue
		}
		if !slices.Contains(k.algs, t.alg) {
			if t.kid != "" {
				return errAlgorithm
			}
			continue
		}
		if tries++; tries > maxTries {
			return errKey
		}
		if k.signed(t) {
			return nil
		}
		if t.kid != "" {
			return errSignature
		}
	}
	return errKey
}

func (k *key) signed(t *token) bool {
	alg, ok := jwa.LookupSignatureAlgorithm(t.alg)
	if !ok {
		return false
	}
	payload, err := jws.Verify([]byte(t.raw), jws.WithCompact(), jws.WithCritValidation(true), jws.WithKey(alg, k.public))
	return err == nil && bytes.Equal(payload, t.payload)
}
