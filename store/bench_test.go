package store

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkRedis counts with 64 in flight and 1,000 keys; CPU is of this process and of redis-server.
func BenchmarkRedis(b *testing.B) {
	r := startRedis(b)
	s, err := Open(Options{URL: r.url(), Timeout: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for _, h := range []Hit{
		{Limit: 1 << 40, Window: 24 * time.Hour, Hits: 1},
		{Algorithm: GCRA, Limit: 1 << 30, Window: time.Hour, Burst: 1 << 30, Hits: 1},
	} {
		b.Run(h.Algorithm.String(), func(b *testing.B) {
			keys := make([]string, 1000)
			for i := range keys {
				keys[i] = Key("route/orders/0", fmt.Sprint("idp/user-", i))
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			server, own := serverCPU(b, r), ownCPU()
			for range 64 {
				wg.Go(func() {
					h := h
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						h.Key = keys[i%1000]
						if _, err := s.Count(context.Background(), []Hit{h}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64((ownCPU()-own).Microseconds())/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64((serverCPU(b, r)-server).Microseconds())/float64(b.N), "redis-µs/op")
		})
	}
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverCPU reads what the kernel says that redis-server used, in ticks of 10 ms.
func serverCPU(b *testing.B, r *server) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		b.Skip(err)
	}
	fields := strings.Fields(string(stat))
	user, _ := strconv.Atoi(fields[13])
	system, _ := strconv.Atoi(fields[14])
	return time.Duration(user+system) * 10 * time.Millisecond
}
