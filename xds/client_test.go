package xds

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
)

const (
	cds  = resource.ClusterType
	eds  = resource.EndpointType
	rds  = resource.RouteType
	srds = resource.ScopedRouteType
	lds  = resource.ListenerType
	sds  = resource.SecretType
	vhds = resource.VirtualHostType
	rtds = resource.RuntimeType
)

// bubble runs the test on a fake clock; synctest.Wait inside it waits until nothing moves any more.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// plane is a server with a listener in memory.
type plane struct {
	*Server
	listener *bufconn.Listener
	end      context.CancelFunc // ends Run
}

func start(t testing.TB, o Options) *plane {
	t.Helper()
	if testing.Verbose() && o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	p := &plane{Server: New(o), listener: bufconn.Listen(1 << 16)}
	g := grpc.NewServer(ServerOptions()...)
	p.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	p.end = cancel
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(ctx) })
	wg.Go(func() { _ = g.Serve(p.listener) })
	t.Cleanup(func() {
		cancel()
		g.Stop()
		wg.Wait()
	})
	return p
}

// inSync is a server, and an Envoy that has the usual resources at revision 1.
func inSync(t *testing.T, o Options, p Protocol, id string) (*plane, *envoy) {
	t.Helper()
	server := start(t, o)
	server.Publish(usual(t, "1"))
	e := server.envoy(t, p, id)
	e.askUsual()
	e.got()
	return server, e
}

func (p *plane) dial(t testing.TB) discoveryv3.AggregatedDiscoveryServiceClient {
	t.Helper()
	return discoveryv3.NewAggregatedDiscoveryServiceClient(p.conn(t))
}

func (p *plane) conn(t testing.TB) *grpc.ClientConn {
	t.Helper()
	return connTo(t, p.listener)
}

// connTo is a connection to a listener in memory.
func connTo(t testing.TB, l *bufconn.Listener) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///plane",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// envoy is a client that writes down what it gets. It acknowledges unless it is told to reject.
type envoy struct {
	t      testing.TB
	node   *corev3.Node
	delta  discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	sotw   discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	cancel context.CancelFunc

	mu     sync.Mutex
	log    []string                     // "cluster +a@1 -b"
	has    map[string]map[string]string // type -> name -> version (delta) or body (state of the world)
	names  map[string][]string          // state of the world: what is asked for
	last   map[string]string            // state of the world: type -> nonce
	nonces []string                     // delta: of all responses
	reject func(url string, names []string) string
	mute   bool // neither ACK nor NACK
	err    error
}

func (p *plane) envoy(t testing.TB, proto Protocol, id string) *envoy {
	t.Helper()
	return connect(t, p.dial(t), proto, nodeOf(id, "edge"))
}

func nodeOf(id, group string) *corev3.Node { return &corev3.Node{Id: id, Cluster: group} }

func connect(t testing.TB, c discoveryv3.AggregatedDiscoveryServiceClient, p Protocol, n *corev3.Node) *envoy {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	e := &envoy{t: t, node: n, cancel: cancel, has: map[string]map[string]string{}, names: map[string][]string{}, last: map[string]string{}}
	var err error
	if p == Delta {
		e.delta, err = c.DeltaAggregatedResources(ctx)
	} else {
		e.sotw, err = c.StreamAggregatedResources(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	go e.read()
	return e
}

// ask subscribes to names of a type, to all when there are none.
func (e *envoy) ask(url string, names ...string) {
	e.askKnowing(url, nil, names...)
}

func (e *envoy) askKnowing(url string, versions map[string]string, names ...string) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	var err error
	if e.delta != nil {
		err = e.delta.Send(&discoveryv3.DeltaDiscoveryRequest{
			Node: e.takeNode(), TypeUrl: url, ResourceNamesSubscribe: names, InitialResourceVersions: versions,
		})
		for name, v := range versions {
			e.keep(url, name, v)
		}
	} else {
		e.names[url] = append(slices.Clone(e.names[url]), names...)
		err = e.sotw.Send(&discoveryv3.DiscoveryRequest{
			Node: e.takeNode(), TypeUrl: url, ResourceNames: e.names[url],
			ResponseNonce: e.last[url],
		})
	}
	if unlessEnded(err) != nil {
		e.t.Error(err)
	}
}

func (e *envoy) takeNode() *corev3.Node {
	n := e.node
	e.node = nil
	return n
}

func (e *envoy) keep(url, name, version string) {
	if e.has[url] == nil {
		e.has[url] = map[string]string{}
	}
	e.has[url][name] = version
}

func (e *envoy) read() {
	for {
		var err error
		if e.delta != nil {
			err = e.readDelta()
		} else {
			err = e.readSotW()
		}
		if err != nil {
			e.mu.Lock()
			e.err = err
			e.mu.Unlock()
			return
		}
	}
}

func (e *envoy) readDelta() error {
	r, err := e.delta.Recv()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	line, names := kindOf(r.GetTypeUrl()).short, []string(nil)
	for _, x := range r.GetResources() {
		line, names = line+" +"+x.GetName(), append(names, x.GetName())
		e.keep(r.GetTypeUrl(), x.GetName(), x.GetVersion())
	}
	for _, name := range r.GetRemovedResources() {
		line += " -" + name
		delete(e.has[r.GetTypeUrl()], name)
	}
	e.log = append(e.log, line)
	e.nonces = append(e.nonces, r.GetNonce())
	if e.mute {
		return nil
	}
	return unlessEnded(e.delta.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: e.verdict(r.GetTypeUrl(), names),
	}))
}

func (e *envoy) readSotW() error {
	r, err := e.sotw.Recv()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	url := r.GetTypeUrl()
	line, names := kindOf(url).short, []string(nil)
	for _, x := range r.GetResources() {
		names = append(names, nameOf(e.t, x))
	}
	slices.Sort(names)
	for _, name := range names {
		line += " " + name
		e.keep(url, name, r.GetVersionInfo())
	}
	for _, x := range r.GetResources() {
		if name := nameOf(e.t, x); proto.Equal(x, must(NewResource(name, &endpointv3.ClusterLoadAssignment{ClusterName: name}, "", "")).Body) {
			line = strings.Replace(line, " "+name, " -"+name, 1) // an assignment without endpoints
		}
	}
	e.log = append(e.log, line)
	e.last[url] = r.GetNonce()
	if e.mute {
		return nil
	}
	return unlessEnded(e.sotw.Send(&discoveryv3.DiscoveryRequest{
		TypeUrl: url, VersionInfo: r.GetVersionInfo(),
		ResponseNonce: r.GetNonce(), ResourceNames: e.names[url], ErrorDetail: e.verdict(url, names),
	}))
}

// unlessEnded: a stream that has ended tells why to the next Recv, not to Send.
func unlessEnded(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func (e *envoy) verdict(url string, names []string) *statuspb.Status {
	if e.reject == nil {
		return nil
	}
	if words := e.reject(url, names); words != "" {
		return &statuspb.Status{Code: 13, Message: words}
	}
	return nil
}

// got returns the lines written since the last call, once nothing moves.
func (e *envoy) got() []string {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	lines := e.log
	e.log = nil
	return lines
}

// set changes the envoy's behaviour.
func (e *envoy) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

// ack sends the ACK of the nth delta response.
func (e *envoy) ack(url string, n int) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.delta.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: e.nonces[n-1]}); err != nil {
		e.t.Fatal(err)
	}
}

func nameOf(t testing.TB, x interface{ UnmarshalNew() (proto.Message, error) }) string {
	m, err := x.UnmarshalNew()
	if err != nil {
		t.Error(err)
		return ""
	}
	switch m := m.(type) {
	case *endpointv3.ClusterLoadAssignment:
		return m.GetClusterName()
	case interface{ GetName() string }:
		return m.GetName()
	}
	return "?"
}

// Resources whose content is their name and a variant.

func cluster(name, variant string) Resource {
	return must(NewResource(name, &clusterv3.Cluster{
		Name:                 name,
		AltStatName:          variant,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
	}, "policy.yaml:1:1", ""))
}

func endpoint(name, variant string) Resource {
	return must(NewResource(name, &endpointv3.ClusterLoadAssignment{
		ClusterName:    name,
		NamedEndpoints: map[string]*endpointv3.Endpoint{variant: {}},
	}, "policy.yaml:2:1", ""))
}

func route(name, variant string) Resource {
	return must(NewResource(name, &routev3.RouteConfiguration{
		Name:         name,
		VirtualHosts: []*routev3.VirtualHost{{Name: variant}},
	}, "policy.yaml:3:1", ""))
}

func listener(name, variant string) Resource {
	return must(NewResource(name, &listenerv3.Listener{Name: name, StatPrefix: variant}, "policy.yaml:4:1", ""))
}

func must(r Resource, err error) Resource {
	if err != nil {
		panic(err)
	}
	return r
}

// snapshot is of the group edge.
func snapshot(t testing.TB, revision string, resources ...Resource) map[string]*Snapshot {
	t.Helper()
	s, err := NewSnapshot(revision, resources)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*Snapshot{"edge": s}
}

// usual is one of each: cluster a with its endpoints, route r, listener l.
func usual(t testing.TB, revision string) map[string]*Snapshot {
	return snapshot(t, revision, cluster("a", "1"), endpoint("a", "1"), route("r", "a"), listener("l", "1"))
}

// askUsual asks for what an Envoy of the usual snapshot asks for.
func (e *envoy) askUsual() {
	e.t.Helper()
	e.ask(cds)
	e.ask(eds, "a")
	e.ask(lds)
	e.ask(rds, "r")
}

func want(t testing.TB, got []string, lines ...string) {
	t.Helper()
	if !slices.Equal(got, lines) {
		t.Errorf("got:\n%s\nwant:\n%s", text(got), text(lines))
	}
}

func text(lines []string) (s string) {
	for _, l := range lines {
		s += fmt.Sprintf("\t%s\n", l)
	}
	return s
}
