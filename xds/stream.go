package xds

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/config"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stream is one Envoy. It is the cache and the callbacks of the go-control-plane server that speaks with it, which
// calls all of them from one goroutine. Publish and the timer come from others: mu is for them. It is never held while
// bytes go to the Envoy. The channels that are written to under it have room for every token there can be.
type stream struct {
	server   *Server
	ctx      context.Context // the gRPC stream's: go-control-plane asks each response for it
	protocol Protocol
	opened   time.Time
	address  string
	end      context.CancelCauseFunc // ends the stream with a status

	// Set by the first request, before the stream is in its group.
	group   *group
	node    *corev3.Node // id and cluster only, of up to 61 kB
	version string
	lapse   *time.Timer // ends the stream with what its Envoy has shown; nil: that never ends

	second   time.Time // of the stream's own goroutine: requests are counted within it
	requests int

	mu       sync.Mutex // guards what follows
	target   *Snapshot  // the last one seen
	types    []*subscription
	timer    *time.Timer
	changed  time.Time // when the target did, or the stream began
	progress time.Time // of the last response, acknowledgement or new type
	late     bool      // no progress for a whole StageTimeout
	cleaning bool      // the grace is over: what is left over may go
	revision string
	closed   bool
}

var (
	_ cache.Cache        = (*stream)(nil)
	_ serverv3.Callbacks = (*stream)(nil)
)

func newStream(ctx context.Context, end context.CancelCauseFunc, s *Server, p Protocol) *stream {
	st := &stream{server: s, ctx: ctx, end: end, protocol: p, opened: time.Now(), address: addressOf(ctx)}
	st.changed, st.progress = st.opened, st.opened
	return st
}

// options: no answer is taken for "everything" unless Envoy means it so. An on-demand type starts with no name.
func options() []config.XDSOption {
	var tame []string
	for url, k := range kinds {
		if !k.wild {
			tame = append(tame, url)
		}
	}
	return []config.XDSOption{config.DeactivateLegacyWildcardForTypes(tame)}
}

// enter puts the stream into its group.
func (st *stream) enter(n *corev3.Node) {
	st.node = &corev3.Node{Id: n.GetId(), Cluster: n.GetCluster()}
	st.version = envoyVersion(n)
	st.server.join(st)
	st.server.o.Log.Debug("envoy connected", "node", n.GetId(), "group", n.GetCluster(), "address", st.address,
		"protocol", st.protocol, "version", st.version)
	if st.server.current.Load() != nil && st.group.served.Load() == nil {
		st.server.o.Log.Warn("envoy asks for a group that is not served", "node", n.GetId(), "group", n.GetCluster(), "address", st.address)
	}
}

// OnStreamOpen does nothing: a stream is nobody's before its first request.
func (st *stream) OnStreamOpen(context.Context, int64, string) error { return nil }

// OnDeltaStreamOpen does nothing.
func (st *stream) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnStreamClosed stops the timer. The watches are cancelled by now.
func (st *stream) OnStreamClosed(int64, *corev3.Node) { st.shut() }

// OnDeltaStreamClosed stops the timer.
func (st *stream) OnDeltaStreamClosed(int64, *corev3.Node) { st.shut() }

func (st *stream) shut() {
	st.mu.Lock()
	st.closed = true
	if st.timer != nil {
		st.timer.Stop()
	}
	st.mu.Unlock()
	if st.lapse != nil {
		st.lapse.Stop()
	}
	if st.group != nil {
		st.server.o.Log.Debug("envoy left", "node", st.node.GetId(), "group", st.group.name, "address", st.address)
	}
}

// OnStreamRequest admits the request and notes the ACK or NACK in it.
func (st *stream) OnStreamRequest(_ int64, r *discoveryv3.DiscoveryRequest) error {
	if err := st.receive(r.GetNode(), r.GetTypeUrl()); err != nil {
		return err
	}
	slim(r.GetNode())
	st.share(r.GetTypeUrl(), r.GetResourceNames())
	st.answer(r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
	return nil
}

// OnStreamDeltaRequest admits the request and notes the ACK or NACK in it.
func (st *stream) OnStreamDeltaRequest(_ int64, r *discoveryv3.DeltaDiscoveryRequest) error {
	if err := st.receive(r.GetNode(), r.GetTypeUrl()); err != nil {
		return err
	}
	slim(r.GetNode())
	st.share(r.GetTypeUrl(), r.GetResourceNamesSubscribe())
	st.answer(r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
	return nil
}

func (st *stream) receive(n *corev3.Node, url string) error {
	now := time.Now()
	if now.Sub(st.second) >= time.Second {
		st.second, st.requests = now, 0
	}
	if st.requests++; st.requests > st.server.o.MaxRequests {
		return status.Errorf(codes.ResourceExhausted, "more than %d requests within a second", st.server.o.MaxRequests)
	}
	if url == resource.AnyType {
		return status.Error(codes.InvalidArgument, "the request has no type URL")
	}
	return st.admit(n)
}

// slim empties the node in place, because go-control-plane keeps it for as long as the stream lives.
func slim(n *corev3.Node) {
	if n == nil {
		return
	}
	id, cluster := n.GetId(), n.GetCluster()
	n.Reset()
	n.Id, n.Cluster = id, cluster
}

// share replaces the names by the strings of the snapshot: thousands of streams keep thousands of equal names.
func (st *stream) share(url string, names []string) {
	snapshot := st.group.served.Load()
	if snapshot == nil {
		return
	}
	of := snapshot.set(url)
	for i, name := range names {
		if e := of.byName[name]; e != nil {
			names[i] = e.Name
		}
	}
}

// CreateWatch is called for each state-of-the-world request.
func (st *stream) CreateWatch(r *cache.Request, sub cache.Subscription, c chan cache.Response) (func(), error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	t, err := st.subscription(r.GetTypeUrl())
	if err != nil {
		return nil, err
	}
	if err := t.subscribe(sub, sub.SubscribedResources(), nil); err != nil {
		return nil, err
	}
	return st.watch(t, func() {
		select {
		case c <- response{st, t}:
		default: // cannot be: the channel is new and has room for one
		}
	}), nil
}

// CreateDeltaWatch is called for each delta request.
func (st *stream) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, c chan cache.DeltaResponse) (func(), error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	t, err := st.subscription(r.GetTypeUrl())
	if err != nil {
		return nil, err
	}
	if !t.started {
		t.knowInitially(r.GetInitialResourceVersions())
	}
	asked := make(map[string]struct{}, len(r.GetResourceNamesSubscribe()))
	for _, name := range r.GetResourceNamesSubscribe() {
		asked[name] = struct{}{}
	}
	if err := t.subscribe(sub, asked, r.GetResourceNamesUnsubscribe()); err != nil {
		return nil, err
	}
	return st.watch(t, func() {
		select {
		case c <- deltaResponse{st, t}:
		default: // cannot be: there is one token a type, and room for more than there are types
		}
	}), nil
}

// Fetch is for REST, which is not registered.
func (st *stream) Fetch(context.Context, *cache.Request) (cache.Response, error) {
	return nil, errors.New("fetch is not served")
}

// OnFetchRequest is for REST, which is not registered.
func (st *stream) OnFetchRequest(context.Context, *discoveryv3.DiscoveryRequest) error {
	return errors.New("fetch is not served")
}

// OnFetchResponse is for REST, which is not registered.
func (st *stream) OnFetchResponse(*discoveryv3.DiscoveryRequest, *discoveryv3.DiscoveryResponse) {}

// watch opens the subscription for one response. The returned function closes it again.
func (st *stream) watch(t *subscription, send func()) func() {
	t.send = send
	st.step()
	return func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		t.send = nil
		if st.protocol == SotW {
			t.queued = false // its channel is abandoned
		}
	}
}

// maxTypes is below what the channel of a delta stream has room for.
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
