package tokentest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// headers bring keys along, name keys that there are not, or say that the rest is something else.
func headers() []Case {
	var all []Case
	for name, more := range map[string]string{
		"jwk":                  `"jwk":` + string(must(json.Marshal(rsaJWK("rsa-1", &rsaKey().PublicKey)))),
		"jwk, a secret":        `"jwk":{"kty":"oct","k":"AAAA"}`,
		"jku":                  `"jku":"https://evil.test/jwks.json"`,
		"jku of the issuer":    `"jku":"` + Issuer + `jwks.json"`,
		"JKU":                  `"JKU":"https://evil.test/jwks.json"`,
		"x5u":                  `"x5u":"http://169.254.169.254/"`,
		"x5c":                  `"x5c":["AAAA"]`,
		"crit":                 `"crit":["exp"],"exp":1`,
		"crit empty":           `"crit":[]`,
		"crit null":            `"crit":null`,
		"crit unknown":         `"crit":["urn:x"],"urn:x":1`,
		"crit of b64":          `"b64":false,"crit":["b64"]`,
		"b64":                  `"b64":false`,
		"b64 true":             `"b64":true`,
		"zip":                  `"zip":"DEF"`,
		"enc":                  `"enc":"A256GCM"`,
		"epk":                  `"epk":{}`,
		"cty":                  `"cty":"JWT"`,
		"cty empty":            `"cty":""`,
		"typ of a DPoP proof":  `"typ":"dpop+jwt"`,
		"typ of a logout":      `"typ":"logout+jwt"`,
		"typ of an event":      `"typ":"secevent+jwt"`,
		"typ of a request":     `"typ":"oauth-authz-req+jwt"`,
		"typ of introspection": `"typ":"token-introspection+jwt"`,
		"typ of an SD-JWT":     `"typ":"dc+sd-jwt"`,
		"typ JOSE":             `"typ":"JOSE"`,
		"typ number":           `"typ":1`,
		"typ empty":            `"typ":""`,
		"typ with parameters":  `"typ":"jwt;x=1"`,
	} {
		if !strings.HasPrefix(name, "typ ") {
			more += `,"typ":"JWT"`
		}
		all = append(all, Case{Name: name, Point: headerPoint(name), Token: saying(`{"alg":"RS256","kid":"rsa-1",` + more + `}`)})
	}
	for name, kid := range map[string]string{
		"of nobody":       `"rsa-9"`,
		"that is revoked": `"rsa-0"`,
		"of a stranger":   `"stranger-1"`,
		"as a path":       `"../../../../dev/null"`,
		"as SQL":          `"x' UNION SELECT 'k"`,
		"as a command":    `"|cat /etc/passwd"`,
		"as a URL":        `"http://169.254.169.254/latest"`,
		"with NUL":        `"rsa-1\u0000"`,
		"in capitals":     `"RSA-1"`,
		"with a space":    `"rsa-1 "`,
		"empty":           `""`,
		"null":            `null`,
		"object":          `{"a":1}`,
		"list":            `["rsa-1"]`,
		"number":          `1`,
		"very long":       `"` + strings.Repeat("k", 4000) + `"`,
		"twice":           `"x","kid":"rsa-1"`,
		"twice, escaped":  `"x","k\u0069d":"rsa-1"`,
	} {
		all = append(all, Case{Name: "kid " + name, Point: "3.10", Token: saying(`{"alg":"RS256","typ":"JWT","kid":` + kid + `}`)})
	}
	for name, h := range map[string]string{
		"twice":            header + header,
		"in a list":        `[` + header + `]`,
		"null":             `null`,
		"a text":           `"RS256"`,
		"empty":            `{}`,
		"with an end":      header + `x`,
		"with a comma":     `{"alg":"RS256","kid":"rsa-1","typ":"JWT",}`,
		"with a comment":   `{"alg":"RS256",/**/"kid":"rsa-1","typ":"JWT"}`,
		"in single quotes": `{'alg':'RS256','kid':'rsa-1','typ':'JWT'}`,
		"with a BOM":       "\ufeff" + header,
		"with bad UTF-8":   "{\"alg\":\"RS256\",\"kid\":\"rsa-1\",\"typ\":\"JWT\",\"x\":\"\xff\"}",
		"half a surrogate": `{"alg":"RS256","kid":"rsa-1","typ":"JWT","x":"\ud800"}`,
		"deep":             `{"alg":"RS256","kid":"rsa-1","typ":"JWT","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		"in UTF-16":        wide(header),
	} {
		all = append(all, Case{Name: "header " + name, Point: "3.7", Token: saying(h)})
	}
	return all
}

// headerPoint is the point of RFC 8725 that speaks of a header parameter.
func headerPoint(name string) string {
	switch strings.Fields(strings.TrimSuffix(name, ","))[0] {
	case "typ", "cty":
		return "3.11"
	case "zip", "enc", "epk":
		return "3.6"
	}
	return "3.10"
}

// wide is ASCII in UTF-16.
func wide(s string) string {
	b := []byte("\xfe\xff")
	for _, c := range []byte(s) {
		b = append(b, 0, c)
	}
	return string(b)
}

// claimForms are claims that readers read differently.
func claimForms() []Case {
	good := claims(nil)
	var all []Case
	for name, c := range map[string]string{
		"in a list":               "[" + good + "]",
		"a text":                  `"alice"`,
		"null":                    `null`,
		"empty":                   "",
		"an empty object":         "{}",
		"twice":                   good + good,
		"with an end":             good + "\x00",
		"with a BOM":              "\ufeff" + good,
		"in UTF-16":               wide(good),
		"with bad UTF-8":          with("\"x\":\"\xc3\x28\""),
		"with overlong UTF-8":     with("\"x\":\"\xc0\xaf\""),
		"half a surrogate":        with(`"x":"\udc00"`),
		"half a surrogate's name": with(`"\ud800":1`),
		"deep":                    with(`"x":` + strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)),
		"deep lists":              with(`"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)),
		"a bare NaN":              with(`"x":NaN`),
		"a number with a plus":    with(`"x":+1`),
		"a number in hex":         with(`"x":0x1`),
		"sub twice":               with(`"sub":"root"`),
		"sub twice, escaped":      with(`"s\u0075b":"root"`),
		"iss twice":               with(`"iss":"https://evil.test/"`),
		"aud twice":               with(`"aud":"other"`),
		"exp twice":               with(`"exp":99999999999`),
		"a name twice, deep":      with(`"a":[{"b":{"c":1,"c":2}}]`),
		"a control character":     with("\"x\":\"a\nb\""),
	} {
		all = append(all, Case{Name: "claims " + name, Point: "3.7", Token: signed(header, c, rs256)})
	}
	return append(all,
		Case{Name: "nested", Point: "3.11", Token: signed(`{"alg":"RS256","kid":"rsa-1","typ":"JWT","cty":"JWT"}`, Good(), rs256)},
		Case{Name: "nested, unsaid", Point: "3.11", Token: signed(header, Good(), rs256)},
	)
}

// times are tokens that are expired or not good yet, or say so in another form than a number.
func times() []Case {
	now := time.Now().Unix()
	var all []Case
	for name, exp := range map[string]string{
		"a text":           fmt.Sprintf(`"%d"`, now+3600),
		"a date":           `"2099-01-01T00:00:00Z"`,
		"null":             `null`,
		"true":             `true`,
		"a list":           fmt.Sprintf(`[%d]`, now+3600),
		"an object":        `{}`,
		"1e400":            `1e400`,
		"1e300":            `1e300`,
		"in milliseconds":  fmt.Sprint((now + 3600) * 1000),
		"2^64":             `18446744073709551616`,
		"of 1,000 digits":  strings.Repeat("9", 1000),
		"negative":         `-1`,
		"negative, huge":   `-1e300`,
		"zero":             `0`,
		"past":             fmt.Sprint(now - 3600),
		"just past":        fmt.Sprint(now - 31), // 30 s are forgiven
		"just past, float": fmt.Sprintf("%d.5", now-32),
	} {
		all = append(all, Case{Name: "exp " + name, Token: signed(header, less("exp", `"exp":`+exp), rs256)})
	}
	for _, name := range []string{"nbf", "iat"} {
		for of, value := range map[string]string{
			"ahead":      fmt.Sprint(now + 300),
			"a text":     `"0"`,
			"null":       `null`,
			"an object":  `{}`,
			"-1e999":     `-1e999`,
			"2^63":       `9223372036854775808`,
			"in seconds": fmt.Sprint(now + 60),
		} {
			all = append(all, Case{Name: name + " " + of, Token: signed(header, less(name, `"`+name+`":`+value), rs256)})
		}
	}
	return append(all,
		Case{Name: "no exp", Token: claiming(map[string]any{"exp": nil})},
		Case{Name: "exp in capitals", Token: signed(header, less("exp", fmt.Sprintf(`"EXP":%d`, now+3600)), rs256)},
	)
}

// parties are tokens of another issuer, for another audience, of nobody.
func parties() []Case {
	var all []Case
	add := func(point, claim string, values map[string]any) {
		for name, v := range values {
			all = append(all, Case{Name: claim + " " + name, Point: point, Token: claiming(map[string]any{claim: v})})
		}
	}
	add("3.8", "iss", map[string]any{
		"of another": "https://evil.test/", "absent": nil, "without its slash": strings.TrimSuffix(Issuer, "/"), "with a slash more": Issuer + "/",
		"in capitals": strings.ToUpper(Issuer), "and more": Issuer + ".evil.test", "with a space": Issuer + " ", "list": []string{Issuer},
		"over http": strings.Replace(Issuer, "https", "http", 1), "with a port": strings.Replace(Issuer, ".test", ".test:443", 1),
		"with a user": strings.Replace(Issuer, "//", "//x@", 1), "empty": "", "number": 1, "with NUL": Issuer + "\x00",
	})
	add("3.9", "aud", map[string]any{
		"of another": "payments", "absent": nil, "object": map[string]string{Audience: Audience}, "and more": Audience + "2", "in capitals": strings.ToUpper(Audience),
		"list, mixed": []any{Audience, 1}, "list, empty": []any{}, "nested": []any{[]any{Audience}}, "number": 1, "empty": "", "joined": Audience + ",payments",
		"joined by a space": Audience + " payments", "list of others": []string{"payments", "admin"}, "any": "*", "with NUL": Audience + "\x00",
	})
	add("3.8", "sub", map[string]any{
		"absent": nil, "empty": "", "number": 7, "object": map[string]any{"a": "alice"}, "list": []string{"alice"}, "true": true,
		"with a line end": "alice\r\nx-admin: 1", "with NUL": "alice\x00", "with a space": " alice", "huge": strings.Repeat("a", 4097),
		"with a mark of direction": "alice\u202e",
	})
	return append(all,
		Case{Name: "aud null", Point: "3.9", Token: signed(header, less("aud", `"aud":null`), rs256)},
		Case{Name: "iss null", Point: "3.8", Token: signed(header, less("iss", `"iss":null`), rs256)},
		Case{Name: "sub null", Point: "3.8", Token: signed(header, less("sub", `"sub":null`), rs256)},
	)
}

// sizes are tokens with more of something than anybody needs.
func sizes() []Case {
	var many strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&many, `"c%d":%d,`, i, i)
	}
	return []Case{
		{Name: "just over 8 KiB", Token: sized(maxToken + 1)},
		{Name: "of 20 KiB", Token: claiming(map[string]any{"x": strings.Repeat("a", 15<<10)})},
		{Name: "thousands of claims", Token: signed(header, with(many.String()+`"z":0`), rs256)},
		{Name: "a megabyte", Token: strings.Repeat("a", 1<<20), Wire: 431},
		{Name: "many dots", Token: strings.Repeat(".", maxToken)},
		{Name: "many parts", Token: strings.Repeat("a.", maxToken/2)},
	}
}

// maxToken is the most bytes of a token.
const maxToken = 8 << 10

// sized is a token, good but for its size, of n bytes or one more: there are sizes that base64 can't have.
func sized(n int) string {
	filling := (n - len(Good())) * 3 / 4
	for ; ; filling++ {
		if t := claiming(map[string]any{"x": strings.Repeat("a", filling-len(`,"x":""`))}); len(t) >= n {
			return t
		}
	}
}

// goodTokens look unusual, and are within the rules: who refuses these is not strict but broken.
func goodTokens() []Case {
	now := time.Now().Unix()
	good := claims(nil)
	var all []Case
	for name, token := range map[string]string{
		"RS256":                    Good(),
		"ES256":                    signed(`{"alg":"ES256","kid":"ec-1","typ":"JWT"}`, good, es256),
		"ES384":                    signed(`{"alg":"ES384","kid":"ec-2","typ":"JWT"}`, good, es384),
		"EdDSA":                    signed(`{"alg":"EdDSA","kid":"ed-1","typ":"JWT"}`, good, eddsa),
		"ES256, mirrored":          signed(`{"alg":"ES256","kid":"ec-1","typ":"JWT"}`, good, changed(es256, mirrored)), // RFC 7518 allows both
		"no kid":                   saying(`{"alg":"RS256","typ":"JWT"}`),
		"no typ":                   saying(`{"alg":"RS256","kid":"rsa-1"}`),
		"typ jwt":                  saying(`{"alg":"RS256","typ":"jwt","kid":"rsa-1"}`),
		"typ at+jwt":               saying(`{"alg":"RS256","typ":"at+JWT","kid":"rsa-1"}`),
		"typ application/at+jwt":   saying(`{"alg":"RS256","typ":"application/at+jwt","kid":"rsa-1"}`),
		"spaces in the JSON":       signed("{ \"alg\" :\"RS256\",\n\t\"kid\":\"rsa-1\"}", " "+good+"\n", rs256),
		"an unknown parameter":     saying(`{"alg":"RS256","kid":"rsa-1","x5t":"AA","own":{"a":[1]}}`),
		"aud in a list":            claiming(map[string]any{"aud": []string{"x", Audience}}),
		"just expired":             claiming(map[string]any{"exp": now - 20}),
		"the issuer's clock ahead": claiming(map[string]any{"iat": now + 20, "nbf": now + 20}),
		"a fraction of a second":   claiming(map[string]any{"exp": float64(now) + 100.5}),
		"no iat":                   claiming(map[string]any{"iat": nil}),
		"exp in the year 9999":     claiming(map[string]any{"exp": 253402300799}),
		"sub with a space within":  claiming(map[string]any{"sub": "alice b"}),
		"sub in Unicode":           claiming(map[string]any{"sub": "zoë"}),
		"hundreds of claims":       signed(header, with(hundreds()), rs256),
		"of 8,000 bytes":           sized(8000),
	} {
		all = append(all, Case{Name: "good: " + name, Token: token, Want: 200})
	}
	return all
}

func hundreds() string {
	var list []string
	for i := range 300 {
		list = append(list, fmt.Sprintf(`"c%d":%d`, i, i))
	}
	return strings.Join(list, ",")
}
