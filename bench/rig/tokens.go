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

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
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
