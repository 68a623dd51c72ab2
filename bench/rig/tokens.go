package rig

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Issuer signs tokens (RS256) that the entry of its policy accepts.
type Issuer struct{ key *rsa.PrivateKey }

// NewIssuer makes a key.
func NewIssuer() (*Issuer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	return &Issuer{key}, err
}

// Entry is the section auth with one entry, idp.
func (i *Issuer) Entry() string {
	e := strings.TrimLeft(string(binary.BigEndian.AppendUint64(nil, uint64(i.key.E))), "\x00")
	return fmt.Sprintf("{idp: {jwt: {issuer: https://id.test/, audiences: [app], jwks: {keys: [{kty: RSA, use: sig, alg: RS256, kid: k, n: %s, e: %s}]}}}}",
		base64.RawURLEncoding.EncodeToString(i.key.N.Bytes()), base64.RawURLEncoding.EncodeToString([]byte(e)))
}

// Token is good for a day.
func (i *Issuer) Token(subject string) (string, error) {
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": "https://id.test/", "aud": "app", "sub": subject, "iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
	})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT","kid":"k"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), err
}
