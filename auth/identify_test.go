package auth

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOfAllThatAreNeededTheFirstTellsWhoCalls(t *testing.T) {
	id, key := NewKey()
	keys := Provider{Name: "keys", APIKey: &APIKey{Places: []KeyPlace{{Header: "x-api-key"}}, Headers: map[string]string{"x-auth-user": "consumer", "x-key": "sub"}}}
	idp := staticRule().Providers[0] // sets x-auth-user and x-auth-tenant
	table := Table{
		Rules: []Rule{
			{Name: "edge/token-first", Providers: []Provider{idp, keys}, All: true},
			{Name: "edge/key-first", Providers: []Provider{keys, idp}, All: true},
		},
		Consumers: []Consumer{{Name: "acme", Keys: []Key{{ID: id, Hash: HashKey(key, nil)}}}},
	}
	c := dial(t, load(t, Options{}, table))
	token := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	for rule, want := range map[string]struct{ consumer, user string }{
		"edge/token-first": {"idp/alice", "alice"},
		"edge/key-first":   {"acme", "acme"},
	} {
		got := check(t, c, ask(rule, token, "x-api-key", key))
		headers := map[string]string{"x-auth-user": want.user, "x-key": id}
		if d := cmp.Diff(headers, got.headers); d != "" || got.status != 200 || got.meta["consumer"] != want.consumer {
			t.Errorf("%s: %d, %v, headers (-want +got):\n%s", rule, got.status, got.meta, d)
		}
		if d := cmp.Diff([]string{"x-api-key", "x-auth-tenant"}, got.removed); d != "" {
			t.Errorf("%s: removed (-want +got):\n%s", rule, d)
		}
		for name, q := range map[string][2]string{"no key": {token, ""}, "no token": {"", key}, "a bad key": {token, key + "x"}, "a bad token": {token + "x", key}} {
			if got := check(t, c, ask(rule, q[0], "x-api-key", q[1])); got.status != 401 || got.meta["consumer"] != nil {
				t.Errorf("%s, %s: %d, %v", rule, name, got.status, got.meta)
			}
		}
	}
}
