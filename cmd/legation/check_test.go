package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
)

// asked runs a command line that answers in JSON.
func asked(t testing.TB, wantStatus int, into any, args ...string) {
	t.Helper()
	status, out, errs := legation(args...)
	if status != wantStatus || errs != "" {
		t.Errorf("legation %s: got %d %q, want %d", strings.Join(args, " "), status, errs, wantStatus)
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("legation %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	var a report
	asked(t, 0, &a, "check", policyDir(t, "policy.yaml", good), "-o", "json")
	if !a.OK || a.Problems == nil || len(a.Problems) != 0 {
		t.Errorf("good: got %+v", a)
	}
	bad := policyDir(t, "policy.yaml", strings.Replace(good, "backends", "backend", 1), "more.yaml", "nonsense: 1\n")
	a = report{}
	asked(t, 1, &a, "check", bad, "-o", "json")
	if a.OK || len(a.Problems) < 2 {
		t.Fatalf("bad: got %+v", a)
	}
	var files []string
	for _, p := range a.Problems {
		files = append(files, p.File)
		if p.Line == 0 || p.Column == 0 || p.Message == "" {
			t.Errorf("a problem without a place or words: %+v", p)
		}
	}
	if !slices.Contains(files, "more.yaml") || !slices.Contains(files, "policy.yaml") {
		t.Errorf("got problems of %v, want all of both files", files)
	}
}

func TestCheckText(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, "policy.yaml", strings.Replace(good, "backends", "backend", 1))
	_, out, errs := legation("check", dir)
	for _, part := range []string{"policy.yaml:3:", `did you mean "backends"?`, "^", "1 problem\n"} {
		if !strings.Contains(out, part) {
			t.Errorf("got %q, want %q in it", out, part)
		}
	}
	if errs != "" || strings.Contains(out, "\x1b") {
		t.Errorf("got %q on standard error, or colour in %q", errs, out)
	}
	must(t, os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(good+"nonsense: 1\n"), 0o600))
	if _, out, _ = legation("check", dir); !strings.HasSuffix(out, "\n1 problem\n") {
		t.Errorf("got %q, want it to count one problem", out)
	}
	must(t, os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte("gateways: {edge: {listeners: {db: {port: 5432, protocol: TCP}}}}\nnonsense: 1\n"), 0o600))
	if _, out, _ = legation("check", dir); !strings.HasSuffix(out, "\n1 problem, 1 warning\n") {
		t.Errorf("got %q, want it to count warnings apart", out)
	}
}

// A listener with a table for each host is pointed out: going there, and back, drains connections.
func TestCheckNotes(t *testing.T) {
	t.Parallel()
	text := strings.Replace(good, "port: 10000,", "port: 10000, routeTables: perHost,", 1)
	if status, out, _ := legation("check", policyDir(t, "policy.yaml", text)); status != 0 || !strings.Contains(out, "note: policy.yaml:1:") {
		t.Errorf("got %d %q", status, out)
	}
}

// The real Envoy is asked; what it says is part of the answer.
func TestCheckAsksEnvoy(t *testing.T) {
	realEnvoy(t)
	dir := policyDir(t, "policy.yaml", good)
	if status, out, errs := legation("check", dir, "--envoy"); status != 0 || !strings.HasPrefix(out, "ok: ") {
		t.Errorf("got %d %q %q", status, out, errs)
	}
	// One that refuses everything stands in for an Envoy that disagrees with us.
	no := filepath.Join(t.TempDir(), "envoy")
	must(t, os.WriteFile(no, []byte("#!/bin/sh\ncase \"$*\" in --version) echo 'envoy version: 0/1.40.0/Clean/RELEASE/X';; *) echo 'no such thing' >&2; exit 1;; esac\n"), 0o700))
	t.Setenv("LEGATION_ENVOY", no)
	status, out, errs := legation("check", dir, "--envoy")
	if status != 1 || !strings.Contains(errs, "the gateway edge") || !strings.Contains(out, "Envoy refuses this: no such thing") || strings.Contains(out, "ok") {
		t.Errorf("refused: got %d %q %q", status, out, errs)
	}
	t.Setenv("LEGATION_ENVOY", filepath.Join(dir, "missing"))
	if status, _, errs := legation("check", dir, "--envoy"); status != 1 || !strings.Contains(errs, "LEGATION_ENVOY") {
		t.Errorf("without an Envoy: got %d %q", status, errs)
	}
	var a report
	asked(t, 1, &a, "check", dir, "--envoy", "-o", "json")
	if a.OK || a.Problems == nil || !strings.Contains(a.Error, "LEGATION_ENVOY") {
		t.Errorf("without an Envoy: got %+v", a)
	}
}

// A patch that passes our checks, and that Envoy refuses, is told at its line.
func TestCheckTellsTheLineOfARefusal(t *testing.T) {
	realEnvoy(t)
	const text = `gateways:
  edge:
    listeners:
      http: {port: 10000, address: 127.0.0.1}
      cdn:
        port: 10001
        envoy:
          filters:
            - name: cdn
              typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.cdn_loop.v3.CdnLoopConfig, cdnId: "a b, c"}
services: {app: {endpoints: ["127.0.0.1:9001"]}}
routes: {app: {hostnames: [localhost], backends: {app: 1}}}
`
	status, out, _ := legation("check", policyDir(t, "policy.yaml", text), "--envoy", "-o", "json")
	var a report
	must(t, json.Unmarshal([]byte(out), &a))
	if status != 1 || a.OK || len(a.Problems) != 1 {
		t.Fatalf("got %d %s", status, out)
	}
	want := reported{
		place: place{File: "policy.yaml", Line: 7, Column: 9, EndColumn: 14}, Path: "gateways.edge.listeners.cdn.envoy", Severity: "error", Rule: "envoy",
		Message: `Envoy refuses this: Provided cdn_id "a b, c" is not a valid CDN identifier`,
		Hint:    "these are Envoy's own words; legation render shows what it is asked to take",
	}
	if diff := cmp.Diff(want, a.Problems[0], cmp.AllowUnexported(reported{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRenderJSON(t *testing.T) {
	t.Parallel()
	var all map[string][]struct {
		Type, Name, Origin string
		Resource           map[string]any
	}
	dir := policyDir(t, "policy.yaml", good)
	asked(t, 0, &all, "render", dir)
	types := map[string]bool{}
	for _, r := range all["edge"] {
		types[r.Type] = true
		if r.Name == "" || !strings.HasPrefix(r.Origin, "policy.yaml:") || len(r.Resource) == 0 {
			t.Errorf("got %+v", r)
		}
	}
	if len(all) != 1 || len(types) < 4 {
		t.Errorf("got %d gateways, types %v", len(all), types)
	}
	first, second := renderOf(t, dir), renderOf(t, dir)
	if first != second {
		t.Error("the same policy is rendered in two ways")
	}
}

func renderOf(t testing.TB, dir string) string {
	t.Helper()
	status, out, errs := legation("render", dir)
	if status != 0 {
		t.Fatalf("got %d %s", status, errs)
	}
	return out
}

// A static configuration is one that the real Envoy takes.
func TestRenderStatic(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, "policy.yaml", good)
	status, out, errs := legation("render", dir, "--static", "--node", "one", "--companion", "10.0.0.5:1")
	if status != 0 {
		t.Fatalf("got %d %s", status, errs)
	}
	var b struct {
		Node            struct{ ID, Cluster string }
		StaticResources map[string]any `json:"static_resources"`
	}
	must(t, json.Unmarshal([]byte(out), &b))
	if b.Node.ID != "one" || b.Node.Cluster != "edge" || len(b.StaticResources) < 2 || !strings.Contains(out, "10.0.0.5") {
		t.Errorf("got %s", out)
	}
	binary := realEnvoy(t)
	p, err := mustLoad(rootCommand(), dir)
	must(t, err)
	static, err := envoy.Static(p.compiled.Resources["edge"], envoy.BootstrapOptions{Group: "edge"})
	must(t, err)
	must(t, envoy.Validate(context.WithoutCancel(t.Context()), binary, static))
}

// render tells warnings and problems beside its output, not in it.
func TestRenderOfABadPolicy(t *testing.T) {
	t.Parallel()
	status, out, errs := legation("render", policyDir(t, "policy.yaml", good+"nonsense: 1\n"))
	if status != 1 || out != "" || !strings.Contains(errs, "policy.yaml:4:1") {
		t.Errorf("got %d %q %q", status, out, errs)
	}
}

func TestSchemaParses(t *testing.T) {
	t.Parallel()
	status, out, _ := legation("schema")
	var s map[string]any
	must(t, json.Unmarshal([]byte(out), &s))
	properties, _ := s["properties"].(map[string]any)
	for _, section := range []string{"gateways", "services", "routes", "auth", "consumers"} {
		if status != 0 || properties[section] == nil {
			t.Errorf("got %d, and no section %s", status, section)
		}
	}
}

func TestVersionJSON(t *testing.T) {
	t.Parallel()
	var v map[string]string
	asked(t, 0, &v, "version", "-o", "json")
	if v["legation"] != version || !strings.HasPrefix(v["go"], "go1.") || v["platform"] == "" {
		t.Errorf("got %v", v)
	}
}

// realEnvoy is the Envoy to test with; the test is skipped where there is none, and fails where LEGATION_ENVOY names it.
func realEnvoy(t *testing.T) string {
	t.Helper()
	path, _, err := envoy.Find("")
	if err != nil && os.Getenv("LEGATION_ENVOY") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}
