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

// BenchmarkDecide has 64 decisions in flight, in turns of so many: as many callers as that takes, each of which waits for its
// turn. An operation is one decision; CPU is of this process, the callers included, and of redis-server.
func BenchmarkDecide(b *testing.B) {
	window := []Hit{{Limit: 1 << 40, Window: 24 * time.Hour, Hits: 1}}
	for _, bench := range []struct {
		name string
		hits []Hit
		keys int
		turn int
	}{
		{"window", window, 1, 1},
		{"window", window, 1, 8},
		{"window", window, 1, 64},
		{"window", window, 1000, 1},
		{"window", window, 1000, 8},
		{"window", window, 1000, 64},
		{"window", window, 100_000, 1},
		{"window", window, 100_000, 8},
		{"window", window, 100_000, 64},
		{"gcra", []Hit{bucketGCRA("", 1<<30, time.Hour, 1<<30, 1)}, 1000, 64},
		{"sliding", []Hit{{Algorithm: SlidingWindow, Limit: 1 << 40, Window: time.Hour, Hits: 1}}, 1000, 64},
		{"calendar", []Hit{{Algorithm: Calendar, Limit: 1 << 40, Period: Month, Hits: 1}}, 1000, 64},
		{"window+gcra", []Hit{window[0], bucketGCRA("", 1<<30, time.Hour, 1<<30, 1)}, 1000, 64},
	} {
		b.Run(fmt.Sprintf("%s/keys=%d/turn=%d", bench.name, bench.keys, bench.turn), func(b *testing.B) {
			r := startRedis(b)
			s := openBench(b, r)
			benchTurns(b, r, bench.keys, bench.turn, func() func(keys []string) error {
				turn := make([]*Decision, bench.turn)
				for i := range turn {
					turn[i] = &Decision{Hits: append([]Hit(nil), bench.hits...)}
				}
				return func(keys []string) error {
					for i, d := range turn {
						for j := range d.Hits {
							d.Hits[j].Key = keys[i]
						}
					}
					s.Decide(turn)
					return turn[0].Err
				}
			})
		})
	}
}

// BenchmarkGoRedis sends what BenchmarkDecide has to, by go-redis' pipelines: the same increments, and nothing else.
func BenchmarkGoRedis(b *testing.B) {
	for _, turn := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("window/keys=1000/turn=%d", turn), func(b *testing.B) {
			r := startRedis(b)
			c := r.client()
			benchTurns(b, r, 1000, turn, func() func(keys []string) error {
				return func(keys []string) error {
					pipe := c.Pipeline()
					for _, k := range keys {
						pipe.Incr(context.Background(), k)
					}
					_, err := pipe.Exec(context.Background())
					return err
				}
			})
		})
	}
}

// BenchmarkWire sends the same with the store's own writer and reader, on one connection.
func BenchmarkWire(b *testing.B) {
	for _, turn := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("window/keys=1000/turn=%d", turn), func(b *testing.B) {
			r := startRedis(b)
			o := link{options: r.client().Options(), now: newClock().now}
			c, err := o.dial(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			var mu sync.Mutex
			var buf []byte
			benchTurns(b, r, 1000, turn, func() func(keys []string) error {
				return func(keys []string) error {
					mu.Lock()
					defer mu.Unlock()
					buf = buf[:0]
					for _, k := range keys {
						buf = append(buf, "*2\r\n$4\r\nINCR\r\n"...)
						buf = appendText(buf, k)
					}
					_, err := c.Write(buf)
					for range keys {
						if err == nil {
							_, err = c.next()
						}
					}
					return err
				}
			})
		})
	}
}

func openBench(b *testing.B, r *server) Store {
	b.Helper()
	s, err := Open(Options{URL: r.url(), Timeout: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	until(b, patience, "the store to be ready", func() bool { return s.Health().OK })
	return s
}

// benchTurns has 64/turn callers make turns over so many keys until b.N decisions are made.
func benchTurns(b *testing.B, r *server, keys, turn int, caller func() func(keys []string) error) {
	b.Helper()
	names := make([]string, keys+turn)
	for i := range names {
		names[i] = Key("route/orders/0", fmt.Sprint("idp/user-", i%keys))
	}
	work := func(n int) {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range 64 / turn {
			do := caller()
			wg.Go(func() {
				for i := next.Add(int64(turn)); i <= int64(n+turn-1); i = next.Add(int64(turn)) {
					at := int(i*7919) % keys // a prime: neighbours in time aren't in the list
					if err := do(names[at : at+turn]); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	work(keys) // what only a key's first hit costs is not what is measured
	server, own := serverCPU(b, r), ownCPU()
	b.ReportAllocs()
	b.ResetTimer()
	work(b.N)
	b.StopTimer()
	b.ReportMetric(float64((ownCPU()-own).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64((serverCPU(b, r)-server).Nanoseconds())/1000/float64(b.N), "redis-µs/op")
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverCPU is for how long the kernel says that redis-server ran.
func serverCPU(b *testing.B, r *server) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", r.cmd.Process.Pid))
	if err != nil {
		b.Skip(err)
	}
	n, _ := strconv.ParseInt(strings.Fields(string(stat))[0], 10, 64)
	return time.Duration(n)
}
