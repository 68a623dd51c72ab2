package callout

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/net/http2"
)

// soon is how long a client may take for its first call to have grpc-go serve its connection. One that comes later is
// served by the loop, which forwards calls: somebody has to answer its pings.
const soon = 200 * time.Millisecond

// A verdict is who serves a connection.
type verdict int

const (
	undecided verdict = iota
	ours
	theirs
	neither // it isn't HTTP/2
)

// A refused connection is closed before its first call.
type refused struct {
	reason string
}

func (r refused) Error() string { return r.reason }

// greet brings a connection to its first call. What it has read of it is handed on.
func (s *Server) greet(c net.Conn) (net.Conn, *tls.ConnectionState, []byte, verdict, error) {
	until := time.Now().Add(s.o.Handshake)
	_ = c.SetDeadline(until)
	var state *tls.ConnectionState
	if s.o.TLS != nil {
		t := tls.Server(newHasty(c), s.o.TLS)
		if err := t.Handshake(); err != nil {
			return c, nil, nil, neither, startError(err, "tls")
		}
		c, state = t, new(t.ConnectionState())
		if state.NegotiatedProtocol != "h2" {
			return c, nil, nil, neither, refused{"alpn"}
		}
	}
	// It says nothing that would not be so if grpc-go served the connection, whose own settings follow then.
	if _, err := c.Write(appendSettings(nil)); err != nil {
		return c, nil, nil, neither, startError(err, "preface")
	}
	read, v, err := s.sniff(c, until)
	if err != nil {
		return c, nil, nil, neither, err
	}
	return c, state, read, v, c.SetDeadline(time.Time{})
}

// startError tells a handshake that took too long from one that failed otherwise, and from one that we have ended.
func startError(err error, reason string) error {
	switch {
	case errors.Is(err, net.ErrClosed):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = "timeout"
	}
	return refused{reason}
}

// sniff reads until it is clear who serves the connection.
func (s *Server) sniff(c net.Conn, until time.Time) ([]byte, verdict, error) {
	buf := make([]byte, 0, smallBuffer)
	hurried := false
	for {
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 && hurried && errors.Is(err, os.ErrDeadlineExceeded) {
			return buf, ours, nil
		}
		if n == 0 && err != nil {
			return nil, neither, startError(err, "preface")
		}
		v, greeted := s.judge(buf)
		switch {
		case v == neither:
			return nil, neither, refused{"preface"}
		case v != undecided:
			return buf, v, nil
		case len(buf) == largeBuffer:
			return buf, ours, nil
		case len(buf) == cap(buf):
			buf = append(make([]byte, 0, min(2*cap(buf), largeBuffer)), buf...)
		}
		if greeted && !hurried {
			hurried = true
			if at := time.Now().Add(soon); at.Before(until) {
				_ = c.SetReadDeadline(at)
			}
		}
	}
}

// judge tells who serves a connection, from its first bytes. It is greeted once the client's SETTINGS are there.
func (s *Server) judge(b []byte) (v verdict, greeted bool) {
	n := min(len(b), len(http2.ClientPreface))
	switch {
	case !bytes.Equal(b[:n], []byte(http2.ClientPreface[:n])):
		return neither, false
	case n < len(http2.ClientPreface):
		return undecided, false
	}
	b = b[n:]
	for {
		f, n, err := cut(b)
		if err != nil {
			return ours, greeted // to be told off
		}
		if n == 0 {
			return undecided, greeted
		}
		b = b[n:]
		switch f.kind {
		case http2.FrameSettings:
			greeted = true
		case http2.FrameWindowUpdate, http2.FramePriority:
		case http2.FrameHeaders:
			return s.judgeCall(f, greeted), greeted
		default:
			return ours, greeted
		}
		if !greeted {
			return ours, false
		}
	}
}

// judgeCall tells whose the first call is. What isn't plain is left to the loop.
func (s *Server) judgeCall(f frame, greeted bool) verdict {
	block, err := f.unpad()
	if f.flags.Has(http2.FlagHeadersPriority) {
		block = block[min(5, len(block)):]
	}
	if !greeted || err != nil || !f.flags.Has(http2.FlagHeadersEndHeaders) {
		return ours
	}
	r, err := newHeaders(s.methods).request(block)
	if err != nil || r.malformed != "" || r.refusal != nil || r.method != nil {
		return ours
	}
	return theirs
}
