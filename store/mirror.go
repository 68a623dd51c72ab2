package store

import (
	"context"
	_ "embed" // the scripts
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed board.lua
var boardSource string

//go:embed changes.lua
var changesSource string

var boardScript, changesScript = redis.NewScript(boardSource), redis.NewScript(changesSource)

// mirror keeps a board as Redis has it. Redis tells the channel of the board of each change, and is asked for its revision
// each half second besides. What changed since is read then; the whole board when that isn't known any more, or when its
// sum is another than that of what is held here: after whatever loss, both come to hold all that either did.
type mirror struct {
	b        *board
	far      *far
	key      string
	heard    chan struct{}
	inFlight atomic.Int64 // Puts of this process
	done     atomic.Int64 // Puts

	// Of the goroutine that runs it.
	revision int64  // of Redis' board, up to which all is known here; -1 at first
	reading  uint32 // number of the reading of the whole board
	doubted  time.Time
	retry    time.Time // the whole board isn't read again before
	pause    time.Duration
	noted    time.Time // in the ledger, that the board was as Redis had it
	swept    time.Time
}

const (
	askEvery   = 500 * time.Millisecond
	askSoon    = 100 * time.Millisecond // while Redis doesn't answer
	noteEvery  = 10 * time.Minute
	clearEvery = time.Minute
	doubt      = 5 * time.Second // for which a sum may be another while this process writes
	maxPause   = time.Minute     // between readings of a whole board that didn't help
	stale      = 12 * time.Hour  // half as long as Redis keeps what ended early: see [mirror.restore]

	// Redis does nothing else meanwhile: so it is kept to a millisecond or so.
	deltaMost = 200      // entries of an answer
	scanMost  = 500      // entries of an answer, about
	keepMost  = 50       // entries that are written back at once
	keepBytes = 64 << 10 // and bytes of them, about
	sweepMost = 50       // entries that are swept at once
)

func newMirror(b *board, f *far) *mirror {
	key := "legation:{board:" + b.name + "}"
	return &mirror{b: b, far: f, key: key, heard: make(chan struct{}, 1), revision: -1, swept: time.Now()}
}

func (m *mirror) keys() []string { return []string{m.key, m.key + ":changes"} }

// run follows the board until ctx ends.
func (m *mirror) run(ctx context.Context) {
	for {
		wait := askEvery
		if m.sync(ctx) != nil {
			wait = askSoon
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-m.heard:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// listen wakes run when Redis tells of a change, until ctx ends.
func (m *mirror) listen(ctx context.Context) { m.far.listen(ctx, m.key, m.heard) }

// standing is where Redis' board is.
type standing struct {
	revision int64
	sum      uint64
}

func (m *mirror) trip(ctx context.Context, do func(context.Context) error) error {
	return m.far.trip(ctx, m.key, probeTimeout, do)
}

// ask tells where Redis' board is.
func (m *mirror) ask(ctx context.Context) (at standing, err error) {
	err = m.trip(ctx, func(ctx context.Context) error {
		v, err := m.far.client.HMGet(ctx, m.key, "revision", "sum").Result()
		if err == nil {
			at = standingOf(v)
		}
		return err
	})
	return at, err
}

func standingOf(v []any) (at standing) {
	at.revision, _ = strconv.ParseInt(textOf(v[0]), 10, 64)
	at.sum, _ = strconv.ParseUint(textOf(v[1]), 10, 64)
	return at
}

func textOf(v any) string {
	s, _ := v.(string)
	return s
}

// sync has both hold the same.
func (m *mirror) sync(ctx context.Context) error {
	writing, done := m.inFlight.Load(), m.done.Load()
	at, err := m.ask(ctx)
	if err != nil {
		return err
	}
	if m.revision >= 0 && m.revision < at.revision {
		if at, err = m.follow(ctx, at); err != nil {
			return err
		}
	}
	switch same := at.revision == m.revision && at.sum == m.b.sum(); {
	case same:
		m.agree()
		return m.sweep(ctx)
	case at.revision == m.revision && (writing > 0 || m.inFlight.Load() > 0 || m.done.Load() != done):
		if m.doubted.IsZero() { // the sum has what Redis hadn't yet when it was asked
			m.doubted = time.Now()
		}
		if time.Since(m.doubted) < doubt {
			return nil
		}
	}
	if time.Now().Before(m.retry) {
		return nil
	}
	if err := m.merge(ctx, at); err != nil {
		return err
	}
	m.pause = min(max(2*m.pause, askEvery), maxPause)
	m.retry = time.Now().Add(m.pause - askEvery)
	wake(m.heard) // to see whether it helped
	return nil
}

// agree is for when both hold the same.
func (m *mirror) agree() {
	now := time.Now()
	m.doubted, m.retry, m.pause = time.Time{}, time.Time{}, 0
	m.b.contact.Store(now.UnixMicro())
	m.b.known.Store(true)
	m.far.entries.WithLabelValues(m.b.name).Set(float64(m.b.table.n.Load()))
	if now.Sub(m.noted) >= noteEvery {
		m.noted = now
		m.b.ledger.append(&note{kind: noteKnown, group: m.b.name, row: &row{}, end: now.UnixMicro()})
	}
}

// follow reads what changed. It comes as far as Redis is, unless that isn't known any more.
func (m *mirror) follow(ctx context.Context, at standing) (standing, error) {
	for m.revision < at.revision {
		m.far.reads.WithLabelValues(m.b.name, "changes").Inc()
		var v []any
		err := m.trip(ctx, func(ctx context.Context) (err error) {
			v, err = changesScript.Run(ctx, m.far.client, m.keys(), m.revision, deltaMost).Slice()
			return err
		})
		if err != nil {
			return at, err
		}
		if len(v) < 3 {
			return at, unavailable(errReply)
		}
		at = standingOf(v)
		upTo, err := strconv.ParseInt(textOf(v[2]), 10, 64)
		if err != nil || upTo < m.revision {
			return at, nil
		}
		for v = v[3:]; len(v) >= 2; v = v[2:] {
			m.take(textOf(v[0]), v[1])
		}
		m.revision = upTo
	}
	return at, nil
}

// take learns what Redis has of a name. What isn't there any more is forgotten if it has expired; else Redis has lost it.
func (m *mirror) take(name string, packed any) {
	if s, ok := packed.(string); ok {
		if h := unpack(name, s); h != nil {
			m.b.apply(h)
		}
	} else if h := m.b.table.get(name); h != nil && h.expired(time.Now().Unix()) {
		m.b.remove(name)
	}
}

// merge reads the whole board, and writes back what Redis hasn't.
func (m *mirror) merge(ctx context.Context, at standing) error {
	m.reading++
	m.far.reads.WithLabelValues(m.b.name, "whole").Inc()
	for cursor, first := uint64(0), true; cursor != 0 || first; first = false {
		var fields []string
		err := m.trip(ctx, func(ctx context.Context) (err error) {
			fields, cursor, err = m.far.client.HScan(ctx, m.key, cursor, "", scanMost).Result()
			return err
		})
		if err != nil {
			return err
		}
		for ; len(fields) >= 2; fields = fields[2:] {
			if fields[0][:min(1, len(fields[0]))] != "=" {
				continue
			}
			if h := unpack(fields[0][1:], fields[1]); h != nil {
				if known := m.b.apply(h); known.compare(h) == 0 {
					known.mark = m.reading
				}
			}
		}
	}
	m.b.known.Store(true)
	if err := m.restore(ctx, at); err != nil {
		return err
	}
	m.revision = at.revision
	at, err := m.ask(ctx)
	if err != nil {
		return err
	}
	at, err = m.follow(ctx, at)
	if err == nil && at.revision == m.revision && at.sum != m.b.sum() && m.pause > 0 && m.inFlight.Load() == 0 {
		err = m.write(ctx, "settle", strconv.FormatUint(m.b.sum(), 10), m.revision) // somebody else has changed the hash
	}
	return err
}

// restore writes back what Redis has lost. What it hasn't may also have been taken away while this process was away for
// longer than Redis remembers that: then it is forgotten here, unless Redis has lost the whole board.
func (m *mirror) restore(ctx context.Context, at standing) error {
	now := time.Now()
	away := at.revision > 0 && m.b.contact.Load() > 0 && now.UnixMicro()-m.b.contact.Load() > stale.Microseconds()
	var batch []any
	size := 0
	for h := range m.b.table.all() {
		switch {
		case h.mark == m.reading:
		case h.over(now.Unix()) || away:
			m.b.remove(h.name)
		default:
			packed := h.pack()
			batch = append(batch, h.name, packed)
			if size += len(h.name) + len(packed); len(batch) >= 2*keepMost || size >= keepBytes {
				if err := m.write(ctx, "keep", batch...); err != nil {
					return err
				}
				batch, size = batch[:0], 0
			}
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return m.write(ctx, "keep", batch...)
}

func (m *mirror) write(ctx context.Context, what string, args ...any) error {
	return m.trip(ctx, func(ctx context.Context) error {
		return boardScript.Run(ctx, m.far.client, m.keys(), append([]any{what}, args...)...).Err()
	})
}

// sweep has Redis forget what is over, now and then.
func (m *mirror) sweep(ctx context.Context) error {
	now := time.Now()
	if now.Sub(m.swept) < clearEvery {
		return nil
	}
	m.swept = now
	names := m.b.over(now.Unix(), sweepMost)
	if len(names) == 0 {
		return nil
	}
	args := make([]any, len(names))
	for i, name := range names {
		args[i] = name
	}
	return m.write(ctx, "sweep", args...)
}

// put writes an entry to Redis, and has the board know it.
func (m *mirror) put(ctx context.Context, h *row) error {
	m.inFlight.Add(1)
	defer func() {
		m.done.Add(1)
		m.inFlight.Add(-1)
	}()
	known := int64(0)
	if old := m.b.table.get(h.name); old != nil {
		known = old.written
	}
	return m.far.trip(ctx, m.key, putTimeout, func(ctx context.Context) error {
		args := []any{"put", h.name, known, h.expires, h.value, m.b.most}
		answer, err := boardScript.Run(ctx, m.far.client, m.keys(), args...).Text()
		if err != nil {
			return err
		}
		written := unpack(h.name, answer)
		if written == nil {
			return errReply
		}
		written.value = h.value
		m.b.apply(written)
		return nil
	})
}
