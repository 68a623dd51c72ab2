package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Archive is a short history, such as that of policies: numbered entries, each of which takes the place of the one
// before as the head, and the blobs that they name. Who writes says what is not needed any more.
type Archive interface {
	// Head is the number of the last entry; 0 while there is none.
	Head(ctx context.Context) (int64, error)
	// Entries gives those that there are, the last one first.
	Entries(ctx context.Context) ([]Archived, error)
	// Blobs gives those of these names that there are.
	Blobs(ctx context.Context, names ...string) (map[string][]byte, error)
	// Append returns without an error once the entry is the head, on disk or in Redis; [ErrMoved] when the head was another
	// than a.After. After [ErrUnavailable] it isn't known whether it was written.
	Append(ctx context.Context, a Addition) error
	// Names are those of all blobs that there are.
	Names(ctx context.Context) ([]string, error)
	// Drop forgets blobs, unless the head is another by now.
	Drop(ctx context.Context, head int64, names ...string) error
	// Changed is sent to when the head may have moved. One receiver is told.
	Changed() <-chan struct{}
}

// Archived is an entry of an [Archive].
type Archived struct {
	Number int64
	Value  []byte
}

// Addition is what [Archive.Append] adds.
type Addition struct {
	After  int64             // the head that it takes the place of; 0: there is none
	Number int64             // above After
	Value  []byte            // at most 64 KiB
	Blobs  map[string][]byte // that aren't there yet; at most 3 MiB each, under names of at most 128 bytes
	Oldest int64             // entries of lower numbers are forgotten
}

// ErrMoved is what [Archive.Append] wraps when something was appended meanwhile.
var ErrMoved = errors.New("the head has moved")

// Bounds of an archive.
const (
	maxArchived = 64 << 10 // bytes of an entry
	maxBlob     = 3 << 20  // bytes of a blob
	maxBlobName = 128      // bytes
)

func (a Addition) check() error {
	switch {
	case a.Number <= a.After || a.After < 0 || a.Oldest > a.Number:
		return fmt.Errorf("%w: number %d after %d, %d the oldest", ErrEntry, a.Number, a.After, a.Oldest)
	case len(a.Value) > maxArchived:
		return fmt.Errorf("%w: a value of %d bytes, at most %d", ErrEntry, len(a.Value), maxArchived)
	}
	for name, blob := range a.Blobs {
		switch {
		case name == "" || len(name) > maxBlobName:
			return fmt.Errorf("%w: a blob's name of %d bytes, want 1 to %d", ErrEntry, len(name), maxBlobName)
		case len(blob) > maxBlob:
			return fmt.Errorf("%w: a blob of %d bytes, at most %d", ErrEntry, len(blob), maxBlob)
		}
	}
	return nil
}

// lastFirst sorts entries.
func lastFirst(all []Archived) []Archived {
	slices.SortFunc(all, func(a, b Archived) int { return int(b.Number - a.Number) })
	return all
}

// Archive gives the archive of a name that processes share by way of Redis; nil without Redis: see [OpenArchive].
func (s *Shared) Archive(name string) Archive {
	if s.far == nil {
		return nil
	}
	a := newFarArchive(s.far, "legation:{archive:"+name+"}")
	s.tasks.Go(func() { a.run(s.alive) })
	s.tasks.Go(func() { a.listen(s.alive) })
	return a
}
