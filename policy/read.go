package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Bounds of the walk through a policy directory.
const (
	maxNames    = 2 * MaxFiles // files and directories of all sorts
	maxFolders  = 32           // levels
	maxLinks    = 16           // links that lead to one file
	entriesRead = 512          // at a time
)

// referable are the endings of files that policy files may refer to.
var referable = []string{
	".json", ".pem", ".crt", ".txt", ".endpoints", // keys, endpoints and the like
	".css", ".csv", ".gif", ".html", ".ico", ".jpg", ".js", ".png", ".svg", ".webmanifest", ".webp", ".xml", // pages
}

// ReadFiles reads the policy directory. Dotfiles, editors' temporary files and files of other kinds are left out;
// links are followed as long as they stay inside. What can't be read is a problem at its file. When the directory as
// a whole can't be policy, such as for the number of its files, no file is returned.
func ReadFiles(fsys fs.FS) (Files, Problems) {
	w := &walk{fsys: fsys, files: make(Files), seen: make(map[string]bool), links: make(map[string]string)}
	if err := w.folder(".", ".", 0); err != nil {
		return nil, append(w.problems, &Problem{Pos: Pos{File: "."}, Message: err.Error()})
	}
	w.problems.sort()
	return w.files, w.problems
}

// walk is one reading of a directory.
type walk struct {
	fsys     fs.FS
	files    Files
	problems Problems
	seen     map[string]bool   // directories by their real names
	links    map[string]string // where links lead: one that is swapped meanwhile, such as ..data, leads all files one way
	entries  int
	total    int
	cases    int64 // bytes of files of cases
}

var errTooMany = errors.New("more files than a policy directory can have")

func (w *walk) fail(name, format string, args ...any) {
	w.problems = append(w.problems, &Problem{Pos: Pos{File: name}, Message: fmt.Sprintf(format, args...)})
}

// folder reads the directory real under the name that it goes by. It fails when nothing may be read at all.
func (w *walk) folder(name, real string, depth int) error {
	if w.seen[real] {
		return nil
	}
	w.seen[real] = true
	if depth > maxFolders {
		w.fail(name, "more than %d folders deep", maxFolders)
		return nil
	}
	entries, err := w.list(real)
	if errors.Is(err, errTooMany) || err != nil && name == "." {
		return plainError(err)
	}
	if err != nil {
		w.fail(name, "%v", plainError(err))
		return nil
	}
	for _, entry := range entries {
		if ignored(entry) {
			continue
		}
		if err := w.entry(path.Join(name, entry), path.Join(real, entry), depth); err != nil {
			return err
		}
	}
	return nil
}

// list gives the names in a directory, sorted, and stops early when they are too many.
func (w *walk) list(real string) ([]string, error) {
	f, err := w.fsys.Open(real)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dir, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, errors.New("not a directory")
	}
	var names []string
	for {
		batch, err := dir.ReadDir(entriesRead)
		for _, e := range batch {
			names = append(names, e.Name())
		}
		if w.entries += len(batch); w.entries > maxNames {
			return nil, errTooMany
		}
		if errors.Is(err, io.EOF) || len(batch) == 0 && err == nil {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// Wanted tells whether [ReadFiles] reads files of this name, without its folder.
func Wanted(name string) bool {
	return !ignored(name) && (IsPolicy(name) || slices.Contains(referable, path.Ext(name)))
}

// ignored tells whether a name is a dotfile or what an editor leaves beside a file.
func ignored(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp") ||
		strings.HasSuffix(name, ".tmp") || strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#")
}

func (w *walk) entry(name, real string, depth int) error {
	wanted := Wanted(name)
	real, info, err := w.follow(real)
	switch {
	case err != nil && wanted:
		w.fail(name, "%v", plainError(err))
	case err != nil:
	case info.IsDir():
		return w.folder(name, real, depth+1)
	case IsTest(name) && info.Mode().IsRegular():
		w.unserved(name, real, info.Size())
	case !wanted:
	case !info.Mode().IsRegular():
		w.fail(name, "not a regular file")
	case info.Size() > maxFile && IsPolicy(name):
		w.fail(name, "larger than %d KiB: split the file", maxFile>>10)
	case info.Size() <= maxFile:
		return w.file(name, real, info.Size())
	}
	return nil
}

// follow gives the real name behind a name that may be a link, or lie below one, and what stands there. It never
// leaves the directory, and opens nothing.
func (w *walk) follow(name string) (string, fs.FileInfo, error) {
	for range maxLinks {
		at, rest := ".", name
		info, err := fs.Lstat(w.fsys, ".")
		for rest != "" && err == nil {
			var step string
			step, rest, _ = strings.Cut(rest, "/")
			at = path.Join(at, step)
			if w.links[at] != "" {
				break
			}
			if info, err = fs.Lstat(w.fsys, at); err == nil && info.Mode()&fs.ModeSymlink != 0 {
				break
			}
		}
		if err != nil {
			return "", nil, err
		}
		target := w.links[at]
		if target == "" {
			if info.Mode()&fs.ModeSymlink == 0 {
				return at, info, nil
			}
			if target, err = fs.ReadLink(w.fsys, at); err != nil {
				return "", nil, err
			}
			w.links[at] = target
		}
		name = path.Join(path.Dir(at), target, rest)
		if path.IsAbs(target) || !fs.ValidPath(name) {
			return "", nil, errors.New("a link that leads out of the policy directory is not followed")
		}
	}
	return "", nil, errors.New("a link that leads to too many others")
}

func (w *walk) file(name, real string, size int64) error {
	content, err := readUpTo(w.fsys, real, size, maxFile)
	if err != nil {
		w.fail(name, "%v", plainError(err))
		return nil
	}
	if w.total += len(content); w.total > MaxTotal {
		return fmt.Errorf("the files are larger than %d MiB together", MaxTotal>>20)
	}
	w.files[name] = content
	return nil
}

// unserved warns of policy in a file of cases: its name alone has kept it from being served.
func (w *walk) unserved(name, real string, size int64) {
	if w.cases += size; size > maxFile || w.cases > MaxTotal {
		return
	}
	content, err := readUpTo(w.fsys, real, size, maxFile)
	if err != nil {
		return
	}
	for _, root := range parse(name, content).roots {
		if key := PolicyIn(root); key != nil {
			p := &Problem{Pos: key.Pos, Path: key.Text, Warning: true, Message: "policy in a file of cases is not served"}
			w.problems = append(w.problems, p.Hintf("files that end in _test.yaml hold cases for legation test: rename it"))
			return
		}
	}
}

// PolicyIn finds policy in a document that is none: the key of its first section, nil where there is none.
func PolicyIn(n *Node) *Node {
	if n.Kind != Map {
		return nil
	}
	for _, key := range n.Keys {
		if slices.Contains(sections, key.Text) {
			return key
		}
	}
	return nil
}

// readUpTo reads a file, which is likely of this size: then it takes one read.
func readUpTo(fsys fs.FS, name string, size, most int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var text bytes.Buffer
	text.Grow(int(size) + bytes.MinRead)
	_, err = text.ReadFrom(io.LimitReader(f, most+1))
	content := slices.Clip(text.Bytes())
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("larger than %d KiB: split the file", most>>10)
	}
	return content, err
}

// plainError leaves out the path of a file error, which stands before it already.
func plainError(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
