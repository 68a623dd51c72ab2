package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
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

// revision is the content hash of the policy files and of those that they refer to.
func revision(files Files, referred map[string]bool) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !IsPolicy(name) && !referred[name] {
			continue
		}
		for _, part := range [][]byte{[]byte(name), files[name]} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
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
