// Package tokentest is a catalogue of hostile tokens and of requests that bring them, each with the answer that it is to
// get. The tests of auth read it, and those of the whole, through the real Envoy.
package tokentest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"sync"
)

// What the rule under test has to accept: tokens of this issuer for this audience, by the keys of [JWKS].
const (
	Issuer   = "https://id.hostile.test/"
	Audience = "orders"
)

// The keys of the issuer, by their kid, and those that it has not published.
var (
	rsaKey   = sync.OnceValue(newRSA)                                                     // rsa-1, for RS256 alone
	ecKey    = sync.OnceValue(func() *ecdsa.PrivateKey { return newEC(elliptic.P256()) }) // ec-1
	ec384Key = sync.OnceValue(func() *ecdsa.PrivateKey { return newEC(elliptic.P384()) }) // ec-2
	edKey    = sync.OnceValue(newEd)                                                      // ed-1
	stranger = sync.OnceValue(newRSA)                                                     // published by somebody else
)

func newRSA() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) }

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(curve, rand.Reader))
}

func newEd() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// JWKS is the issuer's key set.
func JWKS() []byte {
	return must(json.Marshal(map[string]any{"keys": []any{rsaJWK("rsa-1", &rsaKey().PublicKey), ecJWK("ec-1", ecKey()), ecJWK("ec-2", ec384Key()), edJWK()}}))
}

// StrangersJWKS is the key set of somebody else, whose tokens another rule may accept.
func StrangersJWKS() []byte {
	return must(json.Marshal(map[string]any{"keys": []any{rsaJWK("stranger-1", &stranger().PublicKey)}}))
}

func rsaJWK(kid string, k *rsa.PublicKey) map[string]any {
	return map[string]any{
		"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256",
		"n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes()),
	}
}

func ecJWK(kid string, k *ecdsa.PrivateKey) map[string]any {
	point := must(k.PublicKey.Bytes())[1:] // after the mark of its form
	crv := map[elliptic.Curve]string{elliptic.P256(): "P-256", elliptic.P384(): "P-384"}[k.Curve]
	return map[string]any{"kty": "EC", "kid": kid, "use": "sig", "crv": crv, "x": b64(point[:len(point)/2]), "y": b64(point[len(point)/2:])}
}

func edJWK() map[string]any {
	return map[string]any{"kty": "OKP", "kid": "ed-1", "use": "sig", "crv": "Ed25519", "x": b64([]byte(edKey().Public().(ed25519.PublicKey)))}
}

func b64[T string | []byte](v T) string { return base64.RawURLEncoding.EncodeToString([]byte(v)) }

// signer makes the signature of a text; a compact token is such a text and its signature.
type signer func(text []byte) []byte

// signed is the compact token of a header and a payload as they are written.
func signed(header, payload string, by signer) string {
	text := b64(header) + "." + b64(payload)
	return text + "." + b64(by([]byte(text)))
}

func rs256(text []byte) []byte { return pkcs1(rsaKey(), text) }

func strangers(text []byte) []byte { return pkcs1(stranger(), text) }

func pkcs1(k *rsa.PrivateKey, text []byte) []byte {
	sum := sha256.Sum256(text)
	return must(rsa.SignPKCS1v15(nil, k, crypto.SHA256, sum[:]))
}

func rs512(text []byte) []byte {
	sum := sha512.Sum512(text)
	return must(rsa.SignPKCS1v15(nil, rsaKey(), crypto.SHA512, sum[:]))
}

func ps256(text []byte) []byte {
	sum := sha256.Sum256(text)
	return must(rsa.SignPSS(rand.Reader, rsaKey(), crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
}

func eddsa(text []byte) []byte { return ed25519.Sign(edKey(), text) }

// es256 is r and s of 32 bytes each.
func es256(text []byte) []byte { return ecSignature(ecKey(), text, 32) }

func es384(text []byte) []byte {
	sum := sha512.Sum384(text)
	r, s := must2(ecdsa.Sign(rand.Reader, ec384Key(), sum[:]))
	return fixed(r, s, 48)
}

func ecSignature(k *ecdsa.PrivateKey, text []byte, size int) []byte {
	sum := sha256.Sum256(text)
	r, s := must2(ecdsa.Sign(rand.Reader, k, sum[:]))
	return fixed(r, s, size)
}

// fixed is r and s of so many bytes each.
func fixed(r, s *big.Int, size int) []byte {
	both := make([]byte, 2*size)
	r.FillBytes(both[:size])
	s.FillBytes(both[size:])
	return both
}

func must2[T any](a, b T, err error) (T, T) {
	if err != nil {
		panic(err)
	}
	return a, b
}

// hs256 signs with a shared secret.
func hs256[T string | []byte](secret T) signer {
	return func(text []byte) []byte {
		h := hmac.New(sha256.New, []byte(secret))
		h.Write(text)
		return h.Sum(nil)
	}
}

// bytes is always the same signature.
func bytes[T string | []byte](b T) signer { return func([]byte) []byte { return []byte(b) } }

// changed is a good signature after a change.
func changed(good signer, change func([]byte) []byte) signer {
	return func(text []byte) []byte { return change(good(text)) }
}
