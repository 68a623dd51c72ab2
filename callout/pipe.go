package callout

import (
	"io"
	"net"
	"sync"
	"time"
)

// A flow is one direction of a connection in memory. Unlike net.Pipe's it holds some bytes, since both ends of HTTP/2
// write before they read.
type flow struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte
	closed  bool
}

const flowBytes = 64 << 10

func newFlow() *flow {
	f := &flow{}
	f.changed.L = &f.mu
	return f
}

func (f *flow) read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.buf) == 0 && !f.closed {
		f.changed.Wait()
	}
	if len(f.buf) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.buf)
	if f.buf = f.buf[n:]; len(f.buf) == 0 {
		f.buf = nil
	}
	f.changed.Broadcast()
	return n, nil
}

func (f *flow) write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	written := 0
	for {
		if f.closed {
			return written, io.ErrClosedPipe
		}
		n := min(len(p)-written, flowBytes-len(f.buf))
		if n > 0 {
			f.buf = append(f.buf, p[written:written+n]...)
			written += n
			f.changed.Broadcast()
		}
		if written == len(p) {
			return written, nil
		}
		f.changed.Wait()
	}
}

func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.changed.Broadcast()
}

// An end is one end of a connection in memory. It knows no deadlines: nothing is slow between its ends, and each is
// closed when the other is.
type end struct {
	in, out       *flow
	local, remote net.Addr
}

// pipes makes a connection in memory. Its far end sees the address of a client.
func pipes(local, remote net.Addr) (near, far net.Conn) {
	there, back := newFlow(), newFlow()
	return &end{back, there, remote, local}, &end{there, back, local, remote}
}

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }

func (e *end) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

func (e *end) LocalAddr() net.Addr              { return e.local }
func (e *end) RemoteAddr() net.Addr             { return e.remote }
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }
