package callout

import (
	"errors"
	"io"
	"time"

	"golang.org/x/net/http2"
)

// lingering is how long a client that was told why may take to close its end.
const lingering = time.Second

var errDrained = errors.New("drained")

// stage is how far the end of a connection has come.
type stage int

const (
	serving stage = iota
	warned        // GOAWAY is out: the client shall open no streams; those on the way are welcome
	leaving       // the client has seen that, and knows the last stream that is answered
	over          // nothing is read or written any more
)

// drain asks the client to go elsewhere. What it has sent until it knows is answered.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goingOff != serving {
		return
	}
	c.goingOff = warned
	c.out = appendGoAway(c.out, anyStream, http2.ErrCodeNo, "")
	c.out = appendPing(c.out, 0, drainPing)
	c.flush()
}

var drainPing = []byte("go away!")

// lastCall follows drain, once the client has answered its ping.
func (c *conn) lastCall() {
	if c.goingOff != warned {
		return
	}
	c.goingOff = leaving
	c.out = appendGoAway(c.out, c.table.last, http2.ErrCodeNo, "")
	c.tell()
}

// tell has the server know that nothing more comes from here for grpc-go.
func (c *conn) tell() {
	if c.goingOff == leaving && c.upstream.waiting == 0 {
		c.told.Do(func() { close(c.off) })
	}
}

func (c *conn) drained() bool { return c.goingOff == leaving && c.table.live == 0 }

// end closes the connection. After a GOAWAY it waits a little for the client to do so: what it still sends would
// otherwise make the kernel throw away what it has yet to read.
func (c *conn) end(err error) {
	c.mu.Lock()
	c.goingOff = over
	c.told.Do(func() { close(c.off) })
	for _, s := range c.table.open {
		if !s.gone {
			c.drop(s, true)
		}
	}
	c.mu.Unlock()
	c.upstream.close()
	c.mu.Lock()
	c.buf, c.out, c.waiting, c.table = nil, nil, nil, table{} // net/http's timers know the connection for a while
	c.mu.Unlock()
	if _, ok := errors.AsType[*violation](err); ok || errors.Is(err, errDrained) {
		c.linger()
	}
	_ = c.net.Close()
}

func (c *conn) linger() {
	half, ok := c.net.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.net.SetReadDeadline(time.Now().Add(lingering)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.net, connWindow)
}
