package main

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Without an Envoy nothing is run; what else keeps it from running is told before one is looked for.
func TestTestIsNotRun(t *testing.T) {
	t.Parallel()
	dir, bad, empty := t.TempDir(), t.TempDir(), t.TempDir()
	good := "gateways: {edge: {listeners: {http: {port: 10000}}}}\nservices: {web: {endpoints: [\"10.0.0.1:80\"]}}\nroutes: {web: {hostnames: [a.test], backends: {web: 1}}}\n"
	for name, text := range map[string]string{
		filepath.Join(dir, "policy.yaml"): good, filepath.Join(dir, "policy_test.yaml"): "cases: {a: {request: GET http://a.test:10000/, expect: {status: 200}}}\n",
		filepath.Join(bad, "policy.yaml"): good, filepath.Join(bad, "policy_test.yaml"): "cases: {a: {request: GET http://a.test:10000/, expect: {rout: web}}}\n",
		filepath.Join(empty, "policy.yaml"): good,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		args      string
		status    int
		out, errs string
	}{
		{"test " + dir + " --envoy /no/envoy", 1, "", "/no/envoy"},
		{"test " + bad, 1, "policy_test.yaml:1:57: cases.a.expect.rout: unknown key \"rout\"", ""},
		{"test " + empty, 1, "", "no file *_test.yaml below " + empty},
		{"test " + dir + " -o xml", 2, "", "-o: want text, json or junit"},
		{"test " + dir + " --run b", 1, "", "nothing was run: of 1 case none has a name that \"b\" finds"},
		{"test " + dir + " --run (", 2, "", "--run"},
		{"test " + dir + " --run a --cover 50", 2, "", "--run leaves cases out"},
		{"test " + dir + " --cover 101", 2, "", "--cover: want a share"},
		{"test " + dir + " --timeout 0s", 2, "", "--timeout: want a time"},
		{"test", 2, "", "name the directory"},
	} {
		status, out, errs := legation(strings.Fields(row.args)...)
		if status != row.status || !strings.Contains(out, row.out) || !strings.Contains(errs, row.errs) {
			t.Errorf("%s: got %d, %q, %q, want %d, %q, %q", row.args, status, out, errs, row.status, row.out, row.errs)
		}
	}
	// Programs are told the same, and files are written all the same.
	report := filepath.Join(t.TempDir(), "report.xml")
	status, out, _ := legation("test", bad, "-o", "json", "--junit", report)
	var told struct {
		OK       bool
		Problems []reported
	}
	if err := json.Unmarshal([]byte(out), &told); err != nil || status != 1 || told.OK || len(told.Problems) != 1 {
		t.Fatalf("json: %d, %v, %s", status, err, out)
	}
	want := reported{
		place: place{"policy_test.yaml", 1, 57, 61}, Path: "cases.a.expect.rout", Severity: "error", Rule: "cases",
		Message: "unknown key \"rout\"", Hint: told.Problems[0].Hint,
	}
	if diff := cmp.Diff(want, told.Problems[0], cmp.AllowUnexported(reported{})); diff != "" {
		t.Errorf("json: (-want +got):\n%s", diff)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(text, new(struct{})); err != nil || !strings.Contains(string(text), `errors="1"`) {
		t.Errorf("junit: %v, %s", err, text)
	}
}
