package expr

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// claims reads what a token says.
func claims(t testing.TB, text string) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var all map[string]any
	if err := d.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

func facts(t testing.TB) *Facts {
	t.Helper()
	headers := map[string]string{"x-team": "blue", "user-agent": "curl"}
	identity := claims(t, `{"sub": "alice", "roles": ["dev", "admin"], "level": 3, "share": 2.5, "two": 2.0, "verified": true, "none": null,
		"address": {"country": "NO", "lines": ["a", "b"]}, "huge": 9007199254740993.0, "beyond": 92233720368547758071, "big": 9007199254740993}`)
	return &Facts{
		Method: "POST", Host: "a.test", Path: "/a/b?x=1&y=2&y=3&z=a%20b", Scheme: "https", Route: "edge/a",
		IP:       netip.MustParseAddr("::ffff:192.0.2.1"),
		Header:   func(name string) string { return headers[name] },
		Consumer: "acme", Plan: "gold",
		Claim:      func(path string) string { return map[string]string{"sub": "alice"}[path] },
		Time:       time.Date(2026, 3, 1, 13, 30, 0, 0, time.FixedZone("", 3600)),
		Identity:   identity,
		Identities: map[string]map[string]any{"idp": identity, "partner": claims(t, `{"sub": "bob"}`)},
		Metadata:   map[string]any{"account": claims(t, `{"tier": "pro", "limits": {"seats": 5}}`), "gone": nil},
	}
}

func TestConditions(t *testing.T) {
	f := facts(t)
	for expression, want := range map[string]bool{
		"request.method == 'GET' || 'admin' in identity.roles":                true,
		"request.method == 'POST' || identity.nothing == 'x'":                 true, // what decides by itself needs nothing else
		"'owner' in identity.roles":                                           false,
		"identity.sub == 'alice' && claims.sub == 'alice'":                    true,
		"identity.address.country == 'NO'":                                    true,
		"identity['address']['lines'][1] == 'b'":                              true,
		"identity.level == 3 && identity.level >= 2":                          true,
		"identity.level == 3.0 && identity.two == 2":                          true,
		"identity.share > 2 && identity.share < 2.6":                          true,
		"identity.big == 9007199254740993":                                    true,
		"identity.big == 9007199254740992":                                    false,
		"identity.level == '3'":                                               false,
		"identity.verified == true":                                           true,
		"identity.none == null":                                               true,
		"has(identity.roles) && !has(identity.groups)":                        true,
		"has(identity.address.zip)":                                           false,
		"identity.roles.exists(r, r.startsWith('ad'))":                        true,
		"identity.roles.all(r, r in ['dev', 'admin'])":                        true,
		"identity.roles == ['dev', 'admin']":                                  true,
		"size(identity.roles) == 2 && size(identity) > 3":                     true,
		"identities.partner.sub == 'bob'":                                     true,
		"'idp' in identities && !('other' in identities)":                     true,
		"identities.exists(name, name == 'partner')":                          true,
		"metadata.account.tier == 'pro'":                                      true,
		"metadata.account.limits.seats > 4":                                   true,
		"metadata.gone == null":                                               true,
		"plan in ['gold', 'silver'] && consumer == 'acme'":                    true,
		"request.time.getHours() == 12":                                       true, // UTC
		"request.time < timestamp('2026-03-01T12:30:01Z')":                    true,
		"request.query_params.x == '1'":                                       true,
		"request.query_params['z'] == 'a b'":                                  true,
		"'w' in request.query_params":                                         false,
		"request.headers['X-TEAM'] == 'blue'":                                 true,
		"'User-Agent' in request.headers":                                     true,
		"has(request.headers.cookie)":                                         false,
		"inCIDR(source.address, '192.0.2.0/24')":                              true,
		"inCIDR(source.address, '::ffff:192.0.2.0/120')":                      true,
		"inCIDR(source.address, '192.0.2.1')":                                 true,
		"inCIDR(source.address, '2001:db8::/32')":                             false,
		"inCIDR('2001:db8::1%eth0', '2001:db8::/32')":                         true,
		"['10.0.0.0/8', '192.0.2.0/24'].exists(r, inCIDR(source.address, r))": true,
		"request.url_path.matches('^/a/[a-z]$')":                              true,
		"source.address == '192.0.2.1' && route == 'edge/a'":                  true,
	} {
		c, err := CompileCondition(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		got, err := c.Holds(f)
		if got != want || err != nil {
			t.Errorf("%s: %t, %v; want %t", expression, got, err, want)
		}
		if got, err := c.Holds(&Facts{}); got && err != nil {
			t.Errorf("%s: holds in spite of %v", expression, err)
		}
	}
}

// TestConditionsThatCantBeToldDontHold has expressions that lack something, each with its opposite: neither holds.
func TestConditionsThatCantBeToldDontHold(t *testing.T) {
	f := facts(t)
	for expression, want := range map[string]error{
		"identity.nothing == 'x'":                     ErrFacts,
		"'x' in identity.nothing":                     ErrFacts,
		"'x' in identity.sub":                         ErrFacts, // not a list
		"identity.sub.country == 'NO'":                ErrFacts,
		"identity.level.startsWith('3')":              ErrFacts,
		"identity.level > 'a'":                        ErrFacts,
		"identity.roles[7] == 'x'":                    ErrFacts,
		"identity.huge == 1.0":                        ErrFacts, // would be another number
		"identity.beyond == 1":                        ErrFacts,
		"metadata.gone.tier == 'pro'":                 ErrFacts,
		"metadata.other == null":                      ErrFacts,
		"identities.other.sub == 'x'":                 ErrFacts,
		"request.headers['x-none'] == 'a'":            ErrFacts,
		"request.headers.exists(h, h == 'x-team')":    ErrFacts, // they can't be walked through
		"request.headers.all(h, h != 'x-evil')":       ErrFacts,
		"size(request.headers) == 0":                  ErrFacts,
		"request.headers == {}":                       ErrFacts,
		"claims == {'sub': 'alice'}":                  ErrFacts,
		"request.query_params.y == '2'":               ErrFacts, // or 3?
		"'y' in request.query_params":                 ErrFacts,
		"inCIDR(consumer, '10.0.0.0/8')":              ErrFacts,
		"inCIDR(source.address, consumer)":            ErrFacts,
		"inCIDR(source.address, consumer + '/8')":     ErrFacts,
		"identity.roles.exists(r, inCIDR(r, '::/0'))": ErrFacts,
		"1 / (identity.level - 3) == 1":               ErrFacts,
		"[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, a + b + c + d > 0))))": ErrCost,
	} {
		for _, text := range []string{expression, "!(" + expression + ")"} {
			c, err := CompileCondition(text)
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			if holds, err := c.Holds(f); holds || err != want {
				t.Errorf("%s: %t, %v; want %v", text, holds, err, want)
			}
		}
	}
}

func TestParametersThatTwoReadersReadInTwoWays(t *testing.T) {
	c, err := CompileCondition("request.query_params.a == '1'")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/?a=1": true, "/?b=2&a=1": true, "/?%61=1": true, "/?a=%31": true, "/?a=1#x": false, "/?a=1&a=1": false, "/?a=1&%61=2": false,
		"/?a=1;b=2": false, "/?a=1&b=%": false, "/?a=%zz": false, "/?a": false, "/?": false, "/": false, "": false, "/?A=1": false,
	} {
		if got, _ := c.Holds(&Facts{Path: path}); got != want {
			t.Errorf("%s: %t, want %t", path, got, want)
		}
	}
}

func TestConditionsThatCantBe(t *testing.T) {
	for expression, want := range map[string]Error{
		"":                             {1, 1, "the expression ends"},
		"identity.admin":               {1, 1, "want a bool, got a value that may be anything"},
		"request.host":                 {1, 1, "want a bool, got string"},
		"request.hots == 'a'":          {1, 8, "undeclared"},
		"true &&\n  request.host":      {2, 10, "expected type 'bool'"},
		"request.headers.x-app == 'a'": {1, 18, `write request.headers["x-app"]`},
		"'é' == 'é' && request.headers.x-app-id.startsWith('a')":     {1, 32, `write request.headers["x-app-id"]`},
		"true ||\n identity.team-name == 'a'":                        {2, 16, `write identity["team-name"]`},
		"request.headers['a.b-c'] - 1":                               {1, 26, "no matching overload"},
		"request.host in 'a'":                                        {1, 14, "no matching overload"},
		"inCIDR(source.address)":                                     {1, 7, "no matching overload"},
		"inCIDR(source.address, '10/8')":                             {1, 24, `want an address or a range such as 10.0.0.0/8, got "10/8"`},
		"true &&\n inCIDR(source.address, '10.0.0.1/8')":             {2, 25, `write 10.0.0.0/8`},
		"inCIDR(source.address, '::ffff:0:0/8')":                     {1, 24, "write two ranges"},
		"inCIDR(source.address, 'fe80::1%1')":                        {1, 24, "want an address"},
		"['a'].exists(x, inCIDR(x, '1.2.3'))":                        {1, 27, "want an address"},
		"request.path.matches('(')":                                  {1, 22, "missing closing"},
		"request.path.matches(request.headers['x'])":                 {1, 37, "in quotes"},
		"matches(request.path, identity.pattern)":                    {1, 31, "in quotes"},
		strings.Repeat("!", 5000):                                    {1, 1, "bytes"},
		strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500): {1, 1, "recursion"},
	} {
		_, err := CompileCondition(expression)
		got, ok := errors.AsType[*Error](err)
		if !ok || got.Line != want.Line || len(expression) < 100 && got.Column != want.Column || !strings.Contains(got.Text, want.Text) {
			t.Errorf("%.60q: %v, want %v", expression, got, want)
		}
	}
}

func TestUses(t *testing.T) {
	got := ConditionUses(`metadata.account.tier == 'a' && 'roles' in identity && metadata["plan"] != null && has(identities.idp.sub) &&
		request.headers['x'].matches('^a')`)
	got.Overloads = nil
	want := Uses{
		Variables: []string{"identities", "identity", "metadata", "request.headers"},
		Members:   []string{"identities.idp", "identity.roles", "metadata.account", "metadata.plan", "request.headers.x"},
		Patterns:  []string{"^a"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !ConditionUses("identity.roles.exists(r, r == 'x')").Loops {
		t.Error("exists goes through the elements of a list")
	}
	if d := cmp.Diff(Uses{}, ValueUses("identity.sub")); d != "" {
		t.Errorf("limits know no identity: %s", d)
	}
}
