package callout

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

const (
	turnCalls   = 256         // of a method that are answered at once, at most
	smallBuffer = 4 << 10     // what an idle connection reads into
	largeBuffer = 256 << 10   // what a busy one reads into: the most input of a turn
	connWindow  = 1 << 20     // bytes that the client may send on the connection before we say more
	maxHeld     = 4 << 20     // bytes of messages that have come in part
	fairHeld    = 64 << 10    // of these, whatever other connections hold
	patience    = time.Minute // with calls whose message doesn't come, and with answers that aren't read
)

// A conn is a connection that the loop serves. Its goroutine reads, runs methods and writes; those of forwarded calls
// and of the server's stop write too.
type conn struct {
	server *Server
	raw    net.Conn             // as it was accepted
	net    net.Conn             // the same, or TLS over it
	tls    *tls.ConnectionState // nil without TLS
	under  *hasty               // TLS; nil without

	// The loop's own.
	buf     []byte
	from    int // buf[from:to] is unread
	to      int
	now     time.Time // when this turn was read
	full    bool      // the last read has filled buf: the next may bring more
	pinged  bool      // and nothing was heard since
	batches []batch   // this turn's calls, by method
	headers *headers
	block   block
	greeted bool // the client's first SETTINGS have come

	mu     sync.Mutex // held but while the loop reads and while methods run; guards what follows
	table  table
	budget budget
	outlet
	owed     int // bytes that the client has sent, to be given back to its window for the connection
	held     int // bytes of bodies
	reopened bool
	lapsed   time.Time
	goingOff stage
	off      chan struct{} // closed once grpc-go knows of all calls that the client may make
	told     sync.Once     // closes off
	upstream upstream
	waits    int          // calls that wait for others
	settling atomic.Int32 // of these, those whose answers have come and aren't written yet
}

// A batch is the calls of one method in a turn.
type batch struct {
	streams []*stream // the first of them are answered
	done    int       // so many
	next    int       // and up to here they are being answered
	calls   []*Call   // those that the method is handed
}

func newConn(s *Server, raw, c net.Conn, state *tls.ConnectionState, read []byte) *conn {
	now := time.Now()
	var under *hasty
	if t, ok := c.(*tls.Conn); ok {
		under, _ = t.NetConn().(*hasty)
	}
	return &conn{
		server: s, raw: raw, net: c, tls: state, under: under,
		buf: read, to: len(read), now: now,
		batches: make([]batch, len(s.methods)),
		headers: newHeaders(s.methods),
		budget:  budget{budgetMax, now},
		outlet:  outlet{window: initWindow, initial: initWindow},
		lapsed:  now,
		off:     make(chan struct{}),
	}
}

// serve answers calls until the connection ends.
func (c *conn) serve() {
	c.mu.Lock()
	c.out = appendSettings(c.out,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
	c.out = appendWindowUpdate(c.out, 0, connWindow-initWindow)
	c.flush()
	c.mu.Unlock()
	_ = c.net.SetReadDeadline(c.now.Add(c.server.o.Keepalive))
	err := c.turn()
	for err == nil {
		if err = c.fill(); err == nil {
			err = c.turn()
		}
	}
	c.end(err)
}

// fill reads what has come. It watches over a connection that is silent.
func (c *conn) fill() error {
	if c.from > 0 {
		c.to = copy(c.buf, c.buf[c.from:c.to])
		c.from = 0
	}
	if c.full && len(c.buf) < largeBuffer || len(c.buf) < smallBuffer {
		size := smallBuffer
		if c.full && len(c.buf) >= smallBuffer {
			size = largeBuffer
		}
		larger := make([]byte, size)
		c.to = copy(larger, c.buf[:c.to])
		c.buf = larger
	}
	for {
		n, err := c.net.Read(c.buf[c.to:])
		if n > 0 {
			c.to += n
			c.gather()
			c.now, c.full, c.pinged = time.Now(), c.to == len(c.buf), false
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := c.silent(); err != nil {
			return err
		}
	}
}

// gather reads the records of TLS that have come with the one that was read.
func (c *conn) gather() {
	if c.under == nil {
		return
	}
	c.under.haste = true
	for c.to < len(c.buf) {
		n, err := c.net.Read(c.buf[c.to:])
		if c.to += n; err != nil { // it comes again, when a read may wait
			break
		}
	}
	c.under.haste = false
}

// silent asks a client that has sent nothing for a while whether it is there, and tells when it has not answered that.
// Meanwhile the connection takes little memory.
func (c *conn) silent() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drained() {
		return errDrained
	}
	now := time.Now()
	if err := c.lapse(now); err != nil {
		return err
	}
	keepalive, timeout := c.server.o.Keepalive, c.server.o.KeepaliveTimeout
	wait := keepalive - now.Sub(c.now)
	switch {
	case wait > 0:
	case !c.pinged:
		c.pinged = true
		c.out = appendPing(c.out, 0, []byte("are you?"))
		c.flush()
		wait = timeout
	case wait <= -timeout:
		return os.ErrDeadlineExceeded
	default:
		wait += timeout
	}
	if c.to == 0 {
		c.buf = make([]byte, smallBuffer)
	}
	c.table.spare, c.out = nil, nil
	return c.net.SetReadDeadline(now.Add(wait))
}

// turn answers what was read. It knows all calls that wait before it serves any, so that those that are too many are
// told at once.
func (c *conn) turn() error {
	taken := c.take()
	held := c.inHand()
	if held > 0 {
		c.server.gate.enter(c.now, held)
	}
	for now := c.now; held > 0; {
		shed := c.shed(held)
		served := c.pick()
		for i := range c.batches {
			c.run(c.server.ordered[i], &c.batches[i], now)
		}
		c.answer()
		now = time.Now()
		held -= shed + served
		c.server.gate.leave(now, served, shed, held == 0)
	}
	return c.conclude(taken)
}

// inHand is how many calls the turn has brought.
func (c *conn) inHand() (n int) {
	for i := range c.batches {
		n += len(c.batches[i].streams)
	}
	return n
}

// take handles the frames that were read, as far as they are whole.
func (c *conn) take() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.tick(c.now)
	for {
		f, n, err := cut(c.buf[c.from:c.to])
		if n == 0 || err != nil {
			return err
		}
		c.from += n
		if err := c.receive(f); err != nil {
			return err
		}
	}
}

// shed answers those of the calls that are too many, the last to have come, of each method in proportion. It tells how
// many.
func (c *conn) shed(held int) (n int) {
	most := c.server.gate.most.Load()
	if int64(held) <= most {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.batches {
		b := &c.batches[i]
		keep := b.done + ((len(b.streams)-b.done)*int(most)+held-1)/held
		for _, s := range b.streams[keep:] {
			if !s.gone {
				c.out = appendHeaders(c.out, s.id, overloaded, true)
				c.finish(s)
			}
		}
		few := len(b.streams) - keep
		c.server.ordered[i].shed(few)
		clear(b.streams[keep:])
		b.streams = b.streams[:keep]
		n += few
	}
	c.budget.earn(earnedByCall * n)
	c.flush()
	return n
}

// pick chooses the calls that are served next, and tells how many.
func (c *conn) pick() (n int) {
	for i := range c.batches {
		b := &c.batches[i]
		b.next = min(b.done+turnCalls, len(b.streams))
		n += b.next - b.done
	}
	return n
}

// run has a method answer its calls, but for those that nobody waits for any more.
func (c *conn) run(m *method, b *batch, now time.Time) {
	b.calls = b.calls[:0]
	for _, s := range b.streams[b.done:b.next] {
		switch {
		case s.gone:
		case !s.call.Deadline.IsZero() && !now.Before(s.call.Deadline):
			s.call.Code, s.call.Text = codes.DeadlineExceeded, "the deadline passed before the call's turn"
		default:
			b.calls = append(b.calls, &s.call)
		}
	}
	if len(b.calls) > 0 {
		c.guard(m, b.calls)
	}
}

// guard answers the calls of a method that panics.
func (c *conn) guard(m *method, calls []*Call) {
	defer func() {
		if r := recover(); r != nil {
			c.server.o.Log.Error("method panicked", "method", m.path, "stack", string(debug.Stack()))
			for _, call := range calls {
				call.Code, call.Text, call.Later = codes.Internal, "internal error", nil
			}
		}
	}()
	m.run(calls)
}

// answer sends the answers of the calls that were served.
func (c *conn) answer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.batches {
		b, all, ok := &c.batches[i], 0, 0
		for _, s := range b.streams[b.done:b.next] {
			if s.gone || s.call.Later != nil && c.postpone(s) {
				continue
			}
			all++
			if s.call.Code == codes.OK {
				ok++
			} else {
				s.method.answered(s.call.Code, 1)
			}
			c.reply(s)
			if len(c.out) > flushAt {
				c.flush()
			}
		}
		if ok > 0 {
			c.server.ordered[i].answered(codes.OK, ok)
		}
		c.budget.earn(earnedByCall * all)
		b.done = b.next
	}
	c.flush()
}

// conclude ends a turn, and sends what else there is to say. It passes on why the connection must end.
func (c *conn) conclude(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.batches {
		b := &c.batches[i]
		clear(b.streams)
		clear(b.calls)
		b.streams, b.calls, b.done, b.next = b.streams[:0], b.calls[:0], 0, 0
	}
	if c.reopened {
		c.reopened = false
		c.resume()
	}
	if c.owed > connWindow/2 {
		c.out = appendWindowUpdate(c.out, 0, c.owed)
		c.owed = 0
	}
	c.table.sweep()
	if err == nil && c.now.Sub(c.lapsed) > patience {
		err = c.lapse(c.now)
	}
	if v, ok := errors.AsType[*violation](err); ok {
		c.out = appendGoAway(c.out, c.table.last, v.code, v.reason)
	}
	c.flush()
	if err == nil && c.drained() {
		return errDrained
	}
	return err
}

// lapse ends what has taken too long: calls whose message doesn't come, and a connection whose answers aren't read.
func (c *conn) lapse(now time.Time) error {
	c.lapsed = now
	for _, s := range c.table.open {
		if s.gone || s.relay != nil || s.cancel != nil || now.Sub(s.opened) < patience {
			continue
		}
		if len(s.unsent) > 0 {
			return violate(http2.ErrCodeEnhanceYourCalm, "answers aren't read")
		}
		if s.done {
			c.reset(s, http2.ErrCodeNo)
			continue
		}
		c.fail(s, refusal{200, codes.DeadlineExceeded, "the call's message didn't come"})
	}
	c.flush()
	return nil
}
