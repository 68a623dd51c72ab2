package control

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/legation/legation/policy"
)

// kept is the folder of the data directory with the files that were last served from a policy directory, so that a
// restart while that is broken serves them. It holds policy files only, never secrets.
type kept struct {
	dir   string
	saved policy.Files // what is there; nil where that is not known
}

func newKept(dataDir, policyDir string) kept {
	if dataDir == "" {
		return kept{}
	}
	if absolute, err := filepath.Abs(policyDir); err == nil {
		policyDir = absolute // another directory's policy is no fallback for this one
	}
	sum := sha256.Sum256([]byte(policyDir))
	return kept{dir: filepath.Join(dataDir, "served-"+hex.EncodeToString(sum[:6]))}
}

// load returns the kept files; none when there are none or they can't be read, which costs nothing but the fallback.
func (k *kept) load() (policy.Files, error) {
	if k.dir == "" {
		return nil, nil
	}
	if err := k.mend(); err != nil {
		return nil, fmt.Errorf("read the last good policy: %w", err)
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
	k.saved = files
	return files, nil
}

// mend puts back what a crash between the two renames of save has left under the old name.
func (k *kept) mend() error {
	if _, err := os.Lstat(k.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(k.dir+".old", k.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// save replaces the kept files in one rename, so that no crash leaves half of them. Those that are there already are
// linked, not written again.
func (k *kept) save(files policy.Files) error {
	if k.dir == "" {
		return nil
	}
	saved := k.saved
	k.saved = nil
	if err := k.replace(files, saved); err != nil {
		return fmt.Errorf("keep the policy: %w", err)
	}
	k.saved = files
	return nil
}

func (k *kept) replace(files, saved policy.Files) error {
	if err := k.mend(); err != nil {
		return err
	}
	next, old := k.dir+".next", k.dir+".old"
	for _, dir := range []string{next, old} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(next, 0o700); err != nil {
		return err
	}
	folders := map[string]bool{next: true} // that are there
	for name, data := range files {
		if secret(name, data) {
			continue
		}
		local := filepath.FromSlash(name)
		path := filepath.Join(next, local)
		if folder := filepath.Dir(path); !folders[folder] {
			if err := os.MkdirAll(folder, 0o700); err != nil {
				return err
			}
			folders[folder] = true
		}
		if was, ok := saved[name]; ok && bytes.Equal(was, data) && os.Link(filepath.Join(k.dir, local), path) == nil {
			continue
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	if err := os.Rename(k.dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(next, k.dir); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// secret tells whether a file that is no policy holds a private key, in PEM or as a JWK. A policy refers to public keys
// only; a private one merely lies beside them.
func secret(name string, data []byte) bool {
	return !policy.IsPolicy(name) && (bytes.Contains(data, []byte("PRIVATE KEY")) || privateJWK.Match(data))
}

// privateJWK finds the members that only private and symmetric keys have.
var privateJWK = regexp.MustCompile(`"(d|k)"\s*:\s*"`)
