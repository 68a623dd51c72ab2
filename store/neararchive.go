package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
)

// NearArchive is an archive that one process keeps in a file, or in its memory.
//
// The file is a line of text and then frames as those of the file of counts: see record.go. The content of one is a byte
// that tells what it is, then of a blob ('b') the length of its name, the name and the blob; of an entry ('e') its number,
// the oldest number that was kept with it, and its value. An entry stands behind the blobs that came with it, and is synced
// before it counts. A frame that can't be read is left out, as is what is torn at the end. The file is written anew, beside
// itself, once most of it is of no use any more.
type NearArchive struct {
	path    string // empty: in memory
	log     *slog.Logger
	changed chan struct{}

	mu      sync.Mutex // guards what follows
	file    *os.File   // nil: in memory, or it can't be written
	size    int64
	entries []Archived // the last one first
	blobs   map[string]blobPlace
	live    int64 // bytes of what is of use
}

// blobPlace is where a blob stands: in the file, or in memory.
type blobPlace struct {
	at, size int64
	value    []byte
}

const (
	archiveHead  = "legation revisions 1\n"
	archiveSlack = 4 << 20 // bytes of no use that are no reason to write the file anew

	frameBlob  = 'b'
	frameEntry = 'e'
)

// OpenArchive opens the archive that this process keeps at path, or in its memory where that is empty. No other process
// may have it open: who calls sees to that. What was wrong with the file is told in the log; the archive then has what
// could be read.
func OpenArchive(path string, log *slog.Logger) (*NearArchive, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &NearArchive{path: path, log: log, changed: make(chan struct{}, 1), blobs: map[string]blobPlace{}}
	if path == "" {
		return a, nil
	}
	if err := a.open(); err != nil {
		return nil, err
	}
	return a, nil
}

// open reads what there is, and goes on behind it.
func (a *NearArchive) open() error {
	file, err := os.OpenFile(a.path, os.O_RDWR|syscall.O_NONBLOCK, 0) // a pipe would wait for who writes
	if errors.Is(err, os.ErrNotExist) {
		return a.rewrite()
	}
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("%s is not a regular file", a.path), err, file.Close())
	}
	a.file = file
	err = a.read(file)
	if err == nil {
		return file.Truncate(a.size) // what is torn may be longer than what comes next
	}
	a.log.Warn("revisions on disk not all read", "path", a.path, "error", err, "read", len(a.entries))
	_ = os.Remove(a.path + ".bad") // of an earlier time
	if err := os.Link(a.path, a.path+".bad"); err != nil {
		return errors.Join(err, file.Close())
	}
	return a.rewrite()
}

// read takes what the file has. What is torn at its end was being written when the process or the machine died: that is no
// trouble, and written over.
func (a *NearArchive) read(file io.Reader) error {
	passed := &counted{from: file}
	r := bufio.NewReaderSize(passed, 256<<10)
	head := make([]byte, len(archiveHead))
	if _, err := io.ReadFull(r, head); err != nil || string(head) != archiveHead {
		return errForeign
	}
	var damage error
	for {
		a.size = passed.n - int64(r.Buffered())
		content, err := readFrame(r, nil)
		switch {
		case err == io.EOF || errors.Is(err, errTorn):
			a.tally()
			return damage
		case errors.Is(err, errCorrupt):
			damage = fmt.Errorf("%w at byte %d", errCorrupt, a.size) // the next frame may well be good
		case err != nil:
			return err
		case !a.take(content, a.size+frameHead):
			damage = fmt.Errorf("%w at byte %d", errCorrupt, a.size)
		}
	}
}

// counted counts what is read.
type counted struct {
	from io.Reader
	n    int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.from.Read(b)
	c.n += int64(n)
	return n, err
}

// take takes the content of a frame that begins at at.
func (a *NearArchive) take(content []byte, at int64) bool {
	r := recordReader{rest: content}
	switch r.bytes(1)[0] {
	case frameBlob:
		name := string(r.bytes(r.length(maxBlobName)))
		if r.bad || name == "" || len(r.rest) > maxBlob {
			return false
		}
		a.blobs[name] = blobPlace{at: at + int64(len(content)-len(r.rest)), size: int64(len(r.rest))}
	case frameEntry:
		number, oldest := r.number(), r.number()
		if r.bad || number < 1 || oldest > number || len(r.rest) > maxArchived {
			return false
		}
		a.put(Archived{number, slices.Clone(r.rest)}, oldest)
	default:
		return false
	}
	return true
}

// put makes e the head.
func (a *NearArchive) put(e Archived, oldest int64) {
	a.entries = slices.DeleteFunc(a.entries, func(o Archived) bool { return o.Number >= e.Number || o.Number < oldest })
	a.entries = lastFirst(append(a.entries, e))
}

// tally counts what is of use.
func (a *NearArchive) tally() {
	a.live = int64(len(archiveHead))
	for name, p := range a.blobs {
		a.live += p.size + int64(len(name)) + frameHead
	}
	for _, e := range a.entries {
		a.live += int64(len(e.Value)) + frameHead
	}
}

// Changed is told of what this process appends.
func (a *NearArchive) Changed() <-chan struct{} { return a.changed }

// Head is the number of the last entry.
func (a *NearArchive) Head(context.Context) (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.head(), nil
}

func (a *NearArchive) head() int64 {
	if len(a.entries) == 0 {
		return 0
	}
	return a.entries[0].Number
}

// Entries gives those that there are.
func (a *NearArchive) Entries(context.Context) ([]Archived, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.entries), nil
}

// Blobs gives those of these names that there are.
func (a *NearArchive) Blobs(_ context.Context, names ...string) (map[string][]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string][]byte, len(names))
	for _, name := range names {
		p, ok := a.blobs[name]
		if !ok {
			continue
		}
		value, err := a.value(p)
		if err != nil {
			return nil, unavailable(fmt.Errorf("read %s: %w", a.path, err))
		}
		all[name] = value
	}
	return all, nil
}

func (a *NearArchive) value(p blobPlace) ([]byte, error) {
	if a.path == "" {
		return p.value, nil
	}
	value := make([]byte, p.size)
	_, err := a.file.ReadAt(value, p.at)
	return value, err
}

// Names are those of all blobs that there are.
func (a *NearArchive) Names(context.Context) ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.blobs)), nil
}

// Append returns once the entry is on disk.
func (a *NearArchive) Append(_ context.Context, add Addition) error {
	if err := add.check(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.head() != add.After {
		return ErrMoved
	}
	places := map[string]blobPlace{}
	var frames []byte
	for _, name := range slices.Sorted(maps.Keys(add.Blobs)) {
		blob := add.Blobs[name]
		frames = appendBlob(frames, name, blob)
		places[name] = blobPlace{at: a.size + int64(len(frames)-len(blob)), size: int64(len(blob)), value: blob}
	}
	e := Archived{add.Number, slices.Clone(add.Value)}
	if err := a.write(appendEntry(frames, e, add.Oldest)); err != nil {
		return unavailable(err)
	}
	for name, p := range places {
		if a.path != "" {
			p.value = nil
		}
		a.blobs[name] = p
	}
	a.put(e, add.Oldest)
	a.tally()
	wake(a.changed)
	return nil
}

// write appends frames to the file, and syncs them. When that fails the file stays as it was.
func (a *NearArchive) write(frames []byte) error {
	if a.path == "" {
		return nil
	}
	_, err := a.file.WriteAt(frames, a.size)
	if err == nil {
		err = a.file.Sync()
	}
	if err != nil {
		return errors.Join(err, a.file.Truncate(a.size))
	}
	a.size += int64(len(frames))
	return nil
}

// Drop forgets blobs. The file is written anew when that makes it much smaller.
func (a *NearArchive) Drop(_ context.Context, head int64, names ...string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.head() != head {
		return nil
	}
	for _, name := range names {
		delete(a.blobs, name)
	}
	a.tally()
	if a.path == "" || a.size <= 2*a.live+archiveSlack {
		return nil
	}
	if err := a.rewrite(); err != nil {
		return unavailable(err)
	}
	return nil
}

// rewrite has a file with what is of use take the place of the old one.
func (a *NearArchive) rewrite() error {
	var places map[string]blobPlace
	var size int64
	next, err := replaced(a.path, func(next *os.File) (err error) {
		places, size, err = a.copy(next)
		return err
	})
	if err != nil {
		return err
	}
	if a.file != nil {
		_ = a.file.Close() // it has no name any more
	}
	a.file, a.size, a.blobs = next, size, places
	a.tally()
	return nil
}

// copy writes what is of use to another file.
func (a *NearArchive) copy(to io.Writer) (places map[string]blobPlace, size int64, err error) {
	w := bufio.NewWriterSize(to, 256<<10)
	places = map[string]blobPlace{}
	put := func(b []byte) {
		if err == nil {
			_, err = w.Write(b)
			size += int64(len(b))
		}
	}
	put([]byte(archiveHead))
	for _, name := range slices.Sorted(maps.Keys(a.blobs)) {
		p := a.blobs[name]
		value, failed := a.value(p)
		if failed != nil {
			return nil, 0, failed
		}
		put(appendBlob(nil, name, value))
		places[name] = blobPlace{at: size - p.size, size: p.size}
	}
	for _, e := range slices.Backward(a.entries) {
		put(appendEntry(nil, e, 0))
	}
	return places, size, errors.Join(err, w.Flush())
}

// Close gives the file up.
func (a *NearArchive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.path == "" {
		return nil
	}
	return a.file.Close()
}

func appendBlob(b []byte, name string, blob []byte) []byte {
	content := append(binary.AppendUvarint([]byte{frameBlob}, uint64(len(name))), name...)
	return appendFrame(b, append(content, blob...))
}

func appendEntry(b []byte, e Archived, oldest int64) []byte {
	content := binary.AppendVarint(binary.AppendVarint([]byte{frameEntry}, e.Number), oldest)
	return appendFrame(b, append(content, e.Value...))
}

// appendFrame appends a frame with this content.
func appendFrame(b, content []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(content)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(content, castagnoli))
	return append(b, content...)
}
