package logintest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
)

// Verify checks an ID token as a client has to: signature, issuer, audience and end. Tests of the whole use a stricter one.
func (p *Provider) Verify(_ context.Context, idToken, jwks string) (map[string]any, error) {
	p.mu.Lock()
	now := p.settings.Now()
	p.mu.Unlock()
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 || jwks != p.URL+"/jwks" {
		return nil, errors.New("no token of this provider")
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, err
	}
	if err := rsa.VerifyPKCS1v15(&key().PublicKey, crypto.SHA256, sum[:], signature); err != nil {
		return nil, err
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var claims map[string]any
	if err := d.Decode(&claims); err != nil {
		return nil, err
	}
	exp, _ := claims["exp"].(json.Number)
	end, err := exp.Int64()
	switch {
	case claims["iss"] != p.URL:
		return nil, errors.New("another issuer")
	case !meant(claims["aud"]):
		return nil, errors.New("another audience")
	case err != nil || now.Unix() >= end:
		return nil, errors.New("expired")
	}
	return claims, nil
}

func meant(aud any) bool {
	list, ok := aud.([]any)
	if !ok {
		return aud == ClientID
	}
	for _, a := range list {
		if a == ClientID {
			return true
		}
	}
	return false
}
