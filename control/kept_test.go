package control

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
)

// historyOf is what a controller over this directory keeps in its data directory, once it has ended.
func historyOf(t testing.TB, data, dir string) *revision.History {
	t.Helper()
	c := New(Options{Dir: dir, DataDir: data})
	t.Cleanup(func() { must(t, c.Close()) })
	return c.shelf.local
}

// keptOf is the files that it keeps.
func keptOf(t testing.TB, data, dir string) policy.Files {
	t.Helper()
	h := historyOf(t, data, dir)
	head, err := h.Head(t.Context())
	must(t, err)
	if head.Number == 0 {
		return nil
	}
	files, err := h.Files(t.Context(), head)
	must(t, err)
	return files
}

// A kept policy that can't be used costs the fallback, not the start.
func TestBrokenKeptFiles(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		files map[string]string // that were kept
		harm  func(t *testing.T, path string)
	}{
		{"a policy of another version", map[string]string{"policy.yaml": "routes: {app: {host"}, nil},
		{"no file", map[string]string{}, nil},
		{"garbage", map[string]string{"policy.yaml": "\x00\xff"}, nil},
		{"half a file", map[string]string{"policy.yaml": whole(1)}, func(t *testing.T, path string) {
			info, err := os.Stat(path)
			must(t, err)
			must(t, os.Truncate(path, info.Size()/2))
		}},
		{"a file of something else", map[string]string{"policy.yaml": whole(1)}, func(t *testing.T, path string) { write(t, path, "x") }},
		{"a folder in its place", map[string]string{"policy.yaml": whole(1)}, func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o700))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			data, dir := t.TempDir(), tree(t, map[string]string{"policy.yaml": "routes: [\n"})
			files := policy.Files{}
			for name, text := range row.files {
				files[name] = []byte(text)
			}
			_, err := historyOf(t, data, dir).Append(t.Context(), revision.Revision{Hash: "abc"}, files)
			must(t, err)
			if row.harm != nil {
				names, err := filepath.Glob(filepath.Join(data, "revisions-*"))
				if must(t, err); len(names) != 1 {
					t.Fatalf("kept %v, want one file", names)
				}
				row.harm(t, names[0])
			}
			l := start(t, Options{Dir: dir, DataDir: data})
			if o := l.next(); o.Revision != "" || !o.Problems.HasErrors() {
				t.Errorf("over a broken policy: got %+v, want nothing served", o)
			}
			move(t, filepath.Join(dir, "policy.yaml"), whole(2))
			want := revisionIn(t, dir)
			l.serves(want)
			l.served(want)
			if row.name == "a folder in its place" {
				return // it is not ours to remove
			}
			if got := keptOf(t, data, dir); string(got["policy.yaml"]) != whole(2) {
				t.Errorf("kept after that: %q", got)
			}
		})
	}
}

// A restart over a broken directory serves what was served before.
func TestRestartServesTheLastGood(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		break_ func(t *testing.T, dir string)
	}{
		{"broken file", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "app.yaml"), "routes: [\n") }},
		{"file gone that another needs", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "gateway.yaml"))) }},
		{"empty directory", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(dir))
			must(t, os.Mkdir(dir, 0o755))
		}},
		{"no directory", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }},
		{"file in its place", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(dir))
			write(t, dir, whole(1))
		}},
		{"link out of the directory", func(t *testing.T, dir string) { link(t, "/dev/null", filepath.Join(dir, "app.yaml")) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir, data := tree(t, map[string]string{"gateway.yaml": gateway(1), "app.yaml": team("app", 1)}), t.TempDir()
			l := start(t, Options{Dir: dir, DataDir: data})
			want := revisionIn(t, dir)
			l.serves(want)
			l.stop()

			row.break_(t, dir)
			l = start(t, Options{Dir: dir, DataDir: data})
			if o := l.next(); o.Revision != want || o.Error == "" && !o.Problems.HasErrors() {
				t.Errorf("got revision %q, error %q, %d problems; want %s and what is wrong", o.Revision, o.Error, len(o.Problems), want)
			}
			select {
			case <-l.Loaded():
			default:
				t.Error("not loaded")
			}
		})
	}
}

// The data directory never holds a private key, also where one lies in the policy directory, as the quickstart's does.
func TestSecretsAreNotKept(t *testing.T) {
	t.Parallel()
	key, err := os.ReadFile("../examples/quickstart/test-key.pem")
	must(t, err)
	dir := tree(t, map[string]string{
		"policy.yaml": protected(1, 10), "keys.json": string(publicKeys(t)), "test-key.pem": string(key),
		"teams/key.json": `{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d" : "c2VjcmV0"}]}`,
		"secret.json":    `{"kty":"oct","k":"c2VjcmV0"}`, "note.txt": "not referred to",
	})
	data := t.TempDir()
	l := start(t, Options{Dir: dir, DataDir: data})
	l.serves(revisionIn(t, dir))
	l.stop()
	must(t, filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, _ := d.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", path, info.Mode())
		}
		return nil
	}))
	names := slices.Sorted(maps.Keys(keptOf(t, data, dir)))
	if want := []string{"keys.json", "note.txt", "policy.yaml"}; !slices.Equal(names, want) {
		t.Errorf("kept %v, want %v", names, want)
	}
	// And what is kept is enough.
	must(t, os.RemoveAll(dir))
	again := start(t, Options{Dir: dir, DataDir: data})
	if o := again.next(); o.Revision == "" {
		t.Errorf("what is kept is not served: %+v", o)
	}
}

// What was served of one directory is no fallback for another.
func TestKeptFilesAreOfOneDirectory(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	dir := tree(t, map[string]string{"policy.yaml": whole(1)})
	l := start(t, Options{Dir: dir, DataDir: data})
	l.serves(revisionIn(t, dir))
	l.stop()
	other := start(t, Options{Dir: filepath.Join(t.TempDir(), "missing"), DataDir: data})
	if o := other.next(); o.Revision != "" || o.Error == "" {
		t.Errorf("over a missing directory: got %+v, want nothing served and the error told", o)
	}
}

// A policy file that is emptied keeps what it held, and says so; deleting it takes that away.
func TestEmptiedFileKeepsWhatItHeld(t *testing.T) {
	t.Parallel()
	for _, empty := range []string{"", "\n", "# nothing\n---\n"} {
		dir := tree(t, map[string]string{"gateway.yaml": gateway(1), "app.yaml": team("app", 1), "more.yaml": team("more", 2)})
		l := start(t, Options{Dir: dir})
		want := revisionIn(t, dir)
		l.serves(want)
		write(t, filepath.Join(dir, "more.yaml"), empty)
		if o := l.next(); o.Revision != want || !o.Problems.HasErrors() || o.Problems[0].Pos.File != "more.yaml" {
			t.Errorf("emptied to %q: got %+v, want the revision %s and a problem of more.yaml", empty, o, want)
		}
		must(t, os.Remove(filepath.Join(dir, "more.yaml")))
		l.serves(revisionIn(t, dir))
	}
}

// A policy without a gateway takes nothing away from what is served.
func TestLastGatewayStays(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"gateway.yaml": gateway(1), "app.yaml": team("app", 1)})
	l := start(t, Options{Dir: dir})
	want := revisionIn(t, dir)
	l.serves(want)
	write(t, filepath.Join(dir, "app.yaml"), "services: {app: {endpoints: [\"127.0.0.1:1\"]}}\n")
	l.serves(revisionIn(t, dir))
	want = revisionIn(t, dir)
	must(t, os.Remove(filepath.Join(dir, "gateway.yaml")))
	if o := l.next(); o.Revision != want || o.Error == "" {
		t.Errorf("without a gateway: got %+v, want the revision %s and an error", o, want)
	}
}

// What can't be said to Envoy falls back by itself; the other files' changes are served.
func TestTranslationProblemsAreIsolated(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"gateway.yaml": gateway(1), "app.yaml": team("app", 1), "any.yaml": strings.ReplaceAll(team("any", 2), "any.test", "\"*\"")})
	l := start(t, Options{Dir: dir})
	l.serves(revisionIn(t, dir))
	next := tree(t, map[string]string{"gateway.yaml": strings.Replace(gateway(1), "address:", "routeTables: perHost, address:", 1)})
	text, err := os.ReadFile(filepath.Join(next, "gateway.yaml"))
	must(t, err)
	write(t, filepath.Join(dir, "gateway.yaml"), string(text))
	write(t, filepath.Join(dir, "app.yaml"), team("app", 3))
	o := l.next()
	if !o.Changed || !o.Problems.HasErrors() {
		t.Fatalf("got %+v, want a new revision and the problem", o)
	}
	if port := o.Model.Services[1].Endpoints[0].Port; o.Model.Services[1].Name != "app" || port != 3 {
		t.Errorf("the good change was not served: %s is at port %d, want app at 3", o.Model.Services[1].Name, port)
	}
}
