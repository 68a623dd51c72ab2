package auth

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/auth/tokentest"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
)

// explained are the steps that went wrong, each with what is told.
func explained(e Explanation) []string {
	var all []string
	for _, s := range e.Steps {
		if s.Result != StepOK {
			all = append(all, s.Check+" "+s.Result+": "+s.Detail)
		}
	}
	return all
}

func TestExplainTellsWhatIsWrong(t *testing.T) {
	now := time.Now().Unix()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	for _, test := range []struct {
		name   string
		change func(*JWT)
		token  string
		want   []string
	}{
		{"good", nil, rsaPair().sign(t, goodClaims(nil)), nil},
		{"expired", nil, rsaPair().sign(t, goodClaims(map[string]any{"exp": now - 180})), []string{"times bad: expired 3 minutes ago"}},
		{"ahead", nil, rsaPair().sign(t, goodClaims(map[string]any{"nbf": now + 10800, "iat": nil})), []string{"times bad: nbf lies 3 hours ahead"}},
		{"no exp", nil, rsaPair().sign(t, goodClaims(map[string]any{"exp": nil})), []string{"times bad: exp is needed, and iat where there is a maxLifetime; exp, nbf and iat have to be seconds since 1970"}},
		{"too long", func(j *JWT) { j.MaxLifetime = time.Minute }, rsaPair().sign(t, goodClaims(map[string]any{"iat": now, "exp": now + 3600})), []string{"times bad: good for 60 minutes, more than 1 minute"}},
		{"another key", nil, rsaOther().sign(t, goodClaims(nil)), []string{`signature bad: there is no key "rsa-2", only ["rsa-1" "ec-1" "ed-1"]`}},
		{"all of it", func(j *JWT) { j.Algorithms, j.Types = []string{"ES256"}, []string{"at+jwt"} }, rsaPair().sign(t, map[string]any{"iss": "x\x1b[1m", "aud": 7, "exp": now + 60}), []string{
			`type bad: "jwt", want one of ["at+jwt"]`, `algorithm bad: "RS256", want one of ["ES256"]`,
			`issuer bad: "x\x1b[1m", want one of ["https://id.example.com/"]`,
			"audience bad: aud has to be a text or a list of texts, sub a text",
			`consumer bad: the claim "sub" names nobody: want a text or a whole number, without control characters`,
		}},
		{"audience", nil, rsaPair().sign(t, goodClaims(map[string]any{"aud": []string{"a", "b"}})), []string{`audience bad: ["a" "b"], want one of ["orders"]`}},
		{"keys are gone", func(j *JWT) { j.JWKS = JWKS{URL: server.URL + "/keys?secret"} }, rsaPair().sign(t, goodClaims(nil)), []string{
			"keys unknown: " + server.URL + "/keys: answered 404", "signature unknown: not looked at without keys",
		}},
		{"no secret", func(j *JWT) { j.JWKS, j.Secret = JWKS{}, "idp/none" }, rsaPair().sign(t, goodClaims(nil)), []string{"keys unknown: the secret is not there, or too short"}},
		{"one part", nil, "abc", []string{"form bad: 1 part with a point between, want 3: it is no signed token"}},
		{"encrypted", nil, "a.b.c.d.e", []string{"form bad: 5 parts: it is encrypted (JWE), and only signed tokens are read"}},
		{"none", nil, forge(t, `{"alg":"none"}`, "{}"), []string{"algorithm bad: missing, none, or one that nobody here knows"}},
	} {
		rule := staticRule()
		if test.change != nil {
			test.change(rule.Providers[0].JWT)
		}
		var out bytes.Buffer
		o := Options{Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}
		all, err := Explain(t.Context(), o, Table{}, rule.Providers, test.token)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		if diff := cmp.Diff(test.want, explained(all[0])); diff != "" || all[0].Good != (test.want == nil) {
			t.Errorf("%s: good %v (-want +got):\n%s", test.name, all[0].Good, diff)
		}
		if strings.Contains(out.String(), test.token) {
			t.Errorf("%s: the token is logged", test.name)
		}
	}
}

func TestExplainOfASharedSecret(t *testing.T) {
	p := staticRule().Providers[0]
	p.JWT.JWKS, p.JWT.Secret = JWKS{}, "idp/shared"
	table := Table{Secrets: map[string][]byte{"idp/shared": bytes.Repeat([]byte("s"), 32)}}
	all, err := Explain(t.Context(), Options{}, table, []Provider{p}, rsaPair().sign(t, goodClaims(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := explained(all[0]), "signature bad: by none of the keys that its algorithm allows"; !slices.Contains(got, want) {
		t.Errorf("got %q, want it to hold %q", got, want)
	}
}

func TestExplainTellsWhoItIs(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(jwks(rsaPair().jwk())) }))
	defer server.Close()
	p := staticRule().Providers[0]
	p.JWT.JWKS, p.JWT.Plan = JWKS{URL: server.URL}, "tier"
	table := Table{Consumers: []Consumer{{Name: "acme", Identities: []string{"idp/alice"}}}}
	token := rsaPair().sign(t, goodClaims(map[string]any{"tier": "gold", "tenant": map[string]any{"id": "t-1"}}))
	all, err := Explain(t.Context(), Options{}, table, []Provider{p, {Name: "opaque", Introspection: &Introspection{}}}, token)
	if err != nil {
		t.Fatal(err)
	}
	got := all[0]
	steps := got.Steps
	got.Steps, got.Expires = nil, time.Time{}
	want := Explanation{
		Provider: "idp", Good: true, Identity: "idp/alice", Consumer: "acme", Plan: "gold",
		Headers: map[string]string{"x-auth-user": "alice", "x-auth-tenant": "t-1"},
	}
	if diff := cmp.Diff(want, got); diff != "" || len(all) != 1 {
		t.Errorf("%d of 1 (-want +got):\n%s", len(all), diff)
	}
	if i := slices.IndexFunc(steps, func(s Step) bool { return s.Check == "keys" }); steps[i].Detail != "1 of "+server.URL+", fetched 0 seconds ago" {
		t.Errorf("%+v", steps[i])
	}
}

// What Explain calls good passes, and nothing else does.
func TestExplainAgreesWithRequests(t *testing.T) {
	rule := hostileRule()
	s := load(t, Options{}, Table{Rules: []Rule{rule}})
	good, wanted := 0, 0
	for _, test := range tokentest.Tokens() {
		if test.Want == 200 {
			wanted++
		}
		name, token := test.Name, test.Token
		all, err := Explain(t.Context(), Options{}, Table{}, rule.Providers, token)
		if err != nil {
			t.Fatal(err)
		}
		var r *authv3.CheckResponse
		if r, err = s.Check(t.Context(), ask(rule.ID(), "Bearer "+token)); err != nil {
			t.Fatal(err)
		}
		if passes := flatten(r).status == 200; all[0].Good != passes || !passes && explained(all[0]) == nil {
			t.Errorf("%s: explained as %v, passes: %v %+v", name, all[0].Good, passes, all[0].Steps)
		}
		if all[0].Good {
			good++
		}
	}
	if good != wanted || good == 0 {
		t.Errorf("%d are good, want %d", good, wanted)
	}
}

func TestSpansForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 seconds", time.Second: "1 second", 59 * time.Second: "59 seconds", time.Minute: "1 minute", 179 * time.Second: "3 minutes",
		90 * time.Minute: "90 minutes", time.Hour: "60 minutes", 3 * time.Hour: "3 hours", 24 * time.Hour: "24 hours", 72 * time.Hour: "3 days", -time.Minute: "-1 minutes",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
