package store

import (
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestThreeProcessesShareOneLimit(t *testing.T) {
	r := startRedis(t)
	stores := []Store{openReady(t, r.url()), openReady(t, r.url()), openReady(t, r.url())}
	for _, limit := range []int64{1, 100, 2000} {
		h := daily(fmt.Sprint("shared", limit), limit, 1)
		if got := swarm(int(limit)+300, func(i int) bool { return count(t, stores[i%3], h)[0].Allowed }); int64(got) != limit {
			t.Errorf("%d allowed, want %d", got, limit)
		}
	}
}

func TestExactWhileScriptsAreFlushed(t *testing.T) {
	r := startRedis(t)
	s, c := openReady(t, r.url()), r.client()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			c.ScriptFlush(ctx)
		}
	})
	defer wg.Wait()
	defer cancel()
	h := daily("flushed", 1000, 1)
	if got := swarm(3000, func(int) bool { return count(t, s, h)[0].Allowed }); got != 1000 {
		t.Errorf("%d allowed, want 1000", got)
	}
}

func TestEveryKeyIsSmallAndEnds(t *testing.T) {
	r := startRedis(t)
	s, c := openReady(t, r.url()), r.client()
	const keys = 20_000
	before := usedMemory(t, r)
	for i := 0; i < keys; i += 100 {
		hits := make([]Hit, 100)
		for j := range hits {
			key := Key("route/orders-of-the-day/0", fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255+j))
			hits[j] = Hit{Key: key + "x", Limit: 1000, Window: time.Hour, Hits: 1}
			if j%2 == 1 {
				hits[j] = bucketGCRA(key, 7, time.Minute, 1000, 1)
			}
		}
		count(t, s, hits...)
	}
	size, err := c.DBSize(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	per := (usedMemory(t, r) - before) / size
	t.Logf("%d keys of %d bytes", size, per)
	if per > 180 {
		t.Errorf("%d bytes a key, want at most 180", per)
	}
	names, err := c.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	logged := Hit{Key: "logged", Algorithm: SlidingWindow, Limit: 1000, Window: time.Hour, Hits: 1}
	count(t, s, logged)
	for _, name := range append(names[:min(2000, len(names))], redisKey(&logged, 0)) {
		if ttl := c.PTTL(t.Context(), name).Val(); ttl <= 0 || ttl > time.Hour+linger*time.Millisecond {
			t.Fatalf("%s ends in %s", name, ttl)
		}
		if !strings.HasPrefix(name, "legation:{") {
			t.Fatalf("foreign key %s", name)
		}
	}
}

func usedMemory(t *testing.T, r *server) int64 {
	t.Helper()
	info := r.client().Info(t.Context(), "memory").Val()
	_, rest, _ := strings.Cut(info, "used_memory:")
	line, _, _ := strings.Cut(rest, "\r\n")
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLostRepliesAreNotCountedTwice cuts connections after the script went to Redis, before its answer comes.
func TestLostRepliesAreNotCountedTwice(t *testing.T) {
	r := startRedis(t)
	var replies, sent atomic.Int64
	proxy := cut(t, r.addr(), func() bool { return replies.Add(1)%10 == 0 })
	s := openReady(t, "redis://"+proxy)
	h := daily("lost", 100_000, 1)
	for range 300 {
		if _, err := s.Count(t.Context(), []Hit{h}); err == nil || !strings.Contains(err.Error(), "taken to be down") {
			sent.Add(1)
		}
	}
	direct := openReady(t, r.url())
	peek := h
	peek.Hits = 0
	if got := h.Limit - count(t, direct, peek)[0].Remaining; got > sent.Load() || got < sent.Load()/2 {
		t.Errorf("%d counted, %d sent", got, sent.Load())
	}
}

// cut is a proxy that closes a connection instead of handing on a reply when drop says so.
func cut(t *testing.T, to string, drop func() bool) string {
	t.Helper()
	return proxy(t, func() string { return to }, func(reply []byte) []byte {
		if drop() {
			return nil
		}
		return reply
	})
}

// shift is a proxy to a Redis whose clock is ahead by so much, as to says for each connection.
func shift(t *testing.T, to func() (addr string, ahead time.Duration)) string {
	t.Helper()
	answer := regexp.MustCompile(`\*2\r\n\$10\r\n\d{10}\r\n`)
	return proxy(t, func() string {
		addr, _ := to()
		return addr
	}, func(reply []byte) []byte {
		_, ahead := to()
		return answer.ReplaceAllFunc(reply, func(b []byte) []byte {
			at, _ := number(b[9:19])
			return fmt.Appendf(nil, "*2\r\n$10\r\n%d\r\n", at+int64(ahead.Seconds()))
		})
	})
}

// proxy hands replies on as change says; it closes the connection instead of handing on nothing.
func proxy(t *testing.T, to func() string, change func(reply []byte) []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to())
			if err != nil {
				in.Close()
				continue
			}
			go func() {
				io.Copy(out, in)
				out.Close()
			}()
			go func() {
				defer in.Close()
				defer out.Close()
				b := make([]byte, 64<<10)
				for {
					n, err := out.Read(b)
					if err != nil {
						return
					}
					reply := change(b[:n])
					if reply == nil {
						return
					}
					if _, err := in.Write(reply); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestMetricsAreWellNamed(t *testing.T) {
	for _, url := range []string{"", startRedis(t).url()} {
		reg := prometheus.NewPedanticRegistry()
		s := open(t, Options{URL: url, Metrics: reg, Timeout: time.Second})
		until(t, patience, "the store", func() bool { return s.Health().OK })
		count(t, s, daily("metrics", 1, 1))
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil || len(problems) > 0 || len(families) < 3 {
			t.Error(problems, err)
		}
	}
}

func TestMetricsOfWhatIsShared(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	_, b := openKnown(t, Options{URL: startRedis(t).url(), Metrics: reg})
	put(t, b, "x", "1")
	figure := func(name string) (value float64) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == name {
				value = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return value
	}
	until(t, patience, "the figures", func() bool {
		return figure("legation_store_board_entries") == 1 && figure("legation_store_shared_up") == 1
	})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}
