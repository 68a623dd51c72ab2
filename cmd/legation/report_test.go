package main

import (
	"encoding/json"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// spoilt has a problem of each kind: a wrong value, a reference, a conflict of two files and a warning.
var spoilt = []string{
	"a.yaml", `gateways: {edge: {listeners: {http: {port: 10000}, db: {port: 5432, protocol: TCP}}}}
services: {app: {endpoints: ["10.0.0.1:80"]}}
routes:
  app: {hostnames: [a.test], backends: {app: 1}, timeouts: {request: 5}}
  lost: {hostnames: [b.test], backends: {ap: 1}}
`,
	"b c,d.yaml", "services:\n  app: {endpoints: []}\n\"50%: ::error::x\\n\": 1\n",
}

func TestReport(t *testing.T) {
	t.Parallel()
	var got report
	asked(t, 1, &got, "check", policyDir(t, spoilt...), "-o", "json")
	type row struct {
		File              string
		Line, Column, End int
		Severity, Rule    string
	}
	var rows []row
	for _, p := range got.Problems {
		rows = append(rows, row{p.File, p.Line, p.Column, p.EndColumn, p.Severity, p.Rule})
		if p.Message == "" || p.Severity == "error" && p.Hint == "" && p.Path == "" {
			t.Errorf("got %+v", p)
		}
	}
	want := []row{
		{"a.yaml", 4, 70, 71, "error", "timeouts"},
		{"a.yaml", 5, 42, 44, "error", "reference"},
		{"b c,d.yaml", 2, 3, 6, "error", "services"},
		{"b c,d.yaml", 3, 1, 20, "error", "file"},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if also := got.Problems[2].Also; len(also) != 1 || also[0] != (place{"a.yaml", 2, 12, 15}) {
		t.Errorf("the conflict's other place: got %+v", also)
	}
}

// SARIF is held against what its schema demands of the parts that are written: no more properties than these, the right
// types, and what the standard says in words (rule indices, URIs, regions).
func TestSARIF(t *testing.T) {
	t.Parallel()
	status, out, errs := legation("check", policyDir(t, spoilt...), "-o", "sarif")
	if status != 1 || errs != "" {
		t.Fatalf("got %d %q", status, errs)
	}
	var log sarifLog
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	must(t, d.Decode(&log))
	if log.Version != "2.1.0" || !strings.HasSuffix(log.Schema, "/sarif-schema-2.1.0.json") || len(log.Runs) != 1 {
		t.Fatalf("got %s", out)
	}
	run := log.Runs[0]
	rules := run.Tool.Driver.Rules
	if run.Tool.Driver.Name == "" || run.ColumnKind != "unicodeCodePoints" || !run.Invocations[0].ExecutionSuccessful || len(run.Results) != 4 {
		t.Errorf("got %s", out)
	}
	if !slices.IsSortedFunc(rules, func(a, b sarifRule) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("the rules are in no order")
	}
	for _, r := range run.Results {
		if r.RuleIndex < 0 || rules[r.RuleIndex].ID != r.RuleID || rules[r.RuleIndex].ShortDescription.Text == "" {
			t.Errorf("%s: rule %d", r.RuleID, r.RuleIndex)
		}
		if r.Message.Text == "" || !slices.Contains([]string{"none", "note", "warning", "error"}, r.Level) || len(r.Locations) != 1 {
			t.Errorf("got %+v", r)
		}
		for _, l := range slices.Concat(r.Locations, r.Related) {
			at, region := l.Physical.Artifact.URI, l.Physical.Region
			if u, err := url.Parse(at); err != nil || u.Scheme != "file" || strings.Contains(at, " ") {
				t.Errorf("%q is not the URL of a file: %v", at, err)
			}
			if region.StartLine < 1 || region.StartColumn < 1 || region.EndColumn != 0 && region.EndColumn <= region.StartColumn {
				t.Errorf("got the region %+v", region)
			}
		}
	}
}

// The repository's own paths are what code scanning and annotations show: relative to the working directory.
func TestPathsFromHere(t *testing.T) {
	t.Parallel()
	for dir, want := range map[string]string{
		"policy": "policy/teams/a%20b.yaml", "./policy/": "policy/teams/a%20b.yaml", ".": "teams/a%20b.yaml", "../x": "../x/teams/a%20b.yaml",
	} {
		at := finding{dir: dir}.sarifLocation(place{File: "teams/a b.yaml"})
		if at.Physical.Artifact.URI != want || at.Physical.Region != nil {
			t.Errorf("%s: got %+v, want %s and no region", dir, at.Physical, want)
		}
	}
}

func TestAnnotations(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, spoilt...)
	status, out, errs := legation("check", dir, "-o", "github")
	if status != 1 || errs != "" {
		t.Fatalf("got %d %q", status, errs)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	want := []string{
		"::error file=" + dir + "/a.yaml,line=4,col=70,endColumn=71,title=legation%3A timeouts::routes.app.timeouts.request: a time span needs its unit, got 5%0Ahint: write 5s",
		"::error file=" + dir + `/a.yaml,line=5,col=42,endColumn=44,title=legation%3A reference::routes.lost.backends.ap: there is no service "ap"%0Ahint: did you mean "app"?`,
		"::error file=" + dir + `/b c%2Cd.yaml,line=2,col=3,endColumn=6,title=legation%3A services::services.app: the service "app" is defined twice%0A` +
			"hint: the other one stands at a.yaml:2:12: rename or remove one of them%0Aalso: " + dir + "/a.yaml:2:12",
		"::error file=" + dir + `/b c%2Cd.yaml,line=3,col=1,endColumn=20,title=legation%3A file::50%25: ::error::x%0A: unknown section "50%25: ::error::x\n"%0A` +
			"hint: there are gateways, sidecars, services, routes, auth, consumers, plans and rateLimits",
		"4 problems",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A directory that can't be read is told in the form that was asked for, too.
func TestReportOfNoPolicy(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	var a report
	asked(t, 1, &a, "check", missing, "-o", "json")
	if a.OK || a.Problems == nil || !strings.Contains(a.Error, "no such file") {
		t.Errorf("json: got %+v", a)
	}
	var log sarifLog
	asked(t, 1, &log, "check", missing, "-o", "sarif")
	if run := log.Runs[0]; run.Invocations[0].ExecutionSuccessful || len(run.Invocations[0].Notifications) != 1 || run.Results == nil {
		t.Errorf("sarif: got %+v", log)
	}
	if status, out, _ := legation("check", missing, "-o", "github"); status != 1 || !strings.HasPrefix(out, "::error title=legation::") {
		t.Errorf("github: got %d %q", status, out)
	}
	good := policyDir(t, "policy.yaml", good)
	if status, out, _ := legation("check", good, "-o", "github"); status != 0 || !strings.HasPrefix(out, "ok: ") {
		t.Errorf("github, good: got %d %q", status, out)
	}
}
