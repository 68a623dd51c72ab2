package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlanOfAConsumer(t *testing.T) {
	rule := staticRule()
	rule.Plan, rule.Providers[0].JWT.Plan = PlanOptional, "app.plan"
	k := &counter{verdict: Verdict{Allowed: true}}
	c := dial(t, load(t, Options{Counter: k}, Table{Rules: []Rule{rule}, Consumers: []Consumer{
		{Name: "acme", Plan: "gold", Identities: []string{"idp/alice"}},
		{Name: "plain", Identities: []string{"idp/bob"}},
	}}))
	for name, test := range map[string]struct {
		sub  string
		app  any
		want string
	}{
		"the consumer's":            {"alice", nil, "gold"},
		"the consumer's goes first": {"alice", map[string]any{"plan": "free"}, "gold"},
		"the token's":               {"bob", map[string]any{"plan": "free"}, "free"},
		"of an identity":            {"carol", map[string]any{"plan": "free"}, "free"},
		"none":                      {"bob", nil, ""},
		"number":                    {"bob", map[string]any{"plan": 7}, ""},
		"list":                      {"bob", map[string]any{"plan": []string{"free"}}, ""},
		"empty":                     {"bob", map[string]any{"plan": ""}, ""},
		"line end":                  {"bob", map[string]any{"plan": "free\n"}, ""},
		"text above":                {"bob", "free", ""},
	} {
		got := check(t, c, ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(map[string]any{"sub": test.sub, "app": test.app}))))
		if k.caller.Plan != test.want || !k.caller.Identified {
			t.Errorf("%s: counted with plan %q, want %q", name, k.caller.Plan, test.want)
		}
		if shown, _ := got.meta["plan"].(string); got.status != 200 || shown != test.want {
			t.Errorf("%s: %d, the metadata say %q, want %q", name, got.status, shown, test.want)
		}
	}
}

func TestPlanIsCountedWithoutLimits(t *testing.T) {
	rule := staticRule()
	rule.Plan = PlanRequired
	var asked *Ask
	k := &perAsk{verdict: func(a *Ask) Verdict { asked = new(*a); return Verdict{Status: 403} }}
	c := dial(t, load(t, Options{Counter: k}, Table{Rules: []Rule{rule}}))
	good := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	got := check(t, c, ask(rule.ID(), good))
	want := map[string]any{"decision": "deny", "rule": "edge/orders", "provider": "idp", "consumer": "idp/alice", "reason": "no_plan"}
	if d := cmp.Diff(want, got.meta); got.status != 403 || d != "" {
		t.Errorf("without the plan: %d %s", got.status, d)
	}
	if got.body != `{"error":"forbidden","message":"a plan is needed"}` {
		t.Errorf("body %s", got.body)
	}
	if got := check(t, c, ask(rule.ID(), good, "content-type", "application/grpc")); got.headers["grpc-status"] != "7" {
		t.Errorf("gRPC callers are told %v", got.headers)
	}
	w := asked.Caller
	if asked.Plans != PlanRequired || len(asked.Limits) != 0 || w.Route != "edge/orders" || w.Method != "GET" || w.Host != "api.example.com" || w.Path != "/v1/orders" {
		t.Errorf("counted %+v", asked)
	}
	turns := k.turns
	if got := check(t, c, ask(rule.ID(), "")); got.status != 401 || k.turns != turns {
		t.Errorf("nobody: %d, counted %d times", got.status, k.turns-turns)
	}
}

func TestUnknownUseOfPlansIsRefused(t *testing.T) {
	rule := staticRule()
	rule.Plan = "always"
	if New(Options{Counter: &counter{}}).Load(Table{Rules: []Rule{rule}}) == nil {
		t.Error("loaded")
	}
}

// TestNobodyIsAskedForAPlan has limits beside the plan: those count who has no token too.
func TestNobodyIsAskedForAPlan(t *testing.T) {
	rule := staticRule()
	rule.Plan, rule.Limits = PlanRequired, []string{"l"}
	k := &perAsk{verdict: func(a *Ask) Verdict { return Verdict{Allowed: a.Plans == NoPlan, Status: 403} }}
	c := dial(t, load(t, Options{Counter: k}, Table{Rules: []Rule{rule}}))
	for authorization, want := range map[string]int{"": 401, "Bearer x": 401, "Bearer " + rsaPair().sign(t, goodClaims(nil)): 403} {
		if got := check(t, c, ask(rule.ID(), authorization)); got.status != want {
			t.Errorf("%.10q: %d, want %d", authorization, got.status, want)
		}
	}
}

func TestRequestIsHandedToTheCounter(t *testing.T) {
	rule := staticRule()
	rule.Limits = []string{"l"}
	k := &counter{verdict: Verdict{Allowed: true}}
	c := dial(t, load(t, Options{Counter: k}, Table{Rules: []Rule{rule}}))
	q := ask(rule.ID(), "")
	h := q.Attributes.Request.Http
	h.Method, h.Host, h.Path, h.Scheme = "PUT", "API.Example.COM:443", "/a?b=c#d", "https"
	check(t, c, q)
	if w := k.caller; w.Method != "PUT" || w.Host != "API.Example.COM:443" || w.Path != "/a?b=c#d" || w.Scheme != "https" || w.Route != "edge/orders" {
		t.Errorf("counted %+v", w)
	}
}

func TestClaimsInTheMetadata(t *testing.T) {
	rule := staticRule()
	rule.Metadata = []string{"tenant.id", "groups", "absent", "https://e.test/level"}
	c := dial(t, load(t, Options{}, Table{Rules: []Rule{rule}}))
	got := check(t, c, ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(map[string]any{
		"tenant": map[string]any{"id": 7}, "groups": []string{"a", "b,c"}, "https://e.test/level": "high", "secret": "s",
	}))))
	want := map[string]any{"tenant.id": "7", "groups": "a,b%2Cc", "https://e.test/level": "high"}
	if d := cmp.Diff(want, got.meta["claims"]); d != "" {
		t.Error(d)
	}
	got = check(t, c, ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil))))
	if d := cmp.Diff(map[string]any{}, got.meta["claims"]); d != "" {
		t.Errorf("without the claims: %s", d)
	}
	if got := check(t, c, ask(rule.ID(), "")); got.meta["claims"] != nil {
		t.Errorf("without a token: %v", got.meta)
	}
}

func TestWhatIsNewKeepsIDs(t *testing.T) {
	rule := Rule{Name: "edge/orders", Limits: []string{"l"}, Providers: []Provider{{Name: "idp", JWT: &JWT{Issuer: "i", JWKS: JWKS{URL: "https://a.test/"}}}}}
	sum := sha256.Sum256([]byte(`{"name":"edge/orders","providers":[{"name":"idp","jwt":{"issuer":"i","jwks":{"url":"https://a.test/"}}}],"limits":["l"]}`))
	if got, want := rule.ID(), "edge/orders@"+hex.EncodeToString(sum[:6]); got != want {
		t.Errorf("ID %s, want %s", got, want)
	}
}
