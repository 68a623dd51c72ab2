package xds

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Options are the settings of a server. The zero value works.
type Options struct {
	Log     *slog.Logger          // discards when nil
	Metrics prometheus.Registerer // registers nowhere when nil

	// StageTimeout is how long an Envoy may stand still before what waits for its acknowledgement goes on without
	// it, and before a publication stops waiting for it; 5 s when 0.
	StageTimeout time.Duration

	// RemovalGrace is how long an Envoy keeps a cluster, an endpoint assignment, a secret, a route or an extension
	// config that nothing leads to any more: requests that were routed before may still need it, as when they wait
	// for an auth answer. 1 s when 0.
	RemovalGrace time.Duration

	// RetryNACK is how long after a rejection the rejected resources are sent again unchanged, for what can heal by
	// itself (a port that was taken). Never when 0; at least 10 s.
	RetryNACK time.Duration

	// MaxStreams bounds the streams over all groups; 10,000 when 0.
	MaxStreams int

	// MaxRequests bounds the requests of one stream within one second, where a thousand names count as much as one. A
	// stream with more is ended; 2,000 when 0.
	MaxRequests int

	// Identify tells who is behind a stream, from the context of its call; [ByCertificate] when nil. It is asked when the
	// stream begins, at its first request, and by [Server.Recheck]. An error ends the stream.
	Identify func(context.Context) (Identity, error)

	// OnNACK is called, when set, for each rejection, on the goroutine of the stream: it must not block.
	OnNACK func(NodeStatus)
}

func (o Options) filled() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.StageTimeout = cmp.Or(o.StageTimeout, 5*time.Second)
	o.RemovalGrace = cmp.Or(o.RemovalGrace, time.Second)
	if o.RetryNACK > 0 {
		o.RetryNACK = max(o.RetryNACK, 10*time.Second)
	}
	if o.Identify == nil {
		o.Identify = ByCertificate
	}
	o.MaxStreams = cmp.Or(o.MaxStreams, 10_000)
	o.MaxRequests = cmp.Or(o.MaxRequests, 2_000)
	return o
}

// Server serves snapshots to groups of Envoys.
type Server struct {
	o       Options
	metrics *metrics
	current atomic.Pointer[Publication]
	wake    chan struct{} // capacity 1: something was published
	pool    *pool
	roster  *roster

	rechecks atomic.Int64 // calls of Recheck that have begun

	mu      sync.Mutex // guards what follows
	groups  map[string]*group
	streams map[*stream]struct{} // those that have told their node
	all     map[*stream]struct{}
	loads   []*Loads
	left    int         // streams, since memory was given back
	tidy    *time.Timer // gives it back, once a herd has left
	stopped bool
}

// group is the Envoys that are served the same snapshot, but for those that have a staged one.
type group struct {
	name   string
	served atomic.Pointer[serving] // nil: its streams are held
	size   int                     // streams; guarded by Server.mu
}

// New makes a server. It starts nothing: see [Server.Run].
func New(o Options) *Server {
	s := &Server{
		o:       o.filled(),
		wake:    make(chan struct{}, 1),
		groups:  map[string]*group{},
		streams: map[*stream]struct{}{},
		all:     map[*stream]struct{}{},
		pool:    newPool(),
		roster:  newRoster(),
	}
	s.metrics = newMetrics(o.Metrics, s)
	return s
}

// Publish replaces what the groups are served and returns at once. A group that is absent from the map is no longer
// served: its streams are held and get nothing new. Nothing is sent unless [Server.Run] runs.
func (s *Server) Publish(groups map[string]*Snapshot) *Publication {
	return s.PublishStages(groups, nil)
}

// PublishStages is Publish where some Envoys of the groups that have a stage are served that instead.
func (s *Server) PublishStages(groups map[string]*Snapshot, stages map[string]Stage) *Publication {
	all := make(map[string]*serving, len(groups))
	for name, snapshot := range groups {
		if snapshot != nil {
			all[name] = newServing(snapshot, stages[name])
		}
	}

	s.mu.Lock()
	p := newPublication(all, s.streams)
	s.current.Swap(p).stop(Superseded)
	changed := s.serve(all)
	if s.stopped {
		p.stop(Stopped)
	}
	s.mu.Unlock()

	for _, name := range changed {
		v := all[name]
		s.o.Log.Info("snapshot published", "group", name, "revision", v.snapshot.revision, "resources", v.snapshot.size())
	}
	select {
	case s.wake <- struct{}{}:
	default: // Run has not come round to the last one
	}
	return p
}

// serve puts the snapshots in place and names the groups that they are new to.
func (s *Server) serve(groups map[string]*serving) (changed []string) {
	for name, g := range s.groups {
		if groups[name] == nil {
			g.served.Store(nil)
			s.drop(g)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		before := s.group(name).served.Swap(groups[name])
		if before == nil || before.snapshot.revision != groups[name].snapshot.revision {
			changed = append(changed, name)
		}
	}
	return changed
}

// group finds or makes the group of that name.
func (s *Server) group(name string) *group {
	g, ok := s.groups[name]
	if !ok {
		g = &group{name: name}
		s.groups[name] = g
	}
	return g
}

// drop forgets a group that is neither served nor connected.
func (s *Server) drop(g *group) {
	if g.size == 0 && g.served.Load() == nil {
		delete(s.groups, g.name)
	}
}

// Run brings to the streams what is published, until ctx ends; then it ends the streams.
func (s *Server) Run(ctx context.Context) error {
	var told *Publication
	for {
		p := s.current.Load()
		var done <-chan struct{}
		if p != told {
			done = p.done
		}
		select {
		case <-ctx.Done():
			s.stop()
			return nil
		case <-s.wake:
			s.update()
		case <-done:
			s.tell(p)
			told = p
		}
	}
}

// update has a few workers walk the streams. None of them blocks on one.
func (s *Server) update() {
	streams := s.connected()
	var workers sync.WaitGroup
	var at atomic.Int64
	for range min(runtime.GOMAXPROCS(0), len(streams)) {
		workers.Go(func() {
			for {
				i := int(at.Add(1)) - 1
				if i >= len(streams) {
					return
				}
				streams[i].send(true)
			}
		})
	}
	workers.Wait()
}

// tell notes how a publication ended.
func (s *Server) tell(p *Publication) {
	o, took := p.Outcome(), time.Since(p.started)
	if o.State == Acknowledged {
		s.metrics.publish.Observe(took.Seconds())
	}
	s.o.Log.Debug("publication ended", "state", o.State, "seconds", took.Seconds())
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.current.Load().stop(Stopped)
	for st := range s.all {
		st.end(errStopping)
	}
}

var errStopping = status.Error(codes.Unavailable, "the control plane is shutting down")

// connected lists the streams that have told their node.
func (s *Server) connected() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.streams))
}

// Streams is how many Envoys are connected by an aggregated stream, in the groups that are served.
func (s *Server) Streams() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		if st.shared() {
			n++
		}
	}
	return n
}

// SendAway ends the aggregated streams of n Envoys, so that they connect anew, maybe to another control plane. They have all that there
// is for them, which is nothing staged, and have been here for a while; may is asked about each by group and node id. It tells how many there were.
func (s *Server) SendAway(n int, after time.Duration, may func(group, node string) bool) (gone int) {
	for _, st := range s.connected() { // in the order of a map: any
		if gone == n {
			break
		}
		if st.shared() && time.Since(st.opened) >= after && st.settled() && may(st.group.name, st.node.GetId()) {
			st.end(errSentAway)
			gone++
		}
	}
	s.metrics.away.Add(float64(gone))
	return gone
}

// shared tells whether the Envoy is one of those that control planes share among them: it is served all that it gets by
// this stream.
func (st *stream) shared() bool { return st.only == "" && st.group.served.Load() != nil }

var errSentAway = status.Error(codes.Unavailable, "other control planes have fewer Envoys: connect anew")

// Status lists the connected Envoys by group, node id and time of connection.
func (s *Server) Status() []NodeStatus {
	streams := s.connected()
	nodes := make([]NodeStatus, 0, len(streams))
	for _, st := range streams {
		nodes = append(nodes, st.status())
	}
	slices.SortFunc(nodes, func(a, b NodeStatus) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.ID, b.ID), a.Connected.Compare(b.Connected))
	})
	return nodes
}

// hold serves one stream until it ends.
func (s *Server) hold(str grpc.ServerStream, p Protocol, only string) error {
	if _, err := s.o.Identify(str.Context()); err != nil {
		return err
	}
	st := newStream(str, s, p, only)
	if err := s.open(st); err != nil {
		return err
	}
	defer s.close(st)
	defer st.shut()
	go st.read()
	if err := <-st.ended; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (s *Server) open(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errStopping
	}
	if len(s.all) >= s.o.MaxStreams {
		return status.Errorf(codes.ResourceExhausted, "there are %d streams already", s.o.MaxStreams)
	}
	s.all[st] = struct{}{}
	return nil
}

// join adds the stream to its group, once its node is known.
func (s *Server) join(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.group = s.group(st.node.GetCluster())
	st.group.size++
	s.streams[st] = struct{}{}
	s.roster.came(st)
}

// A herd is so many streams that left; what they took is given back to the system when it is quiet again. Go does so when
// it allocates, which a server without streams does not.
const (
	herd  = 200
	quiet = 5 * time.Second
)

func (s *Server) giveBack() {
	s.mu.Lock()
	s.left = 0
	s.mu.Unlock()
	runtime.GC() // what is pooled lives until the second collection
	debug.FreeOSMemory()
}

func (s *Server) close(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, st)
	switch s.left++; {
	case s.left == herd:
		s.tidy = time.AfterFunc(quiet, s.giveBack)
	case s.left > herd:
		s.tidy.Reset(quiet)
	}
	if _, ok := s.streams[st]; !ok {
		return
	}
	s.roster.leave(st)
	s.o.Log.Debug("envoy left", "node", st.node.GetId(), "group", st.group.name, "address", st.address)
	delete(s.streams, st)
	st.group.size--
	s.drop(st.group)
	s.current.Load().leave(st)
}
