package rig

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

func newRig(t *testing.T) *Rig {
	t.Helper()
	r, err := New(t.Context(), Options{Legation: "legation"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestProcess(t *testing.T) {
	r := newRig(t)
	p, err := r.Start("sh", "-c", "echo one two; exec sleep 100")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Await(t.Context(), regexp.MustCompile(`one (\w+)\n`)); err != nil || got != "two" {
		t.Errorf("got %q, %v", got, err)
	}
	if rss, err := RSS(p.PID); err != nil || rss == 0 {
		t.Errorf("%d bytes, %v", rss, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := RSS(p.PID); err == nil {
		t.Error("the process still runs")
	}
	if _, err := os.Stat(r.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestAwaitTellsOfAnEnd(t *testing.T) {
	p, err := newRig(t).Start("sh", "-c", "echo never mind")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Await(t.Context(), regexp.MustCompile("ready")); err == nil || !strings.Contains(err.Error(), "never mind") {
		t.Errorf("got %v, want it to tell what was said", err)
	}
}

// Both ways of reading it see this process work.
func TestCPU(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
	}
	after, err := CPU(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("from %s to %s, %v", before, after, err)
	}
	if coarse, err := ticks(os.Getpid()); err != nil || coarse == 0 {
		t.Errorf("by ticks: %s, %v", coarse, err)
	}
	if _, err := CPU(-1); err == nil {
		t.Error("a process that isn't has used processor time")
	}
}

func TestRedisAnswers(t *testing.T) {
	for text, want := range map[string]string{
		"+PONG\r\n": "PONG", ":12\r\n": "12", "$3\r\nabc\r\n": "abc", "$-1\r\n": "", "$0\r\n\r\n": "",
		"*2\r\n$1\r\na\r\n:2\r\n": "a\n2", "*0\r\n": "", "*-1\r\n": "",
	} {
		if got, err := reply(bufio.NewReader(strings.NewReader(text))); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"-ERR no\r\n", "", "$5\r\nab", "*2\r\n:1\r\n"} {
		if got, err := reply(bufio.NewReader(strings.NewReader(text))); err == nil {
			t.Errorf("%q: got %q, want an error", text, got)
		}
	}
}

func TestRedis(t *testing.T) {
	r := newRig(t)
	if _, err := exec.LookPath(r.o.Redis); err != nil {
		t.Skip("no redis-server on PATH, and LEGATION_REDIS_SERVER names none")
	}
	s, err := r.Redis(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Do("SET", "k", "a b"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Do("GET", "k"); err != nil || got != "a b" {
		t.Errorf("got %q, %v", got, err)
	}
	if n, err := s.Info("used_memory"); err != nil || n == 0 {
		t.Errorf("used_memory %d, %v", n, err)
	}
	s.Kill()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Do("GET", "k"); err != nil || got != "" {
		t.Errorf("after a restart: got %q, %v", got, err)
	}
}

func TestMetric(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("# HELP a b\na{x=\"1\",y=\"one two\"} 3\na{x=\"2\"} 4.5\nab 7\nc 1e3\n"))
	}))
	defer server.Close()
	l := &Legation{Admin: strings.TrimPrefix(server.URL, "http://")}
	for _, row := range []struct {
		name, pair string
		want       float64
	}{{"a", `x=`, 7.5}, {"a", `y="one two"`, 3}, {"c", "", 1000}, {"ab", "", 7}} {
		if got, err := l.Metric(row.name, row.pair); err != nil || got != row.want {
			t.Errorf("%s %s: got %g, %v, want %g", row.name, row.pair, got, err, row.want)
		}
	}
	if got, err := l.Metric("b"); err == nil {
		t.Errorf("a metric that isn't there is %g", got)
	}
}

func TestUntil(t *testing.T) {
	n := 0
	err := Until(t.Context(), time.Minute, "three tries", func() error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || n != 3 {
		t.Errorf("%d tries, %v", n, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Until(ended, time.Minute, "nothing", func() error { return errors.New("not yet") }); err == nil {
		t.Error("it ended well after its context")
	}
}

// Each harm does what it says, and ends.
func TestProxy(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	p, err := newRig(t).Proxy(echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ask := func(patience time.Duration) (time.Duration, error) {
		t.Helper()
		c, err := net.Dial("tcp", p.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		if _, err := c.Write([]byte("x")); err != nil {
			return 0, err
		}
		_ = c.SetReadDeadline(start.Add(patience))
		_, err = io.ReadFull(c, make([]byte, 1))
		return time.Since(start), err
	}
	if _, err := ask(time.Minute); err != nil {
		t.Errorf("unharmed: %v", err)
	}
	p.Delay(50 * time.Millisecond)
	if took, err := ask(time.Minute); err != nil || took < 50*time.Millisecond {
		t.Errorf("delayed: %s, %v", took, err)
	}
	p.Delay(0)
	p.Swallow(true)
	if _, err := ask(20 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("swallowed: %v", err)
	}
	p.Swallow(false)
	p.Lose(1000)
	if _, err := ask(time.Minute); !errors.Is(err, io.EOF) {
		t.Errorf("lost: %v", err)
	}
	p.Lose(0)
	if _, err := ask(time.Minute); err != nil {
		t.Errorf("after all that: %v", err)
	}
}
