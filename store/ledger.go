package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// ledger keeps boards and records in a file. It is only appended to; once it has grown to more than twice what it needs,
// and at each start, it is written anew beside itself and renamed. Every append is synced: at once when somebody waits for
// it, else within a second.
//
// A trouble with the file is told once in the log, and for as long as it lasts by warning; the file is written anew each
// 10 s until that works, or once the process that keeps its own there has ended.
type ledger struct {
	path string
	log  *slog.Logger
	load func(note)             // takes what the file has, more than once perhaps
	dump func() iter.Seq[*note] // gives what it is to have

	lock  *os.File
	file  *output // nil while there is none
	base  int64   // size of file when it was new
	retry time.Time

	opening bool          // what is read comes with the new file anyway
	urge    chan struct{} // somebody waits
	stop    chan struct{}
	done    chan struct{}

	mu      sync.Mutex // guards what follows
	pending []byte     // entries, each behind its length
	flush   *flush     // of pending
	lost    bool       // there was no room for all that was to be written
	damaged string     // what was wrong with a file that was put aside
	warning string
}

// flush is over when done is closed; err says why what was pending isn't on disk.
type flush struct {
	done chan struct{}
	err  error
}

func newFlush() *flush { return &flush{done: make(chan struct{})} }

// note is one thing that the file tells. The last of one name counts, but of a board's entries the later one.
type note struct {
	kind  byte
	group string // the board's name, or the records' kind
	*row
	end int64 // µs since 1970: of a record, 0 when it was deleted; of noteKnown, when the board was as Redis had it
}

// The kinds of what a ledger tells.
const (
	noteEntry   = 'e' // of a board
	noteRemoved = 'r' // from a board
	noteKnown   = 'k' // a board was whole
	noteRecord  = 's'
)

const (
	ledgerHead  = "legation shared 1\n"
	ledgerMost  = 64 << 20 // bytes that wait to be written
	ledgerEvery = 500 * time.Millisecond
	maxName     = 4 << 10  // bytes, of an entry's or a record's
	maxValue    = 64 << 10 // bytes, of an entry
	maxRecord   = 1 << 20  // bytes, of a record
)

func (e *note) appendTo(b []byte) []byte {
	b = append(b, e.kind)
	for _, s := range []string{e.group, e.name} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	for _, n := range []int64{e.written, e.expires, e.until, e.end} {
		b = binary.AppendVarint(b, n)
	}
	return append(b, e.value...)
}

func readEntry(b []byte) (e note, ok bool) {
	r := recordReader{rest: b}
	e.row = &row{}
	e.kind = r.bytes(1)[0]
	e.group = string(r.bytes(r.length(maxName)))
	e.name = string(r.bytes(r.length(maxName)))
	for _, to := range []*int64{&e.written, &e.expires, &e.until, &e.end} {
		*to = r.number()
	}
	e.value = slices.Clone(r.rest)
	return e, !r.bad
}

// open reads the file and begins to keep it. known tells whether there was one, and all of it was read.
func (l *ledger) open() (known bool) {
	l.urge, l.stop, l.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	l.flush = newFlush()
	_ = l.claim()
	l.opening = true
	known = l.read()
	l.opening = false
	l.tend()
	go l.run()
	return known
}

// read takes what the file has. One that is torn at its end was being written when the process or the machine died: that
// is no trouble.
func (l *ledger) read() (whole bool) {
	file, err := os.OpenFile(l.path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for who writes
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err == nil {
		err = readLedger(file, l.load)
		_ = file.Close()
	}
	if err == nil || errors.Is(err, errTorn) {
		return true
	}
	err = fmt.Errorf("%s: %w", l.path, err)
	if l.lock != nil { // else another process keeps it
		err = errors.Join(err, os.Rename(l.path, l.path+".bad"))
	}
	l.log.Warn("sessions, keys or revocations on disk not all read", "error", err)
	l.mu.Lock()
	l.damaged = err.Error()
	l.mu.Unlock()
	return false
}

func readLedger(file io.Reader, each func(note)) error {
	r := bufio.NewReaderSize(file, 256<<10)
	head := make([]byte, len(ledgerHead))
	switch _, err := io.ReadFull(r, head); {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return errForeign
	case err != nil:
		return err
	case string(head) != ledgerHead:
		return errForeign
	}
	var content []byte
	for {
		var err error
		content, err = readFrame(r, content)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for rest := (recordReader{rest: content}); len(rest.rest) > 0; {
			e, ok := readEntry(rest.bytes(rest.length(maxFrame)))
			if !ok || rest.bad {
				return errCorrupt
			}
			each(e)
		}
	}
}

// append has an entry written soon. The order of calls is that of the file.
func (l *ledger) append(e *note) *flush {
	if l == nil || l.opening {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) > ledgerMost {
		l.pending, l.lost = l.pending[:0], true // the file is written anew with all there is
	}
	l.pending = appendSized(l.pending, e)
	return l.flush
}

func appendSized(b []byte, e *note) []byte {
	one := e.appendTo(nil)
	return append(binary.AppendUvarint(b, uint64(len(one))), one...)
}

// wait waits until a flush is on disk.
func (l *ledger) wait(ctx context.Context, f *flush) error {
	if f == nil {
		return nil
	}
	select {
	case l.urge <- struct{}{}:
	default:
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return os.ErrClosed
	}
}

// run writes what is pending until it is stopped, and then once more.
func (l *ledger) run() {
	defer close(l.done)
	tick := time.NewTicker(ledgerEvery)
	defer tick.Stop()
	for {
		stopped := false
		select {
		case <-l.stop:
			stopped = true
		case <-l.urge:
		case <-tick.C:
		}
		l.write()
		l.tend()
		if stopped {
			return
		}
	}
}

// write appends what is pending, and syncs it.
func (l *ledger) write() {
	l.mu.Lock()
	pending, f, lost := l.pending, l.flush, l.lost
	if len(pending) == 0 {
		l.mu.Unlock()
		return
	}
	l.pending, l.flush, l.lost = nil, newFlush(), false
	l.mu.Unlock()
	switch {
	case l.file == nil:
		f.err = errors.New(l.told())
	case lost:
		l.file.err = errors.New("more changed than was written")
	default:
		for part := range frames(pending) {
			l.file.append(sealed(part))
		}
	}
	if l.file != nil {
		if l.file.err == nil {
			l.file.err = l.file.Sync()
		}
		f.err = l.file.err
	}
	close(f.done)
}

// frames cuts entries into pieces that fit a frame.
func frames(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := 0
			for n < len(b) && n < frameSize {
				size, width := binary.Uvarint(b[n:])
				n += width + int(size)
			}
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

func sealed(content []byte) []byte {
	b := make([]byte, frameHead, frameHead+len(content))
	binary.LittleEndian.PutUint32(b, uint32(len(content)))
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(content, castagnoli))
	return append(b, content...)
}

// tend writes the file anew when it lacks something or has grown.
func (l *ledger) tend() {
	if l.file != nil && l.file.err == nil && l.file.size <= 2*l.base+journalSlack || time.Now().Before(l.retry) {
		return
	}
	err := l.rewrite()
	switch {
	case errors.Is(err, errForeignLock):
		l.retry = time.Now().Add(time.Second) // it may be about to end
	case err != nil:
		l.retry = time.Now().Add(journalRetry)
	}
	l.warn(err)
}

// claim locks the file for this process, for as long as it lives.
func (l *ledger) claim() (err error) {
	l.lock, err = lockFile(l.path + ".lock")
	return err
}

// rewrite has a new file take the place of the old one. What changes meanwhile is pending.
func (l *ledger) rewrite() error {
	if l.lock == nil {
		if err := l.claim(); err != nil {
			return err
		}
		l.read() // another process may have kept it until now
	}
	var next *output
	_, err := replaced(l.path, func(file *os.File) error {
		next = &output{File: file}
		next.append([]byte(ledgerHead))
		var b []byte
		for e := range l.dump() {
			if b = appendSized(b, e); len(b) >= frameSize {
				next.append(sealed(b))
				b = b[:0]
			}
		}
		if len(b) > 0 {
			next.append(sealed(b))
		}
		return next.err
	})
	if err != nil {
		return err
	}
	if l.file != nil {
		_ = l.file.Close() // it has no name any more
	}
	l.file, l.base = next, next.size
	return nil
}

// warn tells operators of a trouble once; nil when it is over.
func (l *ledger) warn(err error) {
	text := ""
	if err != nil {
		text = "sessions, keys and revocations are not kept on disk: " + err.Error()
	}
	l.mu.Lock()
	before := l.warning
	l.warning = text
	l.mu.Unlock()
	switch {
	case text == before:
	case err != nil:
		l.log.Warn("sessions, keys and revocations not kept on disk", "error", err)
	default:
		l.log.Info("sessions, keys and revocations kept on disk again", "path", l.path)
	}
}

// told is what operators should look after.
func (l *ledger) told() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.warning == "" && l.damaged != "" {
		return "what was on disk is not all known: " + l.damaged
	}
	return l.warning
}

// close writes what isn't yet.
func (l *ledger) close() error {
	if l == nil {
		return nil
	}
	close(l.stop)
	<-l.done
	if l.file == nil {
		return errors.New(l.told())
	}
	return errors.Join(l.file.err, l.file.Close(), l.lock.Close())
}
