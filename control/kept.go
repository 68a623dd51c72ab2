package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/legation/legation/policy"
)

// kept is the folder of the data directory with the files that were last served, so that a restart over a broken
// directory serves them. It holds policy files only, never secrets.
type kept struct{ dir string }

func newKept(dataDir string) kept {
	if dataDir == "" {
		return kept{}
	}
	return kept{filepath.Join(dataDir, "served")}
}

// load returns the kept files; none when there are none or they can't be read, which costs nothing but the fallback.
func (k kept) load() (policy.Files, error) {
	if k.dir == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(k.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the last good policy: %w", err)
	}
	defer root.Close()
	files, problems := policy.ReadFiles(root.FS())
	if len(problems) > 0 {
		return nil, fmt.Errorf("read the last good policy: %w", problems[0])
	}
	return files, nil
}

// save replaces the kept files in one rename, so that no crash leaves half of them.
func (k kept) save(files policy.Files) error {
	if k.dir == "" {
		return nil
	}
	next, old := k.dir+".next", k.dir+".old"
	for _, dir := range []string{next, old} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("keep the policy: %w", err)
		}
	}
	for name, data := range files {
		path := filepath.Join(next, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("keep the policy: %w", err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return fmt.Errorf("keep the policy: %w", err)
		}
	}
	if err := os.Rename(k.dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the policy: %w", err)
	}
	if err := os.Rename(next, k.dir); err != nil {
		return fmt.Errorf("keep the policy: %w", err)
	}
	return os.RemoveAll(old)
}
