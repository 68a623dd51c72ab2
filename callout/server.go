package callout

import (
	"cmp"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
)

// Options are what a [Server] is made of. Only Methods are needed.
type Options struct {
	Methods  map[string]Method // by path, such as /envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit
	Fallback *grpc.Server      // answers all else; without it all else is unimplemented. See [Credentials]
	TLS      *tls.Config       // plain text when nil

	MaxMessage       int           // largest message of a call in bytes; 1 MiB when 0
	MaxHeld          int           // bytes of messages that have come in part, of all clients; 64 MiB when 0. Beyond it a connection may hold 64 KiB
	MaxForwarded     int           // calls that grpc-go answers at once on connections of the loop; 1024 when 0
	MaxWaiting       int           // calls that wait for others at once, of all clients; 16,384 when 0. A connection may have 900
	Handshake        time.Duration // for TLS and the first frames; 10 s when 0
	Starting         int           // connections at once that are that far; 4096 when 0. Beyond it the oldest is closed
	Keepalive        time.Duration // silence after which a client is asked whether it is there; 30 s when 0
	KeepaliveTimeout time.Duration // for its answer; 10 s when 0
	MaxAge           time.Duration // after which a client is asked to connect anew, give or take a tenth; any when 0

	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// A Server answers the calls of one port.
type Server struct {
	o       Options
	methods map[string]*method
	ordered []*method
	metrics *metrics
	handoff *handoff
	gate    *gate

	held      atomic.Int64 // bytes of the connections' bodies
	forwarded atomic.Int64 // calls under way
	waiting   atomic.Int64 // calls that wait for others

	mu       sync.Mutex // guards what follows
	stopping bool
	starting list.List // of net.Conn, oldest first
	conns    map[*conn]struct{}
	all      sync.WaitGroup // goroutines of connections, and of calls that wait
}

// New makes a server. It starts nothing.
func New(o Options) *Server {
	o.MaxMessage = cmp.Or(o.MaxMessage, 1<<20)
	o.MaxHeld = cmp.Or(o.MaxHeld, 64<<20)
	o.MaxForwarded = cmp.Or(o.MaxForwarded, 1024)
	o.MaxWaiting = cmp.Or(o.MaxWaiting, 16384)
	o.Handshake = cmp.Or(o.Handshake, 10*time.Second)
	o.Starting = cmp.Or(o.Starting, 4096)
	o.Keepalive = cmp.Or(o.Keepalive, 30*time.Second)
	o.KeepaliveTimeout = cmp.Or(o.KeepaliveTimeout, 10*time.Second)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Fallback == nil {
		o.Fallback = grpc.NewServer(grpc.Creds(Credentials()))
	}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
		o.TLS.NextProtos = []string{"h2"}
	}
	s := &Server{
		o: o, methods: map[string]*method{}, metrics: newMetrics(o.Metrics),
		handoff: newHandoff(), gate: newGate(time.Now()), conns: map[*conn]struct{}{},
	}
	for i, path := range slices.Sorted(maps.Keys(o.Methods)) {
		m := newMethod(path, i, o.Methods[path], s.metrics)
		s.methods[path] = m
		s.ordered = append(s.ordered, m)
	}
	return s
}

// Run serves until ctx ends. Then clients are told to go elsewhere, and what is in flight may take as long as grace.
// Neither the server nor its Fallback can be used again.
func (s *Server) Run(ctx context.Context, l net.Listener, grace time.Duration) error {
	s.handoff.addr = l.Addr()
	var fallback sync.WaitGroup
	fallback.Go(func() {
		_ = s.o.Fallback.Serve(s.handoff) // ends when it is stopped, with nothing to tell
	})
	ended := context.AfterFunc(ctx, func() { _ = l.Close() })
	err := s.accept(ctx, l)
	if !ended() {
		err = nil
	}
	hard := time.AfterFunc(grace, s.kill)
	s.drain()
	s.o.Fallback.GracefulStop()
	s.all.Wait()
	fallback.Wait()
	hard.Stop()
	if err != nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// accept takes connections until the listener is closed. One that can't be taken, for want of file descriptors above
// all, is tried again.
func (s *Server) accept(ctx context.Context, l net.Listener) error {
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		if err == nil {
			pause = 0
			s.start(c)
			continue
		}
		if temporary, ok := errors.AsType[interface {
			error
			Temporary() bool
		}](err); !ok || !temporary.Temporary() || ctx.Err() != nil {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.o.Log.Warn("connection not accepted", "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// start serves a connection. When too many are at their start, the oldest of them must go.
func (s *Server) start(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		_ = c.Close()
		return
	}
	if s.starting.Len() >= s.o.Starting {
		s.metrics.refused.WithLabelValues("crowded").Inc()
		_ = s.starting.Remove(s.starting.Front()).(net.Conn).Close()
	}
	place := s.starting.PushBack(c)
	s.all.Go(func() { s.serve(c, place) })
}

func (s *Server) serve(accepted net.Conn, place *list.Element) {
	c, state, read, v, err := s.greet(accepted)
	s.mu.Lock()
	s.starting.Remove(place)
	s.mu.Unlock()
	switch {
	case err != nil:
		if r, ok := errors.AsType[refused](err); ok {
			s.metrics.refused.WithLabelValues(r.reason).Inc()
		}
		_ = accepted.Close()
	case v == theirs:
		s.metrics.handed.Inc()
		h := newHanded(c, read, state, s.metrics.handed.Dec)
		if !s.handoff.give(h) {
			_ = h.Close()
		}
	default:
		s.loop(newConn(s, accepted, c, state, read[len(http2.ClientPreface):]))
	}
}

func (s *Server) loop(c *conn) {
	s.mu.Lock()
	stopping := s.stopping
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.metrics.loops.Inc()
	if stopping {
		c.drain()
	}
	if s.o.MaxAge > 0 {
		defer time.AfterFunc(s.o.MaxAge-s.o.MaxAge/10+rand.N(s.o.MaxAge/5+1), c.drain).Stop()
	}
	c.serve()
	s.metrics.loops.Dec()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// drain tells all clients to go elsewhere, and waits until those of the loop know: until then they may send calls for
// grpc-go. Those that don't answer are not waited for long.
func (s *Server) drain() {
	s.mu.Lock()
	s.stopping = true
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	limit := time.After(time.Second)
	time.AfterFunc(time.Second, s.closeStarting)
	for _, c := range conns {
		go c.drain()
	}
	for _, c := range conns {
		select {
		case <-c.off:
		case <-limit:
			return
		}
	}
}

// kill ends what is left.
func (s *Server) kill() {
	s.mu.Lock()
	for c := range s.conns {
		_ = c.raw.Close()
	}
	s.mu.Unlock()
	s.closeStarting()
	s.o.Fallback.Stop()
}

// closeStarting ends connections that have not come to a call.
func (s *Server) closeStarting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.starting.Front(); e != nil; e = e.Next() {
		_ = e.Value.(net.Conn).Close()
	}
}
