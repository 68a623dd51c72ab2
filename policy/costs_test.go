//go:build !race

package policy_test

import (
	"bytes"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/legation/legation/policy"
)

// TestHostileFilesCostLittle bounds what a file can make the loader allocate. Everything that stays reachable at once
// is far less than what is allocated in all.
func TestHostileFilesCostLittle(t *testing.T) {
	l := testLanguage()
	for name, content := range hostile {
		t.Run(name, func(t *testing.T) {
			costsLittle(t, l, policy.Files{"a.yaml": []byte(content)})
		})
	}
}

// TestHostileEndpointFilesCostLittle is the same for what stands beside the policy.
func TestHostileEndpointFilesCostLittle(t *testing.T) {
	l := testLanguage()
	for name, content := range map[string]string{
		"lines":      strings.Repeat("1.1.1.1:1\n", 100_000),
		"attributes": strings.Repeat("1.1.1.1:1 a=b c=d e=f g=h i=j k=l\n", 30_000),
		"one line":   "1.1.1.1:1" + repeat(90_000, " k%d=v"),
		"words":      "1.1.1.1:1" + strings.Repeat(" w", 500_000),
		"list":       "[" + strings.Repeat(`"1.1.1.1:1",`, 80_000) + `"1.1.1.1:1"]`,
		"deep list":  `["` + `",` + strings.Repeat("[", 1<<19),
		"nul":        strings.Repeat("\x00", 1<<20),
		"no end":     `["` + strings.Repeat("x", 1<<20-8),
	} {
		t.Run(name, func(t *testing.T) {
			costsLittle(t, l, policy.Files{"p.yaml": []byte(listed), "s.endpoints": []byte(content)})
		})
	}
}

// TestLoaderKeepsOneLoad edits a policy again and again: what is kept does not grow.
func TestLoaderKeepsOneLoad(t *testing.T) {
	files := manyRoutes(400, 20)
	l := testLanguage().NewLoader()
	model, _ := l.Load(files)
	held := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	edit := func(i int) {
		from := i * 20 % 400
		next := maps.Clone(files)
		next[teamFile(from)] = bytes.ReplaceAll(files[teamFile(from)], []byte("cors: {"), fmt.Appendf(nil, "plan: none\n    # %d\n    cors: {", i))
		if i%2 == 0 {
			next[teamFile(from)] = bytes.Replace(next[teamFile(from)], fmt.Appendf(nil, "# %d", i), fmt.Appendf(nil, "# %4d", i%977), 1+i%9)
		}
		if i%3 == 0 {
			delete(next, teamFile((from+20)%400))
		}
		if model, _ = l.Load(next); model == nil {
			t.Fatal("refused")
		}
	}
	for i := range 100 {
		edit(i)
	}
	before := held()
	for i := range 1_000 {
		edit(i)
	}
	if after := held(); after > before+before/10 {
		t.Errorf("%d KiB held after 1000 edits, %d KiB before", after>>10, before>>10)
	}
	runtime.KeepAlive(l)
	runtime.KeepAlive(model)
}
