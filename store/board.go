package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Entry of a [Board].
type Entry struct {
	Name    string    // any bytes, 1 to 4096 of them
	Value   []byte    // at most 64 KiB; empty is a value too. What a Board gives is not to be changed
	Expires time.Time // whole seconds; zero: never. One that has passed takes the entry away
	Written time.Time // by Redis' clock; set by Put
}

// Board is a table that every process holds whole in its memory, for what is read with each request and changes seldom.
// Entries that Redis loses are written back by the processes that know them.
type Board interface {
	// Get is what this process knows. It makes no trip, and never waits for who writes. Expired entries aren't there.
	Get(name string) (Entry, bool)
	// Entries gives those that are there from beginning to end; of those that change meanwhile, either state.
	Entries() iter.Seq[Entry]
	// Put returns without an error once Redis has the entry, or the disk where there is no Redis. Other processes know it
	// within 1 s. Of two of one name the later wins. After [ErrUnavailable] it isn't known whether it was written.
	Put(ctx context.Context, e Entry) error
	// Known tells whether the board has been read once, from Redis or from this process's own copy on disk. Before that
	// nothing is known of what others wrote.
	Known() bool
	// Version is another after each change. That an entry expires is none.
	Version() uint64
}

// ErrEntry is what [Board.Put] and [Records] wrap when something can't be kept: its name or value is too long, or the
// board is full.
var ErrEntry = errors.New("invalid entry")

const (
	boardMost = 1_000_000
	lingers   = 60 // s that an entry is kept after it has expired: clocks differ
)

// board is a Board, alone in this process or by way of its mirror.
type board struct {
	name    string
	table   *table
	ledger  *ledger // nil: none
	mirror  *mirror // nil: alone
	known   atomic.Bool
	contact atomic.Int64 // when it was last seen to be as Redis has it, in µs since 1970; 0: never
	version atomic.Uint64
	most    int // entries

	mu sync.Mutex // held by who writes
}

func newBoard(name string, l *ledger) *board {
	return &board{name: name, table: newTable(), ledger: l, most: boardMost}
}

func (b *board) Known() bool     { return b.known.Load() }
func (b *board) Version() uint64 { return b.version.Load() }

func (b *board) Get(name string) (Entry, bool) {
	h := b.table.get(name)
	if h == nil || h.expires > 0 && h.expired(time.Now().Unix()) {
		return Entry{}, false
	}
	return h.entry(), true
}

func (b *board) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		now := time.Now().Unix()
		for h := range b.table.all() {
			if !h.expired(now) && !yield(h.entry()) {
				return
			}
		}
	}
}

func (h *row) entry() Entry {
	e := Entry{Name: h.name, Value: h.value, Written: time.UnixMicro(h.written)}
	if h.expires > 0 {
		e.Expires = time.Unix(h.expires, 0)
	}
	return e
}

// row is what a table holds of an entry that is put.
func (e Entry) row() (*row, error) {
	h := &row{name: e.Name, value: append([]byte{}, e.Value...)}
	if !e.Expires.IsZero() {
		h.expires = max(1, e.Expires.Unix())
	}
	switch {
	case e.Name == "" || len(e.Name) > maxName:
		return nil, fmt.Errorf("%w: a name of %d bytes, want 1 to %d", ErrEntry, len(e.Name), maxName)
	case len(e.Value) > maxValue:
		return nil, fmt.Errorf("%w: a value of %d bytes, at most %d", ErrEntry, len(e.Value), maxValue)
	case h.expires > math.MaxUint32*4:
		return nil, fmt.Errorf("%w: it expires in %d", ErrEntry, e.Expires.Year())
	}
	return h, nil
}

func (b *board) Put(ctx context.Context, e Entry) error {
	h, err := e.row()
	if err == nil && b.mirror != nil {
		err = b.mirror.put(ctx, h)
	} else if err == nil {
		err = b.put(ctx, h)
	}
	if err != nil {
		return fmt.Errorf("board %s: %w", b.name, err)
	}
	return nil
}

// put writes an entry that only this process knows.
func (b *board) put(ctx context.Context, h *row) error {
	b.mu.Lock()
	old := b.table.get(h.name)
	if old == nil && b.table.n.Load() >= int64(b.most) {
		b.mu.Unlock()
		return errFull
	}
	h.written = time.Now().UnixMicro()
	if old != nil {
		h.written = max(h.written, old.written+1)
	}
	if h.expires > 0 {
		h.until = h.expires + lingers
	}
	f := b.set(h)
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	if err := b.ledger.wait(ctx, f); err != nil {
		return unavailable(err)
	}
	return nil
}

var errFull = fmt.Errorf("%w: it holds as many as it may", ErrEntry)

// apply has the table know an entry, unless it knows a later one. It gives the one that the table knows then.
func (b *board) apply(h *row) *row {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.table.get(h.name); old != nil && old.compare(h) >= 0 {
		return old
	}
	b.set(h)
	return h
}

// set is for who holds the lock.
func (b *board) set(h *row) *flush {
	b.table.put(h)
	b.version.Add(1)
	return b.ledger.append(&note{kind: noteEntry, group: b.name, row: h})
}

// remove forgets an entry.
func (b *board) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.table.remove(name)
	b.version.Add(1)
	b.ledger.append(&note{kind: noteRemoved, group: b.name, row: &row{name: name}})
}

// sum is that of what the table has.
func (b *board) sum() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.table.sum
}

// over gives the names whose time was over, some at a time.
func (b *board) over(now int64, most int) (names []string) {
	for h := range b.table.all() {
		if h.over(now) {
			names = append(names, h.name)
		}
		if len(names) == most {
			break
		}
	}
	return names
}

// sweep forgets what is over.
func (b *board) sweep(now int64) {
	for _, name := range b.over(now, 1000) {
		b.remove(name)
	}
}
