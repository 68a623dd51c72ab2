package callout

import (
	"cmp"
	"context"
	"slices"
	"time"
)

const (
	spareStreams = maxStreams // kept by a connection to be used again
	spareBytes   = 1 << 10    // of each of a spare stream's buffers
)

// A stream is one call in progress.
type stream struct {
	id     uint32
	method *method  // that answers; nil for one of grpc-go's
	relay  *relayed // as grpc-go's
	call   Call
	cancel context.CancelFunc // of a call that waits for others; nil for the rest
	opened time.Time
	body   []byte // as much of the call's message as has come, prefix and all; empty when all came at once
	length int    // by content-length; noLength without
	got    int    // bytes of body so far
	ended  bool   // the client has sent all
	done   bool   // answered, though the client hasn't sent all
	gone   bool   // answered or reset: only the loop's batches still know it

	credit int    // bytes that the client may send
	window int    // bytes that we may send; below zero when the client has taken some back
	unsent []byte // of the answer, waiting for the windows
	tail   []byte // the header block that follows unsent and ends the answer
	queued bool   // among those that wait for the windows
}

// A table is the streams of a connection.
type table struct {
	open   []*stream // by rising id; those that are gone stay until the turn ends
	live   int       // of open
	spare  []*stream
	last   uint32 // highest id that the client has used
	closed [64]closing
	next   int // of closed
}

// closing is how a stream ended.
type closing struct {
	id   uint32
	ours bool // with a RST_STREAM of ours: what the client had sent before it saw that is no fault
}

func (t *table) add(id uint32, window int, now time.Time) *stream {
	var s *stream
	if n := len(t.spare); n > 0 {
		s, t.spare = t.spare[n-1], t.spare[:n-1]
	} else {
		s = &stream{}
	}
	s.id, s.window, s.credit, s.opened = id, window, initWindow, now
	t.open = append(t.open, s)
	t.last = id
	t.live++
	return s
}

// find is nil for a stream that isn't open.
func (t *table) find(id uint32) *stream {
	n := len(t.open)
	if n == 0 {
		return nil
	}
	s := t.open[n-1]
	if s.id != id { // not the newest, which it nearly always is
		i, ok := slices.BinarySearchFunc(t.open, id, func(s *stream, id uint32) int { return cmp.Compare(s.id, id) })
		if !ok {
			return nil
		}
		s = t.open[i]
	}
	if s.gone {
		return nil
	}
	return s
}

func (t *table) remove(s *stream, ours bool) {
	s.gone = true
	t.live--
	t.closed[t.next] = closing{s.id, ours}
	t.next = (t.next + 1) % len(t.closed)
}

// ended tells how a stream ended; known is false when that was long ago, or never was.
func (t *table) ended(id uint32) (how closing, known bool) {
	i := slices.IndexFunc(t.closed[:], func(c closing) bool { return c.id == id })
	if i < 0 || id == 0 {
		return closing{}, false
	}
	return t.closed[i], true
}

// sweep forgets the streams that are gone. Nothing else may know them any more, but for those of grpc-go, and who waits
// for others.
func (t *table) sweep() {
	if t.live == len(t.open) {
		return
	}
	kept := t.open[:0]
	for _, s := range t.open {
		switch {
		case !s.gone:
			kept = append(kept, s)
		case s.relay == nil && s.cancel == nil && len(t.spare) < spareStreams:
			t.spare = append(t.spare, s.clean())
		}
	}
	clear(t.open[len(kept):])
	t.open = kept
}

// clean makes a stream ready to be used again.
func (s *stream) clean() *stream {
	body, reply, unsent := s.body, s.call.Reply, s.unsent
	*s = stream{body: spared(body), unsent: spared(unsent)}
	s.call.Reply = spared(reply)
	return s
}

// spared is a buffer for the next use, unless it is too large to keep.
func spared(b []byte) []byte {
	if cap(b) > spareBytes {
		return nil
	}
	return b[:0]
}
