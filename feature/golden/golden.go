// Package golden holds the tests of features against files: policy in, what Envoy gets or what is wrong with it out.
// The tests of every feature call it.
package golden

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what the tests got into their golden files")

// Run tests each *.txtar of the folder as a test of its own. The files in it are a policy, but two:
//
//   - show lists what of the result is looked at, one selector a line ([show]);
//   - want holds what that is, or the problems of a policy that is not good. -update writes it.
//
// What a good policy becomes is also given to the real Envoy, where there is one, to validate.
func Run(t *testing.T, dir string, kinds ...*policy.Kind) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no *.txtar in %s (%v)", dir, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) { run(t, file, kinds) })
	}
}

func run(t *testing.T, file string, kinds []*policy.Kind) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files, selectors, want := split(archive)
	got := result(t, files, selectors, kinds)
	if *update && got != want {
		replaceWant(archive, got)
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", file, diff)
	}
}

func split(archive *txtar.Archive) (files policy.Files, selectors []string, want string) {
	files = policy.Files{}
	for _, f := range archive.Files {
		switch f.Name {
		case "show":
			selectors = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
		case "want":
			want = string(f.Data)
		default:
			files[f.Name] = f.Data
		}
	}
	return files, selectors, want
}

func replaceWant(archive *txtar.Archive, got string) {
	for i, f := range archive.Files {
		if f.Name == "want" {
			archive.Files[i].Data = []byte(got)
			return
		}
	}
	archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
}

// result is the problems, warnings too, and what the selectors show of a good policy.
func result(t *testing.T, files policy.Files, selectors []string, kinds []*policy.Kind) string {
	model, problems := policy.New(kinds...).Load(files)
	var out bytes.Buffer
	if err := problems.Write(&out, files, false); err != nil {
		t.Fatal(err)
	}
	if model == nil {
		return out.String()
	}
	resources, err := envoy.Translate(model, kinds)
	if err != nil {
		return out.String() + err.Error() + "\n"
	}
	for _, selector := range selectors {
		shown, err := show(resources, selector)
		if err != nil {
			t.Fatalf("show %s: %v", selector, err)
		}
		out.WriteString(shown)
	}
	for _, gateway := range model.Gateways {
		validate(t, resources[gateway.Name])
	}
	return out.String()
}
