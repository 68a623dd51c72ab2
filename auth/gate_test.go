package auth

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/legation/legation/auth/tokentest"
)

// hostileRule is the rule that the catalogue of hostile tokens tries.
func hostileRule() Rule {
	return Rule{Name: "edge/orders", Providers: []Provider{{Name: "idp", JWT: &JWT{
		Issuer: tokentest.Issuer, Audiences: []string{tokentest.Audience}, JWKS: JWKS{Keys: tokentest.JWKS()},
	}}}}
}

func TestHostileTokens(t *testing.T) {
	rule := hostileRule()
	c := dial(t, load(t, Options{}, Table{Rules: []Rule{rule}}))
	for _, hostile := range tokentest.Tokens() {
		if !utf8.ValidString(hostile.Token) {
			continue // not in a message; Envoy sends something else
		}
		got := check(t, c, ask(rule.ID(), "Bearer "+hostile.Token))
		if got.status != hostile.Want {
			t.Errorf("%s: got %d %s, want %d", hostile.Name, got.status, got.body, hostile.Want)
		}
		challenge := got.headers["www-authenticate"]
		if got.status == 401 && !strings.HasPrefix(challenge, `Bearer realm="idp", error="invalid_token", error_description="`) {
			t.Errorf("%s: challenge %s", hostile.Name, challenge)
		}
		if len(hostile.Token) > 20 && strings.Contains(got.body+challenge, hostile.Token[:20]) {
			t.Errorf("%s: the token is told again", hostile.Name)
		}
	}
}

// The catalogue tries each point of RFC 8725's section 3.
func TestCatalogueHasAllPoints(t *testing.T) {
	hostile, points := 0, map[string]int{}
	for _, c := range tokentest.All() {
		if c.Want != 200 {
			hostile++
			points[c.Point]++
		}
	}
	for i := 1; i <= 12; i++ {
		if point := fmt.Sprintf("3.%d", i); points[point] == 0 {
			t.Errorf("no case of %s", point)
		}
	}
	if hostile < 100 {
		t.Errorf("%d hostile cases, want 100 and more", hostile)
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
	for _, c := range tokentest.Tokens() {
		f.Add(c.Token)
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
		if _, ok := algorithms[token.alg]; !ok || len(parts) != 3 || parts[2] == "" {
			t.Fatalf("accepted %q", raw)
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
		c.check(&tokens{audiences: []string{"orders"}}, time.Now())
	})
}
