package xds

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stream is one Envoy. A goroutine of its own reads what it asks for, and answers it; the workers of a publish send what
// has changed, and the timer what has become due: mu is for them all. None of them waits for an Envoy that is slow to
// read: that is left to a goroutine that is there only for as long. mu is never held while bytes go to the Envoy.
type stream struct {
	server   *Server
	grpc     grpc.ServerStream
	protocol Protocol
	only     string // the type URL of a service for one type
	opened   time.Time
	address  string
	patience *time.Timer // ends a stream that asks for nothing
	ended    chan error  // capacity 1: why

	// Set by the first request, before the stream is in its group.
	group   *group
	node    *corev3.Node // id and cluster only, of up to 61 kB
	version string
	talents talents

	seen     atomic.Int64 // when it said something, in Unix nanoseconds
	second   time.Time    // of the reading goroutine: requests are counted within it
	requests int

	mu       sync.Mutex // guards what follows
	target   *Snapshot  // the last one seen
	types    []*subscription
	resumed  bool        // the Envoy had resources when it connected
	unheard  []string    // assignments of clusters that were sent before the Envoy asked for any
	sending  bool        // somebody is
	unacked  int         // bytes sent since everything was acknowledged
	lapse    *time.Timer // ends the stream with what its Envoy has shown; nil: that never ends
	timer    *time.Timer
	due      time.Time // when the timer fires; zero: it does not
	changed  time.Time // when the target did, or the stream began
	progress time.Time // of the last response, acknowledgement or new type
	late     bool      // no progress for a whole StageTimeout
	cleaning bool      // the grace is over: what is left over may go
	revision string
	closed   bool
}

// patience is how long a stream may take to tell its node.
const patience = 10 * time.Second

func newStream(str grpc.ServerStream, s *Server, p Protocol, only string) *stream {
	st := &stream{
		server: s, grpc: str, protocol: p, only: only, opened: time.Now(),
		ended: make(chan error, 1),
	}
	st.patience = time.AfterFunc(patience, func() {
		st.end(status.Errorf(codes.DeadlineExceeded, "no request within %v", patience))
	})
	st.changed, st.progress = st.opened, st.opened
	st.address = addressOf(str.Context())
	return st
}

// enter puts the stream into its group.
func (st *stream) enter(n *corev3.Node) {
	st.patience.Stop()
	st.node = &corev3.Node{Id: n.GetId(), Cluster: n.GetCluster()}
	st.version = envoyVersion(n)
	st.server.join(st)
	st.server.o.Log.Debug("envoy connected", "node", n.GetId(), "group", n.GetCluster(), "address", st.address,
		"protocol", st.protocol, "version", st.version)
	if st.server.current.Load() != nil && st.group.served.Load() == nil {
		st.server.o.Log.Warn("envoy asks for a group that is not served", "node", n.GetId(), "group", n.GetCluster(), "address", st.address)
	}
}

// serves is what the stream is to be brought to; nil: it is held.
func (st *stream) serves() *Snapshot { return st.group.serves(st.node.GetId()) }

// end has the stream end. The first reason counts.
func (st *stream) end(err error) {
	select {
	case st.ended <- err:
	default:
	}
}

// shut stops what could still come: the handler has returned, or is about to.
func (st *stream) shut() {
	st.patience.Stop()
	st.mu.Lock()
	st.closed = true
	if st.timer != nil {
		st.timer.Stop()
	}
	if st.lapse != nil {
		st.lapse.Stop()
	}
	st.mu.Unlock()
}

// read takes the requests, until there are no more.
func (st *stream) read() {
	r := request{protocol: st.protocol}
	for {
		err := st.grpc.RecvMsg(&r)
		if err == nil {
			err = st.receive(&r)
		}
		r.free()
		if err != nil {
			st.end(err)
			return
		}
	}
}

// receive acts on a request.
func (st *stream) receive(r *request) error {
	if err := st.ration(1 + (r.names.count+r.dropped.count+r.known.count)/namesPerRequest); err != nil {
		return err
	}
	url, err := st.typeOf(r)
	if err != nil {
		return err
	}
	if st.group == nil {
		st.talents, st.resumed = st.server.roster.talentsOf(r.node), r.resumes()
	}
	if r.hasNode || st.group == nil {
		n, err := r.readNode(st.group == nil)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		if err := st.admit(n); err != nil {
			return err
		}
	}
	problem, err := r.status()
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	to := st.serves().set(url)

	st.mu.Lock()
	t, err := st.subscription(url)
	if err != nil {
		st.mu.Unlock()
		return err
	}
	if rejected := st.answer(t, string(r.nonce), problem); rejected != nil {
		st.mu.Unlock()
		st.complain(t.kind.short, rejected)
		st.mu.Lock()
	}
	st.resumed = st.resumed || !t.started && r.resumes()
	err = t.subscribe(r, st.server.pool, to)
	if url == resource.EndpointType && st.unheard != nil {
		t.renew(st.unheard, st.server.pool) // it reconnects, and its first question crossed the answer to the one for clusters
		st.unheard = nil
	}
	st.mu.Unlock()
	if err != nil {
		return err
	}
	st.send(true)
	return nil
}

// namesPerRequest is how many names count as much as a request.
const namesPerRequest = 1000

// ration counts the requests of a second.
func (st *stream) ration(n int) error {
	now := time.Now()
	st.seen.Store(now.UnixNano())
	if now.Sub(st.second) >= time.Second {
		st.second, st.requests = now, 0
	}
	if st.requests += n; st.requests > st.server.o.MaxRequests {
		st.server.metrics.floods.Inc()
		return status.Errorf(codes.ResourceExhausted, "more than %d requests within a second", st.server.o.MaxRequests)
	}
	return nil
}

// typeOf is the type URL of a request.
func (st *stream) typeOf(r *request) (string, error) {
	switch {
	case st.only != "" && (len(r.url) == 0 || string(r.url) == st.only):
		return st.only, nil
	case st.only != "":
		return "", status.Errorf(codes.InvalidArgument, "this service is for %s", st.only)
	case len(r.url) == 0:
		return "", status.Error(codes.InvalidArgument, "the request has no type URL")
	}
	for _, t := range st.types { // only this goroutine adds to them
		if string(r.url) == t.url {
			return t.url, nil
		}
	}
	return string(r.url), nil
}

// safe is how many bytes may be on their way to an Envoy while another response cannot block: grpc-go takes on at least as
// much again.
const safe = 32 << 10

// send sends what is due, unless somebody does so already: after a request, a publish, or when time has made something
// due. One that must not block leaves what could to another goroutine.
func (st *stream) send(mustNotBlock bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for st.step() {
		if mustNotBlock && st.unacked > safe {
			go st.send(false)
			return
		}
		t, s, nonce := st.ship()
		st.sending = true
		st.mu.Unlock()
		err := st.grpc.SendMsg(withNonce(s.pieces, nonce))
		st.server.metrics.sent(t, st.group, s.size)
		st.mu.Lock()
		st.sending = false
		if err != nil {
			st.closed = true
			st.end(err)
		}
	}
}

// ship takes what is due. A nonce cannot be guessed: an Envoy that tells it has read the response.
func (st *stream) ship() (*subscription, *shipment, string) {
	t := st.next()
	t.overtake()
	s := t.ship(st.allowed(t))
	st.renewEndpoints(s)
	t.inflight, t.nonce, t.sent, t.at = s, fmt.Sprintf("%016x", rand.Uint64()), s.version, time.Now()
	t.answered = true
	st.unacked += s.size
	st.progress, st.late = t.at, false
	return t, s, t.nonce
}

// renewEndpoints makes the assignments of changed clusters due again, because Envoy waits for them after a change of the
// cluster, but does not ask for what it has.
func (st *stream) renewEndpoints(s *shipment) {
	if len(s.endpoints) == 0 {
		return
	}
	switch e := st.find(resource.EndpointType); {
	case e != nil:
		e.renew(s.endpoints, st.server.pool)
	case st.unheard == nil:
		st.unheard = s.endpoints // which all share
	default:
		st.unheard = slices.Concat(st.unheard, s.endpoints)
	}
}

func (t *subscription) renew(names []string, p *pool) {
	if t.base == nil {
		return
	}
	var again []string
	for _, name := range names {
		if t.wants(name) && t.has(name) != nil {
			again = append(again, name)
		}
	}
	t.asked = p.union(t.asked, p.of(again))
}

// maxTypes bounds the types of a stream.
const maxTypes = 16

// subscription finds or makes the subscription of that type.
func (st *stream) subscription(url string) (*subscription, error) {
	if t := st.find(url); t != nil {
		return t, nil
	}
	if len(st.types) == maxTypes {
		return nil, status.Errorf(codes.ResourceExhausted, "more than %d resource types on one stream", maxTypes)
	}
	t := &subscription{url: url, kind: kindOf(url), protocol: st.protocol}
	st.types = append(st.types, t)
	slices.SortStableFunc(st.types, func(a, b *subscription) int { return a.kind.rank - b.kind.rank })
	st.progress = time.Now()
	return t, nil
}

func (st *stream) find(url string) *subscription {
	for _, t := range st.types {
		if t.url == url {
			return t
		}
	}
	return nil
}
