package revision

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/store"
)

// Bounds of a history: past the first it is cut to the second, past the third to three quarters of it.
const (
	mostRevisions = 120
	keptRevisions = 100
	mostStored    = 256 << 20 // bytes, compressed
)

// History is the revisions of a policy. Several processes may share one.
type History struct {
	archive store.Archive
	log     *slog.Logger
	most    int64 // bytes that are stored; past it three quarters stay

	mu     sync.Mutex   // guards what follows
	listed manifest     // of the revision that was appended or read last: most of the next one's files are the same
	name   string       // of that manifest
	added  policy.Files // the files that it lists, where they were appended; else nil
}

// New returns the history that an archive has.
func New(a store.Archive, log *slog.Logger) *History {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &History{archive: a, log: log, most: mostStored}
}

// Changed is sent to when there may be another head; one receiver is told.
func (h *History) Changed() <-chan struct{} { return h.archive.Changed() }

// List gives the revisions that there are, the last one first. What can't be read is left out.
func (h *History) List(ctx context.Context) ([]Revision, error) {
	entries, err := h.archive.Entries(ctx)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	var all []Revision
	for _, e := range entries {
		r, err := decode(e.Value)
		if err == nil && r.Number != e.Number {
			err = fmt.Errorf("%w: it says that it is %d", ErrDamaged, r.Number)
		}
		if err == nil {
			err = r.check() // it is shown to people
		}
		if err != nil {
			h.log.Warn("revision not readable", "number", e.Number, "error", err)
			continue
		}
		all = append(all, r)
	}
	return all, nil
}

// Head is the last revision; its Number is 0 while there is none.
func (h *History) Head(ctx context.Context) (Revision, error) {
	all, err := h.List(ctx)
	if err != nil || len(all) == 0 {
		return Revision{}, err
	}
	return all[0], nil
}

// Find finds the revision that a text names: see [IsRef].
func (h *History) Find(ctx context.Context, text string) (Revision, error) {
	all, err := h.List(ctx)
	if err != nil {
		return Revision{}, err
	}
	return find(all, text)
}

// Files gives the files of a revision.
func (h *History) Files(ctx context.Context, r Revision) (policy.Files, error) {
	files, err := h.files(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("revision %d: %w", r.Number, err)
	}
	return files, nil
}

func (h *History) files(ctx context.Context, r Revision) (policy.Files, error) {
	m, err := h.manifest(ctx, r.Manifest)
	if err != nil {
		return nil, err
	}
	blobs, err := h.archive.Blobs(ctx, m.blobs()...)
	if err != nil {
		return nil, err
	}
	files := make(policy.Files, len(m))
	known := map[string][]byte{} // several files may have one content
	for name, f := range m {
		content, ok := known[f.Blob]
		if !ok {
			if content, err = unpack(f.Blob, blobs[f.Blob], f.Size); err != nil {
				return nil, fmt.Errorf("file %s: %w", name, err)
			}
			known[f.Blob] = content
		}
		files[name] = content
	}
	return files, nil
}

// manifest gives the one of a name.
func (h *History) manifest(ctx context.Context, name string) (manifest, error) {
	h.mu.Lock()
	listed, known := h.listed, h.name == name
	h.mu.Unlock()
	if known {
		return listed, nil
	}
	blobs, err := h.archive.Blobs(ctx, name)
	if err != nil {
		return nil, err
	}
	m, err := readManifest(name, blobs[name])
	if err != nil {
		return nil, fmt.Errorf("list of files: %w", err)
	}
	h.remember(name, m, nil)
	return m, nil
}

func (h *History) remember(name string, m manifest, files policy.Files) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.name, h.listed, h.added = name, m, files
}

// appended is the files of a manifest, where they are at hand.
func (h *History) appended(name string) policy.Files {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name != h.name {
		return nil
	}
	return h.added
}

// Append makes a revision of these files the head, in the place of r.Parent, and gives it with what it lacked. [ErrMoved]
// is that r.Parent is not the head. Files that hold private keys are left out.
func (h *History) Append(ctx context.Context, r Revision, files policy.Files) (Revision, error) {
	if err := r.check(); err != nil {
		return r, err
	}
	all, err := h.List(ctx)
	if err != nil {
		return r, err
	}
	head := Revision{}
	if len(all) > 0 {
		head = all[0]
	}
	if head.Number != r.Parent {
		return r, fmt.Errorf("%w: revision %d is the last one, and this one builds on %d", ErrMoved, head.Number, r.Parent)
	}
	r.Number = max(r.Number, r.Parent+1)
	files = Kept(files)
	add, listed, err := h.addition(ctx, &r, head, files)
	if err != nil {
		return r, err
	}
	var needed map[string]bool
	if len(all) >= mostRevisions || head.Stored > h.most {
		added := r.Stored - head.Stored
		if needed, add.Oldest, r.Stored, err = h.cut(ctx, all, add, listed); err != nil {
			return r, err
		}
		r.Stored += added
	}
	if add.Value, err = encode(r); err != nil {
		return r, err
	}
	if err := h.archive.Append(ctx, add); errors.Is(err, store.ErrMoved) {
		return r, fmt.Errorf("%w: another one was accepted on top of revision %d at the same moment", ErrMoved, r.Parent)
	} else if err != nil {
		return r, fmt.Errorf("revision %d: %w", r.Number, err)
	}
	h.remember(r.Manifest, listed, files)
	if needed != nil {
		h.clear(ctx, r, needed)
	}
	return r, nil
}

// addition is what is stored of a revision, and its manifest; it completes r.
func (h *History) addition(ctx context.Context, r *Revision, head Revision, files policy.Files) (store.Addition, manifest, error) {
	var before manifest
	if head.Number > 0 {
		before, _ = h.manifest(ctx, head.Manifest) // one that can't be read costs that all is stored anew
	}
	add := store.Addition{After: r.Parent, Number: r.Number, Blobs: map[string][]byte{}}
	stored := map[string]int64{}
	for _, f := range before {
		stored[f.Blob] = f.Stored
	}
	r.Files, r.Bytes, r.Stored = len(files), 0, head.Stored
	listed := make(manifest, len(files))
	had := h.appended(head.Manifest)
	for name, content := range files {
		if same, ok := had[name]; ok && bytes.Equal(same, content) {
			listed[name] = before[name]
			r.Bytes += int64(len(content))
			continue
		}
		if !fs.ValidPath(name) || !shows(name) {
			return add, nil, fmt.Errorf("%w: %.64q is no name of a file", ErrInvalid, name)
		}
		blob := sum(content)
		if _, ok := stored[blob]; !ok {
			add.Blobs[blob] = pack(content)
			stored[blob] = int64(len(add.Blobs[blob]))
			r.Stored += stored[blob]
		}
		listed[name] = file{Blob: blob, Size: int64(len(content)), Stored: stored[blob]}
		r.Bytes += int64(len(content))
	}
	if len(files) > maxFiles || r.Bytes > policy.MaxTotal {
		return add, nil, fmt.Errorf("%w: %d files of %d bytes together are more than a policy has", ErrInvalid, len(files), r.Bytes)
	}
	text, err := json.Marshal(listed)
	if err != nil {
		return add, nil, err
	}
	r.Manifest = sum(text)
	if r.Manifest != head.Manifest {
		add.Blobs[r.Manifest] = pack(text)
		r.Stored += int64(len(add.Blobs[r.Manifest]))
	}
	r.Changed = listed.changes(before)
	return add, listed, nil
}

// cut tells the oldest revision that stays once another one is there, all blobs that are needed then, and the bytes of
// those that are there already.
func (h *History) cut(ctx context.Context, all []Revision, add store.Addition, listed manifest) (needed map[string]bool, oldest, size int64, err error) {
	needed = map[string]bool{}
	for name := range add.Blobs {
		needed[name] = true
	}
	for i, r := range append([]Revision{{Number: add.Number}}, all[:min(len(all), keptRevisions-1)]...) {
		m := listed
		if i > 0 {
			if m, err = h.manifest(ctx, r.Manifest); errors.Is(err, store.ErrUnavailable) {
				return nil, 0, 0, err
			}
		}
		more := int64(0)
		for _, f := range m {
			if !needed[f.Blob] {
				more += f.Stored
			}
		}
		if i > 1 && size+more > h.most/4*3 { // the one before stays in any case
			break
		}
		oldest, size, needed[r.Manifest] = r.Number, size+more, true
		for _, f := range m {
			needed[f.Blob] = true
		}
	}
	return needed, oldest, size, nil
}

// clear drops the blobs that no revision needs any more.
func (h *History) clear(ctx context.Context, head Revision, needed map[string]bool) {
	names, err := h.archive.Names(ctx)
	if err == nil {
		names = slices.DeleteFunc(names, func(name string) bool { return needed[name] })
		slices.Sort(names)
		err = h.archive.Drop(ctx, head.Number, names...)
	}
	if err != nil {
		h.log.Warn("old revisions not cleared away", "error", err) // the next cut does
	}
}

// Names are those of the files of a revision, with their sizes in bytes.
func (h *History) Names(ctx context.Context, r Revision) (map[string]int64, error) {
	m, err := h.manifest(ctx, r.Manifest)
	if err != nil {
		return nil, fmt.Errorf("revision %d: %w", r.Number, err)
	}
	sizes := make(map[string]int64, len(m))
	for name, f := range m {
		sizes[name] = f.Size
	}
	return sizes, nil
}
