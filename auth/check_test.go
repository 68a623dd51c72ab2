package auth

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/legation/legation/callout"
)

func TestGoodTokenPassesWithItsIdentity(t *testing.T) {
	rule := staticRule()
	c := dial(t, load(t, Options{}, Table{Rules: []Rule{rule}}))
	for _, pair := range []keyPair{rsaPair(), ecPair(), ed25519Pair()} {
		token := pair.sign(t, goodClaims(map[string]any{"tenant": map[string]any{"id": "t-1"}}))
		for _, scheme := range []string{"Bearer ", "bearer ", "BEARER "} { // the second and third come from the cache
			got := check(t, c, ask(rule.ID(), scheme+token))
			want := answer{
				status:  200,
				headers: map[string]string{"x-auth-user": "alice", "x-auth-tenant": "t-1"},
				added:   map[string]string{},
				meta:    map[string]any{"decision": "allow", "rule": "edge/orders", "provider": "idp", "consumer": "idp/alice"},
			}
			if d := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); d != "" {
				t.Errorf("%s %s: %s", pair.kid, scheme, d)
			}
		}
	}
}

func TestClaimHeadersAreSetOrRemoved(t *testing.T) {
	rule := staticRule()
	rule.Providers = append(rule.Providers, Provider{Name: "partner", JWT: &JWT{
		Issuer: "https://partner.test/",
		JWKS:   JWKS{Keys: jwks(rsaOther().jwk())}, Reading: Reading{Headers: map[string]string{"x-partner": "org", "x-auth-user": "email"}},
	}})
	s := load(t, Options{}, Table{Rules: []Rule{rule}})
	c := dial(t, s)

	got := check(t, c, ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil)), "x-partner", "forged", "x-auth-tenant", "forged"))
	if d := cmp.Diff([]string{"x-auth-tenant", "x-partner"}, got.removed); d != "" {
		t.Error(d)
	}
	got = check(t, c, ask(rule.ID(), "Bearer "+rsaOther().sign(t, goodClaims(map[string]any{"iss": "https://partner.test/", "org": "acme", "email": nil}))))
	if d := cmp.Diff(map[string]string{"x-partner": "acme"}, got.headers); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"x-auth-tenant", "x-auth-user"}, got.removed); d != "" {
		t.Error(d)
	}

	r, err := s.Check(t.Context(), ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil))))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range r.GetOkResponse().Headers {
		if h.AppendAction != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%s would be appended to what the client sent", h.Header.Key)
		}
	}
}

func TestConsumersAreMappedByIdentity(t *testing.T) {
	rule := staticRule()
	s := load(t, Options{}, Table{Rules: []Rule{rule}, Consumers: []Consumer{
		{Name: "acme", Identities: []string{"idp/alice", "keys/k1"}},
		{Name: "bob", Identities: []string{"keys/bob"}},
	}})
	c := dial(t, s)
	for sub, want := range map[string]string{"alice": "acme", "bob": "idp/bob", "acme": "idp/acme", "x/y": "idp/x/y"} {
		got := check(t, c, ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(map[string]any{"sub": sub}))))
		if got.meta["consumer"] != want {
			t.Errorf("sub %s is consumer %v, want %s", sub, got.meta["consumer"], want)
		}
	}
	for _, bad := range []Consumer{
		{Name: "idp/alice", Identities: []string{"idp/bob"}},
		{Name: "x", Identities: []string{"alice"}},
		{Name: ""},
		{Name: "x", Plan: "gold\n"},
		{Name: "x", Plan: "\xff"},
	} {
		if s.Load(Table{Rules: []Rule{rule}, Consumers: []Consumer{bad}}) == nil {
			t.Errorf("consumer %v was loaded", bad)
		}
	}
	if s.Load(Table{Consumers: []Consumer{{Name: "a", Identities: []string{"idp/z"}}, {Name: "b", Identities: []string{"idp/z"}}}}) == nil {
		t.Error("one identity for two consumers was loaded")
	}
}

func TestCredentials(t *testing.T) {
	rule := staticRule()
	c := dial(t, load(t, Options{}, Table{Rules: []Rule{rule}}))
	token := rsaPair().sign(t, goodClaims(nil))
	const plain, invalid = `Bearer realm="idp"`, `Bearer realm="idp", error="invalid_token"`
	for _, test := range []struct {
		name, authorization string
		status              int
		challenge           string // the beginning of it
	}{
		{"none", "", 401, plain},
		{"another scheme", "Basic YTpi", 401, plain},
		{"no scheme", token, 401, plain},
		{"two tokens", "Bearer " + token + ",Bearer " + token, 400, ""},
		{"a token and a basic one", "Basic YTpi, Bearer " + token, 400, ""},
		{"a token and a padded basic one", "Bearer " + token + ",Basic YTpiYw==", 400, ""},
		{"a token and a bare text", "Bearer " + token + ",YTpi", 400, ""},
		{"two of several parameters", `Digest a="b", c="d",Digest a="b", c="d"`, 400, ""},
		{"several parameters and a token", `Digest a="b", c="d",Bearer ` + token, 400, ""},
		{"several parameters", `Digest username="a, b", uri = "/", qop=auth, nc=1`, 401, plain},
		{"a token in quotes", `Digest a=",Bearer ` + token + `"`, 401, plain},
		{"quotes that never end", `Digest a="\",Bearer ` + token, 401, plain},
		{"a token and a parameter", "Bearer " + token + ", a=b", 401, invalid},
		{"a token and a comma", "Bearer " + token + ",", 401, invalid},
		{"no token", "Bearer", 401, invalid},
		{"empty token", "Bearer ", 401, invalid},
		{"two spaces", "Bearer  " + token, 401, invalid},
		{"something after", "Bearer " + token + " x", 401, invalid},
		{"tab", "Bearer\t" + token, 401, plain},
	} {
		got := check(t, c, ask(rule.ID(), test.authorization))
		challenge := got.headers["www-authenticate"]
		if got.status != test.status || !strings.HasPrefix(challenge, test.challenge) {
			t.Errorf("%s: %d %s", test.name, got.status, challenge)
		}
		if test.challenge == plain && challenge != plain {
			t.Errorf("%s: an error is named without credentials: %s", test.name, challenge)
		}
		if strings.Contains(got.body+challenge, token[:20]) {
			t.Errorf("%s: the token is told again", test.name)
		}
		var body struct{ Error, Message string }
		if err := json.Unmarshal([]byte(got.body), &body); err != nil || body.Error == "" || body.Message == "" {
			t.Errorf("%s: body %s: %v", test.name, got.body, err)
		}
		if got.headers["content-type"] != "application/json" || got.headers["cache-control"] != "no-store" {
			t.Errorf("%s: headers %v", test.name, got.headers)
		}
		if got.meta["decision"] != "deny" || got.meta["reason"] == nil {
			t.Errorf("%s: metadata %v", test.name, got.meta)
		}
	}
}

func TestRawHeadersAreRead(t *testing.T) {
	rule := staticRule()
	c := dial(t, load(t, Options{}, Table{Rules: []Rule{rule}}))
	token := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	for n, want := range []int{401, 200, 400} {
		q := ask(rule.ID(), "")
		m := &corev3.HeaderMap{}
		for range n {
			m.Headers = append(m.Headers, &corev3.HeaderValue{Key: "authorization", RawValue: []byte(token)})
		}
		q.Attributes.Request.Http.HeaderMap = m
		if got := check(t, c, q); got.status != want {
			t.Errorf("%d raw authorization headers: %d, want %d", n, got.status, want)
		}
	}
}

func TestRuleIsFoundByIDOrName(t *testing.T) {
	old := staticRule()
	next := staticRule()
	next.Providers[0].JWT.Audiences = []string{"new"}
	s := load(t, Options{}, Table{Rules: []Rule{old, next}})
	c := dial(t, s)
	forOld, forNew := "Bearer "+rsaPair().sign(t, goodClaims(nil)), "Bearer "+rsaPair().sign(t, goodClaims(map[string]any{"aud": "new"}))
	for _, test := range []struct {
		rule, token string
		want        int
	}{
		{old.ID(), forOld, 200},
		{old.ID(), forNew, 401},
		{next.ID(), forNew, 200},
		{next.ID(), forOld, 401},
		{"edge/orders", forNew, 200},
		{"edge/orders", forOld, 401}, // the last of the name is the current one
		{"edge/orders@000000000000", forOld, 503},
		{"edge/other", forOld, 503},
		{"", forOld, 403},
		{"EDGE/ORDERS", forOld, 503},
		{old.ID() + "\x00", forOld, 503},
	} {
		if got := check(t, c, ask(test.rule, test.token)); got.status != test.want {
			t.Errorf("%q: %d, want %d", test.rule, got.status, test.want)
		}
	}
	q := ask("", forOld)
	q.Attributes.ContextExtensions = nil
	if got := check(t, c, q); got.status != 403 {
		t.Errorf("no extensions: %d", got.status)
	}
	if got := check(t, c, &authv3.CheckRequest{}); got.status != 403 {
		t.Errorf("nothing at all: %d", got.status)
	}
	if err := s.Load(Table{Rules: []Rule{next}}); err != nil {
		t.Fatal(err)
	}
	if got := check(t, c, ask(old.ID(), forOld)); got.status != 503 {
		t.Errorf("a rule that is gone: %d", got.status)
	}
}

func TestIDFollowsContent(t *testing.T) {
	base := staticRule().ID()
	if staticRule().ID() != base || !strings.HasPrefix(base, "edge/orders@") || len(base) != len("edge/orders@")+12 {
		t.Errorf("ID %s", base)
	}
	seen := map[string]bool{base: true}
	for name, change := range map[string]func(*Rule){
		"limits":   func(r *Rule) { r.Limits = []string{"l"} },
		"audience": func(r *Rule) { r.Providers[0].JWT.Audiences = nil },
		"keys":     func(r *Rule) { r.Providers[0].JWT.JWKS.Keys = jwks(rsaOther().jwk()) },
		"url":      func(r *Rule) { r.Providers[0].JWT.JWKS = JWKS{URL: "https://a.test/"} },
		"header":   func(r *Rule) { r.Providers[0].JWT.Headers["x-new"] = "sub" },
		"skew":     func(r *Rule) { r.Providers[0].JWT.Skew = 1 },
		"consumer": func(r *Rule) { r.Providers[0].JWT.Consumer = "email" },
		"plan":     func(r *Rule) { r.Providers[0].JWT.Plan = "plan" },
		"plans":    func(r *Rule) { r.Plan = PlanOptional },
		"metadata": func(r *Rule) { r.Metadata = []string{"sub"} },
	} {
		r := staticRule()
		change(&r)
		if id := r.ID(); seen[id] {
			t.Errorf("%s does not change the ID", name)
		} else {
			seen[id] = true
		}
	}
	r := staticRule()
	r.Limits = []string{}
	if r.ID() != base {
		t.Error("an empty list and none have different IDs")
	}
}

func TestHostHygiene(t *testing.T) {
	rule := staticRule()
	s := load(t, Options{}, Table{Rules: []Rule{rule}})
	token := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	for host, good := range map[string]bool{
		"api.example.com": true, "API.Example.COM": true, "api.example.com:8443": true, "api.example.com.": true,
		"127.0.0.1:80": true, "[::1]": true, "[2001:db8::1]:443": true, "a": true, "xn--bcher-kva.example": true,
		"": false, ".": false, ":80": false, "a:": false, "a:b": false, "a:80:80": false, "a:123456": false, "a..": false,
		"a..b": false, ".a": false, "a,b": false, "x@a": false, "a%2e": false, "a b": false, "a\x00": false, "a/": false,
		"a_b": true, "[::1": false, "[::1]x": false, "[127.0.0.1]": false, "[fe80::1%eth0]": false, "::1": false,
		"bücher.example": false, "a\r\nb": false, "ad\u017Fin": false, strings.Repeat("a", 400): false, "[]": false, "[": false,
	} {
		q := ask(rule.ID(), token)
		q.Attributes.Request.Http.Host = host
		r, err := s.Check(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if got := flatten(r).status; got != 200 == good || got != 200 && got != 400 {
			t.Errorf("host %q: %d", host, got)
		}
	}
}

// counter remembers what it was asked, and answers the same to all.
type counter struct {
	verdict Verdict
	calls   int
	limits  []string
	caller  Caller
	panics  bool
}

func (c *counter) Count(asks []*Ask) {
	if c.panics {
		panic("store: secret-in-a-panic")
	}
	for _, a := range asks {
		c.calls++
		c.limits, c.caller, a.Verdict = a.Limits, a.Caller, c.verdict
		c.caller.Header = remembered(a.Caller.Header, "x-key", "absent")
		c.caller.Claim = remembered(a.Caller.Claim, "tenant.id", "sub", "absent")
	}
}

// remembered gives what f gives for some names: f itself is good only while the Counter is asked.
func remembered(f func(string) string, names ...string) func(string) string {
	m := map[string]string{}
	for _, name := range names {
		m[name] = f(name)
	}
	return func(name string) string { return m[name] }
}

func TestLimitsAreCountedInTheSameCall(t *testing.T) {
	rule := staticRule()
	rule.Limits = []string{"route/orders/0"}
	k := &counter{verdict: Verdict{Allowed: true, Headers: [][2]string{{"X-RateLimit-Remaining", "4"}, {"bad name", "x"}, {"x-bad", "a\r\nb"}}}}
	c := dial(t, load(t, Options{Counter: k}, Table{Rules: []Rule{rule}, Consumers: []Consumer{{Name: "acme", Identities: []string{"idp/alice"}}}}))
	token := "Bearer " + rsaPair().sign(t, goodClaims(map[string]any{"tenant": map[string]any{"id": 7}}))

	got := check(t, c, ask(rule.ID(), token, "x-envoy-external-address", "198.51.100.9", "x-key", "v"))
	if got.status != 200 || cmp.Diff(map[string]string{"x-ratelimit-remaining": "4"}, got.added) != "" {
		t.Errorf("allowed: %d %v", got.status, got.added)
	}
	w := k.caller
	if !w.Identified || w.Consumer != "acme" || w.IP != netip.MustParseAddr("198.51.100.9") || w.Header("x-key") != "v" ||
		w.Header("absent") != "" || w.Claim("tenant.id") != "7" || w.Claim("absent") != "" || k.limits[0] != "route/orders/0" {
		t.Errorf("counted %+v", w)
	}
	check(t, c, ask(rule.ID(), token))
	if k.caller.IP != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("without the header the peer is %v", k.caller.IP)
	}
	check(t, c, ask(rule.ID(), token, "x-envoy-external-address", "garbage"))
	if k.caller.IP != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("with a broken header the peer is %v", k.caller.IP)
	}

	if got := check(t, c, ask(rule.ID(), "")); got.status != 401 || k.caller.Identified || k.caller.Consumer != "" || k.caller.Claim("sub") != "" {
		t.Errorf("without credentials: %d, counted %+v", got.status, k.caller)
	}
	for name, bad := range map[string]*authv3.CheckRequest{
		"two tokens": ask(rule.ID(), "Bearer a, Bearer b"), "bad host": ask(rule.ID(), token), "no rule": ask("", token),
	} {
		if name == "bad host" {
			bad.Attributes.Request.Http.Host = "a b"
		}
		before := k.calls
		status := check(t, c, bad).status
		if counted := k.calls != before; counted != (status == 400) || counted && k.caller.Identified {
			t.Errorf("%s: %d, counted %t, %+v", name, status, counted, k.caller)
		}
	}
}

func TestGRPCCallersAreToldAGRPCStatus(t *testing.T) {
	rule := staticRule()
	rule.Limits = []string{"l"}
	k := &counter{verdict: Verdict{Allowed: true}}
	c := dial(t, load(t, Options{Counter: k}, Table{Rules: []Rule{rule}}))
	good := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	full := Verdict{Status: 429, Headers: [][2]string{{"retry-after", "3"}}}
	for _, test := range []struct {
		rule, token, contentType string
		verdict                  Verdict
		want                     string
	}{
		{rule.ID(), good, "application/grpc", full, "8"},
		{rule.ID(), good, "application/grpc+proto", full, "8"},
		{rule.ID(), good, "application/grpc-web", full, ""},
		{rule.ID(), good, "application/json", full, ""},
		{rule.ID(), good, "", full, ""},
		{rule.ID(), "", "application/grpc", Verdict{Allowed: true}, "16"},
		{rule.ID(), "Bearer a,Bearer b", "application/grpc", Verdict{Allowed: true}, "3"},
		{"", good, "application/grpc", Verdict{Allowed: true}, "7"},
		{"other", good, "application/grpc", Verdict{Allowed: true}, "14"},
		{rule.ID(), good, "application/grpc", Verdict{Allowed: true}, ""},
	} {
		k.verdict = test.verdict
		got := check(t, c, ask(test.rule, test.token, "content-type", test.contentType))
		if got.headers["grpc-status"] != test.want {
			t.Errorf("%+v: grpc-status %q, %s", test, got.headers["grpc-status"], got.body)
		}
		if json.Valid([]byte(got.body)) == (test.want != "") && got.status != 200 {
			t.Errorf("%+v: body %q", test, got.body)
		}
	}
}

func TestClaimsAsHeaderValues(t *testing.T) {
	for payload, want := range map[string]string{
		`"alice"`: "alice", `7`: "7", `true`: "true", `["a","b"]`: "a,b", `["a",1,false]`: "a,1,false", `"Doe, John"`: "Doe%2C John",
		`"a,b"`: "a%2Cb", `["a,b"]`: "a%2Cb", `"a%2Cb"`: "a%252Cb", `"100%"`: "100%25", `"zoë"`: "zoë",
		`null`: "", `{}`: "", `[]`: "", `[[]]`: "", `["a",null]`: "", `""`: "", `[""]`: "", `" a"`: "", `"a\n"`: "", `"a\u0000b"`: "",
		`"a\u0085b"`: "", `"a\u202eb"`: "", `"a\u202ab"`: "", `"a\u2066b"`: "", `"a\u2069b"`: "", `["a","\u2067b"]`: "",
		`"a\u2028b"`: "", `"a\u200fb"`: "", `"a\u009fb"`: "",
	} {
		o, err := strictObject([]byte(`{"c":` + payload + `}`))
		if err != nil {
			t.Fatal(payload, err)
		}
		if got := claims(o).text("c"); got != want {
			t.Errorf("%s: %q, want %q", payload, got, want)
		}
	}
	if got := (claims{"c": "Doe, John"}).name("c"); got != "Doe, John" {
		t.Errorf("a name with a comma names %q", got)
	}
}

func TestLimitsRefuse(t *testing.T) {
	rule := staticRule()
	rule.Limits = []string{"l"}
	k := &counter{}
	c := dial(t, load(t, Options{Counter: k}, Table{Rules: []Rule{rule}}))
	good := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	for _, test := range []struct {
		verdict Verdict
		want    int
	}{
		{Verdict{Status: 429, Limit: "l", Headers: [][2]string{{"retry-after", "3"}}}, 429},
		{Verdict{}, 429}, // the zero verdict refuses
		{Verdict{Status: 200}, 429},
		{Verdict{Status: 503}, 503},
	} {
		k.verdict = test.verdict
		for _, authorization := range []string{good, "", "Bearer x"} {
			got := check(t, c, ask(rule.ID(), authorization))
			if got.status != test.want {
				t.Errorf("%+v: %d, want %d", test.verdict, got.status, test.want)
			}
			if _, ok := got.headers["www-authenticate"]; ok {
				t.Errorf("%+v: a limit asks for credentials", test.verdict)
			}
			if test.verdict.Limit != "" && (got.meta["limit"] != "l" || got.headers["retry-after"] != "3") {
				t.Errorf("%+v: %v %v", test.verdict, got.meta, got.headers)
			}
		}
	}
}

func TestAccessLogsAreToldOfShadows(t *testing.T) {
	rule := staticRule()
	rule.Limits = []string{"l"}
	c := dial(t, load(t, Options{Counter: &counter{verdict: Verdict{Allowed: true, Shadow: "l"}}}, Table{Rules: []Rule{rule}}))
	got := check(t, c, ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil))))
	if got.status != 200 || got.meta["shadow"] != "l" || got.meta["limit"] != nil {
		t.Errorf("got %d %v, want 200 and the limit in shadow", got.status, got.meta)
	}
}

func TestPanicDeniesAndTellsNothing(t *testing.T) {
	rule := staticRule()
	rule.Limits = []string{"l"}
	var out bytes.Buffer
	c := dial(t, load(t, Options{Counter: &counter{panics: true}, Log: slog.New(slog.NewTextHandler(&out, nil))}, Table{Rules: []Rule{rule}}))
	if got := check(t, c, ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil)))); got.status != 503 {
		t.Errorf("got %d", got.status)
	}
	if out.Len() == 0 || strings.Contains(out.String(), "secret") {
		t.Errorf("log: %s", out.String())
	}
}

func TestLoadIsAllOrNothing(t *testing.T) {
	good := staticRule()
	s := load(t, Options{}, Table{Rules: []Rule{good}})
	token := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	for name, change := range map[string]func(*Rule){
		"no provider":        func(r *Rule) { r.Providers = nil },
		"limits, no counter": func(r *Rule) { r.Limits = []string{"l"} },
		"plan, no counter":   func(r *Rule) { r.Plan = PlanOptional },
		"metadata twice":     func(r *Rule) { r.Metadata = []string{"a", "a"} },
		"metadata no name":   func(r *Rule) { r.Metadata = []string{""} },
		"metadata not UTF-8": func(r *Rule) { r.Metadata = []string{"\xff"} },
		"no name":            func(r *Rule) { r.Name = "" },
		"name like an ID":    func(r *Rule) { r.Name = "a@b" },
		"name breaks header": func(r *Rule) { r.Providers[0].Name = `a"b` },
		"provider with /":    func(r *Rule) { r.Providers[0].Name = "a/b" },
		"no JWT":             func(r *Rule) { r.Providers[0].JWT = nil },
		"no issuer":          func(r *Rule) { r.Providers[0].JWT.Issuer = "" },
		"no keys":            func(r *Rule) { r.Providers[0].JWT.JWKS = JWKS{} },
		"keys twice":         func(r *Rule) { r.Providers[0].JWT.JWKS.URL = "https://a.test/" },
		"bad keys":           func(r *Rule) { r.Providers[0].JWT.JWKS.Keys = []byte("{}") },
		"plain http":         func(r *Rule) { r.Providers[0].JWT.JWKS = JWKS{URL: "http://id.example.com/"} },
		"metadata":           func(r *Rule) { r.Providers[0].JWT.JWKS = JWKS{URL: "https://169.254.169.254/"} },
		"skew":               func(r *Rule) { r.Providers[0].JWT.Skew = -1 },
		"header case":        func(r *Rule) { r.Providers[0].JWT.Headers["X-User"] = "sub" },
		"header host":        func(r *Rule) { r.Providers[0].JWT.Headers["host"] = "sub" },
		"header pseudo":      func(r *Rule) { r.Providers[0].JWT.Headers[":path"] = "sub" },
		"header of envoy":    func(r *Rule) { r.Providers[0].JWT.Headers["x-envoy-retry-on"] = "sub" },
		"header no claim":    func(r *Rule) { r.Providers[0].JWT.Headers["x-user"] = "" },
	} {
		bad := staticRule()
		change(&bad)
		bad.Name += "2"[:min(1, len(bad.Name))]
		if err := s.Load(Table{Rules: []Rule{good, bad}}); err == nil {
			t.Errorf("%s: loaded", name)
		}
		r, _ := s.Check(t.Context(), ask(good.ID(), token))
		if flatten(r).status != 200 {
			t.Errorf("%s: the old table is gone", name)
		}
	}
}

func TestHostileRequestsAreAnswered(t *testing.T) {
	rule := staticRule()
	c := dial(t, load(t, Options{}, Table{Rules: []Rule{rule}}))
	token := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	big := strings.Repeat("a", 1<<20)
	crowd := ask(rule.ID(), token)
	for n := range 10_000 {
		crowd.Attributes.Request.Http.Headers[strings.Repeat("h", n%50+1)+big[:n/50]] = "v"
	}
	for name, test := range map[string]struct {
		q    *authv3.CheckRequest
		want int
	}{
		"no HTTP":         {&authv3.CheckRequest{Attributes: &authv3.AttributeContext{ContextExtensions: map[string]string{RuleExtension: rule.ID()}}}, 400},
		"huge rule":       {ask(big, token), 503},
		"huge token":      {ask(rule.ID(), "Bearer "+big), 401},
		"huge scheme":     {ask(rule.ID(), big), 401},
		"huge header":     {ask(rule.ID(), token, "x-big", big), 200},
		"many headers":    {crowd, 200},
		"NUL in the rule": {ask("edge\x00/orders", token), 503},
		"NUL in a token":  {ask(rule.ID(), token+"\x00"), 401},
		"IP with a zone":  {ask(rule.ID(), token, "x-envoy-external-address", "fe80::1%"+big), 200},
	} {
		if got := check(t, c, test.q); got.status != test.want {
			t.Errorf("%s: %d, want %d", name, got.status, test.want)
		}
	}
}

// What a token or a request holds is never taken for the name of something else, however it is written: revocations, metrics
// and lines of the log stay whole, and bounded.
func TestHostileTextsStayTexts(t *testing.T) {
	rule := staticRule()
	board := &slate{}
	big := strings.Repeat("a", 1<<18)
	sign := func(changes map[string]any) string { // given out before anything was revoked
		c := goodClaims(changes)
		c["iat"] = time.Now().Add(-time.Minute).Unix()
		return "Bearer " + rsaPair().sign(t, c)
	}
	lines := logged(t, Options{Decisions: LogAll, Revoked: board}, Table{
		Rules: []Rule{rule}, Consumers: []Consumer{{Name: "acme", Identities: []string{"idp/x/y"}}},
	}, func(s *Service) {
		for _, name := range []string{"subject:idp/alice", "consumer:acme", "jti:idp/7", "session:x", "jti:idp/" + big[:4000], "subject:idp/a/b"} {
			revoke(t, s, name)
		}
		c := dial(t, s)
		for name, run := range map[string]struct {
			claims map[string]any
			status int
		}{
			"revoked":                {nil, 401},
			"consumer":               {map[string]any{"sub": "x/y"}, 401},
			"slash of another":       {map[string]any{"sub": "a/b"}, 401},
			"named as a consumer":    {map[string]any{"sub": "acme"}, 200},
			"named as an entry":      {map[string]any{"sub": "idp/alice"}, 200},
			"named as a revocation":  {map[string]any{"sub": "consumer:acme"}, 200},
			"jti of a revocation":    {map[string]any{"sub": "bob", "jti": "7:session:x"}, 200},
			"jti with another entry": {map[string]any{"sub": "bob", "jti": "../idp/7"}, 200},
			"jti with NUL":           {map[string]any{"sub": "bob", "jti": "7\x00"}, 200},
			"long jti":               {map[string]any{"sub": "bob", "jti": big[:4001]}, 200},
			"long jti, revoked":      {map[string]any{"sub": "bob", "jti": big[:4000]}, 401},
			"lines":                  {map[string]any{"sub": "bob\ndecision=allow"}, 401}, // names nobody
		} {
			if got := check(t, c, ask(rule.ID(), sign(run.claims))); got.status != run.status {
				t.Errorf("%s: %+v, want %d", name, got, run.status)
			}
		}
		q := ask(rule.ID(), sign(map[string]any{"sub": "bob"}), "x-request-id", big, "traceparent", big, "x-envoy-external-address", big)
		h := q.Attributes.Request.Http
		h.Method, h.Path, h.Host = big, "/"+big, "a\nb"
		check(t, c, q)
		h.Method, h.Path, h.Host = "GET\n", "/a\nmsg=decision\u2028"+strings.Repeat(";", 1<<20), "api.example.com"
		check(t, c, q)
		broken := &callout.Call{Message: bytes.ReplaceAll(must(proto.Marshal(ask(rule.ID(), sign(nil), "x-bad", "BAD"))), []byte("BAD"), []byte("\xff\xfe\x00"))}
		s.Answer([]*callout.Call{broken})
		if got := flatten(read(t, broken)); got.status != 401 {
			t.Errorf("texts that aren't UTF-8: %+v", got)
		}
	})
	if len(lines) != 2*(12+2)+1 {
		t.Errorf("%d lines, want one for each request", len(lines))
	}
	for _, line := range lines {
		if text := must(json.Marshal(line)); len(text) > 8<<10 {
			t.Errorf("a line of %d bytes: %.300s", len(text), text)
		}
	}
}

func FuzzCheck(f *testing.F) {
	rule := staticRule()
	rule.Limits = []string{"l"}
	k := &counter{verdict: Verdict{Allowed: true}}
	s := load(f, Options{Counter: k}, Table{Rules: []Rule{rule}})
	good := "Bearer " + ed25519Pair().sign(f, goodClaims(map[string]any{"exp": 4102444800, "iat": nil}))
	for _, q := range []*authv3.CheckRequest{
		{},
		ask("", ""), ask(rule.ID(), good), ask(rule.Name, "Bearer x"), ask(rule.ID(), strings.Repeat("a", 1<<10)),
		ask(rule.ID(), "Bearer "+strings.Repeat(".", 900), "x-envoy-external-address", "::1%\x00"),
	} {
		f.Add(must(proto.Marshal(q)))
	}
	if got := flatten(must(s.Check(f.Context(), ask(rule.Name, good)))); got.status != 200 {
		f.Fatalf("the good token: %d %s", got.status, got.body)
	}
	var log bytes.Buffer
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		call := &callout.Call{Message: bytes.Clone(b)}
		s.Answer([]*callout.Call{call})
		if log.Len() > 0 {
			t.Fatal(log.String())
		}
		var q request
		if q.decode(b) != nil {
			if call.Code != codes.Internal || call.Reply != nil {
				t.Fatalf("no request, and answered %v %q", call.Code, call.Reply)
			}
			return
		}
		r := read(t, call)
		if (r.GetOkResponse() != nil) != (r.GetStatus().GetCode() == 0) {
			t.Fatalf("status and answer differ: %v", r)
		}
		if r.GetOkResponse() != nil && q.header("authorization")[7:] != good[7:] {
			t.Fatal("another token than the good one passed")
		}
		if m := new(authv3.CheckRequest); proto.Unmarshal(b, m) == nil {
			if byCheck := must(s.Check(t.Context(), m)); !proto.Equal(byCheck, r) {
				t.Fatalf("Check and Answer differ:\n%v\n%v", byCheck, r)
			}
		}
	})
}
