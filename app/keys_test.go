package app

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/store"
)

// board is one that keeps its entries in this process.
func board(t testing.TB) store.Board {
	t.Helper()
	s, err := store.OpenShared(store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s.Board("keys")
}

// full is a board that takes nothing.
type full struct{ store.Board }

func (full) Put(context.Context, store.Entry) error { return store.ErrUnavailable }

const keysPolicy = `gateways: {edge: {listeners: {http: {port: 10000, address: 127.0.0.1}}}}
auth: {keys: {apiKey: {header: x-api-key}}}
plans: {gold: {rate: 10/second}}
consumers:
  acme: {}
  written: {apiKeys: [{id: written, hash: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}]}
services: {api: {endpoints: ["127.0.0.1:9001"]}}
routes: {api: {hostnames: [localhost], auth: [keys], backends: {api: 1}}}
`

// keyed is the admin API of a process that keeps keys on the board; nil for none.
func keyed(t testing.TB, keys store.Board) http.Handler {
	t.Helper()
	p := assemble(t, Options{Dir: policyDir(t, keysPolicy)})
	p.control.Load()
	must(t, p.control.Outcome().Problems.Err())
	p.auth = auth.New(auth.Options{Keys: keys, Log: p.o.Log})
	table, _ := feature.Companions(p.control.Outcome().Model)
	must(t, p.auth.Load(table))
	return adminOf(t, p)
}

// post sends JSON, and gives the answer of a 200.
func post[T any](t testing.TB, h http.Handler, path, body string) (v T) {
	t.Helper()
	status, _, text := call(h, "POST", path, "Content-Type", "application/json", bodyOf, body)
	if status != http.StatusOK {
		t.Fatalf("%s: got %d %s", path, status, text)
	}
	must(t, json.Unmarshal([]byte(text), &v))
	return v
}

func TestKeysByHTTP(t *testing.T) {
	t.Parallel()
	h := keyed(t, board(t))
	written := auth.KeyInfo{ID: "written", Consumer: "written", Policy: true}
	first := post[auth.MadeKey](t, h, "/keys", `{"consumer": "acme", "entries": ["keys"], "plan": "gold", "name": "ci", "expires": "2100-01-01T00:00:00Z"}`)
	want := auth.KeyInfo{
		ID: first.ID, Consumer: "acme", Entries: []string{"keys"}, Plan: "gold", Name: "ci", Created: first.Created,
		Expires: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	if diff := cmp.Diff(auth.MadeKey{Key: first.Key, KeyInfo: want}, first); diff != "" || auth.KeyID(first.Key) != first.ID {
		t.Errorf("%s (-want +got):\n%s", first.Key, diff)
	}
	if diff := cmp.Diff(Keys{[]auth.KeyInfo{want, written}}, answered[Keys](t, h, "/keys")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := answered[Keys](t, h, "/keys?consumer=nobody"); len(got.Keys) != 0 {
		t.Errorf("nobody has %v", got)
	}
	second := post[auth.MadeKey](t, h, "/keys/"+first.ID+"/rotate", `{"overlap": "1h"}`)
	if left := time.Until(answered[Keys](t, h, "/keys?consumer=acme").Keys[0].Expires); second.Consumer != "acme" || len(answered[Keys](t, h, "/keys").Keys) != 3 || left > time.Hour && second.Created.After(first.Created) {
		t.Errorf("rotated to %+v, the first has %s left", second, left)
	}
	for _, k := range []auth.MadeKey{first, second} {
		if status, _, body := call(h, "DELETE", "/keys/"+k.ID); status != 200 || strings.Contains(body, k.Key) {
			t.Errorf("revoke: %d %s", status, body)
		}
	}
	if diff := cmp.Diff(Keys{[]auth.KeyInfo{written}}, answered[Keys](t, h, "/keys")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKeysByHTTPRefused(t *testing.T) {
	t.Parallel()
	keys := board(t)
	h, none := keyed(t, keys), keyed(t, nil)
	down := keyed(t, full{board(t)})
	for _, row := range []struct {
		of           http.Handler
		method, path string
		body         string
		want         int
		says         string
	}{
		{h, "POST", "/keys", `{"consumer": "nobody"}`, 400, `there is no consumer \"nobody\"`},
		{h, "POST", "/keys", `{"consumer": "acme", "plan": "silver"}`, 400, `there is no plan \"silver\"`},
		{h, "POST", "/keys", `{"consumer": "acme", "entries": ["other"]}`, 400, `\"other\" is no entry of apiKey`},
		{h, "POST", "/keys", `{"consumer": "acme", "secret": "x"}`, 400, "unknown field"},
		{h, "POST", "/keys", `{"consumer": "acme"} {}`, 400, "something comes after it"},
		{h, "POST", "/keys", ``, 400, "want {"},
		{h, "POST", "/keys?consumer=acme", `{}`, 400, "no parameter"},
		{h, "POST", "/keys/written/rotate", `{"overlap": "1h"}`, 400, "stands in the policy"},
		{h, "POST", "/keys/abcdefgh23/rotate", `{"overlap": "1h"}`, 404, "there is no such API key"},
		{h, "POST", "/keys/abcdefgh23/rotate", `{"overlap": "-1h"}`, 400, "overlap: want a time span"},
		{h, "POST", "/keys/abcdefgh23/rotate", `{"overlap": "3000h"}`, 400, "overlap: want a time span"},
		{h, "DELETE", "/keys/written", ``, 400, "stands in the policy"},
		{h, "DELETE", "/keys/abcdefgh23", ``, 404, "there is no such API key"},
		{h, "GET", "/keys?n=1", ``, 400, "no parameter"},
		{h, "PUT", "/keys", ``, 405, "GET, HEAD, POST"},
		{h, "GET", "/keys/abcdefgh23", ``, 405, "the methods here are DELETE"},
		{none, "POST", "/keys", `{"consumer": "acme"}`, 404, "no store for API keys"},
		{none, "DELETE", "/keys/abcdefgh23", ``, 404, "no store for API keys"},
		{down, "POST", "/keys", `{"consumer": "acme"}`, 503, ""},
		{adminOf(t, assemble(t, Options{Dir: policyDir(t, keysPolicy), Roles: []Role{XDS}})), "GET", "/keys", ``, 404, "has not the role auth"},
	} {
		status, _, body := call(row.of, row.method, row.path, "Content-Type", "application/json", bodyOf, row.body)
		if status != row.want || !strings.Contains(body, row.says) {
			t.Errorf("%s %s %s: got %d %s, want %d %s", row.method, row.path, row.body, status, body, row.want, row.says)
		}
	}
	if status, _, _ := call(h, "POST", "/keys", "Content-Type", "text/plain", bodyOf, `{"consumer": "acme"}`); status != http.StatusUnsupportedMediaType {
		t.Errorf("a form of another site: %d", status)
	}
	for e := range keys.Entries() {
		t.Errorf("a key was made: %v", e)
	}
}
