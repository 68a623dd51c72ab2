package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// journal keeps the buckets of an embedded store in a file (record.go tells its form), so that quotas outlast the
// process. Each half second it appends those that changed. Once the file has grown to more than twice what it needs, and
// at each start, it is written anew beside it and renamed; what changes meanwhile goes to both.
//
// What was appended outlasts the process however it ends; so a kill loses half a second, and Close nothing. For the
// machine's sake appends are synced too, but beside: a slow disk holds up no append, and a power failure loses what was
// counted since the last sync was done. A file is synced before it takes the place of another.
//
// A trouble with the file stops no count. It is told once in the log, and for as long as it lasts in [Health]; the file
// is written anew each 10 s until that works, with all that was counted meanwhile.
type journal struct {
	e    *embedded
	path string
	log  *slog.Logger
	lock *os.File // path.lock, locked; nil while it can't be

	foreign bool // another process had locked it at the start: nothing is read or kept

	file    *output // nil while there is none
	next    *output // while the file is written anew
	base    int64   // size of file when it was new
	retry   time.Time
	frame   journalFrame // of flush
	flushed time.Time

	syncing atomic.Bool
	syncErr atomic.Pointer[error]
	wg      sync.WaitGroup

	mu      sync.Mutex // guards warning
	warning string     // for operators; empty when all is well
}

const (
	journalEvery = 500 * time.Millisecond
	journalRetry = 10 * time.Second
	journalSlack = 4 << 20         // a file isn't written anew before it has grown by so much
	keptFrom     = 5 * time.Second // buckets that never live longer than this aren't worth keeping
	piece        = 256             // buckets that are copied before a shard is unlocked for a moment
)

// output is a file that is only appended to.
type output struct {
	*os.File
	size   int64
	synced int64 // of size, or under way to be
	err    error // since when it lacks something
}

// append leaves a file whole when it fails.
func (o *output) append(b []byte) {
	if o == nil || o.err != nil {
		return
	}
	n, err := o.Write(b)
	if o.err = err; err != nil {
		_ = o.Truncate(o.size) // else the torn frame is skipped by who reads it, as nothing follows
		return
	}
	o.size += int64(n)
}

// openJournal gives e what the file at path has, and writes it anew. It returns when that is done, so that there is
// nothing to lose before.
func openJournal(e *embedded, path string, log *slog.Logger) *journal {
	j := &journal{e: e, path: path, log: log}
	if j.foreign = errors.Is(j.claim(), errForeignLock); j.foreign {
		j.warn(errForeignLock)
		return j
	}
	if err := j.load(); err != nil {
		j.log.Warn("counts on disk not all read", "error", err)
	}
	j.tend()
	return j
}

var errForeignLock = errors.New("another process keeps its own there")

// claim locks the file for this process, for as long as it lives.
func (j *journal) claim() error {
	if j.lock != nil {
		return nil
	}
	var err error
	j.lock, err = lockFile(j.path + ".lock")
	return err
}

// lockFile locks a file for this process, until it is closed.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errForeignLock
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// load reads the file. One that is torn at its end was being written when the process or the machine died: that is no
// trouble. One that can't be read is put aside.
func (j *journal) load() error {
	err := j.read()
	if err == nil || errors.Is(err, errTorn) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Join(fmt.Errorf("%s: %w", j.path, err), os.Rename(j.path, j.path+".bad"))
}

func (j *journal) read() error {
	file, err := os.OpenFile(j.path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for who writes
	if err != nil {
		return err
	}
	defer file.Close()
	written, err := readJournal(file, j.e.restore)
	j.e.rewind(written)
	return err
}

// keeps tells whether it is to know what changes.
func (j *journal) keeps() bool { return j != nil && !j.foreign }

// run keeps what changes until ctx is done.
func (j *journal) run(ctx context.Context) {
	tick := time.NewTicker(journalEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			j.flush()
			j.tend()
		}
	}
}

// close keeps what isn't yet, also what lives for a moment only.
func (j *journal) close() error {
	j.retry = time.Time{}
	j.flush()
	j.tend()
	if j.file == nil {
		return errors.New(j.told())
	}
	now := j.e.now()
	j.copy(j.file, func(b *bucket) bool { return !b.kept && b.end > now })
	j.wg.Wait()
	return errors.Join(j.file.err, j.file.Sync(), j.file.Close(), j.lock.Close())
}

// flush appends what changed since the last time.
func (j *journal) flush() {
	j.flushed = time.Now()
	now := j.e.now()
	j.frame.begin(now)
	for i := range j.e.shards {
		s := &j.e.shards[i]
		s.mu.Lock()
		changed := s.changed
		s.changed = nil
		s.mu.Unlock()
		for part := range slices.Chunk(changed, piece) {
			s.mu.Lock()
			for _, c := range part {
				if b, ok := s.flushed(c, now); ok {
					j.frame.add(c.bucketKey, &b)
				}
				if j.frame.has(maxFrame / 4) {
					s.mu.Unlock()
					j.send(now, frameSize)
					s.mu.Lock()
				}
			}
			s.mu.Unlock()
			j.send(now, frameSize)
		}
	}
	j.send(now, 1)
	j.sync()
}

// change is a bucket that changed, and whether the file had it then.
type change struct {
	bucketKey
	kept bool
}

// flushed gives the changed bucket as it is now, empty when it is gone, and whether the file is to have it: a short-lived
// one only if it has it already.
func (s *shard) flushed(c change, now int64) (bucket, bool) {
	b, ok := s.buckets[c.bucketKey]
	if !ok {
		return bucket{}, c.kept
	}
	b.changed = false
	b.kept = b.kept || b.lasts(now)
	s.buckets[c.bucketKey] = b
	return b, b.kept
}

func (b *bucket) lasts(now int64) bool { return b.end-now >= keptFrom.Microseconds() }

// send appends the frame when it has least bytes of records.
func (j *journal) send(now int64, least int) {
	if !j.frame.has(least) {
		return
	}
	b := j.frame.seal()
	j.file.append(b)
	j.next.append(b)
	j.frame.begin(now)
}

// sync syncs the file unless that is under way.
func (j *journal) sync() {
	if j.file == nil || j.file.err != nil || j.file.synced == j.file.size || j.syncing.Swap(true) {
		return
	}
	file := j.file.File
	j.file.synced = j.file.size
	j.wg.Go(func() {
		if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
			j.syncErr.Store(&err)
		}
		j.syncing.Store(false)
	})
}

// tend writes the file anew when it lacks something or has grown.
func (j *journal) tend() {
	if err := j.syncErr.Swap(nil); err != nil && j.file != nil {
		j.file.err = *err
	}
	whole := j.file != nil && j.file.err == nil
	if whole && j.file.size <= 2*j.base+journalSlack || time.Now().Before(j.retry) {
		return
	}
	if whole {
		j.log.Debug("counts on disk written anew", "size", j.file.size)
	}
	err := j.rewrite()
	if err != nil {
		j.retry = time.Now().Add(journalRetry)
	}
	j.warn(err)
}

// rewrite has a new file take the place of the old one.
func (j *journal) rewrite() error {
	if err := j.claim(); err != nil {
		return err
	}
	name := j.path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	j.next = &output{File: file}
	j.next.append([]byte(journalHead))
	now := j.e.now()
	j.copy(j.next, func(b *bucket) bool { return b.kept && b.end > now || b.lasts(now) })
	next := j.next
	if err := j.settle(); err != nil {
		j.next = nil
		return errors.Join(err, next.Close(), os.Remove(name))
	}
	j.next = nil
	if err := os.Rename(name, j.path); err != nil {
		return errors.Join(err, next.Close(), os.Remove(name))
	}
	if j.file != nil {
		_ = j.file.Close() // it has no name any more
	}
	j.file, j.base = next, next.size
	syncFolder(filepath.Dir(j.path))
	return nil
}

// copy writes the buckets that pick wants to a file, and what changes meanwhile in time.
func (j *journal) copy(to *output, pick func(*bucket) bool) {
	var f journalFrame
	now := j.e.now()
	f.begin(now)
	send := func(least int) {
		if f.has(least) {
			to.append(f.seal())
			f.begin(now)
		}
	}
	for i := range j.e.shards {
		s := &j.e.shards[i]
		n := 0
		s.mu.Lock()
		for k, b := range s.buckets { // which may change while it is unlocked
			if pick(&b) {
				f.add(k, &b)
				b.kept = true
				s.buckets[k] = b
			}
			if n++; n%piece == 0 || f.has(maxFrame/4) {
				s.mu.Unlock()
				send(frameSize)
				s.mu.Lock()
			}
		}
		s.mu.Unlock()
		send(1) // before what changes after
		if time.Since(j.flushed) >= journalEvery {
			j.flush()
		}
	}
}

// settle syncs the new file, and appends to both until that is done.
func (j *journal) settle() error {
	if j.next.err != nil {
		return j.next.err
	}
	done := make(chan error, 1)
	file := j.next.File
	go func() { done <- file.Sync() }()
	tick := time.NewTicker(journalEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return errors.Join(err, j.next.err)
		case <-tick.C:
			j.flush()
		}
	}
}

// warn tells operators of a trouble once; nil when it is over.
func (j *journal) warn(err error) {
	text := ""
	if err != nil {
		text = "counts are not kept on disk: " + err.Error()
	}
	j.mu.Lock()
	before := j.warning
	j.warning = text
	j.mu.Unlock()
	switch {
	case text == before:
	case err != nil:
		j.log.Warn("counts not kept on disk", "error", err)
	default:
		j.log.Info("counts kept on disk again", "path", j.path)
	}
}

func (j *journal) told() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.warning
}
