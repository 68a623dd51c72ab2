package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// server is a redis-server of a test.
type server struct {
	t    testing.TB
	port int
	args []string
	cmd  *exec.Cmd
}

// redisServer is the redis-server to test with: the one that LEGATION_REDIS_SERVER names, which make test sets, else the
// one on PATH, else the test is skipped.
func redisServer(t testing.TB) string {
	t.Helper()
	named := os.Getenv("LEGATION_REDIS_SERVER")
	path, err := exec.LookPath(cmp.Or(named, "redis-server"))
	switch {
	case err == nil:
		return path
	case named != "":
		t.Fatalf("LEGATION_REDIS_SERVER: %v", err)
	default:
		t.Skip("no redis-server on PATH, and LEGATION_REDIS_SERVER names none")
	}
	return ""
}

// startRedis starts a redis-server on a port of the kernel's choice and stops it with the test.
func startRedis(t testing.TB, args ...string) *server {
	t.Helper()
	redisServer(t)
	s := &server{t: t, port: freePort(t), args: append([]string{"--save", "", "--dir", t.TempDir(), "--loglevel", "warning"}, args...)}
	s.start()
	t.Cleanup(s.kill)
	return s
}

// nextPort is where the search for a free port goes on; it begins somewhere else in each process.
var nextPort atomic.Int32

// clusterBus is how far above its port the nodes of a Cluster talk to a Redis.
const clusterBus = 10_000

// freePort is a port for a process that can't be handed an open listener, and its bus'. It lies below those that the kernel
// gives to outgoing connections: one of these, closed again, may be taken before the process gets to it.
func freePort(t testing.TB) int {
	t.Helper()
	const first, last = 12000, 16000
	nextPort.CompareAndSwap(0, int32(os.Getpid()*37%(last-first)))
	for range last - first {
		port := first + int(nextPort.Add(1))%(last-first)
		if isFree(port) && isFree(port+clusterBus) {
			return port
		}
	}
	t.Fatalf("no port is free from %d to %d", first, last)
	return 0
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		l.Close()
	}
	return err == nil
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(redisServer(s.t), append([]string{"--bind", "127.0.0.1", "--port", fmt.Sprint(s.port)}, s.args...)...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	until(s.t, patience, "redis-server to answer", func() bool {
		c, err := net.Dial("tcp", s.addr())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // also ends one that is stopped
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *server) url() string { return "redis://" + s.addr() }

func (s *server) client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.addr()})
	s.t.Cleanup(func() { c.Close() })
	return c
}

// patience is for how long a test waits for what other processes do, on a machine that may be busy.
const patience = 30 * time.Second

// until waits for ok, at most d.
func until(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	end, tick := time.Now().Add(d), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited %s for %s", d, what)
		}
		<-tick.C
	}
}

func open(t testing.TB, o Options) Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// openReady opens a store that has answered, with a timeout for machines that are busy.
func openReady(t *testing.T, url string) Store {
	t.Helper()
	s := open(t, Options{URL: url, Timeout: 2 * time.Second})
	until(t, patience, "the store to be ready", func() bool { return s.Health().OK })
	return s
}

func count(t *testing.T, s Store, hits ...Hit) []Outcome {
	t.Helper()
	out, err := s.Count(t.Context(), hits)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func daily(key string, limit, hits int64) Hit {
	return Hit{Key: key, Limit: limit, Window: 24 * time.Hour, Hits: hits}
}

func TestRedisMalformedURL(t *testing.T) {
	for _, url := range []string{
		"redis://:hunter2@host:port",
		"redis://user:hunter2@host/nodb",
		"redis://:hun/ter2@host",
		"redis://:hunter2@host#x",
		"http://:hunter2@host",
		"redis://:hunter2@host?cluster=maybe",
		"redis://:hunter2@host?wrong=1",
		"redis://host?addr=hunter2",
		"redis://host?master_name=m&password=hunter2&addr=x",
		"://hunter2",
	} {
		s, err := Open(Options{URL: url})
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", url)
			continue
		}
		if url != "redis://host?addr=hunter2" && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2")) {
			t.Errorf("%s: the error tells the password: %v", url, err)
		}
	}
}

func TestRedisAbsentAtStartHeals(t *testing.T) {
	r := startRedis(t)
	r.kill()
	s := open(t, Options{URL: r.url()})
	isDown(t, s)
	until(t, patience, "the reason", func() bool { return strings.Contains(s.Health().Reason, "refused") })
	r.start()
	heals(t, s)
}

func TestRedisKilledAndRestarted(t *testing.T) {
	r := startRedis(t)
	s := open(t, Options{URL: r.url()})
	heals(t, s)
	r.kill()
	isDown(t, s)
	down := time.Now() // for so many dials that go-redis' pool would go to one a second
	until(t, patience, "a while", func() bool { return time.Since(down) > 1500*time.Millisecond })
	r.start()
	heals(t, s)
}

func TestRedisPaused(t *testing.T) {
	r := startRedis(t)
	s := open(t, Options{URL: r.url()})
	heals(t, s)
	r.signal(syscall.SIGSTOP)
	isDown(t, s)
	r.signal(syscall.SIGCONT)
	heals(t, s)
}

func TestRedisThatSwallowsPackets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // its backlog takes connections that nobody serves
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t, Options{URL: "redis://" + l.Addr().String()})
	isDown(t, s)
}

func TestRedisReadOnlyAndFull(t *testing.T) {
	r := startRedis(t)
	s := open(t, Options{URL: r.url()})
	c := r.client()
	for _, trouble := range []struct{ set, back, reason string }{
		{"REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"},
		{"CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"},
	} {
		heals(t, s)
		do(t, c, trouble.set)
		isDown(t, s)
		until(t, patience, trouble.reason, func() bool { return strings.Contains(s.Health().Reason, trouble.reason) })
		do(t, c, trouble.back)
	}
	heals(t, s)
}

func do(t *testing.T, c *redis.Client, line string) {
	t.Helper()
	var args []any
	for _, w := range strings.Fields(line) {
		args = append(args, w)
	}
	if err := c.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(line, err)
	}
}

// TestRedisThatRunsNoScripts is down for good, and says so once.
func TestRedisThatRunsNoScripts(t *testing.T) {
	r := startRedis(t)
	do(t, r.client(), "ACL SETUSER plain on >pw ~* +@all -@scripting")
	var log lines
	s := open(t, Options{URL: "redis://plain:pw@" + r.addr(), Log: logTo(&log)})
	until(t, patience, "what scripts are for", func() bool {
		_, _ = s.Count(t.Context(), []Hit{daily("noscript", 1<<40, 1)})
		return strings.Contains(s.Health().Reason, "NOPERM")
	})
	failed := redisOf(s).metrics.failed
	seen := metric(t, failed)
	until(t, patience, "ten more probes", func() bool {
		_, _ = s.Count(t.Context(), []Hit{daily("noscript", 1<<40, 1)})
		return metric(t, failed) >= seen+10
	})
	if h := s.Health(); h.OK || !strings.Contains(h.Reason, "NOPERM") {
		t.Errorf("health %+v, want NOPERM", h)
	}
	if n := strings.Count(log.String(), "store "); n != 1 {
		t.Errorf("%d lines for operators, want one:\n%s", n, log.String())
	}
}

// lines is a log that is read while it is written. In a bubble too: what a goroutine there writes after the test has read
// and slept is later by the fake clock only.
type lines struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestReasonsLast(t *testing.T) {
	read := &net.OpError{
		Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40312},
		Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6379}, Err: syscall.ECONNRESET,
	}
	if got, want := reason(fmt.Errorf("trip: %w", read)), "read tcp 127.0.0.1:6379: connection reset by peer"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	read.Err = os.ErrDeadlineExceeded
	for _, err := range []error{read, os.ErrDeadlineExceeded, context.DeadlineExceeded} {
		if got := reason(err); got != "no answer in time" {
			t.Errorf("%v: got %q", err, got)
		}
	}
}

func TestRedisWrongPassword(t *testing.T) {
	r := startRedis(t, "--requirepass", "right")
	var log bytes.Buffer
	s := open(t, Options{URL: "redis://:hunter2@" + r.addr(), Log: logTo(&log)})
	isDown(t, s)
	until(t, patience, "WRONGPASS", func() bool { return strings.Contains(s.Health().Reason, "WRONGPASS") })
	_, err := s.Count(t.Context(), []Hit{daily("a", 1, 1)})
	s.Close()
	if text := fmt.Sprint(err, log.String(), s.Health()); strings.Contains(text, "hunter2") {
		t.Errorf("the password is told: %s", text)
	}
	open := openReady(t, "redis://:right@"+r.addr()+"/3?client_name=legation")
	count(t, open, daily("in-three", 1, 1))
	c := redis.NewClient(&redis.Options{Addr: r.addr(), Password: "right", DB: 3})
	defer c.Close()
	if keys := c.Keys(t.Context(), "*in-three*").Val(); len(keys) != 1 {
		t.Errorf("keys in database 3: %q", keys)
	}
	if list := c.ClientList(t.Context()).Val(); !strings.Contains(list, "name=legation") {
		t.Errorf("the connection isn't named: %s", list)
	}
}

func TestRedisOverSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.sock")
	startRedis(t, "--unixsocket", path)
	s := openReady(t, "unix://"+path)
	if got := count(t, s, daily("a", 2, 1))[0].Remaining; got != 1 {
		t.Errorf("remaining %d, want 1", got)
	}
}

// isDown asks until the store says that it is unavailable. How soon it says so is tested in timing_test.go.
func isDown(t *testing.T, s Store) {
	t.Helper()
	refused := 0
	for i := range 60 {
		_, err := s.Count(context.Background(), []Hit{daily(fmt.Sprint("down", i), 1, 1)})
		if err != nil {
			refused++
			if !isUnavailable(err) {
				t.Fatalf("got %v, want ErrUnavailable", err)
			}
		}
	}
	if refused < 50 {
		t.Errorf("%d of 60 were refused", refused)
	}
}

// heals waits until the store counts again and knows that it does. How soon it does is tested in timing_test.go.
func heals(t *testing.T, s Store) {
	t.Helper()
	until(t, patience, "the store to heal", func() bool {
		_, err := s.Count(context.Background(), []Hit{daily("heal", 1<<40, 1)})
		return err == nil && s.Health().OK
	})
}
