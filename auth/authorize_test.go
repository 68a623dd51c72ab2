package auth

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/legation/legation/expr"
)

// factsOf is a request of a caller with these claims, which are JSON.
func factsOf(t testing.TB, text string) *expr.Facts {
	t.Helper()
	c, err := strictObject([]byte(text))
	if err != nil {
		t.Fatalf("%.80s: %v", text, err)
	}
	return &expr.Facts{
		Method: "POST", Host: "a.test", Path: "/v1/orders?x=1", Scheme: "https", Route: "edge/orders", IP: netip.MustParseAddr("10.1.2.3"),
		Header:   func(name string) string { return map[string]string{"x-team": "blue"}[name] },
		Consumer: "idp/alice", Plan: "gold", Time: time.Unix(1, 0), Identity: c,
	}
}

func compileAuthorization(t testing.TB, a Authorization) *authorization {
	t.Helper()
	if a.Name == "" {
		a.Name = "route/orders"
	}
	ready, err := newAuthorization(a)
	if err != nil {
		t.Fatal(err)
	}
	return ready
}

// verdict is what a caller is told, and what the operator is: "403 claim tenant".
func verdict(v *veto) string {
	if v == nil {
		return ""
	}
	return strings.TrimSpace(http.StatusText(v.status) + " " + v.reason + " " + v.rule)
}

func TestScopes(t *testing.T) {
	a := compileAuthorization(t, Authorization{Scopes: []string{"orders.read", "orders.write"}})
	for claims, pass := range map[string]bool{
		`{"scope": "orders.read orders.write"}`:                            true,
		`{"scope": "openid orders.write  orders.read "}`:                   true,
		`{"scp": "orders.read orders.write"}`:                              true,
		`{"scp": ["orders.read", "x", "orders.write"]}`:                    true,
		`{"scope": "orders.read", "scp": ["orders.write"]}`:                true,
		`{"scp": [1, null, {"a": []}, [], "orders.read", "orders.write"]}`: true,
		`{}`:                                         false,
		`{"scope": "orders.read"}`:                   false,
		`{"scope": "orders.read ORDERS.WRITE"}`:      false,
		`{"scope": "orders.read,orders.write"}`:      false,
		`{"scope": "orders.read\torders.write"}`:     false,
		`{"scope": "orders.read orders.writer"}`:     false,
		`{"scope": "xorders.read orders.write"}`:     false,
		`{"scope": ["orders.read", "orders.write"]}`: false,
		`{"scope": {"orders.read": true}}`:           false,
		`{"scope": null, "scp": true}`:               false,
		`{"scp": ["orders.read orders.write"]}`:      false,
		`{"scp": [["orders.read", "orders.write"]]}`: false,
		`{"scopes": "orders.read orders.write"}`:     false,
	} {
		want := ""
		if !pass {
			want = "Forbidden insufficient_scope"
		}
		if got := verdict(a.judge(factsOf(t, claims))); got != want {
			t.Errorf("%s: %q, want %q", claims, got, want)
		}
	}
}

func TestClaims(t *testing.T) {
	for _, test := range []struct {
		path, claims string
		any          []string
		pass         bool
	}{
		{"tenant", `{"tenant": "acme"}`, []string{"acme"}, true},
		{"tenant", `{"tenant": "acme"}`, []string{"x", "acme"}, true},
		{"tenant", `{"tenant": ["x", "acme"]}`, []string{"acme"}, true},
		{"tenant", `{"tenant": "Acme"}`, []string{"acme"}, false},
		{"tenant", `{"tenant": "acme "}`, []string{"acme"}, false},
		{"tenant", `{"tenant": "acme,x"}`, []string{"acme"}, false},
		{"tenant", `{"tenant": ["acme,x"]}`, []string{"acme"}, false},
		{"tenant", `{"tenant": {"acme": true}}`, []string{"acme"}, false},
		{"tenant", `{"tenant": [["acme"]]}`, []string{"acme"}, false},
		{"tenant", `{"tenant": null}`, []string{"null", "acme"}, false},
		{"tenant", `{"tenant": [null]}`, []string{"null"}, false},
		{"tenant", `{"tenant": []}`, []string{"[]"}, false},
		{"tenant", `{}`, []string{"acme"}, false},
		{"level", `{"level": 3}`, []string{"3"}, true},
		{"level", `{"level": "3"}`, []string{"3"}, true},
		{"level", `{"level": 3.0}`, []string{"3"}, false},
		{"level", `{"level": 3e0}`, []string{"3"}, false},
		{"level", `{"level": 12345678901234567890123}`, []string{"12345678901234567890123"}, true},
		{"level", `{"level": 12345678901234567890124}`, []string{"12345678901234567890123"}, false},
		{"level", `{"level": [1, 2.5]}`, []string{"2.5"}, true},
		{"ok", `{"ok": true}`, []string{"true"}, true},
		{"ok", `{"ok": false}`, []string{"true"}, false},
		{"address.country", `{"address": {"country": "NO"}}`, []string{"NO"}, true},
		{"address.country", `{"address.country": "NO"}`, []string{"NO"}, true},
		{"address.country", `{"address": "NO"}`, []string{"NO"}, false},
		{"address.country", `{"address": [{"country": "NO"}]}`, []string{"NO"}, false},
		{"https://a.test/tenant", `{"https://a.test/tenant": "acme"}`, []string{"acme"}, true},
	} {
		a := compileAuthorization(t, Authorization{Claims: map[string][]string{test.path: test.any}})
		want := ""
		if !test.pass {
			want = "Forbidden claim " + test.path
		}
		if got := verdict(a.judge(factsOf(t, test.claims))); got != want {
			t.Errorf("%s %q of %s: %q, want %q", test.path, test.any, test.claims, got, want)
		}
	}
}

func TestRules(t *testing.T) {
	const claims = `{"sub": "alice", "roles": ["dev"], "level": 2, "address": {"country": "NO"}}`
	for _, test := range []struct {
		rule, want string
	}{
		{"request.method == 'GET' || 'dev' in identity.roles", ""},
		{"identity.level > 1 && identity.address.country == 'NO'", ""},
		{"inCIDR(source.address, '10.0.0.0/8')", ""},
		{"request.headers['X-Team'] == 'blue' && consumer == 'idp/alice' && plan == 'gold'", ""},
		{"request.method == 'GET'", "Forbidden rule office"},
		{"!inCIDR(source.address, '10.0.0.0/8')", "Forbidden rule office"},
		{"'admin' in identity.groups", "Forbidden rule_error office"},
		{"!('admin' in identity.groups)", "Forbidden rule_error office"},
		{"identity.roles == 'dev' || identity.sub.x == 1", "Forbidden rule_error office"},
		{"metadata.account == null", "Forbidden rule_error office"}, // nothing was fetched
		{"[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, a+b+c+d > 0))))", "Forbidden rule_error office"},
	} {
		a := compileAuthorization(t, Authorization{Rules: []AuthRule{{Expression: "true"}, {Expression: test.rule, Name: "office"}}})
		if got := verdict(a.judge(factsOf(t, claims))); got != test.want {
			t.Errorf("%s: %q, want %q", test.rule, got, test.want)
		}
	}
}

// TestHostileClaims has claims that are as large, as deep and as odd as a token may bring them: what they lack stays
// refused, and none costs much or panics.
func TestHostileClaims(t *testing.T) {
	a := compileAuthorization(t, Authorization{
		Scopes: []string{"orders"},
		Claims: map[string][]string{"tenant": {"acme"}, "a.a.a.a.a.a": {"x"}},
		Rules:  []AuthRule{{Expression: "'admin' in identity.roles && identity.a.a.a.a == 'x' && identity.roles.all(r, r != '')"}},
	})
	deep := strings.Repeat(`{"a": `, maxDepth-1) + `"x"` + strings.Repeat("}", maxDepth-1)
	huge := "[" + strings.Repeat(`"x",`, 100_000) + `"x"]`
	for _, claims := range []string{
		`{"scope": ` + huge + `}`,
		`{"scope": "` + strings.Repeat("x ", 100_000) + `"}`,
		`{"scope": "orders", "tenant": ` + huge + `}`,
		`{"scope": "orders", "tenant": "acme", "a": ` + deep + `}`,
		`{"scope": "orders", "tenant": "acme", "a": {"a": {"a": {"a": {"a": {"a": "x"}}}}}, "roles": ` + huge + `}`,
		`{"scope": "orders", "tenant": "acme", "a.a.a.a.a.a": "x", "roles": {"admin": 1}}`,
		`{"scope": "orders", "tenant": "acme", "a.a.a.a.a.a": "x", "roles": "admin"}`,
		`{"scope": "orders", "tenant": "acme", "a.a.a.a.a.a": "x", "roles": 1e999}`,
		`{"": {"": {"": 1}}, "scp": {"orders": ["orders"]}, "tenant": 9e9, "a": [[[[]]]]}`,
	} {
		if a.judge(factsOf(t, claims)) == nil {
			t.Errorf("%.80s: passes", claims)
		}
	}
	if a.judge(&expr.Facts{}) == nil {
		t.Error("nobody passes")
	}
}

func TestRepliesOfRulesGoBeforeThoseOfAll(t *testing.T) {
	a := compileAuthorization(t, Authorization{
		Name:   "gateway/edge",
		Claims: map[string][]string{"tenant": {"acme"}},
		Rules: []AuthRule{
			{Expression: "request.method == 'GET'", Name: "get", Deny: &Reply{Status: 404}},
			{Expression: "request.host == 'b.test'"},
		},
		Deny: &Reply{Status: 302, Headers: map[string]string{"location": "/denied"}, Body: "gone"},
	})
	f := factsOf(t, `{"tenant": "x"}`)
	v := a.judge(f)
	if verdict(v) != "Found claim tenant" || v.by != "gateway/edge" || v.body != "gone" || v.code != codes.PermissionDenied {
		t.Errorf("%+v %+v", v, v.denial)
	}
	f.Identity["tenant"] = "acme"
	if got := verdict(a.judge(f)); got != "Not Found rule get" {
		t.Error(got)
	}
	f.Method = "GET"
	if got := verdict(a.judge(f)); got != "Found rule" {
		t.Error(got)
	}
	f.Host = "b.test"
	if v := a.judge(f); v != nil {
		t.Error(verdict(v))
	}
}

// denied reads the headers of the answer to a veto.
func deniedBy(t *testing.T, v *veto, challenge string, grpc bool) map[string]string {
	t.Helper()
	b, at := open(nil, responseDenied)
	m := new(authv3.CheckResponse)
	if err := proto.Unmarshal(end(v.appendHeaders(b, challenge, grpc), at), m); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, h := range m.GetDeniedResponse().Headers {
		if _, twice := all[h.Header.Key]; twice {
			t.Errorf("%s stands twice", h.Header.Key)
		}
		all[h.Header.Key] = h.Header.Value
	}
	return all
}

func TestHeadersOfVetoes(t *testing.T) {
	const bearer, insufficient = `Bearer realm="idp"`, `Bearer realm="idp", error="insufficient_scope", scope="a b"`
	for _, test := range []struct {
		name, challenge string
		reply           *Reply
		grpc, rule      bool
		want            map[string]string
	}{
		{name: "ours", challenge: bearer, want: map[string]string{
			"content-type": "application/json", "cache-control": "no-store", "www-authenticate": insufficient,
		}},
		{name: "gRPC", challenge: bearer, grpc: true, want: map[string]string{"cache-control": "no-store", "www-authenticate": insufficient}},
		{name: "no tokens", challenge: `Basic realm="x"`, want: map[string]string{"content-type": "application/json", "cache-control": "no-store"}},
		{name: "a rule", challenge: bearer, rule: true, want: map[string]string{"content-type": "application/json", "cache-control": "no-store"}},
		{name: "hidden", challenge: bearer, reply: &Reply{Status: 404}, want: map[string]string{"cache-control": "no-store"}},
		{name: "chosen", challenge: bearer, reply: &Reply{Body: "<p>no", Headers: map[string]string{"content-type": "text/html", "cache-control": "private"}}, want: map[string]string{
			"content-type": "text/html", "cache-control": "private", "www-authenticate": insufficient,
		}},
		{name: "text", challenge: "", reply: &Reply{Body: "no"}, want: map[string]string{"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}},
		{name: "401", challenge: bearer, rule: true, reply: &Reply{Status: 401}, want: map[string]string{"cache-control": "no-store", "www-authenticate": bearer}},
		{name: "own challenge", challenge: bearer, reply: &Reply{Status: 401, Headers: map[string]string{"www-authenticate": "X"}}, want: map[string]string{
			"cache-control": "no-store", "www-authenticate": "X",
		}},
	} {
		a := Authorization{Scopes: []string{"a", "b"}, Deny: test.reply}
		if test.rule {
			a = Authorization{Rules: []AuthRule{{Expression: "false"}}, Deny: test.reply}
		}
		v := compileAuthorization(t, a).judge(factsOf(t, `{}`))
		if d := cmp.Diff(test.want, deniedBy(t, v, test.challenge, test.grpc)); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
	}
}

func TestFlaws(t *testing.T) {
	many := make([]string, MaxDemands+1)
	for i := range many {
		many[i] = strings.Repeat("x", i+1)
	}
	reply := func(r Reply) Authorization { return Authorization{Deny: &r} }
	header := func(name, value string) Authorization { return reply(Reply{Headers: map[string]string{name: value}}) }
	rule := func(expression string) Authorization {
		return Authorization{Rules: []AuthRule{{Expression: expression}}}
	}
	fetched := func(m Metadata) Authorization { return Authorization{Metadata: []Metadata{m}} }
	for name, test := range map[string]struct {
		a    Authorization
		want string // where, and a part of what
	}{
		"name":              {Authorization{Name: "a\nb"}, `: the name may not hold '\n'`},
		"scopes in one":     {Authorization{Scopes: []string{"a b"}}, "scopes[0]: a scope has no spaces"},
		"empty scope":       {Authorization{Scopes: []string{"a", ""}}, "scopes[1]: \"\" is not a scope"},
		"quote in a scope":  {Authorization{Scopes: []string{`a"`}}, "scopes[0]: "},
		"scope twice":       {Authorization{Scopes: []string{"a", "a"}}, "scopes[1]: "},
		"scopes":            {Authorization{Scopes: many}, "scopes: 65 entries"},
		"no value":          {Authorization{Claims: map[string][]string{"a": {}}}, "claims.a: no value"},
		"empty value":       {Authorization{Claims: map[string][]string{"a": {""}}}, "claims.a[0]: want a text"},
		"value twice":       {Authorization{Claims: map[string][]string{"a": {"x", "x"}}}, "claims.a[1]: "},
		"values":            {Authorization{Claims: map[string][]string{"a": many}}, "claims.a: 65 entries"},
		"no path":           {Authorization{Claims: map[string][]string{"": {"a"}}}, `claims: "" is not`},
		"rule":              {rule("request.hots == 'a'"), "rules[0].cel: undeclared"},
		"no bool":           {rule("request.host"), "rules[0].cel: want a bool"},
		"range":             {rule("inCIDR(source.address, '10')"), "rules[0].cel: want an address"},
		"rule names":        {Authorization{Rules: []AuthRule{{"true", "a", nil}, {"true", "a", nil}}}, "rules[1].name: "},
		"reply of a rule":   {Authorization{Rules: []AuthRule{{"true", "", &Reply{Status: 204}}}}, "rules[0].deny.status: 204 would tell"},
		"200":               {reply(Reply{Status: 200}), "deny.status: 200 would tell"},
		"100":               {reply(Reply{Status: 100}), "deny.status: want a status from 400"},
		"304":               {reply(Reply{Status: 304}), "deny.status: want a status from 400"},
		"600":               {reply(Reply{Status: 600}), "deny.status: want a status from 400"},
		"negative":          {reply(Reply{Status: -1}), "deny.status: want a status from 400"},
		"redirect nowhere":  {reply(Reply{Status: 302}), "deny.status: 302 sends the caller elsewhere"},
		"redirect to code":  {reply(Reply{Status: 302, Headers: map[string]string{"location": "javascript:alert(1)"}}), "deny.headers.location: want a URL"},
		"body":              {reply(Reply{Body: strings.Repeat("x", maxReply+1)}), "deny.body: "},
		"body not UTF-8":    {reply(Reply{Body: "\xff"}), "deny.body: "},
		"length":            {header("content-length", "1"), "deny.headers.content-length: content-length belongs"},
		"hop":               {header("transfer-encoding", "chunked"), "deny.headers.transfer-encoding: "},
		"gRPC status":       {header("grpc-status", "0"), "deny.headers.grpc-status: "},
		"Envoy's":           {header("x-envoy-retry", "1"), "deny.headers.x-envoy-retry: "},
		"status line":       {header(":status", "200"), "deny.headers.:status: "},
		"upper case":        {header("X-A", "1"), "deny.headers.X-A: "},
		"two lines":         {header("x-a", "a\r\nset-cookie: b"), "deny.headers.x-a: want one line"},
		"empty header":      {header("x-a", ""), "deny.headers.x-a: want one line"},
		"metadata name":     {fetched(Metadata{Name: "a.b", URL: "https://a.test/"}), "metadata: the name may not hold"},
		"metadata by http":  {fetched(Metadata{Name: "a", URL: "http://a.test/"}), "metadata.a.url: the URL has to be https"},
		"no URL":            {fetched(Metadata{Name: "a"}), "metadata.a.url: want a URL"},
		"host of callers":   {fetched(Metadata{Name: "a", URL: "https://{consumer}/"}), "metadata.a.url: {consumer} may stand in the path"},
		"port of callers":   {fetched(Metadata{Name: "a", URL: "https://a:{claims.p}"}), "metadata.a.url: {claims.p} may stand in the path"},
		"unknown place":     {fetched(Metadata{Name: "a", URL: "https://a.test/{plan}"}), "metadata.a.url: {plan} is not known"},
		"claim of no name":  {fetched(Metadata{Name: "a", URL: "https://a.test/{claims.}"}), "metadata.a.url: {claims.} is not known"},
		"half a place":      {fetched(Metadata{Name: "a", URL: "https://a.test/{consumer"}), "metadata.a.url: a brace"},
		"other half":        {fetched(Metadata{Name: "a", URL: "https://a.test/a}"}), "metadata.a.url: a brace"},
		"user":              {fetched(Metadata{Name: "a", URL: "https://u:p@a.test/"}), "metadata.a.url: the URL may not hold a user"},
		"metadata service":  {fetched(Metadata{Name: "a", URL: "https://169.254.169.254/"}), "metadata.a.url: a link-local"},
		"long cache":        {fetched(Metadata{Name: "a", URL: "https://a.test/", Cache: 2 * time.Hour}), "metadata.a.cache: "},
		"short cache":       {fetched(Metadata{Name: "a", URL: "https://a.test/", Cache: time.Millisecond}), "metadata.a.cache: "},
		"timeout":           {fetched(Metadata{Name: "a", URL: "https://a.test/", Timeout: time.Second}), "metadata.a.timeout: "},
		"metadata twice":    {Authorization{Metadata: []Metadata{{Name: "a", URL: "https://a.test/"}, {Name: "a", URL: "https://a.test/"}}}, "metadata.a: stands here twice"},
		"too many metadata": {Authorization{Metadata: make([]Metadata, maxMetadata+1)}, "metadata: 5 entries"},
	} {
		if test.a.Name == "" {
			test.a.Name = "route/a"
		}
		all := test.a.Flaws()
		if len(all) == 0 || !strings.HasPrefix(all[0].Error(), test.want) {
			t.Errorf("%s: %v, want %s…", name, all, test.want)
		}
		if _, err := newAuthorization(test.a); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
	for _, a := range []Authorization{
		{},
		rule("true"), reply(Reply{Status: 599, Body: strings.Repeat("x", maxReply)}), header("set-cookie", "a=; Max-Age=0"),
		fetched(Metadata{Name: "a", URL: "http://127.0.0.1:8080/{consumer}?t={claims.a.b}", Cache: time.Second, Timeout: longestWait}),
	} {
		a.Name = "route/a"
		if all := a.Flaws(); len(all) > 0 {
			t.Errorf("%+v: %v", a, all)
		}
	}
}

func TestDemandsOfAllLayersHold(t *testing.T) {
	var made []string
	source := func(m Metadata) (*metadata, error) {
		made = append(made, m.Name)
		return newMetadata(m, http.DefaultClient, nil)
	}
	account := Metadata{Name: "account", URL: "https://a.test/{consumer}"}
	outer := Authorization{Name: "gateway/edge", Scopes: []string{"a"}, Metadata: []Metadata{account}}
	inner := Authorization{Name: "route/a", Rules: []AuthRule{{Expression: "metadata.account.tier == 'pro'"}}, Metadata: []Metadata{account}}
	d, err := newDemands([]Authorization{outer, inner}, source)
	if err != nil || len(made) != 1 {
		t.Fatal(err, made)
	}
	f := factsOf(t, `{"scope": "b"}`)
	if v := d.screen(f); v == nil || v.by != "gateway/edge" || d.judge(f).by != "gateway/edge" {
		t.Error(verdict(v))
	}
	f.Identity["scope"] = "a"
	if v := d.screen(f); v != nil || d.judge(f).by != "route/a" {
		t.Error(verdict(v))
	}
	f.Metadata = map[string]any{"account": map[string]any{"tier": "pro"}}
	if v := d.judge(f); v != nil {
		t.Error(verdict(v))
	}
	changed := account
	changed.URL = "https://b.test/"
	inner.Metadata = []Metadata{changed}
	if _, err := newDemands([]Authorization{outer, inner}, source); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Error(err)
	}
	inner.Metadata, outer.Metadata = nil, nil
	if _, err := newDemands([]Authorization{outer, inner}, source); err == nil || !strings.Contains(err.Error(), "nobody fetches") {
		t.Error(err)
	}
	inner.Rules[0].Expression = "("
	_, err = newDemands([]Authorization{inner}, source)
	if f, ok := errors.AsType[*Flaw](err); !ok || f.Expression == nil || f.Expression.Column != 2 {
		t.Error(err)
	}
}

// BenchmarkJudge is what the demands of a route cost a request.
func BenchmarkJudge(b *testing.B) {
	a := compileAuthorization(b, Authorization{
		Scopes: []string{"orders.read"},
		Claims: map[string][]string{"tenant": {"acme"}},
		Rules:  []AuthRule{{Expression: "request.method == 'GET' || 'admin' in identity.roles"}},
	})
	f := factsOf(b, `{"scope": "openid orders.read", "tenant": "acme", "roles": ["dev", "admin"]}`)
	b.ReportAllocs()
	for b.Loop() {
		if v := a.judge(f); v != nil {
			b.Fatal(verdict(v))
		}
	}
}
