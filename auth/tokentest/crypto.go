package tokentest

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
)

// algorithms are tokens that say another algorithm than their key is for. Where it is possible the signature is good for
// what they say.
func algorithms() []Case {
	good := claims(nil)
	var all []Case
	for _, none := range []string{"none", "None", "NONE", "nOnE", "none ", " none", "none\\u0000", "n\\u006fne"} {
		h := `{"alg":"` + none + `","kid":"rsa-1","typ":"JWT"}`
		all = append(all, Case{Name: "alg " + none + ", no signature", Point: "3.1", Token: b64(h) + "." + b64(good) + "."},
			Case{Name: "alg " + none + ", signed", Point: "3.1", Token: signed(h, good, rs256)})
	}
	for name, h := range map[string]string{
		"alg in lower case":        `{"alg":"rs256","kid":"rsa-1","typ":"JWT"}`,
		"alg with a space":         `{"alg":"RS256 ","kid":"rsa-1","typ":"JWT"}`,
		"alg missing":              `{"kid":"rsa-1","typ":"JWT"}`,
		"alg null":                 `{"alg":null,"kid":"rsa-1","typ":"JWT"}`,
		"alg list":                 `{"alg":["RS256"],"kid":"rsa-1","typ":"JWT"}`,
		"alg empty":                `{"alg":"","kid":"rsa-1","typ":"JWT"}`,
		"alg number":               `{"alg":256,"kid":"rsa-1","typ":"JWT"}`,
		"alg object":               `{"alg":{"RS256":1},"kid":"rsa-1","typ":"JWT"}`,
		"alg of encryption":        `{"alg":"RSA-OAEP","enc":"A256GCM"}`,
		"alg PBES2, many rounds":   `{"alg":"PBES2-HS256+A128KW","p2c":2147483647,"p2s":"AAAA"}`,
		"alg ES256K":               `{"alg":"ES256K","kid":"ec-1","typ":"JWT"}`,
		"alg RS1":                  `{"alg":"RS1","kid":"rsa-1","typ":"JWT"}`,
		"alg by its OID":           `{"alg":"1.2.840.113549.1.1.11","kid":"rsa-1","typ":"JWT"}`,
		"alg twice":                `{"alg":"none","alg":"RS256","kid":"rsa-1","typ":"JWT"}`,
		"alg twice, the good last": `{"alg":"HS256","alg":"RS256","kid":"rsa-1","typ":"JWT"}`,
		"alg twice, escaped":       `{"alg":"RS256","\u0061lg":"none","kid":"rsa-1","typ":"JWT"}`,
		"alg twice, capitals":      `{"alg":"RS256","ALG":"none","kid":"rsa-1","typ":"JWT"}`,
		"ES256 over an RSA key":    `{"alg":"ES256","kid":"rsa-1","typ":"JWT"}`,
		"RS256 over an EC key":     `{"alg":"RS256","kid":"ec-1","typ":"JWT"}`,
		"PS256 said, RS256 signed": `{"alg":"PS256","kid":"rsa-1","typ":"JWT"}`,
		"RS512 said, RS256 signed": `{"alg":"RS512","kid":"rsa-1","typ":"JWT"}`,
	} {
		all = append(all, Case{Name: name, Point: "3.1", Token: signed(h, good, rs256)})
	}
	return append(all,
		Case{Name: "PS256 by a key for RS256", Point: "3.1", Token: signed(`{"alg":"PS256","kid":"rsa-1","typ":"JWT"}`, good, ps256)},
		Case{Name: "RS512 by a key for RS256", Point: "3.1", Token: signed(`{"alg":"RS512","kid":"rsa-1","typ":"JWT"}`, good, rs512)},
		Case{Name: "PS256 signed, RS256 said", Point: "3.1", Token: signed(header, good, ps256)},
		Case{Name: "EdDSA over an EC key", Point: "3.1", Token: signed(`{"alg":"EdDSA","kid":"ec-1","typ":"JWT"}`, good, eddsa)},
		Case{Name: "ES256 over an OKP key", Point: "3.1", Token: signed(`{"alg":"ES256","kid":"ed-1","typ":"JWT"}`, good, es256)},
		Case{Name: "ES384 by a P-256 key", Point: "3.4", Token: signed(`{"alg":"ES384","kid":"ec-1","typ":"JWT"}`, good, es384)},
		Case{Name: "ES256 by a P-384 key", Point: "3.4", Token: signed(`{"alg":"ES256","kid":"ec-2","typ":"JWT"}`, good, func(text []byte) []byte { return ecSignature(ec384Key(), text, 48) })},
		Case{Name: "ES512 by a P-256 key", Point: "3.4", Token: signed(`{"alg":"ES512","kid":"ec-1","typ":"JWT"}`, good, es256)},
	)
}

// confusions are signed with a public key, which everybody has, as if it were a shared secret; or with a weak one.
func confusions() []Case {
	rsaDER, ecDER := must(x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)), must(x509.MarshalPKIXPublicKey(&ecKey().PublicKey))
	inPEM := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	text := func(v any) string { return string(must(json.Marshal(v))) }
	set := string(JWKS())
	jwk := rsaJWK("rsa-1", &rsaKey().PublicKey)
	var all []Case
	for name, secret := range map[string]string{
		"PEM":                    inPEM("PUBLIC KEY", rsaDER),
		"PEM without its end":    strings.TrimSpace(inPEM("PUBLIC KEY", rsaDER)),
		"PEM, PKCS #1":           inPEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)),
		"DER":                    string(rsaDER),
		"DER, PKCS #1":           string(x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)),
		"JWK":                    text(jwk),
		"key set":                set,
		"modulus":                string(rsaKey().N.Bytes()),
		"modulus in base64":      b64(rsaKey().N.Bytes()),
		"EC key as PEM":          inPEM("PUBLIC KEY", ecDER),
		"EC key as DER":          string(ecDER),
		"EC point":               string(must(ecKey().PublicKey.Bytes())),
		"nothing":                "",
		"the word secret":        "secret",
		"zeros":                  string(make([]byte, 32)),
		"the name of the issuer": Issuer,
	} {
		point := "3.1"
		if len(secret) <= 32 {
			point = "3.5"
		}
		all = append(all, Case{Name: "HS256 by " + name, Point: point, Token: signed(`{"alg":"HS256","kid":"rsa-1","typ":"JWT"}`, claims(nil), hs256(secret))},
			Case{Name: "HS256 by " + name + ", no kid", Point: point, Token: signed(`{"alg":"HS256"}`, claims(nil), hs256(secret))})
	}
	return append(all,
		Case{Name: "HS256 signed, RS256 said", Point: "3.1", Token: signed(header, claims(nil), hs256(inPEM("PUBLIC KEY", rsaDER)))},
		Case{Name: "HS384 said", Point: "3.1", Token: signed(`{"alg":"HS384","kid":"rsa-1","typ":"JWT"}`, claims(nil), hs256(rsaDER))},
	)
}

// signatures are not of the text, or not in the one form that they have.
func signatures() []Case {
	good := claims(nil)
	es := `{"alg":"ES256","kid":"ec-1","typ":"JWT"}`
	order := ecKey().Params().N
	pair := func(r, s *big.Int) signer { return bytes(fixed(r, s, 32)) }
	zero, one := big.NewInt(0), big.NewInt(1)
	der := changed(es256, func(b []byte) []byte {
		return must(asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(b[:32]), new(big.Int).SetBytes(b[32:])}))
	})
	all := []Case{
		{Name: "ES256, r and s zero", Token: signed(es, good, pair(zero, zero))},
		{Name: "ES256, r zero", Token: signed(es, good, pair(zero, one))},
		{Name: "ES256, s zero", Token: signed(es, good, pair(one, zero))},
		{Name: "ES256, r and s one", Token: signed(es, good, pair(one, one))},
		{Name: "ES256, r and s the order", Token: signed(es, good, pair(order, order))},
		{Name: "ES256 as DER", Token: signed(es, good, der)},
		{Name: "ES256 as DER of zeros", Token: signed(es, good, bytes("0\x06\x02\x01\x00\x02\x01\x00"))},
		{Name: "ES256, s and r swapped", Token: signed(es, good, changed(es256, func(b []byte) []byte { return append(b[32:64:64], b[:32]...) }))},
		{Name: "ES256, padded to 33 bytes each", Token: signed(es, good, changed(es256, wider))},
		{Name: "ES256, cut", Token: signed(es, good, changed(es256, func(b []byte) []byte { return b[:63] }))},
		{Name: "ES256, longer", Token: signed(es, good, changed(es256, func(b []byte) []byte { return append(b, 0) }))},
		{Name: "ES256 of a key of one's own", Token: signed(es, good, func(text []byte) []byte { return ecSignature(newEC(ecKey().Curve), text, 32) })},
		{Name: "EdDSA of zeros", Token: signed(`{"alg":"EdDSA","kid":"ed-1","typ":"JWT"}`, good, bytes(make([]byte, 64)))},
		{Name: "EdDSA, s past the order", Token: signed(`{"alg":"EdDSA","kid":"ed-1","typ":"JWT"}`, good, changed(eddsa, pastOrder))},
		{Name: "RS256 of zeros", Token: signed(header, good, bytes(make([]byte, 256)))},
		{Name: "RS256 of one byte", Token: signed(header, good, bytes("\x00"))},
		{Name: "RS256 of one", Token: signed(header, good, bytes(append(make([]byte, 255), 1)))},
		{Name: "RS256, cut", Token: signed(header, good, changed(rs256, func(b []byte) []byte { return b[:255] }))},
		{Name: "RS256, longer", Token: signed(header, good, changed(rs256, func(b []byte) []byte { return append(b, 0) }))},
		{Name: "RS256, a zero before", Token: signed(header, good, changed(rs256, func(b []byte) []byte { return append([]byte{0}, b...) }))},
		{Name: "RS256, a bit flipped", Token: signed(header, good, changed(rs256, func(b []byte) []byte { b[7] ^= 1; return b }))},
		{Name: "RS256 of another text", Token: signed(header, good, func([]byte) []byte { return rs256([]byte("x")) })},
		{Name: "by a stranger's key", Token: signed(header, good, strangers)},
		{Name: "by a stranger's key, no kid", Token: signed(`{"alg":"RS256"}`, good, strangers)},
		{Name: "by the key of another entry", Point: "3.12", Token: signed(`{"alg":"RS256","kid":"stranger-1","typ":"JWT"}`, good, strangers)},
	}
	for i := range all {
		if all[i].Point == "" {
			all[i].Point = "3.3"
		}
	}
	return all
}

// wider is r and s with a zero before each.
func wider(b []byte) []byte {
	return fixed(new(big.Int).SetBytes(b[:32]), new(big.Int).SetBytes(b[32:]), 33)
}

// pastOrder adds the order of the group to s: the same number to who does not look.
func pastOrder(b []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := make([]byte, 32)
	for i := range s { // little-endian
		s[i] = b[63-i]
	}
	sum := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(s)
	for i := range sum {
		b[63-i] = sum[i]
	}
	return b
}

// mirrored is the other signature of a text that whoever has one can make: r, and the order less s.
func mirrored(b []byte) []byte {
	r, s := new(big.Int).SetBytes(b[:32]), new(big.Int).SetBytes(b[32:])
	return fixed(r, s.Sub(ecKey().Params().N, s), 32)
}
