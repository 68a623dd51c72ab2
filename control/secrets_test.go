package control

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// planted stands in every secret of these tests, and may stand nowhere else.
const planted = "planted-4f1c"

// keep writes a secret with this mode.
func keep(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o600))
	must(t, os.Chmod(path, mode)) // whatever the umask is
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	const missing = "file does not exist"
	for _, row := range []struct {
		about, name string
		make        func(t *testing.T, dir, path string)
		wrong       string // part of the error; empty for a good one
	}{
		{"a key of our own", "tls/a.key", func(t *testing.T, _, path string) { keep(t, path, planted, 0o600) }, ""},
		{"that is read only", "tls/a.key", func(t *testing.T, _, path string) { keep(t, path, planted, 0o400) }, ""},
		{"that the group may read", "tls/a.key", func(t *testing.T, _, path string) { keep(t, path, planted, 0o640) }, "others can use it (mode 0640): chmod 600 "},
		{"that all may read", "tls/a.key", func(t *testing.T, _, path string) { keep(t, path, planted, 0o644) }, "chmod 600 "},
		{"that others may only write", "tls/a.key", func(t *testing.T, _, path string) { keep(t, path, planted, 0o602) }, "chmod 600 "},
		{"any text that others may read", "word", func(t *testing.T, _, path string) { keep(t, path, planted, 0o604) }, "chmod 600 "},
		{"a certificate that all may read", "tls/a.crt", func(t *testing.T, _, path string) { keep(t, path, planted, 0o644) }, ""},
		{"a certificate that the group may write", "tls/a.crt", func(t *testing.T, _, path string) { keep(t, path, planted, 0o664) }, "(mode 0664): chmod 644 "},
		{"nothing", "tls/a.key", func(*testing.T, string, string) {}, missing},
		{"a file where a folder should be", "tls/a.key", func(t *testing.T, dir, _ string) { keep(t, filepath.Join(dir, "tls"), planted, 0o600) }, missing},
		{"an empty file", "word", func(t *testing.T, _, path string) { keep(t, path, "", 0o600) }, "is empty"},
		{"a file of the largest size", "word", func(t *testing.T, _, path string) {
			keep(t, path, planted+strings.Repeat("x", maxSecret-len(planted)), 0o600)
		}, ""},
		{"a file beyond it", "word", func(t *testing.T, _, path string) { keep(t, path, planted+strings.Repeat("x", maxSecret), 0o600) }, "larger than 1024 KiB"},
		{"a folder", "word", func(t *testing.T, _, path string) { must(t, os.Mkdir(path, 0o700)) }, "not a regular file"},
		{"a FIFO", "word", func(t *testing.T, _, path string) { must(t, syscall.Mkfifo(path, 0o600)) }, "not a regular file"},
		{"a link to a FIFO", "word", func(t *testing.T, dir, path string) {
			must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
			link(t, "fifo", path)
		}, "not a regular file"},
		{"a mounted secret", "tls/a.key", func(t *testing.T, dir, path string) {
			keep(t, filepath.Join(dir, "tls/..1/a.key"), planted, 0o400)
			link(t, "..1", filepath.Join(dir, "tls/..data"))
			link(t, "..data/a.key", path)
		}, ""},
		{"a link to another file", "tls/a.key", func(t *testing.T, dir, path string) {
			keep(t, filepath.Join(dir, "b.key"), planted, 0o600)
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			link(t, "../b.key", path)
		}, ""},
		{"a link to a file that others may read", "word", func(t *testing.T, dir, path string) {
			keep(t, filepath.Join(dir, "b"), planted, 0o644)
			link(t, "b", path)
		}, "chmod 600 "},
		{"a link to nothing", "word", func(t *testing.T, _, path string) { link(t, "nothing", path) }, missing},
		{"a link to itself", "word", func(t *testing.T, _, path string) { link(t, "word", path) }, "too many levels"},
		{"a link out of the directory", "word", func(t *testing.T, dir, path string) {
			keep(t, filepath.Join(dir, "../outside"), planted, 0o600)
			link(t, "../outside", path)
		}, "out of the secrets directory"},
		{"an absolute link", "word", func(t *testing.T, dir, path string) {
			keep(t, filepath.Join(dir, "b"), planted, 0o600)
			link(t, filepath.Join(dir, "b"), path)
		}, "out of the secrets directory, or an absolute one"},
		{"a folder that leads out of the directory", "out/word", func(t *testing.T, dir, _ string) {
			keep(t, filepath.Join(dir, "../outside/word"), planted, 0o600)
			link(t, "../outside", filepath.Join(dir, "out"))
		}, "out of the secrets directory"},
		{"a name that leads out of the directory", "../outside", func(t *testing.T, dir, _ string) {
			keep(t, filepath.Join(dir, "../outside"), planted, 0o600)
		}, missing},
		{"another user's file", "word", func(t *testing.T, _, path string) {
			keep(t, path, planted, 0o600)
			if err := os.Chown(path, 4711, -1); err != nil {
				t.Skip("only root can give files away")
			}
		}, "belongs to another user (uid 4711): chown "},
		{"a file that may not be read", "word", func(t *testing.T, _, path string) {
			if os.Geteuid() == 0 {
				t.Skip("root reads everything")
			}
			keep(t, path, planted, 0o200)
		}, "which may not read it: chown "},
	} {
		t.Run(row.about, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "secrets")
			must(t, os.Mkdir(dir, 0o700))
			row.make(t, dir, filepath.Join(dir, row.name))
			got, err := Secrets{Dir: dir}.Read().Secret(row.name)
			switch {
			case row.wrong == "" && (err != nil || !strings.HasPrefix(string(got), planted)):
				t.Errorf("got %.20q, %v, want what was planted", got, err)
			case row.wrong != "" && (err == nil || !strings.Contains(err.Error(), row.wrong)):
				t.Errorf("got %v, want %q", err, row.wrong)
			case row.wrong != "" && (got != nil || strings.Contains(err.Error(), planted)):
				t.Errorf("got %.20q, %v: the secret is shown", got, err)
			case errors.Is(err, fs.ErrNotExist) != (row.wrong == missing):
				t.Errorf("got %v, want it to be missing: %v", err, row.wrong == missing)
			}
		})
	}
}

// A file comes before a variable; a bad file is told, not passed over.
func TestSecretVariables(t *testing.T) {
	dir := t.TempDir()
	keep(t, filepath.Join(dir, "both.key"), "of the file", 0o600)
	keep(t, filepath.Join(dir, "bad.key"), "of the file", 0o644)
	for name, value := range map[string]string{
		"BOTH_KEY": "of the variable", "BAD_KEY": "of the variable", "TLS_A_1_KEY": "of the variable", "EMPTY": "",
		"LARGE": strings.Repeat("x", maxSecret+1), "ALL": "of the variable",
	} {
		t.Setenv("LEGATION_SECRET_"+name, value)
	}
	for _, row := range []struct{ dir, name, want, wrong string }{
		{dir, "both.key", "of the file", ""},
		{"", "both.key", "of the variable", ""},
		{dir, "bad.key", "", "chmod 600"},
		{dir, "tls/a-1.key", "of the variable", ""},
		{dir, "empty", "", "LEGATION_SECRET_EMPTY is empty"},
		{dir, "large", "", "LEGATION_SECRET_LARGE holds more than 1024 KiB"},
		{dir, "none", "", "file does not exist"},
		{"", "none", "", "file does not exist"},
		{filepath.Join(dir, "missing"), "all", "of the variable", ""},
		{filepath.Join(dir, "missing"), "none", "", "there is no secrets directory"},
	} {
		got, err := Secrets{Dir: row.dir}.Read().Secret(row.name)
		if string(got) != row.want || (err == nil) != (row.wrong == "") || err != nil && !strings.Contains(err.Error(), row.wrong) {
			t.Errorf("%s in %q: got %.20q, %v, want %q, %q", row.name, row.dir, got, err, row.want, row.wrong)
		}
	}
}

// Two names that come to one variable are both refused, since one of them is not meant; a file settles it.
func TestSecretVariableOfTwoNames(t *testing.T) {
	t.Setenv("LEGATION_SECRET_TLS_A_KEY", planted)
	dir := t.TempDir()
	r := Secrets{Dir: dir}.Read()
	if _, err := r.Secret("tls/a.key"); err != nil {
		t.Errorf("the first: %v", err)
	}
	for _, name := range []string{"tls-a.key", "tls/a.key", "tls-a.key"} {
		if _, err := r.Secret(name); err == nil || !strings.Contains(err.Error(), "both tls-a.key and tls/a.key") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if !r.Still() {
		t.Error("nothing has changed, and it says so not")
	}
	keep(t, filepath.Join(dir, "tls-a.key"), planted, 0o600)
	r = Secrets{Dir: dir}.Read()
	for _, name := range []string{"tls/a.key", "tls-a.key"} {
		if _, err := r.Secret(name); err != nil {
			t.Errorf("with a file, %s: %v", name, err)
		}
	}
}

// A reading answers the same as long as it lives, and knows when that is no longer how it is.
func TestReadingStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "word")
	for _, row := range []struct {
		about string
		do    func()
		still bool
	}{
		{"nothing", func() {}, true},
		{"another file", func() { keep(t, filepath.Join(dir, "other"), "new", 0o600) }, true},
		{"the same again", func() { keep(t, path, "old", 0o600) }, true},
		{"another text", func() { keep(t, path, "new", 0o600) }, false},
		{"another mode", func() { keep(t, path, "old", 0o644) }, false},
		{"the end", func() { must(t, os.Remove(path)) }, false},
	} {
		keep(t, path, "old", 0o600)
		r := Secrets{Dir: dir}.Read()
		_, _ = r.Secret("word")
		row.do()
		if got, err := r.Secret("word"); string(got) != "old" || err != nil {
			t.Errorf("%s: got %q, %v", row.about, got, err)
		}
		if got := r.Still(); got != row.still {
			t.Errorf("%s: still as it was: got %v, want %v", row.about, got, row.still)
		}
	}
}
