package policy

import (
	"bytes"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Files is the content of the policy directory, by slash-separated path relative to it: *.yaml and *.yml are policy, but for
// *_test.yaml and *_test.yml ([IsTest]); everything else is only read where the policy refers to it. A Files is not changed once
// it was handed over.
type Files map[string][]byte

// Bounds of a policy directory.
const (
	MaxFiles = 10_000   // policy files, and as many others
	MaxTotal = 64 << 20 // bytes of all files
)

// IsPolicy tells whether a file of that name is a policy file. Cases that a policy is tested with ([IsTest]) are none: they
// may stand beside it, and nobody loads or watches them but legation test.
func IsPolicy(name string) bool { return isYAML(name) && !IsTest(name) }

// IsTest tells whether a file of that name holds cases for legation test: orders_test.yaml.
func IsTest(name string) bool {
	return isYAML(name) && strings.HasSuffix(strings.TrimSuffix(name, path.Ext(name)), "_test")
}

func isYAML(name string) bool {
	ext := path.Ext(name)
	return ext == ".yaml" || ext == ".yml"
}

// maxAllValues is about how many values all policy files may hold: enough for some 80,000 routes, and read in seconds.
const maxAllValues = 2_000_000

// values is about how many values files hold.
func (f Files) values(names []string) int {
	n := 0
	for _, name := range names {
		n += separators(f[name])
	}
	return n
}

// trees are parsed files by name and content, kept while several sets of nearly the same files are loaded.
type trees map[string]*tree

type tree struct {
	content []byte
	parsed  *parsed
}

// parse gives the parsed files of these names, in their order.
func (t trees) parse(files Files, names []string) []*parsed {
	work := make(chan string, len(names))
	for _, name := range names {
		if known := t[name]; known == nil || !bytes.Equal(known.content, files[name]) {
			t[name] = &tree{content: files[name]}
			work <- name
		}
	}
	close(work)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 4) {
		wg.Go(func() {
			for name := range work {
				t[name].parsed = parse(name, t[name].content)
			}
		})
	}
	wg.Wait()
	out := make([]*parsed, len(names))
	for i, name := range names {
		out[i] = t[name].parsed
	}
	return out
}

// keep forgets the files that are in none of these sets.
func (t trees) keep(sets ...Files) {
	for name := range t {
		there := func(files Files) bool { _, ok := files[name]; return ok }
		if !slices.ContainsFunc(sets, there) {
			delete(t, name)
		}
	}
}
