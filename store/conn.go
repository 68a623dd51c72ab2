package store

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// conn is a connection to Redis that has logged in and knows Redis' time. One batch at a time uses it.
type conn struct {
	net.Conn
	reader
	clock  redisClock
	number uint32 // differs from that of every other connection of this process, and is never 0
	used   int64  // µs, monotonic
}

var conns atomic.Uint32

// dial connects as go-redis' options say: with Sentinel, their dialer asks which Redis is the primary.
func (o *link) dial(ctx context.Context) (*conn, error) {
	nc, err := o.options.Dialer(ctx, o.options.Network, o.options.Addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, reader: newReader(nc), number: conns.Add(1)}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	if err := c.greet(o.options, o.now); err != nil {
		nc.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return c, nil
}

// greet logs in and asks for the time.
func (c *conn) greet(opt *redis.Options, now func() int64) error {
	var b []byte
	steps := 0
	command := func(words ...string) {
		b = appendCommand(b, len(words))
		for _, w := range words {
			b = appendText(b, w)
		}
		steps++
	}
	switch {
	case opt.Username != "":
		command("AUTH", opt.Username, opt.Password)
	case opt.Password != "":
		command("AUTH", opt.Password)
	}
	if opt.DB > 0 {
		b = appendCommand(b, 2)
		b = appendText(b, "SELECT")
		b = appendNumber(b, int64(opt.DB))
		steps++
	}
	if opt.ClientName != "" {
		command("CLIENT", "SETNAME", opt.ClientName)
	}
	b = append(b, askTime...)
	asked := now()
	if _, err := c.Write(b); err != nil {
		return err
	}
	for range steps {
		r, err := c.next()
		if err != nil {
			return err
		}
		if err := r.err(status); err != nil {
			return err
		}
	}
	_, err := c.readTime(asked, now)
	return err
}

const askTime = "*1\r\n$4\r\nTIME\r\n"

// readTime reads the answer to TIME.
func (c *conn) readTime(asked int64, now func() int64) (set bool, err error) {
	r, err := c.next()
	if err != nil {
		return false, err
	}
	if err := r.err(array); err != nil {
		return false, err
	}
	if r.number != 2 {
		return false, errReply
	}
	var at [2]int64
	for i := range at {
		r, err := c.next()
		if err != nil {
			return false, err
		}
		n, ok := number(r.text)
		if r.kind != text || !ok {
			return false, errReply
		}
		at[i] = n
	}
	return c.clock.learn(at[0]*second+at[1], asked, now()), nil
}

// alive tells whether Redis has neither closed the connection nor said what it wasn't asked. What is sent over one that is
// closed is lost without a word.
func (c *conn) alive() bool {
	if c.start != c.end || c.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	var nc net.Conn = c.Conn
	for {
		if s, ok := nc.(syscall.Conn); ok {
			return silent(s)
		}
		under, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return true
		}
		nc = under.NetConn()
	}
}

// silent looks, without taking anything or waiting, whether there is something to read.
func silent(s syscall.Conn) bool {
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		ok = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return ok && err == nil
}

// link is a lane's connection; one that broke is made anew when it is needed.
type link struct {
	options *redis.Options // how to dial and log in
	now     func() int64   // µs, monotonic

	mu      sync.Mutex // guards what follows
	conn    *conn
	stale   bool          // it leads to a Redis that isn't the primary any more
	dialing chan struct{} // closed when the dial under way ends; nil when there is none
	err     error         // of the last dial
	closed  bool
}

// idle is for how long, in µs, a connection is taken to be as it was.
const idle = 1000

// linkTimeout bounds a dial and the login. It runs on after the batch that asked for it gave up, for the next one to use.
const linkTimeout = 500 * time.Millisecond

// get gives the connection, and waits for one at most until the deadline. Only who leads a batch may use it.
func (o *link) get(deadline time.Time) (*conn, error) {
	o.mu.Lock()
	c, stale := o.conn, o.stale
	o.mu.Unlock()
	switch {
	case c == nil:
		return o.ready(deadline)
	case !stale && (o.now()-c.used < idle || c.alive()):
		return c, nil
	}
	o.drop(c)
	return o.ready(deadline)
}

// ready waits for a connection, at most until the deadline.
func (o *link) ready(deadline time.Time) (*conn, error) {
	o.mu.Lock()
	if o.conn != nil || o.closed {
		defer o.mu.Unlock()
		return o.conn, o.err
	}
	done := o.dialing
	if done == nil {
		done = make(chan struct{})
		o.dialing = done
		go o.redial(done)
	}
	o.mu.Unlock()

	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil, context.DeadlineExceeded
	case <-done:
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.conn, o.err
}

func (o *link) redial(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), linkTimeout)
	defer cancel()
	c, err := o.dial(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed && c != nil {
		c.Close()
		c, err = nil, net.ErrClosed
	}
	if c != nil {
		c.used = o.now()
	}
	o.conn, o.stale, o.err, o.dialing = c, false, err, nil
	close(done)
}

// follow has the next batch go to the Redis at addr.
func (o *link) follow(addr string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conn == nil {
		return
	}
	if p, ok := o.conn.Conn.(patient); ok && p.addr != addr {
		o.stale = true
	}
}

// drop closes c: its outstanding replies are nobody's.
func (o *link) drop(c *conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conn == c {
		o.conn, o.err = nil, errCut
	}
	c.Close()
}

// close ends what is under way.
func (o *link) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.err = true, net.ErrClosed
	if o.conn != nil {
		o.conn.Close()
		o.conn = nil
	}
}
