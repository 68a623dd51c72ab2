package auth

import (
	"encoding/base64"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// maxToken is the most bytes that a token may have; Envoy lets 32 KiB of headers pass.
const maxToken = 8 << 10

// refusal says why a token is not good. The text is for us and for who asks on the command line; it never repeats what the
// client sent, which is told no more than that its credentials are not accepted, unless by tell.
type refusal struct {
	text string
	deny *denial
}

func newRefusal(reason, text string) *refusal {
	return &refusal{text, newDenial(401, codes.Unauthenticated, reason, text, resultUnauthenticated)}
}

// tell is for what a client can mend: it gets another token, or sets its clock.
func (r *refusal) tell() *refusal {
	r.deny.tell(r.text)
	return r
}

func (r *refusal) Error() string { return r.text }

var (
	errMalformed = newRefusal("token_malformed", "the token is malformed")
	errHeader    = newRefusal("token_header", "the token's header is not acceptable")
	errAlgorithm = newRefusal("token_algorithm", "the token's algorithm is not acceptable")
	errKey       = newRefusal("token_key", "the token's key is not known")
	errSignature = newRefusal("token_signature", "the token's signature is not valid")
	errClaims    = newRefusal("token_claims", "a claim is missing or of the wrong type")
	errIssuer    = newRefusal("token_issuer", "the token's issuer is not accepted")
	errAudience  = newRefusal("token_audience", "the token is not meant for this audience")
	errExpired   = newRefusal("token_expired", "the token is expired").tell()
	errEarly     = newRefusal("token_early", "the token is not valid yet").tell()
	errConsumer  = newRefusal("token_consumer", "the token names no consumer")
)

// algorithms are all that are ever accepted, with the key type and the curve that each needs. There is no "none" and
// no HMAC: a public key must never serve as a secret.
var algorithms = map[string]struct{ kty, crv string }{
	"RS256": {"RSA", ""}, "RS384": {"RSA", ""}, "RS512": {"RSA", ""},
	"PS256": {"RSA", ""}, "PS384": {"RSA", ""}, "PS512": {"RSA", ""},
	"ES256": {"EC", "P-256"}, "ES384": {"EC", "P-384"}, "ES512": {"EC", "P-521"},
	"EdDSA": {"OKP", "Ed25519"},
}

// token is a compact JWS in canonical form. Nothing in it is verified.
type token struct {
	raw     string
	alg     string
	kid     string // "" = none
	payload []byte
}

// parseToken lets only the one form of a token pass that every reader understands alike: compact, signed, strict
// base64url, a header without anything that brings its own keys or changes how the rest is read.
func parseToken(raw string) (*token, error) {
	if len(raw) > maxToken || !compactAlphabet(raw) {
		return nil, errMalformed
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 || parts[0] == "" || parts[2] == "" {
		return nil, errMalformed
	}
	strict := base64.RawURLEncoding.Strict() // refuses padding and stray bits; the alphabet was checked above
	header, err := strict.DecodeString(parts[0])
	if err != nil {
		return nil, errMalformed
	}
	payload, err := strict.DecodeString(parts[1])
	if err != nil {
		return nil, errMalformed
	}
	if _, err := strict.DecodeString(parts[2]); err != nil {
		return nil, errMalformed
	}
	t := &token{raw: raw, payload: payload}
	return t, t.readHeader(header)
}

// compactAlphabet is stricter than base64.Strict, which skips line ends.
func compactAlphabet(raw string) bool {
	for _, c := range []byte(raw) {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// refused are header parameters that bring keys along, change how the token is read, or belong to encryption. We know
// no critical extension, so "crit" is always one that we do not know.
var refused = []string{"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "epk", "apu", "apv", "iv", "tag"}

// known are the parameters that are read. Under other capitals another reader could take them for these.
var known = []string{"alg", "kid", "typ", "cty"}

func (t *token) readHeader(b []byte) error {
	h, err := strictObject(b)
	if err != nil {
		return errMalformed
	}
	for name := range h {
		lower := strings.ToLower(name)
		if slices.Contains(refused, lower) || lower != name && slices.Contains(known, lower) {
			return errHeader
		}
	}
	if !t.readType(h) || !t.readKid(h) {
		return errHeader
	}
	alg, ok := h["alg"].(string)
	if !ok {
		return errAlgorithm
	}
	if _, ok := algorithms[alg]; !ok {
		return errAlgorithm
	}
	t.alg = alg
	return nil
}

// readType refuses what says that it is something else than a token for access: an ID of a logout, a DPoP proof, a
// nested token.
func (t *token) readType(h map[string]any) bool {
	if _, ok := h["cty"]; ok {
		return false
	}
	v, ok := h["typ"]
	if !ok {
		return true
	}
	s, _ := v.(string)
	s = strings.TrimPrefix(strings.ToLower(s), "application/")
	return s == "jwt" || s == "at+jwt"
}

func (t *token) readKid(h map[string]any) bool {
	v, ok := h["kid"]
	if !ok {
		return true
	}
	t.kid, ok = v.(string)
	return ok && t.kid != ""
}
