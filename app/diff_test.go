package app

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/legation/legation/policy"
)

const diffable = `gateways: {edge: {listeners: {http: {port: 10000, address: 127.0.0.1}}}}
services: {app: {endpoints: ["127.0.0.1:9001"]}}
routes: {app: {hostnames: [a.test], backends: {app: 1}, timeouts: {request: 5s}}}
`

// candidate is a body with one policy file.
func candidate(t testing.TB, text string) string {
	t.Helper()
	body, err := json.Marshal(Candidate{Files: policy.Files{"policy.yaml": []byte(text)}})
	must(t, err)
	return string(body)
}

func TestDiffByHTTP(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, diffable)
	p := assemble(t, Options{Dir: dir})
	h := adminOf(t, p)
	ask := func(text string) (int, Comparison) {
		status, _, body := call(h, "POST", "/policy/diff", "Content-Type", "application/json", bodyOf, candidate(t, text))
		var c Comparison
		must(t, json.Unmarshal([]byte(body), &c))
		return status, c
	}
	if status, _ := ask(diffable); status != 503 {
		t.Errorf("before anything is served: got %d, want 503", status)
	}
	p.control.Load()
	if status, c := ask(diffable); status != 200 || c.Diff == nil || !c.Diff.Empty() || len(c.Problems) != 0 {
		t.Errorf("the same: got %d %+v", status, c)
	}
	// What is served counts, and not what lies in the directory: the last good version stays.
	write(t, filepath.Join(dir, "policy.yaml"), "nonsense: 1\n")
	p.control.Load()
	status, c := ask(strings.Replace(diffable, "5s", "3s", 1))
	if status != 200 || c.Diff == nil || len(c.Diff.Changes) != 1 {
		t.Fatalf("changed: got %d %+v", status, c)
	}
	if got := c.Diff.Changes[0]; got.Path != "timeouts.request" || got.From.Text != "5s" || got.To.Text != "3s" || got.To.At.File != "policy.yaml" {
		t.Errorf("got %+v", got)
	}
	if got := p.control.Outcome().Revision; got != c.Diff.Before {
		t.Errorf("serving %s, compared with %s", got, c.Diff.Before)
	}
	if status, c := ask("nonsense: 1\n"); status != 200 || c.Diff != nil || !c.Problems.HasErrors() {
		t.Errorf("a bad one: got %d %+v", status, c)
	}
}

func TestDiffByHTTPRefuses(t *testing.T) {
	t.Parallel()
	file := write(t, filepath.Join(t.TempDir(), "token"), adminToken+"\n")
	h := adminOf(t, assemble(t, Options{Dir: policyDir(t, diffable), AdminTokenFile: file}))
	const asJSON = "application/json"
	for _, row := range []struct {
		name, method, token, kind, body string
		want                            int
	}{
		{"no token", "POST", "", asJSON, candidate(t, diffable), 401},
		{"another method", "GET", adminToken, "", "", 405},
		{"a form of another site", "POST", adminToken, "text/plain", candidate(t, diffable), 415},
		{"no JSON", "POST", adminToken, asJSON, "{", 400},
		{"other fields", "POST", adminToken, asJSON, `{"dir": "/"}`, 400},
		{"more behind it", "POST", adminToken, asJSON, candidate(t, diffable) + "{}", 400},
		{"nothing served yet", "POST", adminToken, asJSON, candidate(t, diffable), 503},
	} {
		status, _, body := call(h, row.method, "/policy/diff", "Authorization", "Bearer "+row.token, "Content-Type", row.kind, bodyOf, row.body)
		if status != row.want || !strings.Contains(body, `"error"`) {
			t.Errorf("%s: got %d %s, want %d", row.name, status, body, row.want)
		}
	}
}

// One comparison at a time, however many are asked for.
func TestOneDiffAtATime(t *testing.T) {
	t.Parallel()
	p := assemble(t, Options{Dir: policyDir(t, diffable)})
	a, err := newAdmin(p)
	must(t, err)
	h := a.handler(p.metrics)
	a.comparing.Lock()
	if status, _, body := call(h, "POST", "/policy/diff", "Content-Type", "application/json", bodyOf, candidate(t, diffable)); status != 429 {
		t.Errorf("while another runs: got %d %s, want 429", status, body)
	}
	a.comparing.Unlock()
	if status, _, _ := call(h, "POST", "/policy/diff", "Content-Type", "application/json", bodyOf, candidate(t, diffable)); status != 503 {
		t.Errorf("afterwards: got %d, want 503: nothing is served yet", status)
	}
}
