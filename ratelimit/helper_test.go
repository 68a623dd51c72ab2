package ratelimit

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/legation/legation/callout"
	"github.com/legation/legation/store"
)

// startRedis starts a redis-server for the test and gives its URL.
func startRedis(t testing.TB) string {
	t.Helper()
	named := os.Getenv("LEGATION_REDIS_SERVER") // make test sets it
	path, err := exec.LookPath(cmp.Or(named, "redis-server"))
	switch {
	case err != nil && named != "":
		t.Fatalf("LEGATION_REDIS_SERVER: %v", err)
	case err != nil:
		t.Skip("no redis-server on PATH, and LEGATION_REDIS_SERVER names none")
	}
	socket := t.TempDir() + "/redis.sock"
	cmd := exec.Command(path, "--port", "0", "--unixsocket", socket, "--save", "", "--loglevel", "warning", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return "unix://" + socket
}

func openStore(t testing.TB, url string) store.Store {
	t.Helper()
	s, err := store.Open(store.Options{URL: url, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	until(t, "the store", func() bool { return s.Health().OK })
	return s
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end, tick := time.Now().Add(10*time.Second), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited for %s", what)
		}
		<-tick.C
	}
}

func newService(t testing.TB, o Options, limits ...Limit) *Service {
	t.Helper()
	s := New(o)
	t.Cleanup(func() { s.Close() })
	s.Load(Table{Limits: limits})
	return s
}

// serve gives a client of s over gRPC.
func serve(t testing.TB, s *Service) rls.RateLimitServiceClient {
	t.Helper()
	return rls.NewRateLimitServiceClient(connect(t, s))
}

func connect(t testing.TB, s *Service) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	return dial(t, l, s.Register, grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
}

func dial(t testing.TB, l net.Listener, register func(grpc.ServiceRegistrar), o ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	g := grpc.NewServer(grpc.ForceServerCodecV2(callout.AnyText()))
	register(g)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	c, err := grpc.NewClient("passthrough:///"+l.Addr().String(), append(o, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// descriptor is one of the given keys and values.
func descriptor(pairs ...string) *rlcommon.RateLimitDescriptor {
	d := &rlcommon.RateLimitDescriptor{}
	for i := 0; i < len(pairs); i += 2 {
		d.Entries = append(d.Entries, &rlcommon.RateLimitDescriptor_Entry{Key: pairs[i], Value: pairs[i+1]})
	}
	return d
}

func request(d ...*rlcommon.RateLimitDescriptor) *rls.RateLimitRequest {
	return &rls.RateLimitRequest{Domain: OwnDomain, Descriptors: d}
}

func ask1(t testing.TB, c rls.RateLimitServiceClient, q *rls.RateLimitRequest) *rls.RateLimitResponse {
	t.Helper()
	r, err := c.ShouldRateLimit(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func allowed(r *rls.RateLimitResponse) bool { return r.GetOverallCode() == rls.RateLimitResponse_OK }

func headersOf(r *rls.RateLimitResponse) string {
	text := ""
	for _, h := range r.GetResponseHeadersToAdd() {
		text += fmt.Sprintf("%s: %s\n", h.GetKey(), h.GetValue())
	}
	return text
}

// swarm makes n calls from 64 goroutines and counts those that do allows.
func swarm(n int, do func(i int) bool) int {
	var wg sync.WaitGroup
	var next, yes atomic.Int64
	for range 64 {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				if do(i) {
					yes.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(yes.Load())
}

// trouble is a store that can't answer while it is down.
type trouble struct {
	store.Store
	down atomic.Bool
}

func (s *trouble) Decide(decisions []*store.Decision) {
	if !s.down.Load() {
		s.Store.Decide(decisions)
		return
	}
	for _, d := range decisions {
		d.Err = fmt.Errorf("%w: taken to be down", store.ErrUnavailable)
	}
}

// daily is a limit whose window doesn't end in the middle of a test, but at midnight.
func daily(name string, requests int64, by ...By) Limit {
	return Limit{Name: name, By: by, Rate: Rate{Requests: requests, Window: 24 * time.Hour}}
}

// samples are those of a counter, by the values of its labels.
func samples(t testing.TB, g prometheus.Gatherer, name string) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			got[strings.Join(labels, " ")] = m.GetCounter().GetValue()
		}
	}
	return got
}
