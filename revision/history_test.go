package revision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/store"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archive is one in memory.
func archive(t testing.TB) *store.NearArchive {
	t.Helper()
	a, err := store.OpenArchive("", nil)
	must(t, err)
	return a
}

func appendTo(t testing.TB, h *History, r Revision, files policy.Files) Revision {
	t.Helper()
	r, err := h.Append(t.Context(), r, files)
	must(t, err)
	return r
}

// filesOf are files with these texts, by name.
func filesOf(pairs ...string) policy.Files {
	files := policy.Files{}
	for i := 0; i < len(pairs); i += 2 {
		files[pairs[i]] = []byte(pairs[i+1])
	}
	return files
}

func TestHistory(t *testing.T) {
	t.Parallel()
	a := archive(t)
	h := New(a, nil)
	if head, err := h.Head(t.Context()); head.Number != 0 || err != nil {
		t.Errorf("empty: got %+v, %v", head, err)
	}
	states := []policy.Files{
		filesOf("a.yaml", "a: 1\n", "teams/b.yaml", "b: 1\n", "empty.yaml", ""),
		filesOf("a.yaml", "a: 2\n", "teams/b.yaml", "b: 1\n", "twin.yaml", "b: 1\n"),
		filesOf("a.yaml", strings.Repeat("a: 1\n", 10_000), "teams/b.yaml", "b: 1\n", "twin.yaml", "b: 1\n", "x.png", "\x00\xff"),
	}
	var all []Revision
	for i, files := range states {
		r := appendTo(t, h, Revision{Parent: int64(i), Hash: fmt.Sprintf("%032x", i), By: "me", Message: "why\nand more", Source: Pushed}, files)
		all = append([]Revision{r}, all...)
	}
	again := New(a, nil) // which remembers nothing
	got, err := again.List(t.Context())
	must(t, err)
	if d := cmp.Diff(all, got); d != "" {
		t.Errorf("list (-want +got):\n%s", d)
	}
	var changed []int
	for i, r := range slices.Backward(got) {
		changed = append(changed, r.Changed)
		files, err := again.Files(t.Context(), r)
		must(t, err)
		if d := cmp.Diff(states[len(got)-1-i], files, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("files of %d (-want +got):\n%s", r.Number, d)
		}
	}
	if want := []int{3, 3, 2}; !slices.Equal(changed, want) {
		t.Errorf("changed %v, want %v", changed, want)
	}
	names, err := a.Names(t.Context())
	if must(t, err); len(names) != 3+3+3 { // the manifests; a, b, empty; a again, a long and a picture
		t.Errorf("%d blobs are stored, want 9", len(names))
	}
	if got[0].Bytes != 50_000+5+5+2 || got[0].Files != 4 || got[0].Stored > 5000 {
		t.Errorf("got %+v", got[0])
	}
	sizes, err := again.Names(t.Context(), got[2])
	if d := cmp.Diff(map[string]int64{"a.yaml": 5, "teams/b.yaml": 5, "empty.yaml": 0}, sizes); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	h := New(archive(t), nil)
	appendTo(t, h, Revision{}, filesOf("a.yaml", "a"))
	for _, row := range []struct {
		name  string
		r     Revision
		files policy.Files
		want  error
	}{
		{"another head", Revision{}, nil, ErrMoved},
		{"a head to come", Revision{Parent: 2}, nil, ErrMoved},
		{"a path out of the directory", Revision{Parent: 1}, filesOf("../a.yaml", ""), ErrInvalid},
		{"an absolute path", Revision{Parent: 1}, filesOf("/a.yaml", ""), ErrInvalid},
		{"a path that moves the cursor", Revision{Parent: 1}, filesOf("\x1b[2Ja.yaml", ""), ErrInvalid},
		{"a path that no system has", Revision{Parent: 1}, filesOf("a\x00.yaml", ""), ErrInvalid},
		{"a path that is no text", Revision{Parent: 1}, filesOf("\xff.yaml", ""), ErrInvalid},
		{"a message that reads from right to left", Revision{Parent: 1, Message: "\u202eevil"}, nil, ErrInvalid},
		{"too long a message", Revision{Parent: 1, Message: strings.Repeat("x", MaxMessage+1)}, nil, ErrInvalid},
		{"a message that moves the cursor", Revision{Parent: 1, Message: "\x1b[2J"}, nil, ErrInvalid},
		{"a name of two lines", Revision{Parent: 1, By: "a\nb"}, nil, ErrInvalid},
		{"a name that is no text", Revision{Parent: 1, By: "\xff"}, nil, ErrInvalid},
	} {
		if _, err := h.Append(t.Context(), row.r, row.files); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
	if all, err := h.List(t.Context()); len(all) != 1 || err != nil {
		t.Errorf("%d revisions, %v", len(all), err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	all := []Revision{
		{Number: 124, Hash: "aaaaaa22"}, {Number: 123, Hash: "123456ff"}, {Number: 122, Hash: "aaaaaa11"}, {Number: 121, Hash: "123456ff"},
	}
	for _, row := range []struct {
		ref  string
		want int64 // 0: none
	}{
		{"head", 124},
		{"previous", 123},
		{"121", 121},
		{"124", 124},
		{"aaaaaa2", 124},
		{"aaaaaa1", 122},
		{"123456", 123},
		{"123456ff", 123},
		{"aaaaaa", 0},
		{"12", 0},
		{"999", 0},
		{"0121", 0},
		{"aaaaa", 0},
		{"bbbbbb", 0},
		{"", 0},
		{"HEAD", 0},
		{"-1", 0},
		{"../12", 0},
		{strings.Repeat("9", 40), 0},
	} {
		got, err := find(all, row.ref)
		if got.Number != row.want || (row.want == 0) != errors.Is(err, ErrNone) {
			t.Errorf("%q: got %d, %v, want %d", row.ref, got.Number, err, row.want)
		}
		if row.want != 0 && !IsRef(row.ref) {
			t.Errorf("%q is taken for no reference", row.ref)
		}
	}
	for _, ref := range []string{"head", "previous", "1"} {
		if _, err := find(nil, ref); !errors.Is(err, ErrNone) {
			t.Errorf("%q of none: %v", ref, err)
		}
	}
	if _, err := find(all[:1], "previous"); !errors.Is(err, ErrNone) {
		t.Errorf("previous of one: %v", err)
	}
}

// A history keeps the last hundred or so, and nothing of what was before.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	a := archive(t)
	h := New(a, nil)
	const n = 300
	for i := range int64(n) {
		appendTo(t, h, Revision{Parent: i}, filesOf("a.yaml", fmt.Sprint(i), "same.yaml", "same"))
	}
	all, err := h.List(t.Context())
	must(t, err)
	if len(all) < keptRevisions || len(all) > mostRevisions || all[0].Number != n {
		t.Errorf("%d revisions, the last one %d", len(all), all[0].Number)
	}
	for _, r := range all {
		files, err := h.Files(t.Context(), r)
		if err != nil || string(files["a.yaml"]) != fmt.Sprint(r.Number-1) || string(files["same.yaml"]) != "same" {
			t.Errorf("%d: got %q, %v", r.Number, files, err)
		}
	}
	if names, err := a.Names(t.Context()); err != nil || len(names) > 2*len(all)+1 {
		t.Errorf("%d blobs for %d revisions, %v", len(names), len(all), err)
	}
}

// A history is cut by its size, too, but for the last two.
func TestHistoryIsBoundedInSize(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	a := archive(t)
	h := New(a, nil)
	h.most = 1 << 20
	noise := func() []byte { // which can't be compressed
		b := make([]byte, 10<<10)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	var stored int64
	for i := range int64(20) {
		files := policy.Files{}
		for j := range 20 {
			files[fmt.Sprintf("%d.txt", j)] = noise()
		}
		r := appendTo(t, h, Revision{Parent: i}, files)
		stored = max(stored, r.Stored)
	}
	names, err := a.Names(t.Context())
	must(t, err)
	all, err := h.List(t.Context())
	if len(all) < 2 || len(all) > 7 || len(names) > 21*len(all) || err != nil || stored > h.most+250<<10 {
		t.Errorf("%d revisions, %d blobs, %d bytes, %v", len(all), len(names), stored, err)
	}
	for _, r := range all {
		if _, err := h.Files(t.Context(), r); err != nil {
			t.Error(err)
		}
	}
}

// Private keys that lie beside a policy are not kept.
func TestSecretsAreNotKept(t *testing.T) {
	t.Parallel()
	a := archive(t)
	h := New(a, nil)
	files := filesOf("policy.yaml", "# PRIVATE KEY is a word like others\n", "keys.json", `{"keys": [{"kty": "EC", "x": "AA"}]}`,
		"key.pem", "-----BEGIN EC PRIVATE KEY-----", "jwk.json", `{"kty": "EC", "d" : "c2VjcmV0"}`, "oct.json", `{"k":"c2VjcmV0"}`)
	r := appendTo(t, h, Revision{}, files)
	got, err := h.Files(t.Context(), r)
	must(t, err)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, []string{"keys.json", "policy.yaml"}) {
		t.Errorf("kept %v", names)
	}
}

// broken is an archive whose blobs and entries are what harm makes of them.
type broken struct {
	*store.NearArchive
	entry, blob func([]byte) []byte
}

func (b broken) Entries(ctx context.Context) ([]store.Archived, error) {
	all, err := b.NearArchive.Entries(ctx)
	for i := range all {
		all[i].Value = b.entry(bytes.Clone(all[i].Value))
	}
	return all, err
}

func (b broken) Blobs(ctx context.Context, names ...string) (map[string][]byte, error) {
	all, err := b.NearArchive.Blobs(ctx, names...)
	for name, blob := range all {
		all[name] = b.blob(bytes.Clone(blob))
	}
	return all, err
}

// What a store makes of its bytes is never served: it is what was appended, or an error.
func TestHistoryOutlivesHostileBytes(t *testing.T) {
	t.Parallel()
	a := archive(t)
	want := filesOf("a.yaml", strings.Repeat("routes: {}\n", 100), "b.yaml", "b")
	appendTo(t, New(a, nil), Revision{Hash: "abc"}, want)
	random := rand.New(rand.NewPCG(1, 2))
	bomb := pack(make([]byte, 8<<20))
	whole := func(b []byte) []byte { return b }
	for name, harm := range map[string]func([]byte) []byte{
		"flipped": func(b []byte) []byte {
			if len(b) > 0 {
				b[random.IntN(len(b))] ^= byte(1 + random.IntN(255))
			}
			return b
		},
		"cut":    func(b []byte) []byte { return b[:random.IntN(len(b))] },
		"longer": func(b []byte) []byte { return append(b, 0) },
		"empty":  func([]byte) []byte { return nil },
		"bomb":   func([]byte) []byte { return bomb },
		"other":  func([]byte) []byte { return pack([]byte(`{"../../etc/passwd": {"blob": "", "size": -1}}`)) },
	} {
		rounds := 50
		if name == "bomb" {
			rounds = 2
		}
		for range rounds {
			all, err := New(broken{a, harm, whole}, nil).List(t.Context())
			if err != nil || len(all) > 0 && all[0].Hash != "abc" {
				t.Fatalf("%s: entries %+v, %v", name, all, err)
			}
			h := New(broken{a, whole, harm}, nil)
			all, err = h.List(t.Context())
			must(t, err)
			files, err := h.Files(t.Context(), all[0])
			if err == nil && cmp.Diff(want, files) != "" || err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s: got %q, %v", name, files, err)
			}
		}
	}
}

// A manifest that was made by somebody else, with the right checksum, is held to the bounds of a policy.
func TestForgedManifests(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"../a.yaml": {"blob": "x", "size": 1}}`, `{"/etc/passwd": {"blob": "x", "size": 1}}`, `{"a\u0000/../b": {"blob": "x", "size": -1}}`,
		`{"a.yaml": {"blob": "x", "size": 1099511627776}}`, `[]`, `{`, `"a"`,
	} {
		if m, err := readManifest(sum([]byte(text)), pack([]byte(text))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, %v, want ErrDamaged", text, m, err)
		}
	}
}

// The history is there after a restart, on disk.
func TestHistoryOnDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "revisions")
	a, err := store.OpenArchive(path, nil)
	must(t, err)
	files := filesOf("a.yaml", "a")
	r := appendTo(t, New(a, nil), Revision{Hash: "abc"}, files)
	must(t, a.Close())
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	a, err = store.OpenArchive(path, nil)
	must(t, err)
	defer a.Close()
	h := New(a, nil)
	head, err := h.Head(t.Context())
	if d := cmp.Diff(r, head); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	got, err := h.Files(t.Context(), head)
	if d := cmp.Diff(files, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func FuzzDecode(f *testing.F) {
	good, err := encode(Revision{Number: 1, Hash: "abc", Source: Pushed})
	must(f, err)
	f.Add(good)
	f.Add([]byte("0123456789abcdef\n{}"))
	f.Fuzz(func(t *testing.T, value []byte) {
		if r, err := decode(value); err != nil && (r != Revision{} || !errors.Is(err, ErrDamaged)) {
			t.Errorf("got %+v, %v", r, err)
		}
		_, _ = readManifest(sum(value), value)
	})
}
