package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/examples"
)

// verifiable is a policy with entries whose keys lie beside it, behind a URL, and in a secret.
const verifiable = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
auth:
  near: {jwt: {issuer: ISSUER, audiences: [AUDIENCE], jwks: {file: keys.json}, plan: tier, headers: {x-user: sub}}}
  far: {jwt: {issuer: [other, ISSUER], audiences: [orders], jwks: "KEYS"}}
  secret: {jwt: {issuer: legacy, audiences: any, secret: auth/legacy}}
  opaque: {introspection: {url: "https://id.test/", client: a, secret: auth/legacy, audiences: any}}
consumers: {acme: {jwt: {near: alice}}}
services: {orders: {endpoints: ["10.0.0.1:80"]}}
routes: {orders: {hostnames: [a.test], auth: none, backends: {orders: 1}}}
`

func TestTokenVerify(t *testing.T) {
	t.Parallel()
	keys, err := os.ReadFile("../../examples/quickstart/test-keys.json")
	must(t, err)
	fetches := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetches++
		w.Write(keys)
	}))
	defer server.Close()
	text := strings.NewReplacer("ISSUER", examples.Issuer, "AUDIENCE", examples.Audience, "KEYS", server.URL+"/keys").Replace(verifiable)
	dir := policyDir(t, "policy.yaml", text, "keys.json", string(keys))
	alice := strings.TrimSpace(sign(t, "--sub", "alice", "--claim", "tier=gold"))
	for _, row := range []struct {
		name  string
		token string
		flags []string
		want  int
		told  []string
	}{
		{"good for one", alice, nil, 0, []string{
			"near: good, for acme (near/alice), plan gold\n", "sets     x-user: \"alice\"\n", "far: not good (audience)\n",
			"secret: not good (keys)\n", "ok       keys       1 of " + server.URL + "/keys, fetched 0 seconds ago\n",
		}},
		{"the whole header", "Authorization: bearer " + alice + "\n", nil, 0, []string{"near: good"}},
		{"expired", sign(t, "--sub", "alice", "--ttl", "-3m"), nil, 1, []string{"bad      times      expired 3 minutes ago\n"}},
		{"one entry", alice, []string{"--entry", "far"}, 1, []string{"far: not good"}},
		{"one issuer", alice, []string{"--issuer", "other"}, 1, []string{"far: not good"}},
		{"no such entry", alice, []string{"--entry", "opaque"}, 2, nil},
		{"no token", " ", nil, 2, nil},
		{"garbage", "garbage", []string{"--entry", "near"}, 1, []string{"bad      form       1 part with a point between"}},
		{"neither text nor json", alice, []string{"-o", "yaml"}, 2, nil},
	} {
		before := fetches
		status, out, errs := legation(append([]string{"token", "verify", row.token, dir}, row.flags...)...)
		if status != row.want || fetches > before+1 {
			t.Errorf("%s: got %d after %d fetches, want %d: %s%s", row.name, status, fetches-before, row.want, out, errs)
		}
		for _, line := range row.told {
			if !strings.Contains(out, line) {
				t.Errorf("%s: %q is not told:\n%s%s", row.name, line, out, errs)
			}
		}
		if strings.Contains(out+errs, strings.TrimSpace(row.token)) && len(row.token) > 100 {
			t.Errorf("%s: the token is told again", row.name)
		}
	}
}

func TestTokenVerifyForPrograms(t *testing.T) {
	t.Parallel()
	status, out, errs := legation("token", "verify", sign(t, "--sub", "bob"), "../../examples/quickstart", "-o", "json")
	var answer struct {
		Good    bool
		Entries []auth.Explanation
	}
	must(t, json.Unmarshal([]byte(out), &answer))
	if status != 0 || !answer.Good || len(answer.Entries) != 1 || errs != "" {
		t.Fatalf("got %d %s%s", status, out, errs)
	}
	var names []string
	for _, s := range answer.Entries[0].Steps {
		names = append(names, s.Check+" "+s.Result)
	}
	want := []string{
		"form ok", "header ok", "type ok", "algorithm ok", "issuer ok", "keys ok", "signature ok", "audience ok", "times ok", "consumer ok",
	}
	if diff := cmp.Diff(want, names); diff != "" || answer.Entries[0].Consumer != "demo/bob" {
		t.Errorf("for %s (-want +got):\n%s", answer.Entries[0].Consumer, diff)
	}
}

func TestReadToken(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a.b.c\n": "a.b.c", "Bearer a.b.c": "a.b.c", "authorization: BEARER  a.b.c\r\n": "a.b.c", " \n": "", "bearer": "bearer", "": "",
	} {
		got, err := readToken(strings.NewReader(in), "-")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	if got, err := readToken(strings.NewReader("x"), "a.b.c"); got != "a.b.c" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
