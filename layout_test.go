// Package legation_test holds the repository's own rules against its code: which room may import which, and how long
// files and functions may grow. make test and make check run it.
package legation_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/legation/legation"

// A room is a folder with one task; folders below it belong to it, except that each command below cmd and each policy
// key below feature is a room of its own.
type room struct {
	name    string // * stands for one name
	floor   int    // imports only go down
	imports string // what its code may import of ours; "below" is every room on a lower floor
}

// rooms is the import table. A new room gets a line here, and one in the layout that people read.
var rooms = []room{
	{"soak", 8, "bench"}, // these two ask the built program from outside, as anybody's could be
	{"bench", 7, "xds"},  // bench/fleet serves with it in a process of its own
	{"e2e", 7, "below"},  // tests of the whole process only
	// Beside app the command needs what its offline verbs (check, import, render, schema, token) are made of, and the status.
	{"cmd/legation", 6, "app control diff explain feature envoy policy ratelimit auth pki xds revision examples"},
	{"app", 5, "below"},
	{"nodes", 3, "auth policy xds"},
	{"control", 4, "feature envoy ratelimit auth policy xds store revision"},
	{"explain", 4, "envoy policy"},
	{"diff", 4, "envoy feature policy"},
	{"feature", 3, "feature/* envoy policy ratelimit auth"},
	{"feature/*", 3, "envoy policy ratelimit auth cache jobs store"},
	{"envoy", 2, "policy"},
	{"ratelimit", 2, "store callout expr"},
	{"auth", 2, "store callout expr"},
	{"cache", 2, "store"},
	{"jobs", 2, "store"},
	{"stats", 2, "store"},
	{"autoscale", 2, "store"},
	{"policy", 1, ""},
	{"xds", 1, ""},
	{"callout", 1, ""},
	{"expr", 1, ""},
	{"revision", 2, "store policy"},
	{"store", 1, ""},
	{"console", 1, ""},
	{"pki", 1, ""},
	{"examples", 1, ""},
}

// libraries may be imported by the rooms named here only; end-to-end tests may import them too.
var libraries = map[string]string{
	"github.com/redis/go-redis":  "store",         // the others see its interfaces, which the embedded store has too
	"cel.dev/cel-go":             "expr",          // the others see its conditions and values
	"github.com/spf13/cobra":     "cmd/legation",  // app and below take Options, not flags
	"github.com/spf13/viper":     "cmd/legation",  // reads the process's settings; policy files never pass through it
	"github.com/chromedp":        "auth",          // drives a browser, for tests: auth/login/logintest
	"google.golang.org/grpc/xds": "xds/proxyless", // a module of its own, for tests: the program is no xDS client
}

// lookup finds the room that a package of ours, named relative to the module, belongs to.
func lookup(pkg string) (room, error) {
	elements := strings.Split(pkg, "/")
	if i := slices.IndexFunc(elements, nondescript); i >= 0 {
		return room{}, fmt.Errorf("%s: no folder is called %q: name it after what it holds", pkg, elements[i])
	}
	name := elements[0]
	if len(elements) > 1 && (name == "cmd" || name == "feature") {
		name = path.Join(elements[:2]...)
	}
	for _, r := range rooms {
		if ok, _ := path.Match(r.name, name); ok {
			return room{name, r.floor, r.imports}, nil
		}
	}
	return room{}, fmt.Errorf("%s: the import table has no room %q: give it a line in rooms, in layout_test.go, "+
		"with its floor and what it may import; or move the package into the room it belongs to", pkg, name)
}

func nondescript(folder string) bool {
	return slices.Contains([]string{"internal", "pkg", "lib", "util", "utils", "common", "helper", "helpers", "misc"}, folder)
}

// harness tells of a package that only tests import, such as feature/golden or store/storetest.
func harness(pkg string) bool {
	return pkg == "feature/golden" || strings.HasSuffix(path.Base(pkg), "test")
}

// checkImport tells what is wrong with package from importing package to, both relative to the module. Tests may
// import every room on a lower floor, and the harnesses.
func checkImport(from, to string, test bool) error {
	source, err := lookup(from)
	if err != nil {
		return err
	}
	target, err := lookup(to)
	if err != nil {
		return err
	}
	test = test || harness(from) || source.name == "e2e"
	switch {
	case harness(to) && !test:
		return fmt.Errorf("%s imports %s, which is for tests only", from, to)
	case source.name == target.name, test && target.floor < source.floor, test && to == "feature/golden" && source.floor >= target.floor:
		return nil
	case source.imports == "below" && target.floor < source.floor:
		return nil
	}
	for name := range strings.FieldsSeq(source.imports) {
		if ok, _ := path.Match(name, target.name); ok {
			return nil
		}
	}
	return fmt.Errorf("%s (floor %d) imports %s (floor %d), and the import table in layout_test.go allows it only: %s. "+
		"Move what both need to a lower floor, or let %[1]s define a small interface that %[3]s fits and a higher room hands over",
		from, source.floor, to, target.floor, orNothing(source.imports))
}

// checkLibrary tells what is wrong with package from importing the library package.
func checkLibrary(from, library string) error {
	for prefix, name := range libraries {
		if !strings.HasPrefix(library, prefix) {
			continue
		}
		if r, err := lookup(from); err != nil || r.name != name && r.name != "e2e" {
			return errors.Join(err, fmt.Errorf("%s imports %s, which only %s may", from, library, name))
		}
	}
	return nil
}

func orNothing(imports string) string {
	if imports == "" {
		return "nothing of ours"
	}
	return imports
}

func TestImportTable(t *testing.T) {
	for _, p := range packages(t) {
		from, _ := relative(p.ImportPath)
		if from == "" {
			continue // this package
		}
		if _, err := lookup(from); err != nil {
			t.Error(err)
			continue
		}
		for _, imported := range p.Imports {
			report(t, check(from, imported, false))
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			report(t, check(from, imported, true))
		}
	}
}

func check(from, imported string, test bool) error {
	if to, ours := relative(imported); ours {
		return checkImport(from, to, test)
	}
	return checkLibrary(from, imported)
}

func report(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// TestImportTableHolds reads the table itself: what the layout promises, and what it forbids.
func TestImportTableHolds(t *testing.T) {
	for _, row := range []struct {
		from, to string
		test     bool
		ok       bool
	}{
		{from: "cmd/legation", to: "app", ok: true},
		{from: "app", to: "console", ok: true},
		{from: "control", to: "feature", ok: true},
		{from: "feature", to: "feature/cors", ok: true},
		{from: "feature/ratelimit", to: "ratelimit", ok: true},
		{from: "feature/cors", to: "feature/golden", test: true, ok: true},
		{from: "feature/golden", to: "envoy", ok: true},
		{from: "store/storetest", to: "store", ok: true},
		{from: "ratelimit", to: "store/storetest", test: true, ok: true},
		{from: "envoy", to: "examples", test: true, ok: true},
		{from: "e2e", to: "app", test: true, ok: true},

		{from: "feature/cors", to: "feature/retry"},
		{from: "feature/cors", to: "feature/retry", test: true},
		{from: "feature/cors", to: "feature"},
		{from: "feature", to: "feature/golden"},
		{from: "ratelimit", to: "policy"},
		{from: "expr", to: "auth"},
		{from: "ratelimit", to: "envoy", test: true},
		{from: "auth", to: "xds"},
		{from: "auth", to: "ratelimit"},
		{from: "xds", to: "policy"},
		{from: "policy", to: "examples", test: true},
		{from: "envoy", to: "xds"},
		{from: "control", to: "app", test: true},
		{from: "cmd/legation", to: "store"},
		{from: "app", to: "cmd/legation"},
		{from: "app", to: "e2e", test: true},
		{from: "control", to: "store/storetest"},
		{from: "envoy", to: "proxy"},
		{from: "app", to: "store/internal"},
	} {
		if err := checkImport(row.from, row.to, row.test); (err == nil) != row.ok {
			t.Errorf("%s imports %s (test %t): got %v, want allowed %t", row.from, row.to, row.test, err, row.ok)
		}
	}
}

func TestFilesAndFunctionsStayShort(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles) {
			report(t, checkSizes(filepath.Join(p.folder(), name)))
		}
	}
}

// checkSizes tells of a file, and of functions in it, that are too long to be read at once. Generated files may be.
func checkSizes(name string) error {
	const fileLines, functionLines = 700, 100
	test := strings.HasSuffix(name, "_test.go")
	source, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil || ast.IsGenerated(file) {
		return err
	}
	var long []error
	if lines := bytes.Count(source, []byte("\n")); lines > fileLines {
		long = append(long, fmt.Errorf("%s has %d lines, past %d: is it still about one noun?", name, lines, fileLines))
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		lines := span(files, f)
		if test {
			lines -= tables(files, f)
		}
		if lines > functionLines {
			long = append(long, fmt.Errorf("%s: %s has %d lines, past %d: name its parts", files.Position(f.Pos()), f.Name.Name, lines, functionLines))
		}
	}
	return errors.Join(long...)
}

func span(files *token.FileSet, n ast.Node) int {
	return files.Position(n.End()).Line - files.Position(n.Pos()).Line + 1
}

// tables counts the lines of a test's tables: they are data.
func tables(files *token.FileSet, f *ast.FuncDecl) int {
	lines := 0
	ast.Inspect(f, func(n ast.Node) bool {
		table, ok := n.(*ast.CompositeLit)
		if ok {
			lines += span(files, table) - 1
		}
		return !ok
	})
	return lines
}

// A listed package is what go list tells of it.
type listed struct {
	ImportPath                                         string
	GoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports                 []string
}

// folder is where the package stands, from the top of the repository.
func (l listed) folder() string {
	pkg, _ := relative(l.ImportPath)
	return filepath.FromSlash(pkg)
}

// packages lists every package of the module, also those that do not build.
func packages(t *testing.T) []listed {
	t.Helper()
	list := exec.Command("go", "list", "-e",
		"-json=ImportPath,GoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports", "./...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

// relative takes the module's path off an import path, and tells whether the package is ours.
func relative(importPath string) (pkg string, ours bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}
