package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Records are small values with an end, such as sessions. Each operation is one trip. Names are any 1 to 4096 bytes,
// values have at most 1 MiB.
type Records interface {
	// Get gives nil, nil when there is none, or it has ended. An empty value isn't nil.
	Get(ctx context.Context, name string) ([]byte, error)
	Put(ctx context.Context, name string, value []byte, ttl time.Duration) error
	// Add is Put where there is no record yet, and Replace where there is one; each tells whether it wrote. After an error
	// that isn't known.
	Add(ctx context.Context, name string, value []byte, ttl time.Duration) (written bool, err error)
	Replace(ctx context.Context, name string, value []byte, ttl time.Duration) (written bool, err error)
	// Extend has a record end after ttl from now.
	Extend(ctx context.Context, name string, ttl time.Duration) (found bool, err error)
	Delete(ctx context.Context, names ...string) error
}

func checkRecord(ttl time.Duration, size int, names ...string) error {
	for _, name := range names {
		if name == "" || len(name) > maxName {
			return fmt.Errorf("%w: a name of %d bytes, want 1 to %d", ErrEntry, len(name), maxName)
		}
	}
	switch {
	case ttl < time.Millisecond:
		return fmt.Errorf("%w: it is to last %s, at least 1ms", ErrEntry, ttl)
	case size > maxRecord:
		return fmt.Errorf("%w: a value of %d bytes, at most %d", ErrEntry, size, maxRecord)
	}
	return nil
}

// farRecords are records that Redis keeps.
type farRecords struct {
	far    *far
	prefix string // of keys
}

func (r farRecords) Get(ctx context.Context, name string) (value []byte, err error) {
	if err := checkRecord(time.Second, 0, name); err != nil {
		return nil, err
	}
	key := r.prefix + name
	err = r.far.trip(ctx, key, r.far.quick, func(ctx context.Context) error {
		value, err = r.far.client.Get(ctx, key).Bytes()
		if errors.Is(err, redis.Nil) {
			value, err = nil, nil
		}
		return err
	})
	return value, err
}

func (r farRecords) Put(ctx context.Context, name string, value []byte, ttl time.Duration) error {
	if err := checkRecord(ttl, len(value), name); err != nil {
		return err
	}
	key := r.prefix + name
	return r.far.trip(ctx, key, r.far.quick, func(ctx context.Context) error {
		return r.far.client.Do(ctx, "SET", key, value, "PX", ttl.Milliseconds()).Err()
	})
}

func (r farRecords) Add(ctx context.Context, name string, value []byte, ttl time.Duration) (bool, error) {
	return r.putIf(ctx, "NX", name, value, ttl)
}

func (r farRecords) Replace(ctx context.Context, name string, value []byte, ttl time.Duration) (bool, error) {
	return r.putIf(ctx, "XX", name, value, ttl)
}

func (r farRecords) putIf(ctx context.Context, condition, name string, value []byte, ttl time.Duration) (written bool, err error) {
	if err := checkRecord(ttl, len(value), name); err != nil {
		return false, err
	}
	key := r.prefix + name
	err = r.far.trip(ctx, key, r.far.quick, func(ctx context.Context) error {
		err := r.far.client.Do(ctx, "SET", key, value, "PX", ttl.Milliseconds(), condition).Err()
		written = err == nil
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	return written, err
}

func (r farRecords) Extend(ctx context.Context, name string, ttl time.Duration) (found bool, err error) {
	if err := checkRecord(ttl, 0, name); err != nil {
		return false, err
	}
	key := r.prefix + name
	err = r.far.trip(ctx, key, r.far.quick, func(ctx context.Context) error {
		found, err = r.far.client.PExpire(ctx, key, ttl.Truncate(time.Millisecond)).Result()
		return err
	})
	return found, err
}

// Delete sends a command for each: on a Cluster they may be in several slots.
func (r farRecords) Delete(ctx context.Context, names ...string) error {
	if err := checkRecord(time.Second, 0, names...); err != nil || len(names) == 0 {
		return err
	}
	return r.far.trip(ctx, r.prefix+names[0], r.far.quick, func(ctx context.Context) error {
		_, err := r.far.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, name := range names {
				p.Del(ctx, r.prefix+name)
			}
			return nil
		})
		return err
	})
}

// nearRecords are records that this process keeps, and its file. What changed in the last second is lost with the process.
type nearRecords struct {
	kind   string
	ledger *ledger // nil: none
	seed   maphash.Seed
	shards [64]recordShard
}

type recordShard struct {
	mu      sync.Mutex // guards records
	records map[string]record
}

// record is a record's value and its end, in µs since 1970.
type record struct {
	value []byte
	end   int64
}

func newNearRecords(kind string, l *ledger) *nearRecords {
	r := &nearRecords{kind: kind, ledger: l, seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].records = map[string]record{}
	}
	return r
}

// shard gives the one of a name, locked.
func (r *nearRecords) shard(name string) *recordShard {
	s := &r.shards[maphash.String(r.seed, name)%uint64(len(r.shards))]
	s.mu.Lock()
	return s
}

// live is the record of a name; ok is false when it has ended.
func (s *recordShard) live(name string) (k record, ok bool) {
	k, ok = s.records[name]
	return k, ok && k.end > time.Now().UnixMicro()
}

func (r *nearRecords) Get(_ context.Context, name string) ([]byte, error) {
	if err := checkRecord(time.Second, 0, name); err != nil {
		return nil, err
	}
	s := r.shard(name)
	defer s.mu.Unlock()
	k, ok := s.live(name)
	if !ok {
		return nil, nil
	}
	return slices.Clone(k.value), nil
}

func (r *nearRecords) Put(_ context.Context, name string, value []byte, ttl time.Duration) error {
	_, err := r.putIf(name, value, ttl, func(bool) bool { return true })
	return err
}

func (r *nearRecords) Add(_ context.Context, name string, value []byte, ttl time.Duration) (bool, error) {
	return r.putIf(name, value, ttl, func(there bool) bool { return !there })
}

func (r *nearRecords) Replace(_ context.Context, name string, value []byte, ttl time.Duration) (bool, error) {
	return r.putIf(name, value, ttl, func(there bool) bool { return there })
}

// putIf writes a record when may says so, told whether there is one.
func (r *nearRecords) putIf(name string, value []byte, ttl time.Duration, may func(there bool) bool) (written bool, err error) {
	if err := checkRecord(ttl, len(value), name); err != nil {
		return false, err
	}
	s := r.shard(name)
	defer s.mu.Unlock()
	if _, there := s.live(name); !may(there) {
		return false, nil
	}
	if _, ok := s.records[name]; !ok && len(s.records) >= boardMost/len(r.shards) {
		return false, unavailable(fmt.Errorf("%d records are kept already", boardMost))
	}
	r.set(s, name, record{append([]byte{}, value...), time.Now().Add(ttl).UnixMicro()})
	return true, nil
}

func (r *nearRecords) Extend(_ context.Context, name string, ttl time.Duration) (bool, error) {
	if err := checkRecord(ttl, 0, name); err != nil {
		return false, err
	}
	s := r.shard(name)
	defer s.mu.Unlock()
	k, ok := s.live(name)
	if ok {
		r.set(s, name, record{k.value, time.Now().Add(ttl).UnixMicro()})
	}
	return ok, nil
}

func (r *nearRecords) Delete(_ context.Context, names ...string) error {
	if err := checkRecord(time.Second, 0, names...); err != nil {
		return err
	}
	for _, name := range names {
		s := r.shard(name)
		delete(s.records, name)
		r.ledger.append(r.entry(name, record{}))
		s.mu.Unlock()
	}
	return nil
}

func (r *nearRecords) set(s *recordShard, name string, k record) {
	s.records[name] = k
	r.ledger.append(r.entry(name, k))
}

func (r *nearRecords) entry(name string, k record) *note {
	return &note{kind: noteRecord, group: r.kind, row: &row{name: name, value: k.value}, end: k.end}
}

// sweep forgets what has ended in one shard.
func (r *nearRecords) sweep(shard int, now int64) {
	s := &r.shards[shard%len(r.shards)]
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, k := range s.records {
		if k.end <= now {
			delete(s.records, name)
		}
	}
}

// snapshot gives the records of a shard.
func (r *nearRecords) snapshot(shard int, now int64) (entries []*note) {
	s := &r.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, k := range s.records {
		if k.end > now {
			entries = append(entries, r.entry(name, k))
		}
	}
	return entries
}
