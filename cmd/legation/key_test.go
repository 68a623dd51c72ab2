package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/auth"
)

func madeKey() auth.MadeKey {
	return auth.MadeKey{Key: "lgn_abcdefgh23_secret", KeyInfo: auth.KeyInfo{ID: "abcdefgh23", Consumer: "acme"}}
}

func TestKeyVerbs(t *testing.T) {
	t.Parallel()
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	keys := app.Keys{Keys: []auth.KeyInfo{
		{ID: "abcdefgh23", Consumer: "acme", Entries: []string{"keys", "partners"}, Plan: "gold", Name: "ci", Created: at, Expires: at.Add(time.Hour)},
		{ID: "old", Consumer: "other", Expires: time.Unix(0, 0), Policy: true},
	}}
	url, requests := adminAPI(t, map[string]any{
		"/keys": keys, "/keys?consumer=acme": app.Keys{}, "/keys/abcdefgh23/rotate": madeKey(), "/keys/abcdefgh23": madeKey().KeyInfo,
	})
	for _, row := range []struct {
		args   []string
		status int
		asks   string
		says   []string
	}{
		{[]string{"list"}, 0, "GET /keys", []string{
			"ID          CONSUMER  NAME  ENTRIES        PLAN  CREATED              EXPIRES\n",
			"abcdefgh23  acme      ci    keys,partners  gold  2027-01-0", "old         other     -     -              -     in the policy        1970-01-01", ", over\n",
		}},
		{[]string{"list", "--consumer", "acme"}, 0, "GET /keys?consumer=acme", []string{"there are no API keys"}},
		{[]string{"list", "-o", "json"}, 0, "GET /keys", []string{`"consumer": "acme"`}},
		{[]string{"rotate", "abcdefgh23"}, 0, `POST /keys/abcdefgh23/rotate application/json {"overlap":"24h0m0s"}`, []string{"lgn_abcdefgh23_secret\n"}},
		{[]string{"rotate", "abcdefgh23", "--overlap", "7d", "-o", "json"}, 0, `POST /keys/abcdefgh23/rotate application/json {"overlap":"168h0m0s"}`, []string{`"key": "lgn_abcdefgh23_secret"`}},
		{[]string{"rotate", "abcdefgh23", "--overlap", "-1h"}, 2, "", []string{"--overlap: want a time span"}},
		{[]string{"rotate"}, 2, "", []string{"name the ID of a key"}},
		{[]string{"revoke", "abcdefgh23"}, 0, "DELETE /keys/abcdefgh23", []string{"key abcdefgh23 of acme is revoked\n"}},
		{[]string{"revoke", "abcdefgh23", "-o", "json"}, 0, "DELETE /keys/abcdefgh23", []string{`"id": "abcdefgh23"`}},
		{[]string{"revoke", "a/b"}, 1, "DELETE /keys/a%2Fb", []string{"404 Not Found: there is no such thing"}},
		{[]string{"revoke"}, 2, "", []string{"name the ID of a key"}},
		{[]string{"create"}, 2, "", []string{"say whose key it is with --consumer"}},
		{[]string{"create", "--consumer", "acme", "--expires", "soon"}, 2, "", []string{"--expires: want a time span such as 90d"}},
		{[]string{"create", "--consumer", "acme", "--expires", "0d"}, 2, "", []string{"--expires: want a time span such as 90d"}},
		{[]string{"lose"}, 2, "", []string{`knows no "lose": there is create, list, rotate, revoke or hash`}},
	} {
		args := append([]string{"key"}, row.args...)
		if row.asks != "" {
			args = append(args, "--server", url)
		}
		status, out, errs := legation(args...)
		if status != row.status {
			t.Errorf("%v: status %d, want %d: %s", row.args, status, row.status, errs)
		}
		for _, says := range row.says {
			if !strings.Contains(out+errs, says) {
				t.Errorf("%v: %q is not in\n%s%s", row.args, says, out, errs)
			}
		}
		if got := strings.Join(requests(), "\n"); got != row.asks {
			t.Errorf("%v: asked %s, want %s", row.args, got, row.asks)
		}
	}
}

func TestKeyCreateShowsTheKeyAlone(t *testing.T) {
	t.Parallel()
	var asked app.NewKey
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		must(t, json.NewDecoder(r.Body).Decode(&asked))
		must(t, json.NewEncoder(w).Encode(madeKey()))
	}))
	defer h.Close()
	before := time.Now()
	status, out, errs := legation("key", "create", "--consumer", "acme", "--entry", "keys", "--entry", "partners", "--plan", "gold", "--name", "ci", "--expires", "90d", "--server", h.URL)
	if status != 0 || out != "lgn_abcdefgh23_secret\n" || !strings.Contains(errs, "abcdefgh23 of acme") {
		t.Errorf("got %d %q %q", status, out, errs)
	}
	lives := asked.Expires.Sub(before)
	asked.Expires = time.Time{}
	if lives < 90*24*time.Hour-2*time.Second || lives > 90*24*time.Hour+time.Minute {
		t.Errorf("lives %s, want 90 days", lives)
	}
	if got, _ := json.Marshal(asked); string(got) != `{"consumer":"acme","entries":["keys","partners"],"plan":"gold","name":"ci"}` {
		t.Errorf("asked for %s", got)
	}
}

func TestPointsInTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 31, 12, 0, 0, 500, time.UTC)
	for text, want := range map[string]string{
		"90d": "2027-03-31T12:00:00Z", "12h": "2027-01-01T00:00:00Z", "2027-01-01": "2027-01-01T00:00:00Z", "2027-01-01T12:00:00+01:00": "2027-01-01T11:00:00Z",
		"": "", "d": "", "-1h": "", "-1d": "", "1.5d": "", "99999d": "", "2027-02-30": "",
	} {
		at, err := pointInTime(text, now)
		if got := at.Format(time.RFC3339); err == nil && got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
}

// TestKeyHash makes the line of a policy of a new key, and of one that there is.
func TestKeyHash(t *testing.T) {
	t.Parallel()
	const pepper = "0123456789abcdef"
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	status, out, errs := legation("key", "hash")
	key := strings.TrimSpace(errs[strings.LastIndex(errs, " "):])
	if want := "{id: " + auth.KeyID(key) + `, hash: "` + auth.HashKey(key, nil) + "\"}\n"; status != 0 || auth.CheckKey(key) != nil || out != want {
		t.Errorf("got %d %q %q, want %q", status, out, errs, want)
	}
	const foreign = "0123456789-made-elsewhere"
	for _, row := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--key-file", file("ours", key+"\n")}, 0, "{id: " + auth.KeyID(key) + `, hash: "` + auth.HashKey(key, nil) + "\"}\n"},
		{[]string{"--key-file", file("ours", key), "--secret-file", file("pepper", pepper+"\r\n")}, 0, `hash: "` + auth.HashKey(key, []byte(pepper)) + `"`},
		{[]string{"--key-file", file("other", foreign), "--id", "partner"}, 0, `{id: partner, hash: "` + auth.HashKey(foreign, nil) + `"}`},
		{[]string{"--key-file", file("other", foreign), "--id", "partner", "-o", "json"}, 0, `"hash": "` + auth.HashKey(foreign, nil) + `"`},
		{[]string{"--key-file", file("other", foreign)}, 2, "--id: the key was not made by legation"},
		{[]string{"--key-file", file("short", "abc")}, 2, "--key-file: want 20 to 256"},
		{[]string{"--key-file", file("broken", key+"x")}, 2, "a character is wrong or missing"},
		{[]string{"--key-file", filepath.Join(dir, "nothing")}, 2, "--key-file: open"},
		{[]string{"--secret-file", file("short", "abc")}, 2, "--secret-file: holds 3 bytes"},
		{[]string{"--id", "a"}, 2, "--id: a new key has an ID of its own"},
	} {
		status, out, errs := legation(append([]string{"key", "hash"}, row.args...)...)
		if status != row.status || !strings.Contains(out+errs, row.says) {
			t.Errorf("%v: got %d %s%s, want %d %s", row.args, status, out, errs, row.status, row.says)
		}
	}
}
