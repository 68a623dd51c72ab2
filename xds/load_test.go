package xds

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
)

// startLoads serves load reports for the groups of a server that runs nothing else.
func startLoads(t *testing.T, o LoadOptions) (*Loads, *Server, loadv3.LoadReportingServiceClient) {
	t.Helper()
	s := New(Options{})
	l, listener, g := NewLoads(s, o), bufconn.Listen(1<<16), grpc.NewServer(ServerOptions()...)
	l.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = l.Run(ctx) })
	wg.Go(func() { _ = g.Serve(listener) })
	t.Cleanup(func() {
		cancel()
		g.Stop()
		wg.Wait()
	})
	return l, s, loadv3.NewLoadReportingServiceClient(connTo(t, listener))
}

// reporting is the client's end of a stream.
type reporting struct {
	t testing.TB
	loadv3.LoadReportingService_StreamLoadStatsClient
	node   *corev3.Node
	cancel context.CancelFunc
}

func report(t testing.TB, c loadv3.LoadReportingServiceClient, n *corev3.Node) *reporting {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	str, err := c.StreamLoadStats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := &reporting{t, str, n, cancel}
	r.send()
	return r
}

// send reports as Envoy does: the node is in each message.
func (r *reporting) send(stats ...*endpointv3.ClusterStats) {
	r.t.Helper()
	if err := unlessEnded(r.Send(&loadv3.LoadStatsRequest{Node: r.node, ClusterStats: stats})); err != nil {
		r.t.Fatal(err)
	}
}

// asked is the next message from the server.
func (r *reporting) asked() *loadv3.LoadStatsResponse {
	r.t.Helper()
	a, err := r.Recv()
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *reporting) ended() codes.Code {
	for {
		if _, err := r.Recv(); err != nil {
			return status.Code(err)
		}
	}
}

// zone is n requests, of which one failed and two are not over.
func zone(name string, n uint64) *endpointv3.UpstreamLocalityStats {
	return &endpointv3.UpstreamLocalityStats{
		Locality:            &corev3.Locality{Zone: name},
		TotalIssuedRequests: n, TotalSuccessfulRequests: n - 3, TotalErrorRequests: 1, TotalRequestsInProgress: 2,
	}
}

func stats(cluster string, dropped uint64, zones ...*endpointv3.UpstreamLocalityStats) *endpointv3.ClusterStats {
	return &endpointv3.ClusterStats{ClusterName: cluster, TotalDroppedRequests: dropped, UpstreamLocalityStats: zones}
}

func capable(id string) *corev3.Node {
	return &corev3.Node{Id: id, Cluster: "edge", ClientFeatures: []string{"envoy.lrs.supports_send_all_clusters"}}
}

// lines is what is known of the loads: total and in progress, then issued in ten seconds and in a minute.
func (l *Loads) lines() (lines []string) {
	line := func(name string, x Load) {
		lines = append(lines, fmt.Sprintf("%s %d+%d-%d/%d now %d, 10s %d, 1m %d", name, x.Total.Succeeded, x.Total.Failed,
			x.Total.Dropped, x.Total.Issued, x.InProgress, x.Recent.Issued, x.Minute.Issued))
	}
	for s := range l.All() {
		line(s.Group+" "+s.Service, s.Load)
		for _, z := range s.Zones {
			line("  "+z.Zone, z.Load)
			for _, e := range z.Endpoints {
				line("    "+e.Address, e.Load)
			}
		}
	}
	return lines
}

func TestLoadsAreSummedUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s, c := startLoads(t, LoadOptions{Endpoints: true})
		s.Publish(snapshot(t, "1", cluster("a", "1"), cluster("b", "1")))
		one, two := report(t, c, capable("1")), report(t, c, capable("2"))
		if a := one.asked(); !a.GetSendAllClusters() || a.GetLoadReportingInterval().AsDuration() != 5*time.Second || !a.GetReportEndpointGranularity() {
			t.Errorf("the Envoy was asked for %v", a)
		}
		east := zone("east", 10)
		east.UpstreamEndpointStats = []*endpointv3.UpstreamEndpointStats{{
			Address:             &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "10.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80}}}},
			TotalIssuedRequests: 10, TotalSuccessfulRequests: 7, TotalErrorRequests: 1, TotalRequestsInProgress: 2,
		}}
		one.send(stats("a", 4, east, zone("west", 20)), stats("legation_xds", 0, zone("", 9)))
		two.send(stats("a", 0, zone("west", 5)))
		synctest.Wait()
		want(t, l.lines(),
			"edge a 26+3-4/35 now 6, 10s 35, 1m 35",
			"  east 7+1-0/10 now 2, 10s 10, 1m 10",
			"    10.0.0.1:80 7+1-0/10 now 2, 10s 10, 1m 10",
			"  west 19+2-0/25 now 4, 10s 25, 1m 25")
		if got := l.Snapshot()[0].Recent; got.PerSecond != 3.5 || math.Abs(got.ErrorShare-3.0/29) > 1e-9 {
			t.Errorf("%v a second, of which %v fail", got.PerSecond, got.ErrorShare)
		}

		time.Sleep(20 * time.Second)
		one.send(stats("a", 0, zone("west", 10)))
		synctest.Wait()
		want(t, l.lines(),
			"edge a 33+4-4/45 now 4, 10s 10, 1m 45",
			"  east 7+1-0/10 now 0, 10s 0, 1m 10",
			"    10.0.0.1:80 7+1-0/10 now 0, 10s 0, 1m 10",
			"  west 26+3-0/35 now 4, 10s 10, 1m 35")

		two.cancel() // what it had in progress is nobody's now
		time.Sleep(50 * time.Second)
		want(t, l.lines()[:1], "edge a 33+4-4/45 now 2, 10s 0, 1m 10")
		time.Sleep(keepRows)
		want(t, l.lines())
		if n, m := len(l.finer), len(l.parts); n+m != 0 {
			t.Errorf("%d and %d counts of rows are left that are gone", n, m)
		}
	})
}

func TestEnvoyThatNeedsNamesIsToldThem(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s, c := startLoads(t, LoadOptions{})
		s.Publish(snapshot(t, "1", cluster("a", "1")))
		r := report(t, c, nodeOf("old", "edge"))
		if a := r.asked(); a.GetSendAllClusters() || cmp.Diff(a.GetClusters(), []string{"a"}) != "" {
			t.Errorf("the Envoy was asked for %v", a)
		}
		s.Publish(snapshot(t, "2", cluster("a", "1"), cluster("b", "1")))
		changed := l.Changed()
		r.send(stats("b", 0, zone("", 5)))
		<-changed
		if a := r.asked(); cmp.Diff(a.GetClusters(), []string{"a", "b"}) != "" {
			t.Errorf("after a change the Envoy was asked for %v", a)
		}
		want(t, l.lines(), "edge b 2+1-0/5 now 2, 10s 5, 1m 5", "   2+1-0/5 now 2, 10s 5, 1m 5")
		s.Publish(snapshot(t, "3", cluster("a", "1")))
		time.Sleep(minute + sweepRows)
		want(t, l.lines()) // sooner than what the group still has
	})
}

func TestManyEnvoysReportLessOften(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s, c := startLoads(t, LoadOptions{})
		s.Publish(snapshot(t, "1", cluster("a", "1")))
		r := report(t, c, capable("1"))
		others := func(n int) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for other := range l.reporters {
				if other.str == nil {
					delete(l.reporters, other)
				}
			}
			for range n - 1 {
				l.reporters[&reporter{}] = struct{}{}
			}
		}
		last := 5 * time.Second
		for _, step := range []struct {
			envoys int
			want   time.Duration
		}{{1, 5 * time.Second}, {500, 5 * time.Second}, {900, 5 * time.Second}, {1500, 15 * time.Second}, {2900, 15 * time.Second}, {6000, time.Minute}, {10, 5 * time.Second}} {
			others(step.envoys)
			if r.send(); step.want != last || step.envoys == 1 {
				if got := r.asked().GetLoadReportingInterval().AsDuration(); got != step.want {
					t.Errorf("%d Envoys are asked each %s, want each %s", step.envoys, got, step.want)
				}
			}
			last = step.want
			synctest.Wait()
		}
		others(1)
	})
}

func TestFiguresOfEndpoints(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s, c := startLoads(t, LoadOptions{})
		s.Publish(snapshot(t, "1", cluster("a", "1")))
		r := report(t, c, capable("1"))
		z := zone("east", 10)
		z.CpuUtilization = &endpointv3.UnnamedEndpointLoadMetricStats{NumRequestsFinishedWithMetric: 4, TotalMetricValue: 2}
		for name, total := range map[string]float64{"latency_ms": 80, "nan": math.NaN(), "huge": 1e300, strings.Repeat("x", maxName+1): 1} {
			z.LoadMetricStats = append(z.LoadMetricStats, &endpointv3.EndpointLoadMetricStats{
				MetricName: name, NumRequestsFinishedWithMetric: 8, TotalMetricValue: total,
			})
		}
		r.send(stats("a", 0, z))
		r.send(stats("a", 0, z))
		synctest.Wait()
		want := map[string]Figure{"cpu_utilization": {8, 4}, "latency_ms": {16, 160}}
		if diff := cmp.Diff(want, l.Snapshot()[0].Figures); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want, l.Snapshot()[0].Zones[0].Figures); diff != "" {
			t.Error(diff)
		}
		time.Sleep(2 * minute)
		if got := l.Snapshot()[0].Figures; got != nil {
			t.Errorf("two minutes later there is still %v", got)
		}
	})
}

func TestHostileReports(t *testing.T) {
	bubble(t, func(t *testing.T) {
		registry := prometheus.NewPedanticRegistry()
		l, s, c := startLoads(t, LoadOptions{Metrics: registry})
		s.Publish(snapshot(t, "1", cluster("a", "1"), cluster("b", "1")))
		r := report(t, c, capable("1"))
		r.send(stats("made-up", 0, zone("", 10)), stats("", 0, zone("", 10)))
		negative := zone("x", 10)
		negative.TotalErrorRequests = math.MaxUint64
		r.send(stats("a", 0, negative), stats("a", math.MaxUint64))
		long := zone(strings.Repeat("z", maxName+1), 10)
		r.send(stats("a", 0, long))
		many := stats("b", 0)
		for i := range maxParts + 44 {
			many.UpstreamLocalityStats = append(many.UpstreamLocalityStats, zone(fmt.Sprint("z", i), 10))
		}
		r.send(many)
		synctest.Wait()
		got := l.Snapshot()
		if len(got) != 2 || got[0].Total.Issued != 10 || len(got[0].Zones) != 0 || got[1].Total.Issued != 3000 || len(got[1].Zones) != maxParts {
			t.Errorf("%d services, %+v", len(got), l.lines()[:1])
		}
		have := samples(t, registry)
		for _, line := range []string{
			"legation_xds_load_refused_total unknown service: 2",
			"legation_xds_load_refused_total implausible: 2",
			"legation_xds_load_refused_total too many: 45",
			"legation_xds_load_streams: 1",
			"legation_xds_service_requests_total edge failed b: 300",
			"legation_xds_service_requests_in_progress edge b: 600",
		} {
			if !strings.Contains(strings.Join(have, "\n")+"\n", line+"\n") {
				t.Errorf("no metric %q among:\n%s", line, text(have))
			}
		}
		for range maxReports {
			r.send()
		}
		if got := r.ended(); got != codes.ResourceExhausted {
			t.Errorf("a flood ended with %s", got)
		}
		synctest.Wait()
		if got := l.Snapshot()[1].InProgress; got != 0 {
			t.Errorf("%d requests are still in progress without an Envoy", got)
		}
	})
}

func TestGroupsHaveBoundedRows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s, c := startLoads(t, LoadOptions{})
		var clusters []Resource
		for i := range maxNamed + 10 {
			clusters = append(clusters, cluster(fmt.Sprintf("c%04d", i), "1"))
		}
		s.Publish(snapshot(t, "1", clusters...))
		r := report(t, c, capable("1"))
		var all []*endpointv3.ClusterStats
		for _, e := range clusters {
			of := stats(e.Name, 0)
			for i := range 20 {
				of.UpstreamLocalityStats = append(of.UpstreamLocalityStats, zone(fmt.Sprint(i), 10))
			}
			all = append(all, of)
		}
		r.send(all...)
		synctest.Wait()
		zones, issued := 0, uint64(0)
		for _, s := range l.Snapshot() {
			zones, issued = zones+len(s.Zones), issued+s.Total.Issued
		}
		if zones != maxFiner || issued != uint64(len(clusters))*200 {
			t.Errorf("%d zones, %d requests; want %d zones and all requests of %d services", zones, issued, maxFiner, len(clusters))
		}
		if got := l.others["edge"].Issued; l.named != maxNamed || got != 10*200 {
			t.Errorf("%d services are labels, and %d requests are of others", l.named, got)
		}
	})
}

func TestWhoMayReport(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s, c := startLoads(t, LoadOptions{MaxStreams: 2})
		s.Publish(snapshot(t, "1", cluster("a", "1")))
		if got := report(t, c, nil).ended(); got != codes.InvalidArgument {
			t.Errorf("without a node: %s", got)
		}
		r := report(t, c, capable("1"))
		r.asked()
		r.node = &corev3.Node{Id: "1", Cluster: "inner"}
		r.send(stats("a", 0, zone("", 10)))
		if got := r.ended(); got != codes.PermissionDenied {
			t.Errorf("another group: %s", got)
		}
		report(t, c, capable("1")).asked()
		report(t, c, capable("2")).asked()
		if got := report(t, c, capable("3")).ended(); got != codes.ResourceExhausted {
			t.Errorf("a stream too many: %s", got)
		}
	})
}

// A certificate is good for the reports of its own group only.
func TestCertificateNamesTheGroupOfReports(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := New(Options{})
	s.Publish(snapshot(t, "1", cluster("a", "1")))
	g := grpc.NewServer(append(ServerOptions(), grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{a.leaf([]string{"plane.test"})}, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})))...)
	NewLoads(s, LoadOptions{}).Register(g)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	for group, want := range map[string]codes.Code{"edge": codes.OK, "inner": codes.PermissionDenied} {
		conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			RootCAs: a.pool, ServerName: "plane.test", Certificates: []tls.Certificate{a.leaf(nil, "spiffe://example.com/gateway/edge")},
		})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_, err = report(t, loadv3.NewLoadReportingServiceClient(conn), nodeOf("1", group)).Recv()
		if got := status.Code(err); got != want {
			t.Errorf("group %s: got %v, want %s", group, err, want)
		}
	}
}

// Who may no longer have the group, or has credentials that have ended, reports no more.
func TestReportsEndWithTheCredentials(t *testing.T) {
	for name, after := range map[string]Identity{
		"ended":    {Groups: []string{"edge"}, Until: time.Unix(1, 0)},
		"withheld": {Groups: []string{"inner"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				l, s, c := startLoads(t, LoadOptions{})
				began := time.Now()
				s.o.Identify = func(context.Context) (Identity, error) {
					if time.Since(began) < time.Minute {
						return Identity{Groups: []string{"edge"}, Until: began.Add(time.Hour)}, nil
					}
					return after, nil
				}
				s.Publish(snapshot(t, "1", cluster("a", "1")))
				r := report(t, c, capable("1"))
				r.asked()
				r.send(stats("a", 0, zone("", 10)))
				time.Sleep(time.Minute)
				r.send(stats("a", 0, zone("", 10)))
				if got := r.ended(); got != codes.PermissionDenied {
					t.Errorf("the stream ended with %s, want PermissionDenied", got)
				}
				if got := l.Snapshot()[0].Total.Issued; got != 10 {
					t.Errorf("%d requests are counted, want 10", got)
				}
			})
		})
	}
}

// One that reports nothing loses its stream as well: when it may no longer have the group, and with its credentials.
func TestSilentReportersLoseTheirStreams(t *testing.T) {
	const life = 10 * time.Minute
	for name, say := range map[string]struct {
		who   func(asked int, s *Server) Identity // the nth time that somebody asks
		until func(s *Server)
	}{
		"recheck": {
			func(asked int, _ *Server) Identity {
				return Identity{Groups: []string{"edge", "inner"}[asked-1:]}
			},
			func(s *Server) { s.Recheck() },
		},
		"recheck while it joins": {
			func(asked int, s *Server) Identity {
				if asked == 1 {
					s.Recheck()
				}
				return Identity{Groups: []string{"edge", "inner"}[asked-1:]}
			},
			func(*Server) {},
		},
		"end of the credentials": {
			func(int, *Server) Identity { return Identity{Groups: []string{"edge"}, Until: time.Now().Add(life)} },
			func(*Server) { time.Sleep(life) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, s, c := startLoads(t, LoadOptions{})
				asked := 0
				s.o.Identify = func(context.Context) (Identity, error) {
					asked++
					return say.who(asked, s), nil
				}
				s.Publish(snapshot(t, "1", cluster("a", "1")))
				r := report(t, c, capable("1"))
				synctest.Wait()
				say.until(s)
				if got := r.ended(); got != codes.PermissionDenied {
					t.Errorf("the stream ended with %s, want PermissionDenied", got)
				}
			})
		})
	}
}

func TestRecheckLeavesReportersThatMayStay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s, c := startLoads(t, LoadOptions{})
		s.Publish(snapshot(t, "1", cluster("a", "1")))
		r := report(t, c, capable("1"))
		r.asked()
		s.Recheck()
		r.send(stats("a", 0, zone("", 10)))
		synctest.Wait()
		if got := l.Snapshot(); len(got) != 1 || got[0].Total.Issued != 10 {
			t.Errorf("what came afterwards is not counted: %+v", got)
		}
	})
}

func TestStoppingEndsReports(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _, c := startLoads(t, LoadOptions{})
		r := report(t, c, capable("1"))
		r.asked()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := r.ended(); got != codes.Unavailable {
			t.Errorf("got %s, want Unavailable", got)
		}
	})
}

// noStream is the stream of nobody.
type noStream struct {
	loadv3.LoadReportingService_StreamLoadStatsServer
}

func (noStream) Context() context.Context { return context.Background() }

// BenchmarkReport is what a report of an Envoy costs that has traffic to a hundred services, with a node of 61 kB.
func BenchmarkReport(b *testing.B) {
	s := New(Options{})
	l := NewLoads(s, LoadOptions{})
	var clusters []Resource
	request := &loadv3.LoadStatsRequest{Node: capable("1")}
	for i := range 600 {
		request.Node.Extensions = append(request.Node.Extensions, &corev3.Extension{Name: fmt.Sprint("envoy.extension.of.some.kind.", i), Category: "envoy.filters.http", TypeUrls: []string{"envoy.extensions.filters.http.some.v3.Some"}})
	}
	for i := range 100 {
		clusters = append(clusters, cluster(fmt.Sprint(i), "1"))
		request.ClusterStats = append(request.ClusterStats, stats(fmt.Sprint(i), 0, zone("east", 10)))
	}
	s.Publish(snapshot(b, "1", clusters...))
	raw, err := proto.Marshal(request)
	if err != nil {
		b.Fatal(err)
	}
	r := &reporter{l: l, id: "1", group: "edge", str: noStream{}}
	s.o.Identify = func(context.Context) (Identity, error) { return Identity{Any: true}, nil }
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		node, stats, err := splitReport(raw)
		if err != nil || r.admit(node) != nil {
			b.Fatal(err)
		}
		l.take(r, stats)
	}
}
