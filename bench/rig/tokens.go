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
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// Issuer signs tokens (RS256) that the entry of its policy accepts.
type Issuer struct {
	kid string
	key *rsa.PrivateKey
}

// NewIssuer makes a key.
func NewIssuer() (*Issuer, error) { return NewIssuerKey("k") }

// NewIssuerKey is the same issuer with another key, which has this name.
func NewIssuerKey(kid string) (*Issuer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	return &Issuer{kid, key}, err
}

// Entry is the section auth with one entry, idp, that has the key.
func (i *Issuer) Entry() string { return entry("{keys: [" + i.jwk() + "]}") }

// EntryOfEnvoy is Entry, with Envoy to verify the tokens.
func (i *Issuer) EntryOfEnvoy() string { return entry("{keys: [" + i.jwk() + "]}, verify: envoy") }

// EntryAt is the section auth with one entry, idp, whose keys are at a URL.
func EntryAt(url string) string { return entry(strconv.Quote(url)) }

func entry(jwks string) string {
	return fmt.Sprintf("{idp: {jwt: {issuer: https://id.test/, audiences: [app], jwks: %s}}}", jwks)
}

// KeySet is what an issuer publishes that has all these keys.
func KeySet(of []*Issuer) string {
	var keys []string
	for _, i := range of {
		keys = append(keys, i.jwk())
	}
	return `{"keys": [` + strings.Join(keys, ", ") + `]}`
}

// jwk is the public key, as JSON and as YAML.
func (i *Issuer) jwk() string {
	e := strings.TrimLeft(string(binary.BigEndian.AppendUint64(nil, uint64(i.key.E))), "\x00")
	return fmt.Sprintf(`{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": %q, "n": %q, "e": %q}`,
		i.kid, base64.RawURLEncoding.EncodeToString(i.key.N.Bytes()), base64.RawURLEncoding.EncodeToString([]byte(e)))
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
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT","kid":"`+i.kid+`"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), err
}

// Check is a message to the auth service with the headers of an ordinary client.
func Check(rule, token, key string) ([]byte, error) {
	peer := &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{Address: "192.0.2.7", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000}},
	}}}
	return proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:            peer,
		Destination:       peer,
		ContextExtensions: map[string]string{"legation.rule": rule},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "1234567890123456789", Method: "GET", Path: "/v1/orders?page=2", Host: "api.example.com", Scheme: "https", Protocol: "HTTP/1.1",
			Headers: map[string]string{
				":method": "GET", ":path": "/v1/orders?page=2", ":authority": "api.example.com", ":scheme": "https",
				"accept": "application/json", "user-agent": "client/1.0", "x-forwarded-proto": "https",
				"x-request-id": "0e6d5f0b-8a8c-4d1e-9d0e-1c5b1b2f7d10", "x-key": key, "authorization": "Bearer " + token,
			},
		}},
	}})
}
