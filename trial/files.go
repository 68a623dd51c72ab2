package trial

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// Bounds of the search for test files.
const (
	maxFiles  = 1_000
	maxNames  = 2 * policy.MaxFiles // files and folders of all sorts
	maxLength = 1<<20 + 1           // bytes of a file, and one by which a larger one is told
)

// readTests reads the test files (*_test.yaml) below a folder. Dotfiles are left out; links are followed to files inside it.
// The names begin with the prefix.
func readTests(dir, prefix string) (map[string][]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("folder of cases: %w", err)
	}
	defer root.Close()
	files, seen := map[string][]byte{}, 0
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if seen++; seen > maxNames {
			return fmt.Errorf("%s: more than %d files and folders", dir, maxNames)
		}
		switch base := path.Base(name); {
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(base, "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir() || !policy.IsTest(base):
			return nil
		}
		content, err := read(root, name)
		if err != nil || content == nil {
			return err
		}
		if files[path.Join(prefix, name)] = content; len(files) > maxFiles {
			return fmt.Errorf("%s: more than %d files of cases", dir, maxFiles)
		}
		return nil
	})
	return files, err
}

// read reads a file, but nothing that is none or leads elsewhere.
func read(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("file of cases %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("file of cases %s: %w", name, err)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxLength))
	return content, errors.Join(err, f.Close())
}

// parse reads the cases of files, in the order of their names.
func parse(contents map[string][]byte) []*File {
	var all []*File
	for name, content := range contents {
		f := &File{name: name}
		f.doc = policy.ReadDocument(name, content, f)
		if f.node == nil && len(f.doc.Problems()) == 0 {
			f.Cases = nil // nothing but comments
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *File) int { return cmp.Compare(a.name, b.name) })
	return all
}

// problems is everything wrong with the files.
func problems(files []*File) policy.Problems {
	var all policy.Problems
	for _, f := range files {
		all = append(all, f.doc.Problems()...)
	}
	return all
}
