package policy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// Cases stand beside a policy, and are none of it: nobody reads or watches them.
func TestCasesAreNoPolicy(t *testing.T) {
	files := fstest.MapFS{
		"edge.yaml":             {Data: []byte("routes: {}")},
		"edge_test.yaml":        {Data: []byte("cases: {}")},
		"teams/orders_test.yml": {Data: []byte("not even YAML: [")},
		"teams/test.yaml":       {Data: []byte("routes: {}")},
		"_test.yaml":            {Data: bytes.Repeat([]byte("x"), 2*maxFile)},
	}
	read, problems := ReadFiles(files)
	if len(problems) > 0 || len(read) != 2 || read["edge.yaml"] == nil || read["teams/test.yaml"] == nil {
		t.Errorf("got %v, %v", read, problems)
	}
	for name := range files {
		if Wanted(name) != (read[name] != nil) || IsPolicy(name) == IsTest(name) {
			t.Errorf("%s: wanted %t, policy %t, test %t", name, Wanted(name), IsPolicy(name), IsTest(name))
		}
	}
	with := Files{"edge.yaml": read["edge.yaml"]}
	if a, b := revision(with, nil), revision(Files{"edge.yaml": read["edge.yaml"], "edge_test.yaml": []byte("a")}, nil); a != b {
		t.Error("cases change the revision")
	}
}

// Whatever stands in a document, reading it ends soon, and tells what is wrong.
func TestHostileDocuments(t *testing.T) {
	type document struct {
		Texts map[string]string `policy:"texts"`
		Below *Node             `policy:"below"`
	}
	for _, row := range []struct{ what, content, want string }{
		{"a large one", "texts: {a: " + strings.Repeat("x", maxFile) + "}", "larger than 1024 KiB"},
		{"a deep one", "below: " + strings.Repeat("[", 100), "levels deep"},
		{"an endless one", "below: " + strings.Repeat("[", 100_000), ""},
		{"many values", "below: [" + strings.Repeat("1,", 200_000) + "]", ""},
		{"bytes", "texts: {a: \"\x00\xff\"}", ""},
		{"nothing", "", ""},
		{"a bomb", "below: &a [*a, *a]", "anchors"},
		{"many mistakes", "texts: {" + strings.Repeat("a: [],\n", 5_000) + "}", ""},
	} {
		d := ReadDocument("a_test.yaml", []byte(row.content), new(document))
		problems := d.Problems()
		if (row.content != "") != problems.HasErrors() || !strings.Contains(fmt.Sprint(problems.Err()), row.want) {
			t.Errorf("%s: got %.300v, want %q", row.what, problems.Err(), row.want)
		}
		if len(problems) > maxFileProblems+1 {
			t.Errorf("%s: %d problems", row.what, len(problems))
		}
	}
}
