//go:build !race

package feature_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/policy/modeltest"
	"golang.org/x/tools/txtar"
)

// again holds what a loader gives of sets of files, one after the other, against what a whole load gives of each.
type again struct {
	*testing.T
	language *policy.Language
	loader   *policy.Loader
	secrets  policy.SecretSource

	last    policy.Files // the last good ones
	model   *policy.Model
	texts   modeltest.Texts
	loads   int
	good    int
	renewed int // good loads that took something over
	history []string
}

func newAgain(t *testing.T) *again {
	l := feature.Language()
	return &again{T: t, language: l, loader: l.NewLoader()}
}

// load loads files both ways, and tells whether they are good.
func (a *again) load(files policy.Files, edit string) bool {
	a.Helper()
	a.loads++
	a.history = append(a.history, edit)
	model, problems := a.loader.WithSecrets(a.secrets).Load(files)
	want, wantProblems := a.language.WithSecrets(a.secrets).Load(files)
	texts := a.compare(files, model, want, problems, wantProblems)
	if model != nil {
		a.take(files, model, texts)
	}
	return model != nil
}

// isolate isolates files both ways, and tells whether they are good.
func (a *again) isolate(files policy.Files, edit string) bool {
	a.Helper()
	a.loads++
	a.history = append(a.history, edit+", isolated")
	var serving []*policy.Secret
	if a.model != nil {
		serving = a.model.Secrets
	}
	served, model, problems := a.loader.WithSecrets(a.secrets).Isolate(files, a.last, serving...)
	wantServed, want, wantProblems := a.language.WithSecrets(a.secrets).Isolate(files, a.last, serving...)
	if !maps.EqualFunc(served, wantServed, bytes.Equal) {
		a.fail(files, "serves other files: %v, want %v", slices.Sorted(maps.Keys(served)), slices.Sorted(maps.Keys(wantServed)))
	}
	texts := a.compare(files, model, want, problems, wantProblems)
	if model != nil {
		a.take(served, model, texts)
	}
	return !problems.HasErrors()
}

func (a *again) compare(files policy.Files, got, want *policy.Model, problems, wantProblems policy.Problems) modeltest.Texts {
	a.Helper()
	if diff := cmp.Diff(wantProblems, problems, cmp.AllowUnexported(policy.Problem{}), cmpopts.EquateEmpty()); diff != "" {
		a.fail(files, "problems (-whole +again):\n%s", diff)
	}
	texts, wantText := modeltest.Of(a, got), modeltest.Of(a, want).Whole
	if texts.Whole != wantText {
		a.fail(files, "models (-whole +again):\n%s", cmp.Diff(strings.Split(wantText, "\n"), strings.Split(texts.Whole, "\n")))
	}
	return texts
}

// take holds a good model against the one before: what is the same pointer has not changed.
func (a *again) take(files policy.Files, m *policy.Model, texts modeltest.Texts) {
	a.Helper()
	before := a.texts.ByEntry
	kept := false
	for entry, text := range texts.ByEntry {
		was, had := before[entry]
		if _, isGateway := entry.(*policy.Gateway); had && !isGateway {
			kept = true
		}
		if had && was != text {
			a.fail(files, "the same %T is another one:\n%s", entry, cmp.Diff(was, text))
		}
	}
	if a.model != nil && modeltest.Of(a, a.model).Whole != a.texts.Whole {
		a.fail(files, "the model before has changed")
	}
	a.good++
	if kept {
		a.renewed++
	}
	a.last, a.model, a.texts = files, m, texts
}

func (a *again) fail(files policy.Files, format string, args ...any) {
	a.Helper()
	a.Errorf(format, args...)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		a.Logf("-- %s --\n%s", name, files[name])
	}
	a.Fatalf("after %s", strings.Join(a.history[max(0, len(a.history)-8):], "; "))
}

// TestLoadingAgainIsLoadingWhole edits the policies of all goldens, line by line: whatever becomes of them, a loader that
// goes on from what it knows says the same as one that knows nothing.
func TestLoadingAgainIsLoadingWhole(t *testing.T) {
	t.Parallel()
	names, _ := filepath.Glob("*/testdata/*.txtar")
	own, _ := filepath.Glob("testdata/*.txtar")
	language, _ := filepath.Glob("../policy/testdata/*.txtar")
	all := slices.Concat(names, own, language)
	loads, good, renewed := 0, 0, 0
	for i, name := range all {
		a := newAgain(t)
		files := archiveFiles(a, name)
		random := rand.New(rand.NewPCG(uint64(i), 7))
		a.load(files, "none of "+name)
		for range 8 {
			next := maps.Clone(files)
			edit := editLine(random, next)
			if random.IntN(8) == 0 {
				a.isolate(next, edit)
			} else {
				a.load(next, edit)
			}
			if random.IntN(3) > 0 {
				files = a.last
			} else {
				files = next
			}
			if files == nil {
				files = next
			}
		}
		loads, good, renewed = loads+a.loads, good+a.good, renewed+a.renewed
	}
	t.Logf("%d loads, %d good, of which %d went on from others", loads, good, renewed)
	if renewed < good/4 {
		t.Error("too few loads went on from others")
	}
}

func archiveFiles(a *again, name string) policy.Files {
	data, err := os.ReadFile(name)
	if err != nil {
		a.Fatal(err)
	}
	files := policy.Files{}
	a.secrets = nil
	for _, f := range txtar.Parse(data).Files {
		switch f.Name {
		case "secrets":
			a.secrets = golden.NewSecrets(a, string(f.Data))
		case "show", "want", "problems", "model":
		default:
			files[f.Name] = f.Data
		}
	}
	return files
}

// editLine changes one line of one file, or a file as a whole.
func editLine(random *rand.Rand, files policy.Files) string {
	names := slices.Sorted(maps.Keys(files))
	if len(names) == 0 {
		files["new.yaml"] = []byte("services: {new: {dns: 'new:80'}}\n")
		return "a new file"
	}
	name := names[random.IntN(len(names))]
	lines := strings.SplitAfter(string(files[name]), "\n")
	i := random.IntN(len(lines))
	edit := fmt.Sprintf("%s:%d ", name, i+1)
	switch random.IntN(12) {
	case 0:
		lines = slices.Delete(lines, i, i+1)
		edit += "deleted"
	case 1:
		lines = slices.Insert(lines, i, lines[i])
		edit += "doubled"
	case 2, 3:
		lines = slices.Insert(lines, i, "# a comment\n")
		edit += "shifted"
	case 4:
		lines = lines[:i]
		edit += "cut off"
	case 5:
		delete(files, name)
		files["moved-"+name] = []byte(strings.Join(lines, ""))
		return name + " renamed"
	case 6:
		files["extra.yaml"] = fmt.Appendf(nil, "services:\n  extra%d: {endpoints: ['127.0.0.1:%d'], sample: true}\n", random.IntN(2), 1+random.IntN(9))
		return "extra.yaml written"
	case 7:
		delete(files, name)
		return name + " deleted"
	default:
		lines[i] = editDigit(random, lines[i])
		edit += "changed"
	}
	files[name] = []byte(strings.Join(lines, ""))
	return edit
}

// editDigit puts another digit, or another letter, into a line.
func editDigit(random *rand.Rand, line string) string {
	var at []int
	for i := range len(line) {
		if line[i] >= '0' && line[i] <= '9' {
			at = append(at, i)
		}
	}
	if len(at) > 0 {
		i := at[random.IntN(len(at))]
		return line[:i] + strconv.Itoa(random.IntN(10)) + line[i+1:]
	}
	if i := strings.LastIndexAny(line, "abcdefghijklmnopqrstuvwxyz"); i >= 0 {
		return line[:i] + string(rune('a'+random.IntN(26))) + line[i+1:]
	}
	return line
}
