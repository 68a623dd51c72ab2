package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
)

func TestKeySetsAreChecked(t *testing.T) {
	weak := strings.Repeat("_", 170) + "w" // 1,024 bits
	p384 := newPair("p384", must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)))
	good := rsaPair().jwk()
	many := func(n int) []byte {
		var keys []map[string]any
		for i := range n {
			keys = append(keys, ecPair().with("kid", fmt.Sprint(i)))
		}
		return jwks(keys...)
	}
	for _, test := range []struct {
		name string
		set  []byte
		why  string // "" = accepted
	}{
		{"all types", jwks(good, ecPair().jwk(), ed25519Pair().jwk(), p384.jwk()), ""},
		{"no kid", jwks(rsaPair().without("kid")), ""},
		{"two without kid", jwks(rsaPair().without("kid"), ecPair().without("kid")), ""},
		{"with alg", jwks(rsaPair().with("alg", "PS512")), ""},
		{"with certificates", jwks(rsaPair().with("x5c", []string{"garbage"})), ""},
		{"encryption beside", jwks(good, rsaOther().with("use", "enc")), ""},
		{"encryption by alg beside", jwks(good, rsaOther().with("alg", "RSA-OAEP")), ""},
		{"unknown type beside", jwks(good, map[string]any{"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}), ""},
		{"operations", jwks(rsaPair().with("key_ops", []string{"verify"})), ""},
		{"64 keys", many(64), ""},
		{"65 keys", many(65), "65 keys"},
		{"too large", append(jwks(good), bytes.Repeat([]byte(" "), maxKeySet)...), "more than"},
		{"nothing", nil, "JSON"},
		{"garbage", []byte("<html>"), "JSON"},
		{"one bare key", []byte(`{"kty":"RSA"}`), `"keys"`},
		{"empty", []byte(`{"keys":[]}`), "no key"},
		{"null key", []byte(`{"keys":[null]}`), "not an object"},
		{"name twice", []byte(`{"keys":[],"keys":[]}`), "JSON"},
		{"only encryption", jwks(rsaPair().with("use", "enc")), "no key"},
		{"only other operations", jwks(rsaPair().with("key_ops", []string{"encrypt"})), "no key"},
		{"operations no list", jwks(rsaPair().with("key_ops", "verify")), "key_ops"},
		{"no type", jwks(rsaPair().without("kty")), "no type"},
		{"type number", jwks(rsaPair().with("kty", 1)), "kty"},
		{"kid empty", jwks(rsaPair().with("kid", "")), "kid"},
		{"private", jwks(rsaPair().with("d", "AA")), "private"},
		{"private for encryption", jwks(good, rsaOther().with("use", "enc"), ecPair().with("d", "AA")), "private"},
		{"symmetric", jwks(good, map[string]any{"kty": "oct", "k": "AAAA"}), "symmetric"},
		{"symmetric without k", jwks(map[string]any{"kty": "oct"}), "symmetric"},
		{"kid twice", jwks(good, ecPair().with("kid", "rsa-1")), "twice"},
		{"kid number", jwks(rsaPair().with("kid", 1)), "kid"},
		{"weak", jwks(rsaPair().with("n", weak)), "1024 bits"},
		{"exponent 1", jwks(rsaPair().with("e", "AQ")), "exponent"},
		{"exponent even", jwks(rsaPair().with("e", "Ag")), "exponent"},
		{"padded", jwks(rsaPair().with("e", "AQAB=")), "base64url"},
		{"no modulus", jwks(rsaPair().without("n")), "base64url"},
		{"alg of another type", jwks(rsaPair().with("alg", "ES256")), "does not fit"},
		{"alg of another curve", jwks(p384.with("alg", "ES256")), "does not fit"},
		{"alg HMAC", jwks(rsaPair().with("alg", "HS256")), "no key"},
		{"alg none", jwks(rsaPair().with("alg", "none")), "no key"},
		{"point off its curve", jwks(ecPair().with("y", ecPair().jwk()["x"])), "not"},
		{"curve swapped", jwks(ecPair().with("crv", "P-384")), "not"},
		{"short Ed25519", jwks(ed25519Pair().with("x", "AAAA")), "not"},
	} {
		err := ParseKeys(test.set)
		if (err == nil) != (test.why == "") || err != nil && !strings.Contains(err.Error(), test.why) {
			t.Errorf("%s: %v, want %q", test.name, err, test.why)
		}
	}
}

func TestKeyIsChosenByKidAndAlgorithm(t *testing.T) {
	var crowd []map[string]any
	for range maxTries {
		crowd = append(crowd, rsaOther().without("kid"))
	}
	noKid := rsaPair()
	noKid.kid = ""
	for _, test := range []struct {
		name string
		keys []byte
		pair keyPair
		want error
	}{
		{"by kid", jwks(rsaOther().jwk(), rsaPair().jwk()), rsaPair(), nil},
		{"unknown kid", jwks(rsaOther().jwk()), rsaPair(), errKey},
		{"kid against keys without", jwks(rsaPair().without("kid")), rsaPair(), errKey},
		{"kid of another key", jwks(rsaOther().with("kid", "rsa-1")), rsaPair(), errSignature},
		{"other algorithm", jwks(rsaPair().with("alg", "RS512")), rsaPair(), errAlgorithm},
		{"no kid", jwks(ecPair().jwk(), rsaOther().jwk(), rsaPair().jwk()), noKid, nil},
		{"no kid, none fits", jwks(ecPair().jwk()), noKid, errKey},
		{"no kid, too many to try", jwks(append(crowd, rsaPair().jwk())...), noKid, errKey},
		{"no kid, last try", jwks(append(crowd[1:], rsaPair().jwk())...), noKid, nil},
	} {
		set, err := parseKeySet(test.keys)
		if err != nil {
			t.Fatal(test.name, err)
		}
		token, err := parseToken(test.pair.sign(t, goodClaims(nil)))
		if err != nil {
			t.Fatal(test.name, err)
		}
		if got := set.verify(token); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
