package app

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/legation/legation/control"
	"github.com/legation/legation/policy"
)

// pushOf is a body with one policy file.
func pushOf(t testing.TB, text, parent string, force bool) string {
	t.Helper()
	body, err := json.Marshal(Push{policy.Files{"policy.yaml": []byte(text)}, ChangeWanted{Parent: parent, By: "me", Message: "why", Force: force}})
	must(t, err)
	return string(body)
}

func decoded[T any](t testing.TB, body string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return v
}

func TestRevisionsByHTTP(t *testing.T) {
	t.Parallel()
	p := assemble(t, Options{DataDir: t.TempDir()})
	h := adminOf(t, p)
	post := func(path, body string) (int, string) {
		status, _, answer := call(h, "POST", path, "Content-Type", "application/json", bodyOf, body)
		return status, answer
	}
	get := func(path string) string {
		t.Helper()
		status, _, body := call(h, "GET", path)
		if status != 200 {
			t.Fatalf("%s: got %d %s", path, status, body)
		}
		return body
	}
	if r := decoded[Revisions](t, get("/revisions")); r.Source != control.FromRevisions || r.Revisions == nil || len(r.Revisions) != 0 {
		t.Errorf("empty: got %+v", r)
	}
	if status, body := post("/revisions", pushOf(t, diffable, "none", false)); status != 200 || decoded[control.Accepted](t, body).Number != 1 {
		t.Errorf("the first: got %d %s", status, body)
	}
	changed := strings.Replace(diffable, "5s", "3s", 1)
	status, body := post("/revisions", pushOf(t, changed, "1", false))
	if a := decoded[control.Accepted](t, body); status != 200 || !a.Served || a.By != "me" || a.Message != "why" || a.Problems == nil {
		t.Errorf("the second: got %d %s", status, body)
	}
	if r := decoded[Revisions](t, get("/revisions")); r.Served != 2 || len(r.Revisions) != 2 || r.Revisions[0].Number != 2 {
		t.Errorf("got %+v", r)
	}
	if r := decoded[RevisionFiles](t, get("/revisions/previous?content=true")); r.Number != 1 || string(r.Content["policy.yaml"]) != diffable || r.Sizes["policy.yaml"] != int64(len(diffable)) {
		t.Errorf("got %+v", r)
	}
	if r := decoded[RevisionFiles](t, get("/revisions/2")); r.Content != nil {
		t.Errorf("content that was not asked for: %+v", r)
	}
	if body := get("/revisions/1/diff/2"); !strings.Contains(body, `"timeouts.request"`) {
		t.Errorf("got %s", body)
	}
	status, body = post("/revisions/previous/rollback", `{"parent": "2", "message": "back"}`)
	if a := decoded[control.Accepted](t, body); status != 200 || a.Number != 3 || a.Of != 1 || !a.Served {
		t.Errorf("rollback: got %d %s", status, body)
	}
	if got := p.control.Outcome().Accepted; got == nil || got.Number != 3 {
		t.Errorf("serving %+v, want 3", got)
	}
}

func TestChangesThatAreRefused(t *testing.T) {
	t.Parallel()
	p := assemble(t, Options{DataDir: t.TempDir()})
	h := adminOf(t, p)
	three := diffable
	for _, name := range []string{"b", "c"} {
		three += fmt.Sprintf("---\nservices: {%[1]s: {endpoints: [\"127.0.0.1:1\"]}}\nroutes: {%[1]s: {hostnames: [%[1]s.test], backends: {%[1]s: 1}}}\n", name)
	}
	for _, row := range []struct {
		name, path, body string
		want             int
		says             []string
	}{
		{"the first", "/revisions", pushOf(t, three, "none", false), 200, nil},
		{"another first", "/revisions", pushOf(t, diffable, "none", false), 409, []string{"revision 1 is there", "push again", `"head"`, `"by": "me"`}},
		{"unknown parent", "/revisions", pushOf(t, diffable, "7", false), 409, []string{"not known"}},
		{"no parent", "/revisions", pushOf(t, diffable, "", false), 400, []string{"parent: name the revision"}},
		{"odd parent", "/revisions", pushOf(t, diffable, "../1", false), 400, []string{"parent"}},
		{"problems", "/revisions", pushOf(t, "nonsense: 1\n", "1", false), 422, []string{`"problems"`, `"file": "policy.yaml"`, `"line": 1`, "unknown section"}},
		{"too little left", "/revisions", pushOf(t, diffable, "1", false), 422, []string{`"shrink"`, "2 of 3 clusters", "--force", `"edge/b"`}},
		{"a name that leads out", "/revisions", `{"files": {"../a.yaml": "Z2F0ZXdheXM6IHt9Cg=="}, "parent": "1", "force": true}`, 400, []string{"no name of a file"}},
		{"other fields", "/revisions", `{"file": {}}`, 400, []string{"want"}},
		{"a query", "/revisions?force=true", pushOf(t, diffable, "1", false), 400, []string{"parameter"}},
		{"a message that moves the cursor", "/revisions/1/rollback", `{"parent": "1", "message": "\u001b[2J"}`, 200, []string{`"unchanged": true`}},
		{"rollback to none", "/revisions/9/rollback", `{"parent": "1"}`, 404, []string{"no such revision"}},
		{"rollback on none", "/revisions/1/rollback", `{}`, 400, []string{"parent"}},
		{"with force", "/revisions", pushOf(t, diffable, "1", true), 200, []string{`"forced": true`}},
		{"a message with a bell", "/revisions/1/rollback", `{"parent": "2", "message": "\u0007"}`, 400, []string{"can't be shown"}},
	} {
		status, _, body := call(h, "POST", row.path, "Content-Type", "application/json", bodyOf, row.body)
		if status != row.want {
			t.Errorf("%s: got %d %s, want %d", row.name, status, body, row.want)
		}
		for _, says := range row.says {
			if !strings.Contains(body, says) {
				t.Errorf("%s: got %s, want it to say %q", row.name, body, says)
			}
		}
	}
	for path, want := range map[string]int{
		"/revisions/9": 404, "/revisions/x": 404, "/revisions/1?content=maybe": 400, "/revisions/1/diff/9": 404, "/revisions?n=1": 400,
		"/revisions/1/rollback": 405, "/revisions/1/diff/2/3": 404,
	} {
		if status, _, body := call(h, "GET", path); status != want {
			t.Errorf("GET %s: got %d %s, want %d", path, status, body, want)
		}
	}
}

// Nobody without the token, no other site and no form changes or reads a policy.
func TestRevisionsAreGuarded(t *testing.T) {
	t.Parallel()
	file := write(t, filepath.Join(t.TempDir(), "token"), adminToken+"\n")
	p := assemble(t, Options{DataDir: t.TempDir(), AdminTokenFile: file})
	h := adminOf(t, p)
	const bearer = "Bearer " + adminToken
	for _, target := range []struct{ method, path, body string }{
		{"POST", "/revisions", pushOf(t, diffable, "none", false)},
		{"POST", "/revisions/1/rollback", `{"parent": "1"}`},
		{"GET", "/revisions", ""},
		{"GET", "/revisions/1?content=true", ""},
		{"GET", "/revisions/1/diff/2", ""},
	} {
		for _, row := range []struct {
			name, token, kind, host, origin string
			want                            int
		}{
			{"no token", "", "application/json", "", "", 401},
			{"another token", "Bearer " + strings.Repeat("x", 32), "application/json", "", "", 401},
			{"another site", bearer, "application/json", "", "http://evil.test", 403},
			{"a rebound name", bearer, "application/json", "evil.test", "", 403},
			{"a form", bearer, "application/x-www-form-urlencoded", "", "", 415},
			{"text", bearer, "text/plain", "", "", 415},
		} {
			if row.want == 415 && target.method == "GET" {
				continue
			}
			headers := []string{"Authorization", row.token, "Content-Type", row.kind, bodyOf, target.body}
			if row.host != "" {
				headers = append(headers, "Host", row.host)
			}
			if row.origin != "" {
				headers = append(headers, "Origin", row.origin)
			}
			if status, _, body := call(h, target.method, target.path, headers...); status != row.want {
				t.Errorf("%s %s, %s: got %d %s, want %d", target.method, target.path, row.name, status, body, row.want)
			}
		}
	}
	if o := p.control.Outcome(); o.Revision != "" {
		t.Errorf("something is served: %+v", o)
	}
}

// A directory rules: it can't be pushed over, and the answer says why.
func TestPushOverADirectory(t *testing.T) {
	t.Parallel()
	p := assemble(t, Options{Dir: policyDir(t, diffable)})
	p.control.Load()
	h := adminOf(t, p)
	status, _, body := call(h, "POST", "/revisions", "Content-Type", "application/json", bodyOf, pushOf(t, diffable, "head", false))
	if status != 409 || !strings.Contains(body, "serves a directory, which rules") {
		t.Errorf("got %d %s", status, body)
	}
}

// What is pushed has to be kept somewhere.
func TestPushedPoliciesNeedAPlace(t *testing.T) {
	t.Parallel()
	if _, err := newProcess(anywhere(Options{})); !Usage(err) || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("got %v", err)
	}
	data := t.TempDir()
	assemble(t, Options{DataDir: data})
	if _, err := newProcess(anywhere(Options{DataDir: data})); !Usage(err) {
		t.Errorf("in the data directory of another process: got %v", err)
	}
}
