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
	"google.golang.org/protobuf/proto"
)

var update = flag.Bool("update", false, "write what the tests got into their golden files")

// Run tests each *.txtar of the folder as a test of its own. The files in it are a policy, but three:
//
//   - secrets lists the secrets that there are ([NewSecrets]); without it their names alone are checked;
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
	c := split(t, archive)
	got, want := c.result(t, kinds), c.want
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

// content is what the files of an archive are for.
type content struct {
	files     policy.Files
	secrets   *Secrets // nil without any
	selectors []string
	want      string
}

func split(t *testing.T, archive *txtar.Archive) content {
	t.Helper()
	c := content{files: policy.Files{}}
	for _, f := range archive.Files {
		switch f.Name {
		case "secrets":
			c.secrets = NewSecrets(t, string(f.Data))
		case "show":
			c.selectors = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
		case "want":
			c.want = string(f.Data)
		default:
			c.files[f.Name] = f.Data
		}
	}
	return c
}

// load reads the policy.
func (c content) load(kinds []*policy.Kind) (*policy.Model, policy.Problems) {
	language := policy.New(kinds...)
	if c.secrets != nil {
		language = language.WithSecrets(c.secrets)
	}
	return language.Load(c.files)
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
func (c content) result(t *testing.T, kinds []*policy.Kind) string {
	t.Helper()
	model, problems := c.load(kinds)
	var out bytes.Buffer
	if err := problems.Write(&out, c.files, false); err != nil {
		t.Fatal(err)
	}
	if model == nil {
		return out.String()
	}
	resources, err := envoy.Translate(model, kinds)
	if err != nil {
		return out.String() + err.Error() + "\n"
	}
	for _, selector := range c.selectors {
		shown, err := show(resources, selector)
		if err != nil {
			t.Fatalf("show %s: %v", selector, err)
		}
		out.WriteString(shown)
	}
	c.again(t, kinds, resources)
	for _, gateway := range model.Gateways {
		validate(t, append(resources[gateway.Name], envoy.Labels(model.Revision)...))
	}
	return out.String()
}

// again makes everything anew: the same policy has the same bytes, of which versions are made, in every process.
func (c content) again(t *testing.T, kinds []*policy.Kind, resources map[string][]envoy.Resource) {
	t.Helper()
	model, _ := c.load(kinds)
	second, err := envoy.Translate(model, kinds)
	if err != nil {
		t.Fatal(err)
	}
	for gateway, list := range resources {
		for i, r := range list {
			if !bytes.Equal(stable(t, r), stable(t, second[gateway][i])) {
				t.Errorf("%s %s of the gateway %s has other bytes each time", r.Type, r.Name, gateway)
			}
		}
	}
}

func stable(t *testing.T, r envoy.Resource) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Message)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
