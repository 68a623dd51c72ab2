package store

import (
	"context"
	"iter"
	"time"
)

// Records are small values with an end (sessions) that all processes share. Each operation is one trip.
type Records interface {
	Get(ctx context.Context, name string) ([]byte, error) // nil, nil: none, or it has ended
	Put(ctx context.Context, name string, value []byte, ttl time.Duration) error
	Extend(ctx context.Context, name string, ttl time.Duration) (found bool, err error)
	Delete(ctx context.Context, names ...string) error
}

// Entry is one of a [Board].
type Entry struct {
	Name    string
	Value   []byte    // empty is a value too
	Expires time.Time // whole seconds; zero: never
	Written time.Time // by Redis' clock; set by Put
}

// Board is a table that every process holds whole in its memory, for what is read with each request and changes seldom.
type Board interface {
	// Get gives what this process knows, without a trip; what has expired isn't there.
	Get(name string) (Entry, bool)
	Entries() iter.Seq[Entry]
	// Put returns when the entry is kept; other processes know of it within a second. Of two writes of one name the later
	// counts.
	Put(ctx context.Context, e Entry) error
	// Known tells that the table was read once. Before that nothing is known of what others wrote.
	Known() bool
	Version() uint64 // another after each change, for caches
}
