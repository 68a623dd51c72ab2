package store

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

// dialTimeout bounds a dial, which runs on after the request that asked for it gave up, for the next one to use.
const dialTimeout = time.Second

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer connects to Redis. It never fails: after as many failed dials as it may hold connections, go-redis' pool would
// try again once a second only, and Redis would be back for longer than that before we see it. What couldn't be reached
// fails at the first write instead.
func dialer(o Options, config *tls.Config) dialFunc {
	plain := &net.Dialer{Timeout: dialTimeout}
	dial := plain.DialContext
	switch {
	case o.dial != nil:
		dial = o.dial
	case config != nil:
		dial = (&tls.Dialer{NetDialer: plain, Config: config}).DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if to, ok := ctx.Value(looking{}).(*string); ok {
			*to = addr
			return nil, errLooking
		}
		c, err := dial(ctx, network, addr)
		if err != nil {
			return unreached{err}, nil
		}
		return patient{c, addr}, nil
	}
}

// looking is the key of a context by which a dialer only tells where it would connect to.
type looking struct{}

var errLooking = errors.New("not dialled")

// primary is the address that go-redis would connect to now: with Sentinel, that of the primary.
func primary(ctx context.Context, o *redis.Options) (addr string, err error) {
	c, err := o.Dialer(context.WithValue(ctx, looking{}, &addr), o.Network, o.Addr)
	switch {
	case err == nil:
		c.Close()
	case errors.Is(err, errLooking):
		return addr, nil
	}
	return "", err
}

// patient is a connection that, when its time is up, takes what has come already: a process that didn't run for a
// while on a busy machine finds the deadline and the answer at once, and Go looks at the deadline first.
type patient struct {
	net.Conn
	addr string // that it was dialled by
}

// NetConn is for go-redis, which looks whether an idle connection is still good.
func (p patient) NetConn() net.Conn { return p.Conn }

const grace = 500 * time.Microsecond

func (p patient) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || p.SetReadDeadline(time.Now().Add(grace)) != nil {
		return n, err
	}
	return p.Conn.Read(b)
}

// unreached is a connection that was never made.
type unreached struct{ err error }

func (u unreached) Read([]byte) (int, error)       { return 0, u.err }
func (u unreached) Write([]byte) (int, error)      { return 0, u.err }
func (unreached) Close() error                     { return nil }
func (unreached) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (unreached) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (unreached) SetDeadline(time.Time) error      { return nil }
func (unreached) SetReadDeadline(time.Time) error  { return nil }
func (unreached) SetWriteDeadline(time.Time) error { return nil }
