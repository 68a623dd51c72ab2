package trial

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
	"fmt"
	"hash"
	"math/big"
	"sync"
)

// signer signs the tokens of a run. Its keys are made when the first token needs them, and are gone with the run; each
// is published as one of every issuer that the policy knows.
type signer struct {
	ec      func() *ecdsa.PrivateKey
	ec384   func() *ecdsa.PrivateKey
	ec521   func() *ecdsa.PrivateKey
	rsa     func() *rsa.PrivateKey
	ed      func() ed25519.PrivateKey
	withRSA bool // an entry takes nothing else: making one takes a while
}

func newSigner(withRSA bool) *signer {
	curve := func(c elliptic.Curve) func() *ecdsa.PrivateKey {
		return sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(c, rand.Reader)) })
	}
	return &signer{
		ec: curve(elliptic.P256()), ec384: curve(elliptic.P384()), ec521: curve(elliptic.P521()),
		rsa: sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) }),
		ed: sync.OnceValue(func() ed25519.PrivateKey {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			return must(key, err)
		}),
		withRSA: withRSA,
	}
}

// must is for what fails only where the system has no randomness, which Go does not survive either.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var b64 = base64.RawURLEncoding

// jwk is a public key of a set.
type jwk struct {
	Type  string `json:"kty"`
	ID    string `json:"kid"`
	Use   string `json:"use"`
	Curve string `json:"crv,omitempty"`
	X     string `json:"x,omitempty"`
	Y     string `json:"y,omitempty"`
	N     string `json:"n,omitempty"`
	E     string `json:"e,omitempty"`
}

// keyID begins the names of the keys, by which tokens name theirs.
const keyID = "legation-test-"

// public is the keys that tokens are verified with.
func (s *signer) public() []jwk {
	keys := []jwk{
		ofCurve("P-256", s.ec()), ofCurve("P-384", s.ec384()), ofCurve("P-521", s.ec521()),
		{Type: "OKP", ID: keyID + "Ed25519", Use: "sig", Curve: "Ed25519", X: b64.EncodeToString(s.ed().Public().(ed25519.PublicKey))},
	}
	if s.withRSA {
		key := s.rsa().PublicKey
		keys = append(keys, jwk{
			Type: "RSA", ID: keyID + "RSA", Use: "sig",
			N: b64.EncodeToString(key.N.Bytes()), E: b64.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		})
	}
	return keys
}

func ofCurve(name string, key *ecdsa.PrivateKey) jwk {
	point := must(key.PublicKey.Bytes()) // 4, x, y
	half := (len(point) - 1) / 2
	return jwk{
		Type: "EC", ID: keyID + name, Use: "sig", Curve: name,
		X: b64.EncodeToString(point[1 : 1+half]), Y: b64.EncodeToString(point[1+half:]),
	}
}

// keySet is the keys as issuers publish them.
func (s *signer) keySet() []byte { return must(json.Marshal(map[string]any{"keys": s.public()})) }

// preferred are the algorithms in the order in which one is chosen: the cheapest first.
var preferred = []string{
	"ES256", "EdDSA", "Ed25519", "ES384", "ES512", "RS256", "PS256", "RS384", "RS512", "PS384", "PS512", "HS256", "HS384", "HS512",
}

// sign makes a token. The secret is that of the algorithms HS256, HS384 and HS512.
func (s *signer) sign(algorithm, kind string, claims map[string]any, secret []byte) (string, error) {
	header := map[string]string{"alg": algorithm, "typ": kind}
	if id := keyIDs[algorithm]; id != "" {
		header["kid"] = keyID + id
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("write the claims: %w", err)
	}
	signed := b64.EncodeToString(must(json.Marshal(header))) + "." + b64.EncodeToString(payload)
	signature, err := s.signature(algorithm, []byte(signed), secret)
	if err != nil {
		return "", err
	}
	return signed + "." + b64.EncodeToString(signature), nil
}

// keyIDs are the keys of the algorithms; those with a secret have none.
var keyIDs = map[string]string{
	"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519",
	"RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
}

func (s *signer) signature(algorithm string, text, secret []byte) ([]byte, error) {
	if algorithm == "EdDSA" || algorithm == "Ed25519" {
		return ed25519.Sign(s.ed(), text), nil
	}
	if len(algorithm) != 5 {
		return nil, fmt.Errorf("no key for the algorithm %s", algorithm)
	}
	sum, kind := digest(algorithm[2:], text)
	switch algorithm[:2] {
	case "ES":
		key := map[string]func() *ecdsa.PrivateKey{"ES256": s.ec, "ES384": s.ec384, "ES512": s.ec521}[algorithm]()
		r, v, err := ecdsa.Sign(rand.Reader, key, sum)
		if err != nil {
			return nil, fmt.Errorf("sign with %s: %w", algorithm, err)
		}
		size := (key.Params().BitSize + 7) / 8
		out := make([]byte, 2*size)
		r.FillBytes(out[:size])
		v.FillBytes(out[size:])
		return out, nil
	case "RS":
		return rsa.SignPKCS1v15(rand.Reader, s.rsa(), kind, sum)
	case "PS":
		return rsa.SignPSS(rand.Reader, s.rsa(), kind, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	mac := hmac.New(map[crypto.Hash]func() hash.Hash{crypto.SHA256: sha256.New, crypto.SHA384: sha512.New384, crypto.SHA512: sha512.New}[kind], secret)
	mac.Write(text)
	return mac.Sum(nil), nil
}

func digest(bits string, text []byte) ([]byte, crypto.Hash) {
	switch bits {
	case "384":
		sum := sha512.Sum384(text)
		return sum[:], crypto.SHA384
	case "512":
		sum := sha512.Sum512(text)
		return sum[:], crypto.SHA512
	default:
		sum := sha256.Sum256(text)
		return sum[:], crypto.SHA256
	}
}
