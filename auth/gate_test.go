package auth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// hostileTokens are what RFC 8725 warns of, and what its readers fell for. Those made by forge carry a signature that
// is good for what they say, so only the gate or the claim rules can refuse them.
func hostileTokens(t testing.TB) map[string]string {
	now := time.Now().Unix()
	good := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":"orders","exp":%d}`, issuer, now+3600)
	header := `{"alg":"RS256","kid":"rsa-1"}`
	forged := func(h string) string { return forge(t, h, good) }
	claim := func(format string, a ...any) string {
		return forge(t, header, fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":"orders",`, issuer)+fmt.Sprintf(format, a...)+"}")
	}
	parts := strings.Split(forged(header), ".")
	all := map[string]string{
		// algorithms
		"none":                 b64(`{"alg":"none"}`) + "." + b64(good) + ".",
		"none, signed":         forged(`{"alg":"none","kid":"rsa-1"}`),
		"None":                 forged(`{"alg":"None"}`),
		"NONE":                 forged(`{"alg":"NONE"}`),
		"nOnE, no signature":   b64(`{"alg":"nOnE"}`) + "." + b64(good) + ".",
		"lower-case alg":       forged(`{"alg":"rs256","kid":"rsa-1"}`),
		"alg with space":       forged(`{"alg":"RS256 ","kid":"rsa-1"}`),
		"alg missing":          forged(`{"kid":"rsa-1"}`),
		"alg null":             forged(`{"alg":null}`),
		"alg list":             forged(`{"alg":["RS256"]}`),
		"alg empty":            forged(`{"alg":""}`),
		"alg number":           forged(`{"alg":256}`),
		"alg of encryption":    forged(`{"alg":"RSA-OAEP","enc":"A256GCM"}`),
		"alg PBES2":            forged(`{"alg":"PBES2-HS256+A128KW","p2c":2147483647}`),
		"ES256K":               forged(`{"alg":"ES256K","kid":"ec-1"}`),
		"key of another type":  forged(`{"alg":"RS256","kid":"ec-1"}`),
		"alg of another key":   forged(`{"alg":"ES256","kid":"rsa-1"}`),
		"PS256 over RS256":     forged(`{"alg":"PS256","kid":"rsa-1"}`),
		"RS512 over RS256":     forged(`{"alg":"RS512","kid":"rsa-1"}`),
		"two algs":             forged(`{"alg":"none","alg":"RS256","kid":"rsa-1"}`),
		"two algs, escaped":    forged(`{"alg":"RS256","\u0061lg":"none","kid":"rsa-1"}`),
		"two algs, capitals":   forged(`{"alg":"RS256","ALG":"none","kid":"rsa-1"}`),
		"public key as secret": confused(t, rsaPair().pem, good),
		// headers that bring keys or change the reading
		"jwk":              forged(`{"alg":"RS256","jwk":` + string(must(json.Marshal(rsaPair().jwk()))) + `}`),
		"jku":              forged(`{"alg":"RS256","kid":"rsa-1","jku":"https://evil.test/jwks.json"}`),
		"JKU":              forged(`{"alg":"RS256","kid":"rsa-1","JKU":"https://evil.test/jwks.json"}`),
		"x5u":              forged(`{"alg":"RS256","kid":"rsa-1","x5u":"http://169.254.169.254/"}`),
		"x5c":              forged(`{"alg":"RS256","kid":"rsa-1","x5c":["AAAA"]}`),
		"crit":             forged(`{"alg":"RS256","kid":"rsa-1","crit":["exp"],"exp":1}`),
		"crit empty":       forged(`{"alg":"RS256","kid":"rsa-1","crit":[]}`),
		"crit unknown":     forged(`{"alg":"RS256","kid":"rsa-1","crit":["urn:x"],"urn:x":1}`),
		"b64":              forged(`{"alg":"RS256","kid":"rsa-1","b64":false,"crit":["b64"]}`),
		"b64 alone":        forged(`{"alg":"RS256","kid":"rsa-1","b64":false}`),
		"zip":              forged(`{"alg":"RS256","kid":"rsa-1","zip":"DEF"}`),
		"nested":           forge(t, `{"alg":"RS256","kid":"rsa-1","cty":"JWT"}`, strings.Join(parts, ".")),
		"nested, unsaid":   forge(t, header, strings.Join(parts, ".")),
		"logout token":     forged(`{"alg":"RS256","kid":"rsa-1","typ":"logout+jwt"}`),
		"DPoP proof":       forged(`{"alg":"RS256","kid":"rsa-1","typ":"dpop+jwt"}`),
		"typ number":       forged(`{"alg":"RS256","kid":"rsa-1","typ":1}`),
		"kid of nobody":    forged(`{"alg":"RS256","kid":"rsa-9"}`),
		"kid as path":      forged(`{"alg":"RS256","kid":"../../../../dev/null"}`),
		"kid as SQL":       forged(`{"alg":"RS256","kid":"x' UNION SELECT 'k"}`),
		"kid with NUL":     forged(`{"alg":"RS256","kid":"rsa-1\u0000"}`),
		"kid empty":        forged(`{"alg":"RS256","kid":""}`),
		"kid object":       forged(`{"alg":"RS256","kid":{"a":1}}`),
		"kid twice":        forged(`{"alg":"RS256","kid":"x","kid":"rsa-1"}`),
		"header twice":     forged(header + header),
		"header list":      forged(`[` + header + `]`),
		"header null":      forged(`null`),
		"header trailing":  forged(header + `x`),
		"header comma":     forged(`{"alg":"RS256","kid":"rsa-1",}`),
		"header comment":   forged(`{"alg":"RS256",/**/"kid":"rsa-1"}`),
		"header BOM":       forged("\ufeff" + header),
		"header bad UTF-8": forged("{\"alg\":\"RS256\",\"kid\":\"rsa-1\",\"x\":\"\xff\"}"),
		"header surrogate": forged(`{"alg":"RS256","kid":"rsa-1","x":"\ud800"}`),
		"header deep":      forged(`{"alg":"RS256","kid":"rsa-1","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`),
		// claims
		"no exp":            claim(`"iat":1`),
		"exp text":          claim(`"exp":"%d"`, now+3600),
		"exp null":          claim(`"exp":null`),
		"exp true":          claim(`"exp":true`),
		"exp list":          claim(`"exp":[%d]`, now+3600),
		"exp 1e400":         claim(`"exp":1e400`),
		"exp 1e300":         claim(`"exp":1e300`),
		"exp in millis":     claim(`"exp":%d`, (now+3600)*1000),
		"exp negative":      claim(`"exp":-1`),
		"exp past":          claim(`"exp":%d`, now-31),
		"exp zero":          claim(`"exp":0`),
		"exp twice":         claim(`"exp":1,"exp":%d`, now+3600),
		"exp capitals only": claim(`"EXP":%d`, now+3600),
		"nbf ahead":         claim(`"exp":%d,"nbf":%d`, now+3600, now+300),
		"nbf text":          claim(`"exp":%d,"nbf":"0"`, now+3600),
		"nbf infinite":      claim(`"exp":%d,"nbf":-1e999`, now+3600),
		"iat ahead":         claim(`"exp":%d,"iat":%d`, now+3600, now+300),
		"iat object":        claim(`"exp":%d,"iat":{}`, now+3600),
		"sub twice":         claim(`"exp":%d,"sub":"root"`, now+3600),
		"sub twice, deep":   claim(`"exp":%d,"a":[{"b":{"c":1,"c":2}}]`, now+3600),
		"claims list":       forge(t, header, "["+good+"]"),
		"claims text":       forge(t, header, `"alice"`),
		"claims empty":      forge(t, header, ""),
		"claims twice":      forge(t, header, good+good),
		"claims trailing":   forge(t, header, good+"\x00"),
		"claims UTF-16":     forge(t, header, "\xff\xfe{\x00}\x00"),
		"claims bad UTF-8":  claim("\"exp\":%d,\"x\":\"\xc3\x28\"", now+3600),
		"claims deep":       claim(`"exp":%d,"x":%s%s`, now+3600, strings.Repeat(`{"a":`, 40)+"1", strings.Repeat("}", 40)),
		// form
		"empty":                     "",
		"dots":                      "..",
		"many dots":                 strings.Repeat(".", maxToken),
		"two segments":              parts[0] + "." + parts[1],
		"four segments":             strings.Join(parts, ".") + "." + parts[2],
		"JWE":                       b64(`{"alg":"dir","enc":"A128GCM"}`) + "..AAAA.AAAA.AAAA",
		"no signature":              parts[0] + "." + parts[1] + ".",
		"no header":                 "." + parts[1] + "." + parts[2],
		"payload swapped":           parts[0] + "." + b64(strings.Replace(good, "alice", "admin", 1)) + "." + parts[2],
		"header swapped":            b64(`{"kid":"rsa-1","alg":"RS256"}`) + "." + parts[1] + "." + parts[2],
		"signature cut":             strings.Join(parts, ".")[:len(strings.Join(parts, "."))-8],
		"signature longer":          strings.Join(parts, ".") + "AAAA",
		"signature of zeros":        parts[0] + "." + parts[1] + "." + b64(string(make([]byte, 256))),
		"signature of zeros, short": parts[0] + "." + parts[1] + "." + b64("\x00"),
		"padded":                    parts[0] + "." + parts[1] + "." + parts[2] + "==",
		"padded header":             base64.URLEncoding.EncodeToString([]byte(header)) + "=." + parts[1] + "." + parts[2],
		"plus and slash":            parts[0] + "." + parts[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(parts[2]) + "+",
		"stray bits":                strayBits(parts[0]) + "." + parts[1] + "." + parts[2],
		"stray signature bits":      parts[0] + "." + parts[1] + "." + strayBits(parts[2]),
		"line end":                  parts[0] + "." + parts[1] + "." + parts[2] + "\n",
		"line end within":           parts[0] + ".\r\n" + parts[1] + "." + parts[2],
		"space before":              " " + strings.Join(parts, "."),
		"space after":               strings.Join(parts, ".") + " ",
		"tab after":                 strings.Join(parts, ".") + "\t",
		"NUL after":                 strings.Join(parts, ".") + "\x00",
		"percent-encoded":           strings.Join(parts, "%2e"),
		"quoted":                    `"` + strings.Join(parts, ".") + `"`,
		"JSON, flattened":           fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])[:40],
		"huge":                      claim(`"exp":%d,"x":"%s"`, now+3600, strings.Repeat("a", maxToken)),
		"very huge":                 strings.Repeat("a", 1<<20),
		"psychic ES256":             b64(`{"alg":"ES256","kid":"ec-1"}`) + "." + b64(good) + "." + b64(string(make([]byte, 64))),
		"ES256 as DER":              b64(`{"alg":"ES256","kid":"ec-1"}`) + "." + b64(good) + "." + b64("0\x06\x02\x01\x00\x02\x01\x00"),
		"zero EdDSA":                b64(`{"alg":"EdDSA","kid":"ed-1"}`) + "." + b64(good) + "." + b64(string(make([]byte, 64))),
	}
	for name, changes := range map[string]map[string]any{
		"wrong issuer":         {"iss": "https://evil.test/"},
		"no issuer":            {"iss": nil},
		"issuer less slash":    {"iss": strings.TrimSuffix(issuer, "/")},
		"issuer in capitals":   {"iss": strings.ToUpper(issuer)},
		"issuer list":          {"iss": []string{issuer}},
		"wrong audience":       {"aud": "other"},
		"no audience":          {"aud": nil},
		"audience object":      {"aud": map[string]string{"orders": "orders"}},
		"audience prefix":      {"aud": "orders2"},
		"audience list, mixed": {"aud": []any{"orders", 1}},
		"audience list, empty": {"aud": []any{}},
		"audience nested":      {"aud": []any{[]any{"orders"}}},
		"audience number":      {"aud": 1},
		"no sub":               {"sub": nil},
		"sub empty":            {"sub": ""},
		"sub number":           {"sub": 7},
		"sub object":           {"sub": map[string]any{"a": "alice"}},
		"sub with line end":    {"sub": "alice\r\nx-admin: 1"},
		"sub with NUL":         {"sub": "alice\x00"},
		"sub with space":       {"sub": " alice"},
		"sub huge":             {"sub": strings.Repeat("a", maxValue+1)},
	} {
		all[name] = rsaPair().sign(t, goodClaims(changes))
	}
	stranger := rsaOther()
	stranger.kid = "rsa-1"
	all["key of a stranger"] = stranger.sign(t, goodClaims(nil))
	stranger.kid = ""
	all["key of a stranger, no kid"] = stranger.sign(t, goodClaims(nil))
	return all
}

// confused signs with the public key as if it were a shared secret.
func confused(t testing.TB, secret []byte, payload string) string {
	t.Helper()
	signed, err := jws.Sign([]byte(payload), jws.WithKey(jwa.HS256(), secret))
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

// strayBits sets unused bits of the last letter: the bytes stay the same to a lenient reader.
func strayBits(segment string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, segment[len(segment)-1])
	if len(segment)%4 == 0 {
		return segment + "A" // no unused bits: a letter that adds none
	}
	return segment[:len(segment)-1] + alphabet[last|1:last|1+1]
}

func TestHostileTokensAreRefused(t *testing.T) {
	rule := staticRule()
	c := dial(t, load(t, Options{}, Table{Rules: []Rule{rule}}))
	if got := check(t, c, ask(rule.ID(), "Bearer "+forge(t, `{"alg":"RS256","kid":"rsa-1"}`, string(must(json.Marshal(goodClaims(nil))))))); got.status != 200 {
		t.Fatalf("a good token made by hand: %d %s", got.status, got.body)
	}
	all, total := hostileTokens(t), time.Duration(0)
	for name, token := range all {
		start := time.Now()
		got := check(t, c, ask(rule.ID(), "Bearer "+token))
		took := time.Since(start)
		if got.status != 401 || !strings.HasPrefix(got.headers["www-authenticate"], `Bearer realm="idp", error="invalid_token", error_description="`) {
			t.Errorf("%s: %d %s", name, got.status, got.headers["www-authenticate"])
		}
		if len(token) > 20 && strings.Contains(got.body+got.headers["www-authenticate"], token[:20]) {
			t.Errorf("%s: the token is told again", name)
		}
		total += took
	}
	if mean := total / time.Duration(len(all)); mean > 5*time.Millisecond && !raceDetector {
		t.Errorf("%v for each on average, more than 5 ms", mean)
	}
	t.Logf("%d hostile tokens refused", len(all))
}

func TestTokensWithinTheRulesPass(t *testing.T) {
	rule := staticRule()
	c := dial(t, load(t, Options{}, Table{Rules: []Rule{rule}}))
	now := time.Now().Unix()
	good := string(must(json.Marshal(goodClaims(nil))))
	tokens := map[string]string{
		"no kid":            forge(t, `{"alg":"RS256"}`, good),
		"typ JWT":           forge(t, `{"alg":"RS256","typ":"JWT","kid":"rsa-1"}`, good),
		"typ jwt":           forge(t, `{"alg":"RS256","typ":"jwt","kid":"rsa-1"}`, good),
		"typ at+jwt":        forge(t, `{"alg":"RS256","typ":"at+JWT","kid":"rsa-1"}`, good),
		"typ application":   forge(t, `{"alg":"RS256","typ":"application/at+jwt","kid":"rsa-1"}`, good),
		"spaces in JSON":    forge(t, "{ \"alg\" :\"RS256\",\n\t\"kid\":\"rsa-1\"}", " "+good+"\n"),
		"unknown parameter": forge(t, `{"alg":"RS256","kid":"rsa-1","x5t":"AA","own":{"a":[1]}}`, good),
	}
	for name, changes := range map[string]map[string]any{
		"audience list":   {"aud": []string{"x", "orders"}},
		"just expired":    {"exp": now - 20},
		"clock behind":    {"iat": now + 20, "nbf": now + 20},
		"fraction":        {"exp": float64(now) + 100.5},
		"no iat":          {"iat": nil},
		"far future":      {"exp": 253402300799},
		"sub with spaces": {"sub": "alice b"},
		"sub unicode":     {"sub": "zoë"},
	} {
		tokens[name] = rsaPair().sign(t, goodClaims(changes))
	}
	for name, token := range tokens {
		if got := check(t, c, ask(rule.ID(), "Bearer "+token)); got.status != 200 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}

func TestClaimsAsText(t *testing.T) {
	o, err := strictObject([]byte(`{"s":"a","n":7,"f":1.50,"t":true,"o":{"in":{"x":"deep"}},"l":["a","b",3],"comma":["a,b"],
		"mixed":["a",{}],"crlf":"a\r\nb","nul":"a\u0000","spaced":" a","del":"a\u007f","null":null,"empty":[],
		"https://e.test/t":"dotted","a.b":{"c":"both"},"a":{"b":{"c":"nested"}},"neg":-1}`))
	if err != nil {
		t.Fatal(err)
	}
	c := claims(o)
	for path, want := range map[string]string{
		"s": "a", "n": "7", "f": "1.50", "t": "true", "o": "", "o.in": "", "o.in.x": "deep", "l": "a,b,3", "comma": "a%2Cb",
		"mixed": "", "crlf": "", "nul": "", "spaced": "", "del": "", "null": "", "empty": "", "absent": "", "s.x": "", "": "",
		"https://e.test/t": "dotted", "a.b.c": "nested", ".": "", "o.": "", "o..x": "",
	} {
		if got := c.text(path); got != want {
			t.Errorf("text %q = %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string]string{"s": "a", "n": "7", "f": "", "t": "", "l": "", "o": "", "o.in.x": "deep", "neg": ""} {
		if got := c.name(path); got != want {
			t.Errorf("name %q = %q, want %q", path, got, want)
		}
	}
}

func FuzzGate(f *testing.F) {
	for _, token := range hostileTokens(f) {
		f.Add(token)
	}
	f.Add(rsaPair().sign(f, goodClaims(nil)))
	f.Fuzz(func(t *testing.T, raw string) {
		token, err := parseToken(raw)
		if err != nil {
			return
		}
		parts := strings.Split(raw, ".")
		for i, part := range parts {
			b, err := base64.RawURLEncoding.DecodeString(part)
			if err != nil || base64.RawURLEncoding.EncodeToString(b) != part {
				t.Fatalf("segment %d is not canonical: %q", i, part)
			}
		}
		_, ofKey := algorithms[token.alg]
		if _, ofSecret := secretAlgorithms[token.alg]; ofKey == ofSecret || len(parts) != 3 || parts[2] == "" {
			t.Fatalf("accepted %q", raw)
		}
		byKeys := &judging{tokens: &tokens{algorithms: Algorithms()}, unverified: &unverified{token: token}}
		if byKeys.checkAlgorithm(time.Time{}) == nil != ofKey {
			t.Fatalf("keys are asked about %q", raw)
		}
		o, err := strictObject(token.payload)
		if err != nil {
			return
		}
		c := claims(o)
		_ = c.name("sub")
		if s := c.text("sub"); strings.ContainsAny(s, "\r\n\x00") {
			t.Fatalf("text %q", s)
		}
		_ = c.checkAudience([]string{"orders"})
		_, _ = c.checkTimes(&terms{}, time.Now())
	})
}
