package diff_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/diff"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the goldens anew")

func load(t testing.TB, files policy.Files) diff.Policy {
	t.Helper()
	m, problems := feature.Language().Load(files)
	if m == nil {
		t.Fatal(problems.Err())
	}
	resources, err := envoy.Translate(m, feature.All())
	if err != nil {
		t.Fatal(err)
	}
	return diff.Policy{Files: files, Model: m, Resources: resources}
}

// A golden is two directories, and what people are told of the difference.
func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			sides := map[string]policy.Files{"before": {}, "after": {}}
			want := -1
			for i, f := range archive.Files {
				if dir, file, ok := strings.Cut(f.Name, "/"); ok {
					sides[dir][file] = f.Data
				} else {
					want = i
				}
			}
			var got bytes.Buffer
			if err := diff.Between(load(t, sides["before"]), load(t, sides["after"])).Write(&got, false); err != nil {
				t.Fatal(err)
			}
			text := anonymous(t, got.String(), sides)
			if *update {
				if want < 0 {
					archive.Files = append(archive.Files, txtar.File{Name: "want"})
					want = len(archive.Files) - 1
				}
				archive.Files[want].Data = []byte(text)
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want < 0 {
				t.Fatal("no want: run with -update")
			}
			if d := cmp.Diff(string(archive.Files[want].Data), text); d != "" {
				t.Errorf("(-want +got), or run with -update:\n%s", d)
			}
		})
	}
}

// anonymous takes the revisions out, which every change of the language's own text would change.
func anonymous(t *testing.T, text string, sides map[string]policy.Files) string {
	for side, files := range sides {
		text = strings.ReplaceAll(text, load(t, files).Model.Revision, strings.ToUpper(side))
	}
	return text
}

// A policy is the same as itself, whatever the order and the files that it is written in; and what comes one way goes
// the other.
func TestBothWays(t *testing.T) {
	names, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		before, after := policy.Files{}, policy.Files{}
		for _, f := range archive.Files {
			if file, ok := strings.CutPrefix(f.Name, "before/"); ok {
				before[file] = f.Data
			}
			if file, ok := strings.CutPrefix(f.Name, "after/"); ok {
				after[file] = f.Data
			}
		}
		if d := diff.Between(load(t, after), load(t, maps.Clone(after))); !d.Empty() {
			t.Errorf("%s: differs from itself: %+v", name, d)
		}
		there, back := diff.Between(load(t, before), load(t, after)), diff.Between(load(t, after), load(t, before))
		if len(there.Entries) != len(back.Entries) || len(there.Changes) != len(back.Changes) || len(there.Envoy) != len(back.Envoy) {
			t.Errorf("%s: %d, %d and %d there, %d, %d and %d back", name, len(there.Entries), len(there.Changes), len(there.Envoy),
				len(back.Entries), len(back.Changes), len(back.Envoy))
		}
		text, err := json.Marshal(there)
		if err != nil || strings.Contains(string(text), "hunter2") {
			t.Errorf("%s: a secret is shown, or %v", name, err)
		}
	}
}

// The examples are as they are when they are loaded twice.
func TestExamplesAreTheSame(t *testing.T) {
	dirs, err := filepath.Glob("../examples/*/*.yaml")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	seen := map[string]bool{}
	for _, file := range dirs {
		dir := filepath.Dir(file)
		if seen[dir] {
			continue
		}
		seen[dir] = true
		files, _ := policy.ReadFiles(os.DirFS(dir))
		if d := diff.Between(load(t, files), load(t, maps.Clone(files))); !d.Empty() {
			t.Errorf("%s: differs from itself: %+v", dir, d)
		}
	}
}

// Ten thousand routes whose default changes are one line.
func TestManyRoutesAreOneLine(t *testing.T) {
	text := func(timeout string) policy.Files {
		var b strings.Builder
		fmt.Fprintf(&b, "gateways: {edge: {listeners: {http: {port: 80}}, defaults: {timeouts: {request: %s}}}}\n", timeout)
		b.WriteString("services: {app: {endpoints: [\"10.0.0.1:80\"]}}\nroutes:\n")
		for i := range 1000 {
			fmt.Fprintf(&b, "  r%d: {hostnames: [a.test], match: {path: /p%d}, backends: {app: 1}}\n", i, i)
		}
		return policy.Files{"p.yaml": []byte(b.String())}
	}
	d := diff.Between(load(t, text("5s")), load(t, text("3s")))
	if len(d.Changes) != 1 || len(d.Changes[0].Names) != 1000 || d.Changes[0].From.Text != "5s" || d.Changes[0].To.Text != "3s" {
		t.Errorf("got %d changes, the first %+v", len(d.Changes), d.Changes[0])
	}
}
