package store

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeRedis answers over pipes what increments and the probe need, so that a store runs in a bubble, whose time is exact. It
// allows all that scripts ask for.
type fakeRedis struct {
	mu     sync.Mutex // guards what follows
	counts map[string]int64
	free   time.Time // it answers nothing before
	refuse string    // its answer to all that counts
}

// fakeTrip is how long it takes over a batch.
const fakeTrip = 200 * time.Microsecond

func newFakeRedis() *fakeRedis { return &fakeRedis{counts: map[string]int64{}} }

// stall has it answer nothing for d.
func (f *fakeRedis) stall(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = time.Now().Add(d)
}

func (f *fakeRedis) stalls() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.free)
}

// refuses has it answer so to all that counts.
func (f *fakeRedis) refuses(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = reason
}

// counted is how many hits it has counted.
func (f *fakeRedis) counted() (n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.counts {
		n += c
	}
	return n
}

func (f *fakeRedis) serve(c net.Conn) {
	defer c.Close()
	r := newReader(c)
	var out []byte
	for {
		words, err := readWords(&r)
		if err != nil {
			return
		}
		for f.stalls() {
			time.Sleep(time.Millisecond)
		}
		out = f.answer(out, words)
		if r.start < r.end {
			continue
		}
		time.Sleep(fakeTrip)
		if _, err := c.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
}

// readWords reads a command; its name is in lower case.
func readWords(r *reader) ([]string, error) {
	head, err := r.next()
	if err != nil {
		return nil, err
	}
	words := make([]string, head.number)
	for i := range words {
		w, err := r.next()
		if err != nil {
			return nil, err
		}
		words[i] = string(w.text)
	}
	words[0] = strings.ToLower(words[0])
	return words, nil
}

func (f *fakeRedis) answer(out []byte, words []string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch name := words[0]; {
	case name == "time":
		now := time.Now()
		out = appendCommand(out, 2)
		return appendText(appendNumber(out, now.Unix()), strconv.Itoa(now.Nanosecond()/1000))
	case f.refuse != "":
		return fmt.Appendf(out, "-%s\r\n", f.refuse)
	case name == "set":
		return append(out, "+OK\r\n"...)
	case name == "incr":
		f.counts[words[1]]++
		return fmt.Appendf(out, ":%d\r\n", f.counts[words[1]])
	case name == "incrby":
		n, _ := strconv.ParseInt(words[2], 10, 64)
		f.counts[words[1]] += n
		return fmt.Appendf(out, ":%d\r\n", f.counts[words[1]])
	case name == "evalsha":
		keys, _ := strconv.Atoi(words[2])
		out = appendCommand(out, 4*keys)
		for range keys {
			out = append(out, ":1\r\n:1\r\n:0\r\n:0\r\n"...)
		}
		return out
	}
	return append(out, "-ERR unknown command\r\n"...)
}

// fakeNet is a network of a test: who serves each address. Others refuse connections.
type fakeNet struct {
	mu     sync.Mutex // guards what follows
	served map[string]func(net.Conn)
	open   map[string][]net.Conn
}

func newFakeNet() *fakeNet {
	return &fakeNet{served: map[string]func(net.Conn){}, open: map[string][]net.Conn{}}
}

func (n *fakeNet) serve(addr string, by func(net.Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.served[addr] = by
}

// kill closes the connections that an address has, and has it refuse others.
func (n *fakeNet) kill(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.open[addr] {
		c.Close()
	}
	delete(n.open, addr)
	delete(n.served, addr)
}

func (n *fakeNet) dial(_ context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	by := n.served[addr]
	if by == nil {
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	}
	ours, theirs := net.Pipe()
	n.open[addr] = append(n.open[addr], theirs)
	go by(theirs)
	return ours, nil
}

// fakeSentinel serves a Sentinel that names the primary, and knows nothing else. It takes longer than a trip to Redis may.
func fakeSentinel(primary *atomic.Value) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		r := newReader(c)
		for {
			words, err := readWords(&r)
			if err != nil {
				return
			}
			answer := []byte("-ERR unknown command\r\n")
			if len(words) > 1 && strings.ToLower(words[1]) == "get-master-addr-by-name" {
				host, port, _ := net.SplitHostPort(primary.Load().(string))
				answer = appendText(appendText(appendCommand(nil, 2), host), port)
			}
			time.Sleep(30 * time.Millisecond)
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

// openFake opens a ready store, in a bubble, of the Redis that is served at "redis:1".
func openFake(t *testing.T, n *fakeNet, o Options) *redisStore {
	t.Helper()
	t.Cleanup(func() { time.Sleep(time.Second) }) // for go-redis' goroutines to see that they are closed
	o.dial = n.dial
	if o.URL == "" {
		o.URL = "redis://redis:1"
	}
	s := redisOf(open(t, o))
	until(t, time.Second, "the store to be ready", func() bool { return s.Health().OK })
	return s
}
