package auth

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/legation/legation/auth/tokentest"
)

func verifier(t *testing.T, j JWT) *Service {
	t.Helper()
	s := New(Options{})
	if err := s.Load(Table{Rules: []Rule{{Name: "xds", Providers: []Provider{{Name: "fleet", JWT: &j}}}}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// No hostile token passes that would not pass with a request.
func TestVerifyIsAsStrictAsForRequests(t *testing.T) {
	t.Parallel()
	s := verifier(t, JWT{Issuer: tokentest.Issuer, Audiences: []string{tokentest.Audience}, JWKS: JWKS{Keys: tokentest.JWKS()}})
	for _, c := range tokentest.Tokens() {
		claims, expires, err := s.Verify(t.Context(), "xds", c.Token)
		if good := c.Want == 200 || nobody[c.Name]; (err == nil) != good {
			t.Errorf("%s: got %v, want it accepted: %t", c.Name, err, good)
		}
		if err == nil && (claims["iss"] != tokentest.Issuer || !expires.After(time.Now())) {
			t.Errorf("%s: got %v until %s", c.Name, claims, expires)
		}
	}
}

// nobody is the cases whose subject can't be a consumer, which is no matter here.
var nobody = map[string]bool{
	"sub with a mark of direction": true, "sub absent": true, "sub empty": true, "sub with NUL": true, "sub with a space": true, "sub huge": true,
	"sub with a line end": true,
}

func TestVerifyKnowsItsRuleOnly(t *testing.T) {
	t.Parallel()
	j := JWT{Issuer: tokentest.Issuer, JWKS: JWKS{Keys: tokentest.JWKS()}}
	if _, _, err := verifier(t, j).Verify(t.Context(), "other", tokentest.Good()); err == nil {
		t.Error("a rule that isn't there accepts a token")
	}
	if _, _, err := verifier(t, j).Verify(t.Context(), "xds", ""); err == nil {
		t.Error("an empty token is accepted")
	}
	if _, _, err := verifier(t, j).Verify(t.Context(), "xds", tokentest.Strangers()); err == nil || errors.Is(err, ErrUndecided) {
		t.Errorf("a stranger's token: got %v, want a refusal", err)
	}
	j.JWKS = JWKS{URL: "https://127.0.0.1:1/keys"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := verifier(t, j).Verify(ctx, "xds", tokentest.Good()); !errors.Is(err, ErrUndecided) {
		t.Errorf("without keys: got %v, want that it can't be told", err)
	}
}
