package policy_test

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
)

// FuzzEndpointFile: whatever the bytes, what is taken is endpoints, and what is wrong is told in the file.
func FuzzEndpointFile(f *testing.F) {
	for _, name := range []string{"testdata/endpoints.txtar", "testdata/endpoints-bad.txtar"} {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if !policy.IsPolicy(file.Name) {
				f.Add(file.Data)
			}
		}
	}
	for _, seed := range []string{"", "[", "[[", "[]", "{", "[::1]:80", "\xef\xbb\xbf10.0.0.1:80", "10.0.0.1:80 =", "10.0.0.1:80 \u00e4=b", "[\"10.0.0.1:80\", null]", "[&a x]"} {
		f.Add([]byte(seed))
	}
	l := testLanguage()
	f.Fuzz(func(t *testing.T, content []byte) {
		in := policy.Files{"p.yaml": []byte(listed), "s.endpoints": content}
		model, problems := l.Load(in)
		if (model == nil) != problems.HasErrors() {
			t.Fatalf("model %v with problems %v", model, problems)
		}
		for _, p := range problems {
			if p.Pos.File != "s.endpoints" {
				t.Fatalf("told elsewhere: %v", p)
			}
		}
		if model == nil {
			return
		}
		for _, e := range model.Services[0].Endpoints {
			if _, err := netip.ParseAddr(e.Host); err != nil || e.Port == 0 || e.Weight == 0 || e.Pos.File != "s.endpoints" || e.Pos.Line == 0 {
				t.Fatalf("took %+v", e)
			}
		}
	})
}

// FuzzLoad: whatever the bytes, Load neither panics nor takes what it complains of, and says the same each time.
func FuzzLoad(f *testing.F) {
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if policy.IsPolicy(file.Name) {
				f.Add(file.Data, []byte(platform))
			}
		}
	}
	for _, seed := range []string{"", "\xef\xbb\xbfroutes:", "a: |\n  b\n c", "? a\n: b", "%YAML 1.2\n---\n{}", "!<x> y", "a: 'b", "- - - -", "\"\\ud800\": 1"} {
		f.Add([]byte(seed), []byte(teamA))
	}
	l := testLanguage()
	f.Fuzz(func(t *testing.T, a, b []byte) {
		in := policy.Files{"a.yaml": a, "b.yaml": b, "keys.json": []byte("{}")}
		model, problems := l.Load(in)
		if (model == nil) != problems.HasErrors() {
			t.Fatalf("model %v with problems %v", model, problems)
		}
		var first, second bytes.Buffer
		if err := problems.Write(&first, in, false); err != nil {
			t.Fatal(err)
		}
		for _, c := range first.Bytes() {
			if c < ' ' && c != '\n' || c == 0x7f {
				t.Fatalf("control byte %#x is shown", c)
			}
		}
		_, again := l.Load(in)
		if err := again.Write(&second, in, false); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("two loads differ:\n%s\n%s", &first, &second)
		}
		last := files("b.yaml", platform)
		if _, model, _ := l.Isolate(in, last); model == nil {
			t.Fatal("isolation serves nothing, with a good last set")
		}
	})
}
