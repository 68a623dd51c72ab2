package auth

import (
	"slices"
	"strings"
	"testing"
)

// A client that is refused learns which kind of refusal it is, and nothing that would help it to come closer.
func TestClientsAreToldNoReasons(t *testing.T) {
	rule := staticRule()
	s := load(t, Options{Revoked: &slate{}}, Table{Rules: []Rule{rule}})
	c := dial(t, s)
	good := rsaPair().sign(t, goodClaims(nil))
	sign := func(changes map[string]any) string { return rsaPair().sign(t, goodClaims(changes)) }
	revoked := sign(map[string]any{"sub": "bob"})
	revoke(t, s, "subject:idp/bob")
	const coarse = "the credentials are not accepted"
	for _, run := range []struct{ token, reason, told string }{
		{"x", "token_malformed", coarse},
		{forge(t, `{"alg":"RS256","jku":"https://evil.example"}`, "{}"), "token_header", coarse},
		{forge(t, `{"alg":"none"}`, "{}"), "token_algorithm", coarse},
		{rsaOther().sign(t, goodClaims(nil)), "token_key", coarse},
		{good[:len(good)-6] + "AAAAAA", "token_signature", coarse},
		{sign(map[string]any{"iss": "https://evil.example"}), "token_issuer", coarse},
		{sign(map[string]any{"aud": "others"}), "token_audience", coarse},
		{sign(map[string]any{"exp": nil}), "token_claims", coarse},
		{sign(map[string]any{"sub": nil}), "token_consumer", coarse},
		{sign(map[string]any{"exp": 1}), "token_expired", "the token is expired"},
		{sign(map[string]any{"nbf": 9e9}), "token_early", "the token is not valid yet"},
		{revoked, "revoked", "the credentials have been revoked"},
	} {
		got := check(t, c, ask(rule.ID(), "Bearer "+run.token))
		if got.meta["reason"] != run.reason {
			t.Errorf("%s: %v", run.reason, got.meta)
		}
		if want := `{"error":"unauthorized","message":"` + run.told + `"}`; got.body != want {
			t.Errorf("%s: body %s", run.reason, got.body)
		}
		if want := `Bearer realm="idp", error="invalid_token", error_description="` + run.told + `"`; got.headers["www-authenticate"] != want {
			t.Errorf("%s: %s", run.reason, got.headers["www-authenticate"])
		}
	}
}

// Nor do the other denials tell more than their status does, but for what is needed.
func TestBodiesAreCoarse(t *testing.T) {
	all := []*denial{
		denyHost, denyTwoTokens, denyNoRule, denyUnknown, denyNoKeys, denyNoSecret, denyLate, denyInternal, denyAnswered, denyAnonymous, denyLimited,
		denyNoPlan, denyNoCount, denyNoRevocations,
	}
	var bodies []string
	for _, d := range all {
		if strings.Contains(d.body, d.reason) {
			t.Errorf("%s: %s", d.reason, d.body)
		}
		bodies = append(bodies, d.body)
	}
	slices.Sort(bodies)
	if bodies = slices.Compact(bodies); len(bodies) != 6 {
		t.Errorf("%d bodies, want 6: %q", len(bodies), bodies)
	}
}
