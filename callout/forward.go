package callout

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

const (
	maxForwarded  = 256      // calls at once that a connection has grpc-go answer; each may hold initWindow bytes
	relayedBytes  = 16 << 10 // of an answer at once
	upstreamIdles = time.Minute
)

// An upstream is a connection's way to grpc-go for calls that the loop has no method for: HTTP/2 over a connection in
// memory, made with the first such call. What the calls consist of is passed on as it is.
type upstream struct {
	transport *http.Transport
	calls     sync.WaitGroup
	count     int // of calls
	waiting   int // of these, for a way to grpc-go

	mu     sync.Mutex // guards what follows
	pipes  []net.Conn // made so far
	closed bool
}

func (u *upstream) dial(l *handoff, remote *conn) (net.Conn, error) {
	near, far := pipes(remote.net.LocalAddr(), remote.net.RemoteAddr())
	if !l.give(newHanded(far, nil, remote.tls, nil)) {
		return nil, errStopping
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed { // net/http dials on for a call that has ended meanwhile
		_ = near.Close()
		return nil, errStopping
	}
	u.pipes = append(u.pipes, near)
	return near, nil
}

// close ends the calls that are left, and waits for that.
func (u *upstream) close() {
	u.calls.Wait()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, p := range u.pipes {
		_ = p.Close()
	}
}

// relayed is a call that grpc-go answers. It is the body of the request too. All of its fields are guarded by the
// connection's mutex.
type relayed struct {
	conn    *conn
	stream  *stream
	cancel  context.CancelFunc
	begun   bool // grpc-go knows of the call
	changed sync.Cond
	body    []byte // read by nobody yet
	taken   int    // bytes read since the client's window was widened
}

// forward has grpc-go answer a call.
func (c *conn) forward(s *stream, r *request) error {
	if c.upstream.count >= maxForwarded || c.server.forwarded.Load() >= int64(c.server.o.MaxForwarded) {
		return c.odd(s.id, http2.ErrCodeRefusedStream)
	}
	if c.upstream.transport == nil {
		c.upstream.transport = c.newTransport()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.relay = &relayed{conn: c, stream: s, cancel: cancel}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: s.relay.wroteHeaders})
	s.relay.changed.L = &c.mu
	request := (&http.Request{
		Method: http.MethodPost,
		URL:    &url.URL{Scheme: "http", Host: "grpc", Opaque: r.path},
		Host:   r.authority,
		Header: http.Header{"User-Agent": nil}, // none of Go's
		Body:   s.relay, ContentLength: -1,
	}).WithContext(ctx)
	for _, f := range r.fields {
		if !f.IsPseudo() && f.Name != "host" {
			name := http.CanonicalHeaderKey(f.Name)
			request.Header[name] = append(request.Header[name], f.Value)
		}
	}
	c.upstream.count++
	c.upstream.waiting++
	c.server.forwarded.Add(1)
	c.server.metrics.forwarded.Inc()
	c.upstream.calls.Go(func() { s.relay.run(request) })
	return nil
}

func (c *conn) newTransport() *http.Transport {
	t := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return c.upstream.dial(c.server.handoff, c)
		},
		Protocols:          new(http.Protocols),
		DisableCompression: true,
		IdleConnTimeout:    upstreamIdles,
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// run passes the answer on.
func (r *relayed) run(request *http.Request) {
	c := r.conn
	answer, err := c.upstream.transport.RoundTrip(request)
	if err == nil {
		err = r.pass(answer)
		_ = answer.Body.Close()
	}
	r.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.upstream.count--
	r.begin()
	c.server.forwarded.Add(-1)
	if err != nil && !r.stream.gone {
		c.abort(r.stream, err, answer != nil)
	}
	c.flush()
	if c.drained() {
		_ = c.net.SetReadDeadline(time.Now()) // the loop waits for a client that has nothing to say any more
	}
}

func (r *relayed) wroteHeaders() {
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()
	r.begin()
}

func (r *relayed) begin() {
	if !r.begun {
		r.begun = true
		r.conn.upstream.waiting--
		r.conn.tell()
	}
}

// abort ends a call as grpc-go, or the way to it, has.
func (c *conn) abort(s *stream, err error, begun bool) {
	if reset, ok := errors.AsType[http2.StreamError](err); ok {
		c.reset(s, reset.Code)
		return
	}
	switch {
	case errors.Is(err, errStopping): // nothing saw the call: the client may try elsewhere
		c.reset(s, http2.ErrCodeRefusedStream)
	case begun:
		c.reset(s, http2.ErrCodeInternal)
	default:
		c.fail(s, refusal{200, codes.Unavailable, "no answer"})
	}
}

// pass sends an answer as it comes.
func (r *relayed) pass(answer *http.Response) error {
	only := answer.ContentLength == 0 // its headers ended it
	headers := appendFields(appendStatus(nil, answer.StatusCode), answer.Header)
	if !r.write(func(c *conn) { c.out = appendHeaders(c.out, r.stream.id, headers, only) }, only) || only {
		return nil
	}
	buf := make([]byte, relayedBytes)
	for {
		n, err := answer.Body.Read(buf)
		if n > 0 && !r.send(buf[:n]) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	trailers := appendFields(nil, answer.Trailer)
	r.write(func(c *conn) {
		if len(trailers) > 0 {
			c.out = appendHeaders(c.out, r.stream.id, trailers, true)
		} else {
			c.out = appendFrame(c.out, 0, http2.FrameData, http2.FlagDataEndStream, r.stream.id)
		}
	}, true)
	return nil
}

// write sends frames, unless the stream is gone; it is after the last ones.
func (r *relayed) write(frames func(*conn), last bool) bool {
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.stream.gone {
		return false
	}
	frames(c)
	if last {
		c.finish(r.stream)
	}
	c.flush()
	return true
}

// send sends a piece of the answer, and waits until the client's windows have let all of it pass.
func (r *relayed) send(piece []byte) bool {
	c, s := r.conn, r.stream
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.gone {
		return false
	}
	s.unsent = piece
	c.send(s)
	c.flush()
	for len(s.unsent) > 0 && !s.gone {
		r.changed.Wait()
	}
	c.budget.earn(earnedByCall)
	return !s.gone
}

func (r *relayed) sent() { r.changed.Broadcast() }

func (r *relayed) dropped() {
	r.cancel()
	r.changed.Broadcast()
}

// receive takes a piece of the call. The client's window bounds how much of it may wait here.
func (r *relayed) receive(piece []byte) error {
	r.body = append(r.body, piece...)
	if s := r.stream; s.ended && s.length != noLength && s.length != s.got {
		return r.conn.odd(s.id, http2.ErrCodeProtocol)
	}
	r.changed.Broadcast()
	return nil
}

// padding gives back what padding took of the client's window.
func (r *relayed) padding(n int) { r.taken += n }

// Read hands on what the client has sent.
func (r *relayed) Read(p []byte) (int, error) {
	c, s := r.conn, r.stream
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(r.body) == 0 && !s.ended && !s.gone {
		r.changed.Wait()
	}
	if s.gone {
		return 0, context.Canceled
	}
	n := copy(p, r.body)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	if r.body = r.body[n:]; len(r.body) == 0 {
		r.body = nil
	}
	if r.taken += n; r.taken > initWindow/2 && !s.ended {
		c.out = appendWindowUpdate(c.out, s.id, r.taken)
		s.credit += r.taken
		r.taken = 0
		c.flush()
	}
	return n, nil
}

// Close does nothing: the body ends with its stream.
func (r *relayed) Close() error { return nil }

func appendStatus(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, status200)
	}
	return appendField(b, ":status", strconv.Itoa(status))
}

func appendFields(b []byte, fields http.Header) []byte {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		for _, value := range fields[name] {
			b = appendField(b, strings.ToLower(name), value)
		}
	}
	return b
}
