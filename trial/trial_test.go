package trial_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/trial"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
	"golang.org/x/tools/txtar"
)

// Every example has cases, all of them hold, and they reach every route.
func TestExamples(t *testing.T) {
	binary := golden.Binary(t)
	dirs, err := filepath.Glob("../examples/*/README.md")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no examples (%v)", err)
	}
	for _, readme := range dirs {
		dir := filepath.Dir(readme)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			r := runIn(t, t.Context(), &out, trial.Options{Dir: dir, Envoy: binary})
			if r.Failed() || len(r.Results) == 0 || r.Covered() < 100 {
				t.Error(out.String())
			}
		})
	}
}

// runIn runs cases and writes what people see.
func runIn(t *testing.T, ctx context.Context, out *bytes.Buffer, o trial.Options) *trial.Report {
	t.Helper()
	w := &trial.Writer{To: out}
	o.Tell = func(r trial.Result, files policy.Files) {
		w.Files = files
		w.Result(r)
	}
	r, err := trial.Run(ctx, o)
	if len(r.Problems) > 0 {
		if err := r.Problems.Write(out, r.Files, false); err != nil {
			t.Fatal(err)
		}
	}
	if err == nil && !r.Problems.HasErrors() {
		w.Summary(r, true)
	}
	if err != nil {
		fmt.Fprintf(out, "error: %v\n", err)
	}
	return r
}

// times are those of rows and of the summary, which differ from run to run.
var times = regexp.MustCompile(`(?m)^(  (?:ok|failed) ) +[0-9.]+m?s|(; )[0-9.]+m?s$`)

// TestFiles holds what people are told of cases that fail, and of files that are wrong. The files of testdata are a policy,
// its cases, and want; -update writes that.
func TestFiles(t *testing.T) {
	binary := golden.Binary(t)
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir, want := unpack(t, archive)
			var out bytes.Buffer
			runIn(t, t.Context(), &out, trial.Options{Dir: dir, Envoy: binary})
			got := times.ReplaceAllString(out.String(), "$1${2}TIME")
			if flag.Lookup("update").Value.String() == "true" && got != want {
				replaceWant(archive, got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got), -update writes it:\n%s", file, diff)
			}
		})
	}
}

func unpack(t *testing.T, archive *txtar.Archive) (dir, want string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range archive.Files {
		if f.Name == "want" {
			want = string(f.Data)
			continue
		}
		write(t, filepath.Join(dir, f.Name), string(f.Data))
	}
	return dir, want
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
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

const small = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {web: {endpoints: ["10.0.0.1:80"]}}
routes:
  web: {hostnames: [a.test], backends: {web: 1}}
  never: {hostnames: [b.test], backends: {web: 1}}
`

const smallCases = `
cases:
  fine: {request: GET http://a.test:10000/, expect: {status: 200}}
  "odd <name> & \"more\"": {request: GET http://a.test:10000/, expect: {status: 404, headers: {x-service: api}}}
  later: {request: GET http://a.test:10000/, expect: {status: 200}, skip: not yet}
`

func policyWith(t *testing.T, text, cases string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "policy.yaml"), text)
	write(t, filepath.Join(dir, "policy_test.yaml"), cases)
	return dir
}

// JUnit's XML is what CI systems read: it is parsed again here.
func TestJUnit(t *testing.T) {
	dir := policyWith(t, small, smallCases)
	r, err := trial.Run(t.Context(), trial.Options{Dir: dir, Envoy: golden.Binary(t)})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.WriteJUnit(&out, errors.New("too few routes\nare reached")); err != nil {
		t.Fatal(err)
	}
	type element struct {
		XMLName xml.Name
		Attrs   []xml.Attr `xml:",any,attr"`
		Text    string     `xml:",chardata"`
		Below   []element  `xml:",any"`
	}
	var root element
	if err := xml.Unmarshal(out.Bytes(), &root); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	attr := func(e element, name string) string {
		for _, a := range e.Attrs {
			if a.Name.Local == name {
				return a.Value
			}
		}
		return ""
	}
	var got []string
	for _, s := range root.Below {
		got = append(got, fmt.Sprintf("%s %s: %s tests, %s failures, %s errors, %s skipped", s.XMLName.Local, attr(s, "name"), attr(s, "tests"),
			attr(s, "failures"), attr(s, "errors"), attr(s, "skipped")))
		for _, c := range s.Below {
			line := c.XMLName.Local + " " + attr(c, "classname") + " " + attr(c, "name")
			if file := attr(c, "file"); s.Attrs[0].Value != "legation test" && file != filepath.Join(dir, "policy_test.yaml") {
				t.Errorf("%s: got the file %q", line, file)
			}
			for _, m := range c.Below {
				line += ": " + m.XMLName.Local + " " + attr(m, "message")
			}
			got = append(got, line)
		}
	}
	want := []string{
		"testsuite policy_test.yaml: 3 tests, 1 failures, 0 errors, 1 skipped",
		"testcase policy_test.yaml fine",
		`testcase policy_test.yaml odd <name> & "more": failure policy_test.yaml:4:81: cases.odd <name> & "more".expect.status: want 404, got 200`,
		"testcase policy_test.yaml later: skipped not yet",
		"testsuite legation test: 1 tests, 0 failures, 1 errors, 0 skipped",
		"testcase legation test the run: error too few routes",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := attr(root, "tests") + " " + attr(root, "failures") + " " + attr(root, "errors") + " " + attr(root, "skipped"); got != "4 1 1 1" {
		t.Errorf("all together: got %s", got)
	}
}

// What keeps cases from being run at all is an error, or a problem at its place.
func TestNotRun(t *testing.T) {
	for _, row := range []struct {
		what, text, cases string
		o                 trial.Options
		problem, err      string
	}{
		{what: "no Envoy", text: small, cases: smallCases, o: trial.Options{Envoy: "/no/envoy"}, err: "/no/envoy"},
		{what: "no cases", text: small, err: "there is no file *_test.yaml below"},
		{what: "a bad policy", text: strings.ReplaceAll(small, "port: 10000", "port: many"), cases: smallCases, problem: "policy.yaml:2:44"},
		{what: "cases that are elsewhere, and aren't", text: small, o: trial.Options{Cases: []string{"/no/cases"}}, err: "/no/cases"},
	} {
		t.Run(row.what, func(t *testing.T) {
			row.o.Dir = t.TempDir()
			write(t, filepath.Join(row.o.Dir, "policy.yaml"), row.text)
			if row.cases != "" {
				write(t, filepath.Join(row.o.Dir, "policy_test.yaml"), row.cases)
			}
			r, err := trial.Run(t.Context(), row.o)
			if row.err == "" && err != nil || row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) {
				t.Errorf("got the error %v, want %q", err, row.err)
			}
			if got := fmt.Sprint(r.Problems.Err()); row.problem != "" && !strings.HasPrefix(got, row.problem) {
				t.Errorf("got the problems %s, want %s", got, row.problem)
			}
			if len(r.Results) > 0 {
				t.Errorf("cases were run: %v", r.Results)
			}
		})
	}
}

// Ports of the policy that others have are no matter, nor are its backends: nothing connects to them.
func TestAlone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	backend := golden.Accept(t, func(net.Conn) { t.Error("a backend was called") })
	port := taken.Addr().(*net.TCPAddr).Port
	text := strings.NewReplacer("port: 10000", fmt.Sprintf("port: %d, address: 127.0.0.1", port), "10.0.0.1:80", backend).Replace(small)
	cases := strings.ReplaceAll(smallCases, ":10000", fmt.Sprintf(":%d", port))
	r, err := trial.Run(t.Context(), trial.Options{Dir: policyWith(t, text, cases), Envoy: golden.Binary(t), Match: regexp.MustCompile("^fine$")})
	if err != nil || len(r.Results) != 1 || r.Failed() {
		t.Errorf("got %v, %+v", err, r.Results)
	}
}

// A run that is told to end leaves nothing behind, whatever it waits for.
func TestInterrupted(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	slow := `
cases:
  slow: {upstreams: {web: {delay: 50s}}, request: GET http://a.test:10000/, expect: {status: 200}}
`
	o := trial.Options{Dir: policyWith(t, strings.Replace(small, "backends: {web: 1}}", "backends: {web: 1}, timeouts: {request: 55s}}", 1), slow), Envoy: golden.Binary(t)}
	o.Begin = func(string, string) { cancel(interrupted) }
	if _, err := trial.Run(ctx, o); !errors.Is(err, interrupted) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// Only cases that are meant run, and the first failure may be the last.
func TestSome(t *testing.T) {
	binary := golden.Binary(t)
	dir := policyWith(t, small, smallCases)
	for _, row := range []struct {
		o    trial.Options
		want string
	}{
		{trial.Options{Match: regexp.MustCompile("^f|^l")}, "fine ok, later skipped"},
		{trial.Options{FailFast: true}, `fine ok, odd <name> & "more" failed`},
	} {
		row.o.Dir, row.o.Envoy = dir, binary
		r, err := trial.Run(t.Context(), row.o)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, one := range r.Results {
			got = append(got, one.Name+" "+string(one.Verdict))
		}
		if strings.Join(got, ", ") != row.want {
			t.Errorf("got %v, want %s", got, row.want)
		}
	}
}

var casesBlock = regexp.MustCompile("(?ms)^```yaml cases\n(.*?)^```$")

// Cases in documents and examples are as the language and its schema have them.
func TestSchemaAndDocuments(t *testing.T) {
	text, err := jsonschema.UnmarshalJSON(bytes.NewReader(trial.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("cases.json", text); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("cases.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range []string{"../README.md", "../docs/testing.md"} {
		for i, block := range casesBlock.FindAllStringSubmatch(read(t, name), -1) {
			all[fmt.Sprintf("%s, block %d", name, i)] = block[1]
		}
	}
	examples, err := filepath.Glob("../examples/*/*_test.yaml")
	if err != nil || len(examples) == 0 || len(all) < 4 {
		t.Fatalf("%d examples, %d blocks (%v)", len(examples), len(all), err)
	}
	for _, name := range examples {
		all[name] = read(t, name)
	}
	archive, err := txtar.ParseFile("testdata/holds.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		if f.Name == "a_test.yaml" {
			all[f.Name] = string(f.Data)
		}
	}
	for name, text := range all {
		if problems := policy.ReadDocument("x_test.yaml", []byte(text), new(trial.File)).Problems(); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems.Err())
		}
		var document any
		if err := yaml.Unmarshal([]byte(text), &document); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(document); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, wrong := range []string{"cases: {a: {requests: b}}", "cases: []", "{}", "cases: {a: {expect: {auth: maybe}}}"} {
		var document any
		if err := yaml.Unmarshal([]byte(wrong), &document); err != nil {
			t.Fatal(err)
		}
		if schema.Validate(document) == nil {
			t.Errorf("the schema takes %s", wrong)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
