package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// addition is the entry after another one, with one blob of its own.
func addition(after int64) Addition {
	return Addition{
		After: after, Number: after + 1, Value: fmt.Appendf(nil, "entry %d", after+1),
		Blobs: map[string][]byte{fmt.Sprintf("blob-%d", after+1): fmt.Appendf(nil, "content %d", after+1)},
	}
}

func appendTo(t testing.TB, a Archive, add Addition) {
	t.Helper()
	if err := a.Append(t.Context(), add); err != nil {
		t.Fatal(err)
	}
}

func openNear(t testing.TB, path string) *NearArchive {
	t.Helper()
	a, err := OpenArchive(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// holds compares an archive's entries and blobs with those of these numbers, the last one first.
func holds(t testing.TB, a Archive, numbers ...int64) {
	t.Helper()
	entries, err := a.Entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want []Archived
	var names []string
	blobs := map[string][]byte{}
	for _, n := range numbers {
		want = append(want, Archived{n, addition(n - 1).Value})
		name := fmt.Sprintf("blob-%d", n)
		names, blobs[name] = append(names, name), addition(n - 1).Blobs[name]
	}
	if d := cmp.Diff(want, entries); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}
	got, err := a.Blobs(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(blobs, got); d != "" {
		t.Errorf("blobs (-want +got):\n%s", d)
	}
	if head, err := a.Head(t.Context()); err != nil || len(numbers) > 0 && head != numbers[0] {
		t.Errorf("head %d, %v, want the first of %v", head, err, numbers)
	}
}

// archives are the behaviours that both archives have.
var archives = []struct {
	name string
	test func(t *testing.T, a Archive)
}{
	{"appends", testArchiveAppends},
	{"refuses who builds on another head", testArchiveMoved},
	{"one of many wins", testArchiveRace},
	{"forgets what is old", testArchiveDrops},
	{"drops nothing for another head", testArchiveDropsLate},
	{"goes on after a gap", testArchiveGap},
	{"hostile bytes", testArchiveHostile},
	{"bounds", testArchiveBounds},
	{"tells of a new head", testArchiveTells},
}

func TestArchives(t *testing.T) {
	t.Parallel()
	s := openTogether(t, Options{URL: startRedis(t).url()})
	until(t, patience, "Redis", func() bool { return s.Health().OK })
	for i, c := range archives {
		t.Run("file/"+c.name, func(t *testing.T) {
			t.Parallel()
			a := openNear(t, filepath.Join(t.TempDir(), "revisions"))
			defer a.Close()
			c.test(t, a)
		})
		t.Run("memory/"+c.name, func(t *testing.T) { c.test(t, openNear(t, "")) })
		t.Run("redis/"+c.name, func(t *testing.T) { c.test(t, s.Archive(fmt.Sprint("test", i))) })
	}
}

func testArchiveAppends(t *testing.T, a Archive) {
	holds(t, a)
	if head, err := a.Head(t.Context()); head != 0 || err != nil {
		t.Errorf("empty: head %d, %v", head, err)
	}
	for n := range int64(3) {
		appendTo(t, a, addition(n))
	}
	holds(t, a, 3, 2, 1)
	if got, err := a.Blobs(t.Context(), "missing"); len(got) != 0 || err != nil {
		t.Errorf("a missing blob: %v, %v", got, err)
	}
	names, err := a.Names(t.Context())
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"blob-1", "blob-2", "blob-3"}) {
		t.Errorf("names %v, %v", names, err)
	}
}

func testArchiveMoved(t *testing.T, a Archive) {
	appendTo(t, a, addition(0))
	for _, add := range []Addition{addition(0), addition(1 << 40), {After: 2, Number: 3}} {
		if err := a.Append(t.Context(), add); !errors.Is(err, ErrMoved) {
			t.Errorf("after %d: got %v, want ErrMoved", add.After, err)
		}
	}
	holds(t, a, 1)
}

func testArchiveRace(t *testing.T, a Archive) {
	for head := range int64(5) {
		var wins atomic.Int64
		var done sync.WaitGroup
		for i := range 8 {
			done.Go(func() {
				add := addition(head)
				add.Blobs = map[string][]byte{fmt.Sprintf("%d by %d", head, i): {byte(i)}}
				switch err := a.Append(t.Context(), add); {
				case err == nil:
					wins.Add(1)
				case !errors.Is(err, ErrMoved):
					t.Error(err)
				}
			})
		}
		done.Wait()
		if wins.Load() != 1 {
			t.Errorf("%d of 8 have won", wins.Load())
		}
	}
}

func testArchiveDrops(t *testing.T, a Archive) {
	for n := range int64(4) {
		appendTo(t, a, addition(n))
	}
	add := addition(4)
	add.Oldest = 3
	appendTo(t, a, add)
	if err := a.Drop(t.Context(), 5, "blob-1", "blob-2"); err != nil {
		t.Fatal(err)
	}
	holds(t, a, 5, 4, 3)
	if names, err := a.Names(t.Context()); len(names) != 3 || err != nil {
		t.Errorf("names %v, %v", names, err)
	}
}

func testArchiveDropsLate(t *testing.T, a Archive) {
	appendTo(t, a, addition(0))
	appendTo(t, a, addition(1))
	if err := a.Drop(t.Context(), 1, "blob-1"); err != nil {
		t.Fatal(err)
	}
	holds(t, a, 2, 1)
}

func testArchiveGap(t *testing.T, a Archive) {
	add := addition(41)
	add.After = 0
	appendTo(t, a, add)
	appendTo(t, a, addition(42))
	holds(t, a, 43, 42)
}

func testArchiveHostile(t *testing.T, a Archive) {
	add := Addition{Number: 1, Value: []byte("\x00\r\n$5\xff"), Blobs: map[string][]byte{}}
	for _, name := range hostile {
		if len(name) <= maxBlobName {
			add.Blobs[name] = []byte(name + "\x00")
		}
	}
	appendTo(t, a, add)
	entries, err := a.Entries(t.Context())
	if err != nil || len(entries) != 1 || !bytes.Equal(entries[0].Value, add.Value) {
		t.Errorf("got %v, %v", entries, err)
	}
	names, err := a.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := a.Blobs(t.Context(), names...)
	if d := cmp.Diff(add.Blobs, blobs); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func testArchiveBounds(t *testing.T, a Archive) {
	for name, add := range map[string]Addition{
		"number":  {After: 0, Number: 0},
		"before":  {After: -1, Number: 1},
		"oldest":  {Number: 1, Oldest: 2},
		"value":   {Number: 1, Value: make([]byte, maxArchived+1)},
		"blob":    {Number: 1, Blobs: map[string][]byte{"a": make([]byte, maxBlob+1)}},
		"name":    {Number: 1, Blobs: map[string][]byte{strings.Repeat("a", maxBlobName+1): nil}},
		"no name": {Number: 1, Blobs: map[string][]byte{"": nil}},
	} {
		if err := a.Append(t.Context(), add); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: got %v, want ErrEntry", name, err)
		}
	}
	many := Addition{Number: 1, Value: make([]byte, maxArchived), Blobs: map[string][]byte{"large": make([]byte, maxBlob)}}
	for i := range 1000 {
		many.Blobs[fmt.Sprint(i)] = []byte{byte(i)}
	}
	appendTo(t, a, many)
	blobs, err := a.Blobs(t.Context(), slices.Collect(func(yield func(string) bool) {
		for name := range many.Blobs {
			if !yield(name) {
				return
			}
		}
	})...)
	if err != nil || len(blobs) != 1001 || len(blobs["large"]) != maxBlob {
		t.Errorf("%d blobs, %v", len(blobs), err)
	}
}

func testArchiveTells(t *testing.T, a Archive) {
	appendTo(t, a, addition(0))
	deadline := time.After(patience)
	for told := false; !told; {
		select {
		case <-a.Changed():
			head, err := a.Head(t.Context())
			told = err == nil && head == 1 // Redis' is told of at the start, too
		case <-deadline:
			t.Fatal("never told")
		}
	}
}

// What one process appends another knows, and is told of.
func TestArchiveIsShared(t *testing.T) {
	t.Parallel()
	url := startRedis(t).url()
	a, b := openTogether(t, Options{URL: url}).Archive("policy"), openTogether(t, Options{URL: url}).Archive("policy")
	until(t, patience, "Redis", func() bool { return a.Append(t.Context(), addition(0)) == nil })
	testArchiveTellsOf(t, b, 1)
	holds(t, b, 1)
	if err := b.Append(t.Context(), addition(0)); !errors.Is(err, ErrMoved) {
		t.Errorf("got %v, want ErrMoved", err)
	}
	appendTo(t, b, addition(1))
	testArchiveTellsOf(t, a, 2)
}

func testArchiveTellsOf(t *testing.T, a Archive, want int64) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case <-a.Changed():
			if head, err := a.Head(t.Context()); err == nil && head == want {
				return
			}
		case <-deadline:
			t.Fatalf("never told of %d", want)
		}
	}
}

// A Redis that lost all, and has another entry of the same number, is told of.
func TestArchiveTellsOfALoss(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	a := openTogether(t, Options{URL: r.url()}).Archive("policy")
	until(t, patience, "Redis", func() bool { return a.Append(t.Context(), addition(0)) == nil })
	until(t, patience, "what is told of the first one", func() bool {
		at, err := a.(*farArchive).standing(t.Context())
		return err == nil && strings.HasPrefix(at, "1:") && a.(*farArchive).told.Load() != nil && *a.(*farArchive).told.Load() == at
	})
	<-a.Changed()
	other := addition(0)
	other.Value = []byte("another")
	do(t, r.client(), "FLUSHALL")
	appendTo(t, a, other)
	testArchiveTellsOf(t, a, 1)
}

// Redis that is away is an error, not an empty archive.
func TestArchiveUnavailable(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	s := openTogether(t, Options{URL: r.url()})
	a := s.Archive("policy")
	until(t, patience, "Redis", func() bool { return a.Append(t.Context(), addition(0)) == nil })
	r.kill()
	_, err := a.Head(t.Context())
	_, errs := a.Entries(t.Context())
	if !isUnavailable(err) || !isUnavailable(errs) || !isUnavailable(a.Append(t.Context(), addition(1))) {
		t.Errorf("got %v, %v", err, errs)
	}
	r.start()
	until(t, patience, "Redis to be back", func() bool { head, err := a.Head(t.Context()); return err == nil && head == 0 })
}

// The ACL rule of docs/delivery.md: what archives need besides what is shared otherwise.
func TestMinimalACLOfArchives(t *testing.T) {
	t.Parallel()
	const besides = "+hgetall +hkeys +hexists"
	r := startRedis(t)
	do(t, r.client(), "ACL SETUSER legation reset on >pw "+aclKeys+" -@all "+aclCommands+" "+aclShared+" "+besides)
	s := openTogether(t, Options{URL: "redis://legation:pw@" + r.addr()})
	a := s.Archive("policy")
	until(t, patience, "Redis", func() bool { return a.Append(t.Context(), addition(0)) == nil })
	testArchiveTellsOf(t, a, 1)
	appendTo(t, a, addition(1))
	if _, err := a.Names(t.Context()); err != nil {
		t.Error(err)
	}
	if err := a.Drop(t.Context(), 2, "blob-3"); err != nil {
		t.Error(err)
	}
	holds(t, a, 2, 1)
	if refused := r.client().Do(t.Context(), "ACL", "LOG").Val(); fmt.Sprint(refused) != "[]" {
		t.Errorf("refused: %v", refused)
	}
	used := r.client().Info(t.Context(), "commandstats").Val()
	for _, c := range strings.Fields(besides) {
		if !strings.Contains(used, "cmdstat_"+c[1:]+":") {
			t.Errorf("%s is not needed", c)
		}
	}
}

// Blobs that another's cleaning up takes away before the entry is there are written again.
func TestArchiveWritesAgainWhatIsLost(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	a := openTogether(t, Options{URL: r.url()}).Archive("policy").(*farArchive)
	until(t, patience, "Redis", func() bool { return a.Append(t.Context(), addition(0)) == nil })
	answer, err := a.script(t.Context(), []any{"append", 1, 2, "entry 2", 0, "blob-2"})
	if answer != -1 || err != nil {
		t.Errorf("without its blob: got %d, %v, want -1", answer, err)
	}
	appendTo(t, a, addition(1))
	holds(t, a, 2, 1)
}

// whole is an archive file with three entries, and where the third begins.
func wholeArchive(t testing.TB) (path string, text []byte, third int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "revisions")
	a := openNear(t, path)
	for n := range int64(3) {
		third = int(a.size)
		appendTo(t, a, addition(n))
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, text, third
}

// Wherever the machine dies while the third entry is written, the first two are there, and the next one can be written.
func TestArchiveOutlivesATornWrite(t *testing.T) {
	t.Parallel()
	path, text, third := wholeArchive(t)
	for cut := third; cut <= len(text); cut++ {
		if err := os.WriteFile(path, text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		a := openNear(t, path)
		want := []int64{2, 1}
		if cut == len(text) {
			want = []int64{3, 2, 1}
		} else {
			holds(t, a, want...)
			short := addition(2)
			short.Blobs = nil // what was torn is longer
			appendTo(t, a, short)
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			a = openNear(t, path)
			if head, _ := a.Head(t.Context()); head != 3 {
				t.Errorf("cut at %d: head %d after another entry, want 3", cut, head)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		again := openNear(t, path)
		holds(t, again, want...)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path + ".bad"); !os.IsNotExist(err) {
		t.Error("a torn write is no damage")
	}
}

// A file system that lost its power may leave zeros at the end.
func TestArchiveOutlivesZeros(t *testing.T) {
	t.Parallel()
	path, text, _ := wholeArchive(t)
	if err := os.WriteFile(path, append(text, make([]byte, 4096)...), 0o600); err != nil {
		t.Fatal(err)
	}
	a := openNear(t, path)
	defer a.Close()
	holds(t, a, 3, 2, 1)
	appendTo(t, a, addition(3))
	holds(t, a, 4, 3, 2, 1)
}

// Whatever a disk makes of the file: opening it ends, gives entries that were written or none, and can be appended to.
func TestArchiveOutlivesDamage(t *testing.T) {
	t.Parallel()
	path, text, _ := wholeArchive(t)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		bad := slices.Clone(text)
		for range 1 + round%4 {
			bad[random.IntN(len(bad))] ^= byte(1 + random.IntN(255))
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		a := openNear(t, path)
		entries, err := a.Entries(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if want := addition(e.Number - 1).Value; !bytes.Equal(e.Value, want) {
				t.Fatalf("entry %d is %q", e.Number, e.Value)
			}
		}
		head, _ := a.Head(t.Context())
		appendTo(t, a, addition(head))
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if kept, err := os.ReadFile(path + ".bad"); err != nil || len(kept) == 0 {
		t.Errorf("the damaged file was not put aside: %v", err)
	}
}

// One damaged frame costs what it holds, not what follows.
func TestArchiveReadsOnAfterDamage(t *testing.T) {
	t.Parallel()
	path, text, _ := wholeArchive(t)
	bad := bytes.Replace(text, []byte("content 2"), []byte("content x"), 1)
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	a := openNear(t, path)
	defer a.Close()
	blobs, err := a.Blobs(t.Context(), "blob-1", "blob-2", "blob-3")
	if err != nil || len(blobs) != 2 || blobs["blob-2"] != nil {
		t.Errorf("got %q, %v, want the first and the third", blobs, err)
	}
	if head, _ := a.Head(t.Context()); head != 3 {
		t.Errorf("head %d, want 3", head)
	}
}

// A file of something else is put aside, and what can't be opened is an error.
func TestArchiveOfSomethingElse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "revisions")
	if err := os.WriteFile(path, []byte("something else\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := openNear(t, path)
	appendTo(t, a, addition(0))
	holds(t, a, 1)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path + ".bad"); string(text) != "something else\n" {
		t.Errorf("put aside: %q, %v", text, err)
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenArchive(path, nil); err == nil {
		t.Error("a folder was opened")
	}
}

// The file is written anew once most of it is of no use, and has all that is.
func TestArchiveIsWrittenAnew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "revisions")
	a := openNear(t, path)
	appendTo(t, a, addition(0))
	large := Addition{After: 1, Number: 2, Blobs: map[string][]byte{}}
	var names []string
	for i := range 6 {
		name := fmt.Sprint("large", i)
		names, large.Blobs[name] = append(names, name), make([]byte, 1<<20)
	}
	appendTo(t, a, large)
	appendTo(t, a, Addition{After: 2, Number: 3, Value: addition(2).Value, Blobs: addition(2).Blobs})
	if err := a.Drop(context.Background(), 3, names...); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 1000 || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a small file", info, err)
	}
	appendTo(t, a, Addition{After: 3, Number: 4, Value: addition(3).Value, Blobs: addition(3).Blobs, Oldest: 3})
	holds(t, a, 4, 3)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	again := openNear(t, path)
	defer again.Close()
	holds(t, again, 4, 3)
}
