package store

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// Shared is what processes share beside counters: [Records] such as sessions, and [Board]s such as API keys and
// revocations. In Redis it takes the keys legation:session:NAME of a record, and legation:{board:keys} and
// legation:{board:keys}:changes of a board, besides one to probe with.
//
// Without Redis it is in this process, and where there is a Path on disk. With Redis each process has its own copy of the
// boards there, so that what was revoked stays so though Redis is away when the process starts.
type Shared struct {
	far    *far    // nil: this process alone
	ledger *ledger // nil: nothing is kept on disk
	stop   context.CancelFunc
	tasks  sync.WaitGroup
	alive  context.Context // ends with Close

	closing sync.Once
	closed  error // what Close gave

	mu      sync.Mutex // guards what follows
	boards  map[string]*board
	records map[string]*nearRecords
	whole   bool // the copy on disk was all read
	started bool
}

// OpenShared opens what processes share beside counters. Options are those of [Open]: an empty URL keeps it in this process,
// and in the file Path with .shared appended where Path is set. A record's trip takes 5 Timeouts at most.
func OpenShared(o Options) (*Shared, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Shared{boards: map[string]*board{}, records: map[string]*nearRecords{}}
	s.alive, s.stop = context.WithCancel(context.Background())
	if o.URL != "" {
		far, err := openFar(o)
		if err != nil {
			return nil, err
		}
		s.far = far
	}
	if o.Path != "" {
		s.ledger = &ledger{path: o.Path + ".shared", log: o.Log, load: s.load, dump: s.dump}
		s.whole = s.ledger.open()
	}
	s.mu.Lock()
	s.started = true
	for _, b := range s.boards {
		s.begin(b)
	}
	s.mu.Unlock()
	if s.far != nil {
		s.tasks.Go(func() { s.far.watch(s.alive) })
	} else {
		s.tasks.Go(s.sweep)
	}
	return s, nil
}

// Records gives the records of a kind, such as session.
func (s *Shared) Records(kind string) Records {
	if s.far != nil {
		return farRecords{s.far, "legation:" + kind + ":"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.near(kind)
}

func (s *Shared) near(kind string) *nearRecords {
	r := s.records[kind]
	if r == nil {
		r = newNearRecords(kind, s.ledger)
		s.records[kind] = r
	}
	return r
}

// Board gives the board of a name, such as keys; the same each time.
func (s *Shared) Board(name string) Board {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.board(name)
}

func (s *Shared) board(name string) *board {
	b := s.boards[name]
	if b == nil {
		b = newBoard(name, s.ledger)
		s.boards[name] = b
		if s.started {
			s.begin(b)
		}
	}
	return b
}

// begin has a board follow Redis, once what is on disk was read.
func (s *Shared) begin(b *board) {
	if s.far == nil {
		b.known.Store(true)
		return
	}
	b.known.Store(s.whole && b.contact.Load() > 0)
	b.mirror = newMirror(b, s.far)
	s.tasks.Go(func() { b.mirror.run(s.alive) })
	s.tasks.Go(func() { b.mirror.listen(s.alive) })
}

// load takes what the file has.
func (s *Shared) load(e note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.kind {
	case noteRecord:
		if s.far != nil {
			return
		}
		r := s.near(e.group)
		shard := r.shard(e.name)
		defer shard.mu.Unlock()
		if delete(shard.records, e.name); e.end > time.Now().UnixMicro() {
			shard.records[e.name] = record{e.value, e.end}
		}
	case noteEntry:
		s.board(e.group).apply(e.row)
	case noteRemoved:
		s.board(e.group).remove(e.name)
	case noteKnown:
		contact := &s.board(e.group).contact
		contact.Store(max(contact.Load(), e.end))
	}
}

// dump gives what the file is to have.
func (s *Shared) dump() iter.Seq[*note] {
	return func(yield func(*note) bool) {
		s.mu.Lock()
		boards, records := slices.Collect(maps.Values(s.boards)), slices.Collect(maps.Values(s.records))
		s.mu.Unlock()
		now := time.Now()
		for _, b := range boards {
			for h := range b.table.all() {
				if !h.over(now.Unix()) && !yield(&note{kind: noteEntry, group: b.name, row: h}) {
					return
				}
			}
			if at := b.contact.Load(); at > 0 && !yield(&note{kind: noteKnown, group: b.name, row: &row{}, end: at}) {
				return
			}
		}
		for _, r := range records {
			for i := range r.shards {
				for _, e := range r.snapshot(i, now.UnixMicro()) {
					if !yield(e) {
						return
					}
				}
			}
		}
	}
}

// sweep forgets what has ended, some at a time.
func (s *Shared) sweep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-s.alive.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		boards, records := slices.Collect(maps.Values(s.boards)), slices.Collect(maps.Values(s.records))
		s.mu.Unlock()
		for _, r := range records {
			r.sweep(n, time.Now().UnixMicro())
		}
		for _, b := range boards {
			if n%sweepEvery == 0 {
				b.sweep(time.Now().Unix())
			}
		}
	}
}

const sweepEvery = 30 // s between sweeps of a board

// Health is OK when Redis answers; Warning tells what is wrong with the file.
func (s *Shared) Health() Health {
	h := Health{OK: true, Kind: "embedded", Warning: s.ledger.told()}
	if s.far != nil {
		h.Kind, h.Reason = s.far.kind, s.far.state()
		h.OK = h.Reason == ""
	}
	return h
}

// Close ends what OpenShared started, and keeps what isn't yet on disk.
func (s *Shared) Close() error {
	s.closing.Do(func() {
		s.stop()
		s.tasks.Wait()
		s.closed = s.ledger.close()
		if s.far != nil {
			s.closed = errors.Join(s.closed, s.far.client.Close())
		}
	})
	return s.closed
}
