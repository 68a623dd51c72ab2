package auth

import (
	"fmt"
	"testing"
)

// TestGuests holds who is a guest beside tokens, keys and passwords, wherever guests stand in the list.
func TestGuests(t *testing.T) {
	table := tableOfKeys(Key{Secret: "consumers/acme"})
	table.Secrets["auth/staff"] = []byte("alice:" + bcryptOf("a", 4))
	providers := []Provider{
		{Name: "guests", Anonymous: &Anonymous{Plan: "free"}},
		staticRule().Providers[0],
		table.Rules[0].Providers[0],
		{Name: "staff", Basic: &Basic{Users: "auth/staff"}},
	}
	table.Rules = []Rule{
		{Name: "edge/first", Providers: providers},
		{Name: "edge/last", Providers: append(providers[1:len(providers):len(providers)], providers[0])},
		{Name: "edge/all", Providers: providers[:2], All: true},
		{Name: "edge/alone", Providers: providers[:1]},
	}
	c := dial(t, load(t, Options{}, table))
	token := rsaPair().sign(t, goodClaims(nil))
	for _, test := range []struct {
		name, authorization, key string
		want                     string // where guests are taken beside others
	}{
		{"nothing", "", "", "200 guests/anonymous free"},
		{"credentials that nobody asked for", "Digest a=b", "", "200 guests/anonymous free"},
		{"token", "Bearer " + token, "", "200 idp/alice <nil>"},
		{"key", "", keyOfSecret, "200 acme gold"},
		{"password", basicOf("alice:a"), "", "200 staff/alice <nil>"},
		{"bad token", "Bearer x", "", "401 token_malformed"},
		{"empty token", "Bearer ", "", "401 token_malformed"},
		{"bad key", "", keyOfSecret[1:], "401 key_unknown"},
		{"wrong password", basicOf("alice:b"), "", "401 password_wrong"},
		{"two keys", "", keyOfSecret + "," + keyOfSecret, "400 two_credentials"},
		{"bad token, good key", "Bearer x", keyOfSecret, "200 acme gold"},
		{"two tokens", "Bearer x, Bearer y", "", "400 two_credentials"},
	} {
		for _, rule := range []string{"edge/first", "edge/last"} {
			q := ask(rule, test.authorization)
			if test.key != "" {
				q.Attributes.Request.Http.Headers["x-api-key"] = test.key
			}
			got := check(t, c, q)
			told := fmt.Sprint(got.status, " ", got.meta["reason"])
			if got.status == 200 {
				told = fmt.Sprint("200 ", got.meta["consumer"], " ", got.meta["plan"])
			}
			if told != test.want {
				t.Errorf("%s at %s: got %s, want %s", test.name, rule, told, test.want)
			}
		}
	}
	for rule, want := range map[string]int{"edge/all": 401, "edge/alone": 200} {
		if got := check(t, c, ask(rule, "")); got.status != want {
			t.Errorf("%s: %d, want %d", rule, got.status, want)
		}
	}
}

func TestUndecidedIsNoGuest(t *testing.T) {
	table := tableOfKeys()
	delete(table.Secrets, "auth/pepper")
	table.Rules[1].Providers = append(table.Rules[1].Providers, Provider{Name: "guests", Anonymous: &Anonymous{}})
	if got := try(t, load(t, Options{}, table), "edge/peppered", keyOfSecret); got != "503 no_secret" {
		t.Errorf("got %s", got)
	}
}
