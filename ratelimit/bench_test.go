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
