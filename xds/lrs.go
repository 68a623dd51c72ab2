package xds

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	loadv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// LoadOptions are the settings of [Loads]. The zero value works.
type LoadOptions struct {
	Log     *slog.Logger          // discards when nil
	Metrics prometheus.Registerer // registers nowhere when nil

	// Interval is how often an Envoy is asked to report; 5 s when 0, so that ten seconds have two reports. Where there are
	// many Envoys each reports less often, so that they report 100 times a second together: a report comes with some 60 kB,
	// and costs up to half a millisecond.
	Interval time.Duration

	// Endpoints asks for the counts of each endpoint too. Reports grow with the number of endpoints.
	Endpoints bool

	// MaxStreams bounds the streams; 10,000 when 0.
	MaxStreams int
}

// Loads takes the load reports of Envoys (LRS) and sums them up by node group, service, zone and endpoint. An Envoy
// reports for the group that it may join, and only of services which that group is served.
type Loads struct {
	o       LoadOptions
	server  *Server
	metrics *loadMetrics
	stopped chan struct{}

	mu        sync.Mutex // guards what follows
	reporters map[*reporter]struct{}
	rows      map[place]*row
	finer     map[string]int // group -> rows below its services
	parts     map[[2]string]int
	named     int                // services that are labels of their own
	others    map[string]Traffic // group -> of the services that are not
	changed   chan struct{}
	over      bool
}

// Bounds on what Envoys can make the server remember. Rows of services need none: those are the policy's.
const (
	maxFiner   = 10_000        // zones and endpoints of one group
	maxParts   = 256           // zones and endpoints of one service
	maxFigures = 12            // named figures of one service, zone or endpoint
	maxName    = 128           // bytes of a zone, an endpoint or a figure
	maxCount   = 1_000_000_000 // of requests in one report: more is not true
	maxHeld    = 2_000         // places in which one Envoy has requests in progress
	maxReports = 20            // messages of one stream within one interval
	busiest    = 100           // reports a second that all Envoys are asked for
	maxNamed   = 500           // services that are labels in the metrics

	keepRows  = 10 * time.Minute // what is not reported for so long is forgotten
	sweepRows = 10 * time.Second
)

// NewLoads makes the service, for the groups of s. It starts nothing: see [Loads.Run].
func NewLoads(s *Server, o LoadOptions) *Loads {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Interval = cmp.Or(o.Interval, 5*time.Second)
	o.MaxStreams = cmp.Or(o.MaxStreams, 10_000)
	l := &Loads{
		o: o, server: s, stopped: make(chan struct{}),
		reporters: map[*reporter]struct{}{},
		rows:      map[place]*row{},
		finer:     map[string]int{},
		parts:     map[[2]string]int{},
		others:    map[string]Traffic{},
		changed:   make(chan struct{}),
	}
	l.metrics = newLoadMetrics(o.Metrics, l)
	s.mu.Lock()
	s.loads = append(s.loads, l)
	s.mu.Unlock()
	return l
}

// Register adds the load reporting service to r.
func (l *Loads) Register(r grpc.ServiceRegistrar) {
	loadv3.RegisterLoadReportingServiceServer(r, loadService{l})
}

// Run forgets what is no longer reported, until ctx ends; then it ends the streams.
func (l *Loads) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepRows)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			l.sweep(now)
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			if !l.over {
				l.over = true
				close(l.stopped)
			}
			return nil
		}
	}
}

// sweep forgets what has not been reported for long, and sooner what its group is no longer served.
func (l *Loads) sweep(now time.Time) {
	served := map[string]*set{}
	l.mu.Lock()
	groups := map[string]bool{}
	for p := range l.rows {
		groups[p.group] = true
	}
	l.mu.Unlock()
	for group := range groups {
		served[group] = l.server.clusters(group)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, r := range l.rows {
		quiet := now.Sub(r.seen)
		if quiet < minute || quiet < keepRows && served[p.group].get(p.service) != nil {
			continue
		}
		l.forget(r)
	}
}

// forget is called with the lock held. The parts of a service are never younger than the service, so that they go with it
// or before.
func (l *Loads) forget(r *row) {
	delete(l.rows, r.place)
	if r.named {
		l.named--
	}
	if r.level == ofService {
		return
	}
	if l.finer[r.group]--; l.finer[r.group] == 0 {
		delete(l.finer, r.group)
	}
	of := [2]string{r.group, r.service}
	if l.parts[of]--; l.parts[of] == 0 {
		delete(l.parts, of)
	}
}

// clusters is what the group is served of them, nil when it is served nothing.
func (s *Server) clusters(group string) *set {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[group]
	if g == nil {
		return nil
	}
	if v := g.served.Load(); v != nil {
		return v.clusters
	}
	return nil
}

// speaksFor tells whether who opened the stream may report for the group: those who may be served it. It tells until when,
// too; zero: for ever.
func (s *Server) speaksFor(ctx context.Context, group string) (until time.Time, ok bool) {
	who, err := s.o.Identify(ctx)
	return who.Until, err == nil && who.May(group) && (who.Until.IsZero() || time.Now().Before(who.Until))
}

// loadService is the gRPC service.
type loadService struct{ l *Loads }

// StreamLoadStats takes the reports of one Envoy until either side ends.
func (s loadService) StreamLoadStats(str loadv3.LoadReportingService_StreamLoadStatsServer) error {
	r := &reporter{l: s.l, str: str, ended: make(chan error, 1), held: map[*row]uint64{}}
	if err := s.l.open(r); err != nil {
		return err
	}
	defer s.l.leave(r)
	go func() { r.end(r.read()) }()
	select {
	case err := <-r.ended:
		return err
	case <-s.l.stopped:
		return status.Error(codes.Unavailable, "the control plane is shutting down")
	}
}

func (l *Loads) open(r *reporter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.reporters) >= l.o.MaxStreams {
		return status.Errorf(codes.ResourceExhausted, "there are %d load report streams already", l.o.MaxStreams)
	}
	l.reporters[r] = struct{}{}
	return nil
}

// leave takes back what the Envoy had in progress: nobody will tell when that ends.
func (l *Loads) leave(r *reporter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.reporters, r)
	r.hold(nil)
	r.gone = true
	if r.lapse != nil {
		r.lapse.Stop()
	}
}

// recheck ends the streams whose Envoy may no longer have its group, as [Server.Recheck] does with those that are served.
func (l *Loads) recheck() {
	l.mu.Lock()
	var all []*reporter
	for r := range l.reporters {
		if r.group != "" {
			all = append(all, r)
		}
	}
	l.mu.Unlock()
	for _, r := range all {
		r.recheck()
	}
}

// reporter is one Envoy.
type reporter struct {
	l   *Loads
	str loadv3.LoadReportingService_StreamLoadStatsServer

	ended chan error // capacity 1: why

	id, group string // set once, by the reading goroutine with Loads.mu held
	all       bool   // it can be asked for all clusters without naming them
	asked     string // the version of the clusters that it was asked for
	every     time.Duration
	began     time.Time
	messages  int // since then

	// guarded by Loads.mu
	held  map[*row]uint64 // what it has in progress
	gone  bool
	lapse *time.Timer // ends the stream with what its Envoy has shown; nil: that never ends
}

// end has the stream end. The first reason counts.
func (r *reporter) end(err error) {
	select {
	case r.ended <- err:
	default:
	}
}

func (r *reporter) recheck() {
	if _, ok := r.l.server.speaksFor(r.str.Context(), r.group); !ok {
		r.l.o.Log.Warn("reporting envoy sent away: it may no longer have the group", "node", r.id, "group", r.group)
		r.end(errLapsed)
	}
}

// read takes one message after another. Envoy sends its node with each, 61 kB of it: so messages are received as bytes,
// and of a node only what counts is decoded.
func (r *reporter) read() error {
	for {
		var raw emptypb.Empty
		err := r.str.RecvMsg(&raw)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.pace(time.Now()); err != nil {
			return err
		}
		node, stats, err := splitReport(raw.ProtoReflect().GetUnknown())
		if err != nil {
			return err
		}
		if err := r.admit(node); err != nil {
			return err
		}
		r.l.take(r, stats)
		if err := r.ask(); err != nil {
			return err
		}
	}
}

// pace ends a stream that floods.
func (r *reporter) pace(now time.Time) error {
	if now.Sub(r.began) >= r.l.o.Interval {
		r.began, r.messages = now, 0
	}
	if r.messages++; r.messages > maxReports {
		return status.Errorf(codes.ResourceExhausted, "more than %d load reports within %s", maxReports, r.l.o.Interval)
	}
	return nil
}

// splitReport finds the node and the clusters of a LoadStatsRequest.
func splitReport(b []byte) (node []byte, stats [][]byte, err error) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, nil, errReport
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return nil, nil, errReport
		}
		if kind == protowire.BytesType && (number == 1 || number == 2) {
			value, _ := protowire.ConsumeBytes(b)
			if number == 1 {
				node = value
			} else {
				stats = append(stats, value)
			}
		}
		b = b[n:]
	}
	return node, stats, nil
}

var errReport = status.Error(codes.InvalidArgument, "this is not a load report")

// admit checks the node of a message: the first one says who the Envoy is; later ones may only say the same, as long as
// it may still have the group.
func (r *reporter) admit(node []byte) error {
	if r.group != "" {
		if _, ok := r.l.server.speaksFor(r.str.Context(), r.group); !ok {
			return errLapsed
		}
		if len(node) > 0 && (textField(node, 1) != r.id || textField(node, 2) != r.group) {
			return status.Error(codes.PermissionDenied, "the node of a stream cannot change")
		}
		return nil
	}
	var n corev3.Node
	if err := proto.Unmarshal(node, &n); err != nil || n.GetId() == "" || n.GetCluster() == "" {
		return status.Error(codes.InvalidArgument, "node.id and node.cluster have to be set")
	}
	rechecks := r.l.server.rechecks.Load()
	until, ok := r.l.server.speaksFor(r.str.Context(), n.GetCluster())
	if !ok {
		r.l.o.Log.Warn("load report refused", "node", n.GetId(), "group", n.GetCluster())
		return status.Errorf(codes.PermissionDenied, "the client certificate does not name the group %q", n.GetCluster())
	}
	r.all = slices.Contains(n.GetClientFeatures(), "envoy.lrs.supports_send_all_clusters")
	r.l.welcome(r, &n, until)
	if r.l.server.rechecks.Load() != rechecks { // it began before we had a group, and may have missed us
		r.recheck()
	}
	return nil
}

// welcome notes who the Envoy is, until what it has shown ends.
func (l *Loads) welcome(r *reporter, n *corev3.Node, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.id, r.group = n.GetId(), n.GetCluster()
	if !until.IsZero() && !r.gone {
		r.lapse = time.AfterFunc(lifetime(time.Until(until)), func() { r.end(errLapsed) })
	}
}

// textField is the last value of a string field of a message.
func textField(b []byte, field protowire.Number) (text string) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return ""
		}
		if number == field && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b)
			text = string(value)
		}
		b = b[n:]
	}
	return text
}

// interval is how often each Envoy is to report, as many as there are now.
func (l *Loads) interval() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.o.Interval, (time.Duration(len(l.reporters)) * time.Second / busiest).Round(time.Second))
}

// ask tells the Envoy what to report, and how often: everything, or else the clusters by name. It tells again when those
// have changed, or the number of Envoys has much.
func (r *reporter) ask() error {
	every := r.l.interval()
	a := &loadv3.LoadStatsResponse{
		LoadReportingInterval:     durationpb.New(every),
		ReportEndpointGranularity: r.l.o.Endpoints,
		SendAllClusters:           r.all,
	}
	version := "*"
	if of := r.l.server.clusters(r.group); !r.all && of != nil {
		version = of.version
		for _, e := range of.sorted {
			a.Clusters = append(a.Clusters, e.Name)
		}
	}
	if version == r.asked && every < 2*r.every && r.every < 2*every {
		return nil
	}
	r.asked, r.every = version, every
	return r.str.Send(a)
}

// hold replaces what the Envoy has in progress.
func (r *reporter) hold(now map[*row]uint64) {
	for row, n := range r.held {
		row.inProgress -= n
	}
	for row, n := range now {
		row.inProgress += n
	}
	r.held = now
}
