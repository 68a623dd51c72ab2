package control

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/policy"
)

func TestKeptFilesComeBack(t *testing.T) {
	t.Parallel()
	k := newKept(filepath.Join(t.TempDir(), "data"), "policy")
	if got, err := k.load(); got != nil || err != nil {
		t.Errorf("before the first save: got %v, %v, want nothing", got, err)
	}
	for _, want := range []policy.Files{
		{"a.yaml": []byte("a: 1\n"), "teams/b.yaml": []byte("b: 1\n"), "teams/keys.json": []byte("{}")},
		{"teams": []byte("no policy, and gone after a load"), "teams.yaml": []byte("c: 1\n")},
		{},
		{"a.yaml": nil},
	} {
		must(t, k.save(want))
		got, err := k.load()
		must(t, err)
		delete(want, "teams") // files that a policy can't refer to are not read
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
			t.Errorf("names (-want +got):\n%s", diff)
		}
		for name := range want {
			if string(got[name]) != string(want[name]) {
				t.Errorf("%s: got %q, want %q", name, got[name], want[name])
			}
		}
	}
	for _, name := range []string{k.dir + ".next", k.dir + ".old"} {
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", name, err)
		}
	}
}

// Of a policy that changed only what changed is written; what is gone goes.
func TestKeptFilesThatStayAreNotWrittenAgain(t *testing.T) {
	t.Parallel()
	k := newKept(t.TempDir(), "policy")
	stat := func(name string) os.FileInfo {
		info, err := os.Stat(filepath.Join(k.dir, name))
		must(t, err)
		return info
	}
	must(t, k.save(policy.Files{"teams/a.yaml": []byte("a: 1\n"), "b.yaml": []byte("b: 1\n"), "c.yaml": nil}))
	a, b := stat("teams/a.yaml"), stat("b.yaml")
	must(t, k.save(policy.Files{"teams/a.yaml": []byte("a: 1\n"), "b.yaml": []byte("b: 2\n")}))
	if !os.SameFile(a, stat("teams/a.yaml")) {
		t.Error("a file that stayed was written again")
	}
	if os.SameFile(b, stat("b.yaml")) {
		t.Error("a file that changed was written in its place: a crash would leave half of it")
	}
	again := newKept(filepath.Dir(k.dir), "policy")
	got, err := again.load()
	must(t, err)
	if len(got) != 2 || string(got["b.yaml"]) != "b: 2\n" || string(got["teams/a.yaml"]) != "a: 1\n" {
		t.Errorf("got %q", got)
	}
}

func TestKeptNowhere(t *testing.T) {
	t.Parallel()
	k := newKept("", "policy")
	must(t, k.save(policy.Files{"a.yaml": nil}))
	if got, err := k.load(); got != nil || err != nil {
		t.Errorf("got %v, %v, want nothing", got, err)
	}
}

// A crash at any step of save leaves the files of before, or those of after.
func TestKeptFilesOutliveACrash(t *testing.T) {
	t.Parallel()
	before, after := policy.Files{"a.yaml": []byte("before")}, policy.Files{"a.yaml": []byte("after")}
	for _, row := range []struct {
		name  string
		crash func(t *testing.T, k kept) // leaves the folders as save had them at that step
		want  string
	}{
		{"half of the new files", func(t *testing.T, k kept) { write(t, k.dir+".next/a.yaml", "aft") }, "before"},
		{"between the renames", func(t *testing.T, k kept) {
			write(t, k.dir+".next/a.yaml", "after")
			must(t, os.Rename(k.dir, k.dir+".old"))
		}, "before"},
		{"before the old files are removed", func(t *testing.T, k kept) {
			must(t, os.Rename(k.dir, k.dir+".old"))
			write(t, k.dir+"/a.yaml", "after")
		}, "after"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := newKept(t.TempDir(), "policy")
			must(t, k.save(before))
			row.crash(t, k)
			got, err := k.load()
			must(t, err)
			if string(got["a.yaml"]) != row.want {
				t.Errorf("got %q, want %q", got["a.yaml"], row.want)
			}
			must(t, k.save(after))
			if got, err = k.load(); err != nil || string(got["a.yaml"]) != "after" {
				t.Errorf("after another save: got %q, %v, want %q", got["a.yaml"], err, "after")
			}
		})
	}
}

// A save that crashed between the renames, and then another that crashes while it writes, still leave the old files.
func TestKeptFilesOutliveTwoCrashes(t *testing.T) {
	t.Parallel()
	k := newKept(t.TempDir(), "policy")
	must(t, k.save(policy.Files{"a.yaml": []byte("before")}))
	must(t, os.Rename(k.dir, k.dir+".old"))
	if err := k.save(policy.Files{"a.yaml/b.yaml": nil, "a.yaml": nil}); err == nil { // can't be written
		t.Fatal("a file that is a folder was saved")
	}
	if got, err := k.load(); err != nil || string(got["a.yaml"]) != "before" {
		t.Errorf("got %q, %v, want %q", got["a.yaml"], err, "before")
	}
}

// Kept files that can't be used cost the fallback, not the start.
func TestBrokenKeptFiles(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		harm func(t *testing.T, served string)
	}{
		{"a file in place of the folder", func(t *testing.T, served string) {
			must(t, os.RemoveAll(served))
			write(t, served, "")
		}},
		{"a link that leads out", func(t *testing.T, served string) { link(t, "/dev/null", filepath.Join(served, "policy.yaml")) }},
		{"half a file", func(t *testing.T, served string) {
			write(t, filepath.Join(served, "policy.yaml"), "routes: {app: {host")
		}},
		{"no file", func(t *testing.T, served string) { must(t, os.Remove(filepath.Join(served, "policy.yaml"))) }},
		{"garbage", func(t *testing.T, served string) { write(t, filepath.Join(served, "policy.yaml"), "\x00\xff") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			data, dir := t.TempDir(), tree(t, map[string]string{"policy.yaml": "routes: [\n"})
			k := newKept(data, dir)
			must(t, k.save(policy.Files{"policy.yaml": []byte(whole(1))}))
			row.harm(t, k.dir)

			l := start(t, Options{Dir: dir, DataDir: data})
			if o := l.next(); o.Revision != "" || !o.Problems.HasErrors() {
				t.Errorf("over a broken policy: got %+v, want nothing served", o)
			}
			move(t, filepath.Join(dir, "policy.yaml"), whole(2))
			want := revision(t, dir)
			l.serves(want)
			l.served(want)
			k = newKept(data, dir)
			got, err := k.load()
			if row.name == "a file in place of the folder" {
				return // it is not ours to remove
			}
			if err != nil || string(got["policy.yaml"]) != whole(2) {
				t.Errorf("kept after that: %q, %v", got["policy.yaml"], err)
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
			want := revision(t, dir)
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
	l.serves(revision(t, dir))
	l.stop()
	var names []string
	must(t, filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		names = append(names, d.Name())
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "PRIVATE") || strings.Contains(string(text), "c2VjcmV0") {
			t.Errorf("%s holds a private key", path)
		}
		if info, _ := d.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", path, info.Mode())
		}
		return err
	}))
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
	l.serves(revision(t, dir))
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
		want := revision(t, dir)
		l.serves(want)
		write(t, filepath.Join(dir, "more.yaml"), empty)
		if o := l.next(); o.Revision != want || !o.Problems.HasErrors() || o.Problems[0].Pos.File != "more.yaml" {
			t.Errorf("emptied to %q: got %+v, want the revision %s and a problem of more.yaml", empty, o, want)
		}
		must(t, os.Remove(filepath.Join(dir, "more.yaml")))
		l.serves(revision(t, dir))
	}
}

// A policy without a gateway takes nothing away from what is served.
func TestLastGatewayStays(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"gateway.yaml": gateway(1), "app.yaml": team("app", 1)})
	l := start(t, Options{Dir: dir})
	want := revision(t, dir)
	l.serves(want)
	write(t, filepath.Join(dir, "app.yaml"), "services: {app: {endpoints: [\"127.0.0.1:1\"]}}\n")
	l.serves(revision(t, dir))
	want = revision(t, dir)
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
	l.serves(revision(t, dir))
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
