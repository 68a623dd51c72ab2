package control

import (
	"bytes"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// catalogue is every kind.
func catalogue() []hostile {
	return slices.Concat(texts(), settings(), products(), besides(), directories(), large())
}

// judge does with files what serving and check do, and tells whether they are taken, and what is told.
func judge(lang *policy.Language, files policy.Files) (taken bool, problems policy.Problems, told int) {
	model, problems := lang.Load(files)
	if model != nil {
		compiled, err := Compile(model)
		taken = err == nil && compiled != nil
		problems = append(problems, Problems(err)...)
	}
	var out bytes.Buffer
	_ = problems.Write(&out, files, false)
	return taken, problems, out.Len()
}

// warm has everything made that is made once.
func warm(lang *policy.Language) {
	judge(lang, one(oneGateway, oneService, oneAuth, routes(1, rule("true")))())
}

func BenchmarkHostile(b *testing.B) {
	lang := feature.Language()
	warm(lang)
	for _, h := range catalogue() {
		b.Run(strings.ReplaceAll(h.name, " ", "_"), func(b *testing.B) {
			files := h.files()
			b.ReportAllocs()
			for b.Loop() {
				judge(lang, files)
			}
		})
	}
}

// endless is a folder that has another file for whoever asks.
type endless struct{}

func (*endless) Open(name string) (fs.File, error) {
	if name != "." {
		return nil, fs.ErrNotExist
	}
	return &endlessFolder{}, nil
}

type endlessFolder struct{ read int }

func (*endlessFolder) Stat() (fs.FileInfo, error) { return nil, fs.ErrInvalid }
func (*endlessFolder) Read([]byte) (int, error)   { return 0, fs.ErrInvalid }
func (*endlessFolder) Close() error               { return nil }
func (f *endlessFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	f.read += n
	return slices.Repeat([]fs.DirEntry{endlessEntry{}}, n), nil
}

type endlessEntry struct{}

func (endlessEntry) Name() string               { return "a.yaml" }
func (endlessEntry) IsDir() bool                { return false }
func (endlessEntry) Type() fs.FileMode          { return 0 }
func (endlessEntry) Info() (fs.FileInfo, error) { return nil, fs.ErrInvalid }

func TestEndlessFolderIsLeft(t *testing.T) {
	files, problems := policy.ReadFiles(&endless{})
	if len(files) != 0 || len(problems) != 1 || !strings.Contains(problems[0].Message, "more files than") {
		t.Errorf("got %d files, %v", len(files), problems)
	}
}

// oddities are what may stand in a policy directory besides files, and what is told of it; "" for nothing.
var oddities = []struct {
	name, want string
	make       func(t *testing.T, path string)
}{
	{"fifo.yaml", "not a regular file", func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }},
	{"socket.yaml", "not a regular file", func(t *testing.T, path string) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		must(t, err)
		t.Cleanup(func() { l.Close() })
	}},
	{"folder.yaml", "", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }},
	{"device.yaml", "leads out of", func(t *testing.T, path string) { must(t, os.Symlink("/dev/zero", path)) }},
	{"passwords.yaml", "leads out of", func(t *testing.T, path string) { must(t, os.Symlink("/etc/passwd", path)) }},
	{"upwards.yaml", "leads out of", func(t *testing.T, path string) { must(t, os.Symlink("../../etc/passwd", path)) }},
	{"itself.yaml", "too many others", func(t *testing.T, path string) { must(t, os.Symlink("itself.yaml", path)) }},
	{"nowhere.yaml", "no such file", func(t *testing.T, path string) { must(t, os.Symlink("missing", path)) }},
	{"huge.yaml", "larger than", func(t *testing.T, path string) { // a terabyte of nothing
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, 1<<40))
	}},
	{"huge.endpoints", "", func(t *testing.T, path string) {
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, 1<<40))
	}},
	{"again", "", func(t *testing.T, path string) { must(t, os.Symlink(".", path)) }},
	{"deep", "folders deep", func(t *testing.T, path string) { must(t, os.MkdirAll(path+strings.Repeat("/d", 64), 0o700)) }},
}

// Nothing of that is opened, waited for or followed, and the good files beside are read.
func TestOddFilesAreLeft(t *testing.T) {
	for _, odd := range oddities {
		t.Run(odd.name, func(t *testing.T) {
			dir := tree(t, map[string]string{"good.yaml": whole(80)})
			odd.make(t, filepath.Join(dir, odd.name))
			done := make(chan struct{})
			var files policy.Files
			var problems policy.Problems
			go func() {
				defer close(done)
				files, problems, _ = ReadDir(dir)
			}()
			select {
			case <-done:
			case <-time.After(patience):
				t.Fatal("still reading")
			}
			if len(files) != 1 || files["good.yaml"] == nil {
				t.Errorf("read %d files", len(files))
			}
			switch {
			case odd.want == "" && len(problems) > 0:
				t.Errorf("told %v", problems)
			case odd.want != "" && (len(problems) != 1 || !strings.Contains(problems[0].Message, odd.want)):
				t.Errorf("told %v, want %q", problems, odd.want)
			}
		})
	}
}
