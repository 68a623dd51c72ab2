package callout

import (
	"slices"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

const (
	maxUnsent    = 4 << 20          // bytes of answers that wait for a connection's windows
	flushAt      = 256 << 10        // bytes of frames written at once
	spareOut     = 64 << 10         // bytes of a write buffer that is kept
	writeTimeout = 10 * time.Second // at least, half as much again at most: it isn't set anew for each write
)

// An outlet is the sending side of a connection.
type outlet struct {
	out     []byte // frames to write
	window  int    // bytes that we may send on the connection
	initial int    // of a stream's window, by the client's SETTINGS
	waiting []*stream
	unsent  int // bytes of answers that wait
	armed   time.Time
	broken  error
}

// reply answers a call with what its method made of it.
func (c *conn) reply(s *stream) {
	if s.call.Code != codes.OK {
		c.fail(s, refusal{200, s.call.Code, s.call.Text})
		return
	}
	n := prefix + len(s.call.Reply)
	if c.unsent+n > maxUnsent {
		c.fail(s, refusal{200, codes.ResourceExhausted, "too many answers wait to be read"})
		return
	}
	c.out = appendHeaders(c.out, s.id, okHeaders, false)
	if n <= maxFrame && n <= c.window && n <= s.window {
		c.window -= n
		c.out = appendFrame(c.out, n, http2.FrameData, 0, s.id)
		c.out = append(appendPrefix(c.out, len(s.call.Reply)), s.call.Reply...)
		c.out = appendHeaders(c.out, s.id, okTrailers, true)
		c.finish(s)
		return
	}
	s.unsent = append(appendPrefix(s.unsent[:0], len(s.call.Reply)), s.call.Reply...)
	s.tail = okTrailers
	c.unsent += n
	c.send(s)
}

func appendPrefix(b []byte, n int) []byte {
	return append(b, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// fail answers a call with an error.
func (c *conn) fail(s *stream, r refusal) {
	c.out = appendHeaders(c.out, s.id, appendError(nil, r), true)
	c.finish(s)
}

// finish ends a stream that is answered in full. While the client is still sending a call's message it stays for a
// while, since nearly all clients end it themselves.
func (c *conn) finish(s *stream) {
	switch {
	case s.ended:
		c.drop(s, false)
	case s.relay != nil:
		c.reset(s, http2.ErrCodeNo)
	default:
		s.done = true
		c.hold(-len(s.body))
		s.body = s.body[:0]
	}
}

// reset ends a stream with an error of HTTP/2.
func (c *conn) reset(s *stream, code http2.ErrCode) {
	c.out = appendReset(c.out, s.id, code)
	c.drop(s, true)
}

// drop takes a stream off the table.
func (c *conn) drop(s *stream, ours bool) {
	c.hold(-len(s.body))
	if s.relay == nil {
		c.unsent -= len(s.unsent)
	}
	s.unsent = s.unsent[:0]
	if s.queued {
		c.waiting = slices.DeleteFunc(c.waiting, func(w *stream) bool { return w == s })
	}
	c.table.remove(s, ours)
	if s.relay != nil {
		s.relay.dropped()
	}
	if s.cancel != nil {
		s.cancel()
	}
}

// send sends what the windows allow of a stream's answer. The rest waits.
func (c *conn) send(s *stream) {
	for len(s.unsent) > 0 {
		n := min(len(s.unsent), c.window, s.window, maxFrame)
		if n <= 0 {
			if !s.queued {
				s.queued = true
				c.waiting = append(c.waiting, s)
			}
			return
		}
		c.out = append(appendFrame(c.out, n, http2.FrameData, 0, s.id), s.unsent[:n]...)
		c.window -= n
		s.window -= n
		s.unsent = s.unsent[n:]
		c.budget.earn(n / earnedBytes)
		if s.relay == nil {
			c.unsent -= n
		}
		if len(c.out) > flushAt {
			c.flush()
		}
	}
	if s.relay != nil {
		s.relay.sent()
		return
	}
	c.out = appendHeaders(c.out, s.id, s.tail, true)
	c.finish(s)
}

// resume sends what has waited for a window, first come first served.
func (c *conn) resume() {
	if len(c.waiting) == 0 {
		return
	}
	queue := slices.Clone(c.waiting)
	c.waiting = c.waiting[:0]
	for _, s := range queue {
		s.queued = false
		if !s.gone {
			c.send(s)
		}
	}
}

// flush writes all frames. It blocks while the client doesn't read, as long as writeTimeout.
func (c *conn) flush() {
	if len(c.out) == 0 {
		return
	}
	if c.broken == nil {
		if now := time.Now(); now.Sub(c.armed) > writeTimeout/2 {
			c.armed = now
			_ = c.net.SetWriteDeadline(now.Add(writeTimeout * 3 / 2))
		}
		if _, c.broken = c.net.Write(c.out); c.broken != nil {
			_ = c.net.Close() // the loop's next read tells it
		}
	}
	c.out = c.out[:0]
	if cap(c.out) > spareOut {
		c.out = nil
	}
}
