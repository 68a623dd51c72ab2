package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/legation/legation/app"
	"github.com/legation/legation/diff"
	"github.com/legation/legation/policy"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	before, same := policyDir(t, "policy.yaml", good), policyDir(t, "other.yaml", "# the same\n"+good)
	after := policyDir(t, "policy.yaml", strings.Replace(good, "9001", "9002", 1))
	bad := policyDir(t, "policy.yaml", good+"nonsense: 1\n")
	for _, row := range []struct {
		args   []string
		status int
		out    string // how it begins
		errs   string // part of it
	}{
		{[]string{before, before}, 0, "no difference: revision ", ""},
		{[]string{before, same}, 0, "no difference but in how it is written", ""},
		{[]string{before, after}, 1, "revision ", ""},
		{[]string{before, bad}, 2, "", "\nlegation: " + bad + ": 1 problem\n"},
		{[]string{bad, before}, 2, "", "policy.yaml:4:1"},
		{[]string{before, filepath.Join(before, "missing")}, 2, "", "no such file"},
		{[]string{before}, 2, "", "name a second directory"},
		{nil, 2, "", "name two directories"},
		{[]string{before, after, after}, 2, "", "name two directories"},
		{[]string{before, after, "--server", "127.0.0.1:1"}, 2, "", "name one directory with --server"},
		{[]string{before, "--server", "127.0.0.1:1"}, 2, "", "is legation running?"},
		{[]string{before, after, "-o", "xml"}, 2, "", "want text or json"},
	} {
		status, out, errs := legation(append([]string{"diff"}, row.args...)...)
		if status != row.status || !strings.HasPrefix(out, row.out) || !strings.Contains(errs, row.errs) || row.out == "" && out != "" {
			t.Errorf("diff %v: got %d %q %q, want %d, %q and %q", row.args, status, out, errs, row.status, row.out, row.errs)
		}
	}
	var d diff.Diff
	asked(t, 1, &d, "diff", before, after, "-o", "json")
	if len(d.Changes) != 2 || d.Changes[0].Names[0] != "app" || d.Entries == nil || d.Files == nil || d.Counters == nil || len(d.Envoy) != 1 {
		t.Errorf("got %+v", d)
	}
}

func TestDiffWithServer(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, "policy.yaml", good)
	d := &diff.Diff{Before: "a", After: "b", Changes: []diff.Change{{Kind: "route", Names: []string{"app"}, Path: "timeouts.request"}}}
	url, requests := adminAPI(t, map[string]any{"/policy/diff": app.Comparison{Diff: d, Problems: policy.Problems{}}})
	if status, out, errs := legation("diff", dir, "--server", url); status != 1 || !strings.Contains(out, "route app") || errs != "" {
		t.Errorf("got %d %q %q", status, out, errs)
	}
	sent := requests()
	var c app.Candidate
	if len(sent) != 1 || !strings.HasPrefix(sent[0], "POST /policy/diff application/json {") {
		t.Fatalf("got %q", sent)
	}
	must(t, json.Unmarshal([]byte(strings.TrimPrefix(sent[0], "POST /policy/diff application/json ")), &c))
	if string(c.Files["policy.yaml"]) != good {
		t.Errorf("sent %q", c.Files)
	}
	problem := &policy.Problem{Pos: policy.Pos{File: "policy.yaml", Line: 1, Col: 1}, Message: "there is no secret tls/edge"}
	url, _ = adminAPI(t, map[string]any{"/policy/diff": app.Comparison{Problems: policy.Problems{problem}}})
	if status, out, errs := legation("diff", dir, "--server", url); status != 2 || out != "" || !strings.Contains(errs, "no secret tls/edge") {
		t.Errorf("a bad policy: got %d %q %q", status, out, errs)
	}
}
