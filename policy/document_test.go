package policy

import (
	"strings"
	"testing"
)

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
	if problems := ReadDocument("toy.yaml", []byte("hosts:\n  a: {port: 1, tags: [x]}\n"), &got); len(problems) > 0 {
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
		"hosts: {}\n---\nhosts: {}\n":       "toy.yaml:3:1: a second document can't follow",
		"":                                  "toy.yaml: the file is empty",
		"just a text\n":                     "want sections",
		"hosts: {a: {port: 1}\n":            "toy.yaml:",
		strings.Repeat("#", maxFile) + "\n": "larger than",
	} {
		problems := ReadDocument("toy.yaml", []byte(text), new(toyFile))
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want it to say %q", text, err, want)
		}
	}
}
