package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v3/jwk"
)

func TestSignMakesTokensThatPass(t *testing.T) {
	p521 := newPair("p521", must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)))
	for alg, pair := range map[string]keyPair{"RS256": rsaPair(), "ES256": ecPair(), "EdDSA": ed25519Pair(), "ES512": p521} {
		private := must(jwk.Import(pair.private))
		if err := private.Set(jwk.KeyIDKey, pair.kid); err != nil {
			t.Fatal(err)
		}
		for form, key := range map[string][]byte{"PEM": pair.pem, "JWK": must(json.Marshal(private))} {
			kid := pair.kid
			if form == "JWK" {
				kid = "" // its own is taken
			}
			signed, err := Sign(key, goodClaims(nil), kid)
			if err != nil {
				t.Errorf("%s %s: %v", alg, form, err)
				continue
			}
			token, err := parseToken(signed)
			if err != nil || token.alg != alg || token.kid != pair.kid {
				t.Errorf("%s %s: %+v %v", alg, form, token, err)
				continue
			}
			if err := must(parseKeySet(jwks(pair.jwk()))).verify(token); err != nil {
				t.Errorf("%s %s: %v", alg, form, err)
			}
		}
	}
}

func TestSignRefusesWhatIsNoPrivateKey(t *testing.T) {
	public := string(must(json.Marshal(rsaPair().jwk())))
	for name, key := range map[string]string{
		"nothing": "", "garbage": "not-a-key-but-a-secret", "public": public, "symmetric": `{"kty":"oct","k":"c2VjcmV0"}`,
		"broken PEM": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		signed, err := Sign([]byte(key), goodClaims(nil), "")
		if err == nil {
			t.Errorf("%s: %s", name, signed)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("%s: the error tells the key: %v", name, err)
		}
	}
}
