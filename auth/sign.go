package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// Sign makes a signed token for tests. The key is private, as PEM or as a JWK; its type decides the algorithm (RS256,
// ES256 to ES512 by curve, EdDSA), unless the JWK names one. A kid of "" takes the JWK's own, if it has one.
func Sign(key []byte, claims map[string]any, kid string) (string, error) {
	k, err := jwk.ParseKey(key, jwk.WithPEM(bytes.Contains(key, []byte("-----BEGIN"))))
	if err != nil {
		return "", errors.New("sign: the key is neither PEM nor a JWK") // the library's words could hold the key
	}
	private, err := jwk.IsPrivateKey(k)
	if err != nil || !private {
		return "", errors.New("sign: the key is not a private key")
	}
	alg, err := signatureAlgorithm(k)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign: claims: %w", err)
	}
	header := jws.NewHeaders()
	if kid == "" {
		kid, _ = k.KeyID()
	}
	if kid != "" {
		if err := header.Set(jws.KeyIDKey, kid); err != nil {
			return "", fmt.Errorf("sign: %w", err)
		}
	}
	if err := header.Set(jws.TypeKey, "JWT"); err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	var raw any
	if err := jwk.Export(k, &raw); err != nil {
		return "", errors.New("sign: the key is not valid")
	}
	signed, err := jws.Sign(payload, jws.WithKey(alg, raw, jws.WithProtectedHeaders(header)))
	if err != nil {
		return "", fmt.Errorf("sign with %s: %w", alg, err)
	}
	return string(signed), nil
}

func signatureAlgorithm(k jwk.Key) (jwa.SignatureAlgorithm, error) {
	kty := k.KeyType().String()
	crv := ""
	if c, ok := k.(interface {
		Crv() (jwa.EllipticCurveAlgorithm, bool)
	}); ok {
		curve, _ := c.Crv()
		crv = curve.String()
	}
	name := map[string]string{
		"RSA": "RS256", "ECP-256": "ES256", "ECP-384": "ES384", "ECP-521": "ES512",
		"OKPEd25519": "EdDSA",
	}[kty+crv]
	if named, ok := k.Algorithm(); ok {
		if need, known := algorithms[named.String()]; known && need.kty == kty && need.crv == crv {
			name = named.String()
		}
	}
	alg, ok := jwa.LookupSignatureAlgorithm(name)
	if !ok {
		return alg, fmt.Errorf("no algorithm for a key of type %s", kty)
	}
	return alg, nil
}
