package callout

import (
	"io"
	"net"
	"os"
	"syscall"
)

// A hasty is a connection under TLS whose reads can be made not to wait. TLS gives one record at a time, and doesn't
// tell whether there are more: the calls that wait in them are to be known, too.
type hasty struct {
	net.Conn
	raw   syscall.RawConn // nil where there is none
	haste bool            // a read takes what is there, or fails with os.ErrDeadlineExceeded
}

func newHasty(c net.Conn) *hasty {
	h := &hasty{Conn: c}
	if s, ok := c.(syscall.Conn); ok {
		h.raw, _ = s.SyscallConn()
	}
	return h
}

func (h *hasty) Read(p []byte) (n int, err error) {
	if !h.haste {
		return h.Conn.Read(p)
	}
	if h.raw == nil {
		return 0, os.ErrDeadlineExceeded
	}
	var failed error
	err = h.raw.Read(func(fd uintptr) bool {
		n, failed = syscall.Read(int(fd), p)
		return true
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil: // EAGAIN; another failure comes again, when the read may wait
		return 0, os.ErrDeadlineExceeded
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}
