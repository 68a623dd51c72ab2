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
	with, without := Files{"edge.yaml": read["edge.yaml"], "edge_test.yaml": []byte("a")}, Files{"edge.yaml": read["edge.yaml"]}
	if a, b := new(digest).of(with, nil), new(digest).of(without, nil); a != b {
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

type toyFile struct {
	Hosts map[string]toyHost `policy:"hosts,required"`
}

type toyHost struct {
	Port uint16   `policy:"port,required"`
	Tags []string `policy:"tags"`
}

func TestReadDocument(t *testing.T) {
	t.Parallel()
	var got toyFile
	if problems := ReadDocument("toy.yaml", []byte("hosts:\n  a: {port: 1, tags: [x]}\n"), &got).Problems(); len(problems) > 0 {
		t.Fatal(problems.Err())
	}
	if h := got.Hosts["a"]; h.Port != 1 || len(h.Tags) != 1 {
		t.Errorf("got %v", got)
	}
	for text, want := range map[string]string{
		"hosts:\n  a: {prot: 1}\n":          `toy.yaml:2:7: hosts.a.prot: unknown key "prot"`,
		"hosts:\n  a: {}\n":                 "toy.yaml:2:3: hosts.a.port: is required, but missing",
		"hosts:\n  a: {port: 65536}\n":      "toy.yaml:2:13: hosts.a.port: want a whole number",
		"hosts: {a: {port: 1}, a: {}}\n":    "toy.yaml:1:23:",
		"hosts: {}\n---\nhosts: {}\n":       "toy.yaml:3:1: a second document in the file",
		"just a text\n":                     "want a map",
		"hosts: {a: {port: 1}\n":            "toy.yaml:",
		strings.Repeat("#", maxFile) + "\n": "larger than",
	} {
		problems := ReadDocument("toy.yaml", []byte(text), new(toyFile)).Problems()
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want it to say %q", text, err, want)
		}
	}
}
