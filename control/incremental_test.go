package control

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// A thousand edits, one after the other: what is served is what the files come to as a whole, to the version, and nothing of
// the policies before stays in memory. It runs alone: it looks at the memory of the process.
func TestAThousandEdits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1000))
	files := manyRoutes(400, true)
	c := New(Options{Auth: auth.New(auth.Options{Counter: counter{}}), Limits: ratelimit.New(ratelimit.Options{})})
	var early uint64
	for n := range 1000 {
		files = edited(r, files, n)
		model, problems := c.loader.Load(files)
		if model == nil {
			t.Fatal(problems)
		}
		compiled, err := c.compiler.compile(model)
		must(t, err)
		served, err := c.encoder.snapshots(compiled)
		must(t, err)
		c.tables = append([]*Compiled{compiled}, older(c.tables, compiled)...)
		must(t, c.loadTables(c.tables))
		if n%100 != 99 {
			continue
		}
		whole, _ := feature.Language().Load(files)
		anew, err := Compile(whole)
		must(t, err)
		want, err := new(encoder).snapshots(anew)
		must(t, err)
		for _, url := range types {
			if got, want := served["edge"].Version(url), want["edge"].Version(url); got != want {
				t.Errorf("edit %d: %s has the version %s, want %s", n, url, got, want)
			}
		}
		if diff := cmp.Diff(anew.Auth, compiled.Auth, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("edit %d: auth (-want +got):\n%s", n, diff)
		}
		if diff := cmp.Diff(anew.Limits, compiled.Limits, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("edit %d: limits (-want +got):\n%s", n, diff)
		}
		switch heap := heapInUse(); {
		case n < 300:
			early = heap
		case heap > early+early/2:
			t.Errorf("edit %d: %d KiB in use, %d KiB after 300", n, heap>>10, early>>10)
		}
	}
}

// edited is the files with another limit or timeout in one of them, or a file that comes or goes.
func edited(r *rand.Rand, files policy.Files, n int) policy.Files {
	next := maps.Clone(files)
	from := 20 * r.IntN(20)
	name := fmt.Sprintf("team%05d.yaml", from)
	switch r.IntN(4) {
	case 0:
		delete(next, name)
	case 1:
		next[name] = bytes.Replace(teamOf(from, from+20, "5s"), []byte("1/second"), fmt.Appendf(nil, "%d/second", 1000+n), 1)
	default:
		next[name] = teamOf(from, from+20, fmt.Sprintf("%dms", n+1))
	}
	return next
}

// heapInUse is the bytes of what can be reached.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
