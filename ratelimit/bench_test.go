package ratelimit

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/legation/legation/callout"
	"github.com/legation/legation/store"
)

// empty answers without deciding: the ceiling of grpc-go.
type empty struct {
	rls.UnimplementedRateLimitServiceServer
}

func (empty) ShouldRateLimit(context.Context, *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	return &rls.RateLimitResponse{OverallCode: rls.RateLimitResponse_OK}, nil
}

// benchmark asks over loopback with 64 in flight and 1,000 keys. CPU is of this process, its client included.
func benchmark(b *testing.B, register func(grpc.ServiceRegistrar)) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	c := rls.NewRateLimitServiceClient(dial(b, l, register))
	requests := make([]*rls.RateLimitRequest, 1000)
	for i := range requests {
		requests[i] = request(descriptor("limit", "route/orders/0", "consumer", fmt.Sprint("idp/user-", i)))
	}
	ask1(b, c, requests[0])
	b.ReportAllocs()
	b.ResetTimer()
	start, cpu := time.Now(), cpuTime()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if _, err := c.ShouldRateLimit(context.Background(), requests[i%1000]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "req/s")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/req")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkEmptyHandler(b *testing.B) {
	benchmark(b, func(r grpc.ServiceRegistrar) { rls.RegisterRateLimitServiceServer(r, empty{}) })
}

func BenchmarkShouldRateLimit(b *testing.B) {
	limit := daily("route/orders/0", 1<<40, By{Kind: Consumer})
	b.Run("embedded", func(b *testing.B) {
		benchmark(b, newService(b, Options{}, limit).Register)
	})
	b.Run("redis", func(b *testing.B) {
		benchmark(b, newService(b, Options{Store: openStore(b, startRedis(b))}, limit).Register)
	})
}

// BenchmarkDecide leaves gRPC out.
func BenchmarkDecide(b *testing.B) {
	v := &server{s: newService(b, Options{}, daily("route/orders/0", 1<<40, By{Kind: Consumer}))}
	q := request(descriptor("limit", "route/orders/0", "consumer", "idp/alice"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.ShouldRateLimit(context.Background(), q); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAnswer leaves HTTP/2 out: turns of calls over an embedded store. The figures are for each call; on a machine
// that does other things too the CPU time tells more than the time.
func BenchmarkAnswer(b *testing.B) {
	limits := []Limit{daily("route/orders/0", 1<<40, By{Kind: Consumer}), daily("route/orders/1", 1<<40, By{Kind: IP}), daily("header", 1<<40, By{Kind: Header, Name: "x-t"})}
	s := newService(b, Options{}, limits...)
	for _, kind := range []struct {
		name string
		ask  func(i int) *rls.RateLimitRequest
	}{
		{"consumer", func(i int) *rls.RateLimitRequest {
			return request(descriptor("limit", limits[0].ID(), "consumer", fmt.Sprint("idp/user-", i)))
		}},
		{"three", func(i int) *rls.RateLimitRequest {
			return request(descriptor("limit", limits[0].ID(), "consumer", fmt.Sprint("idp/user-", i)),
				descriptor("limit", limits[1].ID(), "ip", fmt.Sprint("192.0.2.", i%256)), descriptor("limit", limits[2].ID(), "header:x-t", fmt.Sprint(i)))
		}},
	} {
		var messages [1024][]byte
		for i := range messages {
			m, err := proto.Marshal(kind.ask(i % 1000))
			if err != nil {
				b.Fatal(err)
			}
			messages[i] = m
		}
		for _, n := range []int{1, 8, 64} {
			calls := make([]*callout.Call, n)
			for i := range calls {
				calls[i] = new(callout.Call)
			}
			b.Run(fmt.Sprintf("%s/%d", kind.name, n), func(b *testing.B) {
				b.ReportAllocs()
				cpu := cpuTime()
				for i := 0; i < b.N; i += n {
					for j, c := range calls {
						c.Message, c.Reply = messages[(i+j)%len(messages)], c.Reply[:0]
					}
					s.Answer(calls)
				}
				b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// BenchmarkStore is what of BenchmarkAnswer is the store's.
func BenchmarkStore(b *testing.B) {
	st, err := store.Open(store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	decisions := make([]*store.Decision, 64)
	for i := range decisions {
		decisions[i] = &store.Decision{Hits: []store.Hit{{Key: fmt.Sprint("route/orders/0|idp/user-", i), Limit: 1 << 40, Window: 24 * time.Hour, Hits: 1}}}
	}
	b.ReportAllocs()
	cpu := cpuTime()
	for i := 0; i < b.N; i += len(decisions) {
		st.Decide(decisions)
	}
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
}
