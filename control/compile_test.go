package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/policy"
)

func TestReadDirErrors(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	write(t, filepath.Join(top, "file.yaml"), whole(1))
	write(t, filepath.Join(top, "notes/README.md"), "no policy")
	write(t, filepath.Join(top, "hidden/.policy.yaml"), whole(1))
	must(t, os.Mkdir(filepath.Join(top, "empty"), 0o755))
	must(t, os.Symlink("nowhere", filepath.Join(top, "dangling")))
	must(t, os.Mkdir(filepath.Join(top, "closed"), 0o000))
	for _, row := range []struct {
		dir  string
		want string
	}{
		{"missing", "no such file"},
		{"file.yaml", "not a directory"},
		{"dangling", "no such file"},
		{"empty", "no policy files"},
		{"notes", "no policy files"},
		{"hidden", "no policy files"},
		{"closed", "permission denied"},
	} {
		if row.dir == "closed" && os.Geteuid() == 0 {
			continue // root reads everything
		}
		files, problems, err := ReadDir(filepath.Join(top, row.dir))
		if err == nil || !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), "policy directory") || len(files)+len(problems) > 0 {
			t.Errorf("%s: got %d files, %v, %v, want an error with %q", row.dir, len(files), problems, err, row.want)
		}
	}
	if _, _, err := ReadDir(filepath.Join(top, "empty")); !errors.Is(err, errNoPolicy) {
		t.Errorf("empty: got %v, want errNoPolicy", err)
	}
}

// What is wrong with single files is a problem at that file; the others are read.
func TestReadDirProblems(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"good.yaml": whole(1), "../outside.yaml": whole(2)})
	link(t, "../outside.yaml", filepath.Join(dir, "relative.yaml"))
	link(t, filepath.Join(filepath.Dir(dir), "outside.yaml"), filepath.Join(dir, "absolute.yaml"))
	link(t, "nowhere.yaml", filepath.Join(dir, "dangling.yaml"))
	link(t, "good.yaml", filepath.Join(dir, "inside.yml"))
	write(t, filepath.Join(dir, strings.Repeat("d/", 40)+"deep.yaml"), whole(1))
	files, problems, err := ReadDir(dir)
	must(t, err)
	if len(files) != 2 || string(files["inside.yml"]) != whole(1) {
		t.Errorf("got %d files, want good.yaml and inside.yml", len(files))
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Pos.File[:min(len(p.Pos.File), 13)])
	}
	if want := []string{"absolute.yaml", "d/d/d/d/d/d/d", "dangling.yaml", "relative.yaml"}; !slices.Equal(got, want) {
		t.Errorf("got problems at %v, want %v", got, want)
	}
}

// The directory itself may be a link, to anywhere.
func TestReadDirFollowsItsOwnName(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"policy.yaml": whole(1)})
	named := filepath.Join(t.TempDir(), "named")
	link(t, dir, named)
	if files, problems, err := ReadDir(named); err != nil || len(files) != 1 || len(problems) > 0 {
		t.Errorf("got %d files, %v, %v, want the one file", len(files), problems, err)
	}
}

func TestCompile(t *testing.T) {
	t.Parallel()
	compiled := compile(t, protected(1, 10))
	if len(compiled.Auth.Rules) != 1 || len(compiled.Limits.Limits) != 1 || len(compiled.Resources["edge"]) == 0 {
		t.Errorf("got %d rules, %d limits, %d resources", len(compiled.Auth.Rules), len(compiled.Limits.Limits), len(compiled.Resources["edge"]))
	}
	groups, err := new(encoder).snapshots(compiled)
	must(t, err)
	if len(groups) != 1 || groups["edge"] == nil {
		t.Errorf("got %d groups, want edge", len(groups))
	}
	for _, r := range compiled.Resources["edge"] {
		if r.Pos.File != "policy.yaml" || r.Pos.Line == 0 {
			t.Errorf("%s %s comes from %q, want a line of policy.yaml", r.Type, r.Name, r.Pos)
		}
	}
}

// A changed port is a changed listener; a changed route is not.
func TestChangedListeners(t *testing.T) {
	t.Parallel()
	before := compile(t, gateway(1)+team("a", 1))
	if got := changedListeners(before, compile(t, gateway(1)+team("a", 2))); len(got) != 0 {
		t.Errorf("with another endpoint: got %v, want none", got)
	}
	if got := changedListeners(before, compile(t, gateway(2)+team("a", 1))); len(got) != 1 {
		t.Errorf("with another port: got %d listeners, want 1", len(got))
	}
}

func TestProblemsOfErrors(t *testing.T) {
	t.Parallel()
	p, q := &policy.Problem{Message: "p"}, &policy.Problem{Message: "q"}
	for _, row := range []struct {
		err  error
		want policy.Problems
	}{
		{nil, nil},
		{errors.New("other"), nil},
		{p, policy.Problems{p}},
		{fmt.Errorf("wrapped: %w", p), policy.Problems{p}},
		{fmt.Errorf("wrapped: %w", errors.Join(p, errors.New("other"), fmt.Errorf("again: %w", q))), policy.Problems{p, q}},
	} {
		if got := Problems(row.err); !slices.Equal(got, row.want) {
			t.Errorf("%v: got %v, want %v", row.err, got, row.want)
		}
	}
}

// compile compiles a policy of one file, which may refer to the quickstart's keys.
func compile(t testing.TB, text string) *Compiled {
	t.Helper()
	model, problems := New(Options{}).lang.Load(policy.Files{"policy.yaml": []byte(text), "keys.json": publicKeys(t)})
	must(t, problems.Err())
	compiled, err := Compile(model)
	must(t, err)
	return compiled
}

// publicKeys is the key set of the quickstart.
func publicKeys(t testing.TB) []byte {
	t.Helper()
	keys, err := os.ReadFile("../examples/quickstart/test-keys.json")
	must(t, err)
	return keys
}

// protected is a policy with a route that has auth and a limit of so many requests.
func protected(port, requests int) string {
	return gateway(10000) + fmt.Sprintf(`auth:
  demo: {jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: {file: keys.json}}}
services: {app: {endpoints: ["127.0.0.1:%d"]}}
routes:
  app:
    hostnames: [app.test]
    auth: [demo]
    rateLimit: {rate: %d/hour, by: consumer}
    backends: {app: 1}
`, port, requests)
}
