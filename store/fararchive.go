package store

import (
	"context"
	_ "embed" // the script
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed archive.lua
var archiveSource string

var archiveScript = redis.NewScript(archiveSource)

// farArchive is an archive that Redis keeps, all of it in one slot. Redis tells the channel of the archive of each new
// head, and is asked for it each second besides.
type farArchive struct {
	far     *far
	key     string
	changed chan struct{}
	heard   chan struct{}
	told    atomic.Pointer[string] // where the archive stood when Changed was sent to
}

const (
	archiveTimeout = 2 * time.Second // of a trip
	archivePoll    = time.Second
	blobsAtOnce    = 200     // of a trip: Redis does nothing else meanwhile
	bytesAtOnce    = 1 << 20 // and bytes of them, about
)

func newFarArchive(f *far, key string) *farArchive {
	return &farArchive{far: f, key: key, changed: make(chan struct{}, 1), heard: make(chan struct{}, 1)}
}

func (a *farArchive) entries() string { return a.key + ":entries" }
func (a *farArchive) blobs() string   { return a.key + ":blobs" }

func (a *farArchive) Changed() <-chan struct{} { return a.changed }

func (a *farArchive) trip(ctx context.Context, do func(context.Context) error) error {
	return a.far.trip(ctx, a.key, archiveTimeout, do)
}

func (a *farArchive) Head(ctx context.Context) (head int64, err error) {
	err = a.trip(ctx, func(ctx context.Context) error {
		head, err = a.far.client.Get(ctx, a.key).Int64()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	return head, err
}

func (a *farArchive) Entries(ctx context.Context) (all []Archived, err error) {
	err = a.trip(ctx, func(ctx context.Context) error {
		values, err := a.far.client.HGetAll(ctx, a.entries()).Result()
		for number, value := range values {
			if n, err := strconv.ParseInt(number, 10, 64); err == nil {
				all = append(all, Archived{n, []byte(value)})
			}
		}
		return err
	})
	return lastFirst(all), err
}

func (a *farArchive) Blobs(ctx context.Context, names ...string) (map[string][]byte, error) {
	all := make(map[string][]byte, len(names))
	for part := range slices.Chunk(names, blobsAtOnce) {
		err := a.trip(ctx, func(ctx context.Context) error {
			values, err := a.far.client.HMGet(ctx, a.blobs(), part...).Result()
			for i, v := range values {
				if text, ok := v.(string); ok {
					all[part[i]] = []byte(text)
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (a *farArchive) Names(ctx context.Context) (names []string, err error) {
	err = a.trip(ctx, func(ctx context.Context) error {
		names, err = a.far.client.HKeys(ctx, a.blobs()).Result()
		return err
	})
	return names, err
}

// Append writes the blobs first, some at a time. Those of one who comes too late may be dropped at once: then they are
// written again, in case the head is still the same.
func (a *farArchive) Append(ctx context.Context, add Addition) error {
	if err := add.check(); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(add.Blobs))
	for range appendTries {
		if err := a.write(ctx, names, add.Blobs); err != nil {
			return err
		}
		arguments := []any{"append", add.After, add.Number, add.Value, add.Oldest}
		for _, name := range names {
			arguments = append(arguments, name)
		}
		switch answer, err := a.script(ctx, arguments); {
		case err != nil:
			return err
		case answer == 0:
			return ErrMoved
		case answer > 0:
			return nil
		}
	}
	return unavailable(errors.New("blobs are lost as soon as they are written"))
}

// appendTries bounds how often blobs are written.
const appendTries = 3

// write writes blobs.
func (a *farArchive) write(ctx context.Context, names []string, blobs map[string][]byte) error {
	var pairs []any
	size := 0
	send := func() error {
		if len(pairs) == 0 {
			return nil
		}
		err := a.trip(ctx, func(ctx context.Context) error { return a.far.client.HSet(ctx, a.blobs(), pairs...).Err() })
		pairs, size = nil, 0
		return err
	}
	for _, name := range names {
		pairs = append(pairs, name, blobs[name])
		if size += len(blobs[name]); size >= bytesAtOnce || len(pairs) >= 2*blobsAtOnce {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}

func (a *farArchive) script(ctx context.Context, arguments []any) (answer int64, err error) {
	err = a.trip(ctx, func(ctx context.Context) error {
		answer, err = archiveScript.Run(ctx, a.far.client, []string{a.key, a.entries(), a.blobs()}, arguments...).Int64()
		return err
	})
	return answer, err
}

func (a *farArchive) Drop(ctx context.Context, head int64, names ...string) error {
	for part := range slices.Chunk(names, blobsAtOnce) {
		arguments := []any{"drop", head}
		for _, name := range part {
			arguments = append(arguments, name)
		}
		if answer, err := a.script(ctx, arguments); err != nil || answer == 0 {
			return err // what another head needs isn't known here
		}
	}
	return nil
}

// run tells of each new head, until ctx ends.
func (a *farArchive) run(ctx context.Context) {
	tick := time.NewTicker(archivePoll)
	defer tick.Stop()
	for {
		if at, err := a.standing(ctx); err == nil {
			if last := a.told.Swap(&at); last == nil || *last != at {
				wake(a.changed)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.heard:
		case <-tick.C:
		}
	}
}

// standing is the head's number and value: a Redis that has lost its entries may come to have others of the same numbers.
func (a *farArchive) standing(ctx context.Context) (at string, err error) {
	head, err := a.Head(ctx)
	if err != nil {
		return "", err
	}
	number := strconv.FormatInt(head, 10)
	err = a.trip(ctx, func(ctx context.Context) error {
		at, err = a.far.client.HGet(ctx, a.entries(), number).Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	return number + ":" + at, err
}

// listen wakes run when Redis tells of a new head.
func (a *farArchive) listen(ctx context.Context) { a.far.listen(ctx, a.key, a.heard) }
