package callout

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

var errStopping = errors.New("stopping")

// A handoff is the listener that grpc-go serves: of connections that somebody else has accepted.
type handoff struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

func newHandoff() *handoff { return &handoff{conns: make(chan net.Conn), done: make(chan struct{})} }

// give hands a connection over; false tells that nobody takes it any more.
func (h *handoff) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

// Accept waits for the next connection.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr is the port's.
func (h *handoff) Addr() net.Addr { return h.addr }

// handed is a connection for grpc-go, of which some bytes were read already.
type handed struct {
	net.Conn
	read   []byte // and to be read again
	tls    *tls.ConnectionState
	closed func()
	once   sync.Once
}

func newHanded(c net.Conn, read []byte, state *tls.ConnectionState, closed func()) *handed {
	return &handed{Conn: c, read: read, tls: state, closed: closed}
}

func (h *handed) Read(p []byte) (int, error) {
	if len(h.read) == 0 {
		return h.Conn.Read(p)
	}
	n := copy(p, h.read)
	if h.read = h.read[n:]; len(h.read) == 0 {
		h.read = nil
	}
	return n, nil
}

func (h *handed) Close() error {
	if h.closed != nil {
		h.once.Do(h.closed)
	}
	return h.Conn.Close()
}

// Credentials makes a grpc.Server know the peers of a [Server]'s connections: give them to grpc.NewServer with
// grpc.Creds. The handshake is the Server's.
func Credentials() credentials.TransportCredentials { return shaken{} }

type shaken struct{}

func (shaken) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	h, ok := c.(*handed)
	switch {
	case !ok:
		return nil, nil, errors.New("callout: connection of another listener")
	case h.tls == nil:
		return c, nil, nil
	}
	return c, credentials.TLSInfo{
		State:          *h.tls,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (shaken) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("callout: credentials of a server")
}

func (shaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (s shaken) Clone() credentials.TransportCredentials { return s }
func (shaken) OverrideServerName(string) error           { return nil }
