package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/legation/legation/policy"
)

// Secrets is where the secrets are kept that policy files name: in files below Dir, else in variables of the
// environment. Nothing of their content ever stands in an error.
type Secrets struct {
	Kinds []policy.SecretKind // that are looked up; none: all
	Dir   string              // empty: the environment alone is looked at
}

// maxSecret is the size of the largest file or variable, in bytes: a bundle of all public authorities has 200 KiB.
const maxSecret = 1 << 20

// Read begins a reading of the secrets.
func (s Secrets) Read() *Reading {
	return &Reading{from: s, known: make(map[string]content), names: make(map[string]string)}
}

// Reading is one look at the secrets: what it was asked for once it goes on answering, so that all loads of one policy
// see the same. It is a [policy.SecretSource], for one goroutine.
type Reading struct {
	from  Secrets
	known map[string]content
	names map[string]string // by variable, of what it was taken for
}

// content is what was found under a name.
type content struct {
	data []byte
	err  error
}

// Secret returns what is kept under a name.
func (r *Reading) Secret(name string) ([]byte, error) {
	c, ok := r.known[name]
	if !ok {
		c.data, c.err = r.read(name)
		r.known[name] = c
	}
	return c.data, c.err
}

// Still tells whether everything is as it was read. What was swapped while we read may have come from either side.
func (r *Reading) Still() bool {
	again := r.from.Read()
	for _, name := range slices.Sorted(maps.Keys(r.known)) {
		_, _ = again.Secret(name)
	}
	return maps.EqualFunc(r.known, again.known, func(a, b content) bool {
		return bytes.Equal(a.data, b.data) && (a.err == nil) == (b.err == nil)
	})
}

// read looks for a file, then for a variable.
func (r *Reading) read(name string) ([]byte, error) {
	data, err := r.from.file(name)
	if _, gone := errors.AsType[absent](err); !gone && !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	variable := policy.SecretVariable(name)
	value, ok := os.LookupEnv(variable)
	if !ok {
		return nil, err
	}
	if other, taken := r.names[variable]; taken && other != name {
		err := fmt.Errorf("%s is the variable of both %s and %s: rename one of them, or put it into a file below --secrets-dir", variable,
			min(name, other), max(name, other))
		r.known[other] = content{err: err}
		return nil, err
	}
	r.names[variable] = name
	switch {
	case value == "":
		return nil, fmt.Errorf("the variable %s is empty", variable)
	case len(value) > maxSecret:
		return nil, fmt.Errorf("the variable %s holds more than %d KiB", variable, maxSecret>>10)
	}
	return []byte(value), nil
}

// file reads a file below the directory. Links inside the directory are followed, as mounted secrets have them.
func (s Secrets) file(name string) ([]byte, error) {
	if s.Dir == "" || !fs.ValidPath(name) || name == "." {
		return nil, fs.ErrNotExist
	}
	root, err := os.OpenRoot(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, absent(s.Dir)
	}
	if err != nil {
		return nil, plain(err, s.Dir)
	}
	defer root.Close()
	path := filepath.Join(s.Dir, filepath.FromSlash(name))
	// Without O_NONBLOCK a FIFO would wait for its writer.
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, plain(err, path)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, plain(err, path)
	}
	if err := usable(info, path); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return nil, plain(err, path)
	case len(data) > maxSecret:
		return nil, fmt.Errorf("it is larger than %d KiB", maxSecret>>10)
	case len(data) == 0:
		return nil, errors.New("it is empty")
	}
	return data, nil
}

// usable tells what is wrong with a file that is to hold a secret: others may read or change it, or it is no file.
func usable(info fs.FileInfo, path string) error {
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	mode, forbidden, cure := info.Mode().Perm(), fs.FileMode(0o077), "600"
	if strings.HasSuffix(path, ".crt") { // no secret by itself
		forbidden, cure = 0o022, "644"
	}
	if mode&forbidden != 0 {
		return fmt.Errorf("others can use it (mode %04o): chmod %s %s", mode, cure, path)
	}
	us := os.Geteuid()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != us {
		return fmt.Errorf("it belongs to another user (uid %d): chown %d %s", stat.Uid, us, path)
	}
	return nil
}

// absent is a secrets directory that is not there: a variable may hold what it would.
type absent string

func (a absent) Error() string { return "there is no secrets directory " + string(a) }

// plain says in our words what the system says of a path. What is not there is [fs.ErrNotExist].
func plain(err error, path string) error {
	cause := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		cause = e.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fs.ErrNotExist
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("legation runs as uid %d, which may not read it: chown %[1]d %s", os.Geteuid(), path)
	case errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.EISDIR):
		return errors.New("it is not a regular file")
	case strings.Contains(cause.Error(), "escapes"): // os keeps the error to itself
		return errors.New("it is a link out of the secrets directory, or an absolute one: put the file itself there, or a relative link")
	default:
		return cause
	}
}

// secretFile tells whether a file below the secrets directory may be a secret, by its name without the folder: not what
// editors and copies leave, or have not finished.
func secretFile(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, "~") && !strings.HasSuffix(name, ".swp") && !strings.HasSuffix(name, ".tmp")
}
