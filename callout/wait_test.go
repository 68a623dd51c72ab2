package callout

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

const late = "/callout.Test/Late" // answers what it is asked, later

// lateMethod answers some soon, and others when nobody wants them any more.
func lateMethod(calls []*Call) {
	for _, c := range calls {
		message := bytes.Clone(c.Message)
		c.Later = func(ctx context.Context) Answer {
			if len(message)%3 == 0 {
				<-ctx.Done()
			}
			return Answer{Reply: message}
		}
	}
}

// patient is a method whose calls wait until they are let go, or their context ends.
type patient struct {
	began chan string   // the messages of those that wait
	ended chan error    // why their contexts have ended
	let   chan struct{} // closed to let all go
}

func newPatient() *patient {
	return &patient{make(chan string, 20_000), make(chan error, 20_000), make(chan struct{})}
}

func (p *patient) answer(calls []*Call) {
	for _, c := range calls {
		message := string(c.Message)
		c.Later = func(ctx context.Context) Answer {
			p.began <- message
			select {
			case <-p.let:
				return Answer{Reply: []byte(message)}
			case <-ctx.Done():
				p.ended <- ctx.Err()
				return Answer{Code: codes.Aborted, Text: "waited in vain"}
			}
		}
	}
}

func (p *patient) methods() map[string]Method {
	m := testMethods()
	m[late] = p.answer
	return m
}

// waiting is how many calls wait, by the figure.
func (r *running) waiting(t *testing.T) float64 { return r.counted(t, "legation_callout_waiting") }

func TestACallThatWaitsHoldsUpNoOther(t *testing.T) {
	p := newPatient()
	r := start(t, Options{Methods: p.methods()})
	w := dialWire(t, r.addr)
	w.ask(1, late, "waits")
	w.ask(3, echo, "at once")
	w.wantMessage(3, "at once")
	<-p.began
	w.ask(5, late, "waits too")
	w.ask(7, failed, "7 no")
	if got := w.answer(7).fields["grpc-status"]; got != "7" {
		t.Errorf("got status %s", got)
	}
	<-p.began
	if n := r.waiting(t); n != 2 || w.at(1).over || w.at(5).over {
		t.Errorf("%v calls wait, streams %v and %v", n, w.at(1), w.at(5))
	}
	r.gate.mu.Lock()
	if r.gate.calls != 0 || r.gate.conns != 0 {
		t.Errorf("the gate knows of %d calls in hand over %d connections", r.gate.calls, r.gate.conns)
	}
	r.gate.mu.Unlock()
	close(p.let)
	w.wantMessage(1, "waits")
	w.wantMessage(5, "waits too")
	w.ask(9, echo, "after")
	w.wantMessage(9, "after")
	if n := r.waiting(t); n != 0 {
		t.Errorf("%v calls wait", n)
	}
	if n := r.counted(t, "legation_callout_calls_total", "OK", late); n != 2 {
		t.Errorf("%v calls counted, want 2", n)
	}
}

// The context of a call ends with its deadline, when the client gives it up, and with the connection.
func TestTheContextOfACallThatWaits(t *testing.T) {
	p := newPatient()
	r := start(t, Options{Methods: p.methods()})
	w := dialWire(t, r.addr)
	w.ask(1, late, "too long", "grpc-timeout", "20m")
	<-p.began
	if err := <-p.ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at the deadline: %v", err)
	}
	if got := w.answer(1).fields["grpc-status"]; got != "10" {
		t.Errorf("got status %s, want what the method said", got)
	}
	w.ask(3, late, "given up", "grpc-timeout", "1H")
	<-p.began
	w.do(w.WriteRSTStream(3, http2.ErrCodeCancel))
	if err := <-p.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	w.ask(5, echo, "goes on")
	w.wantMessage(5, "goes on")
	if a := w.at(3); len(a.frames) > 0 {
		t.Errorf("answered though it was given up: %v", a)
	}
	w.ask(7, late, "gone")
	<-p.began
	_ = w.net.Close()
	if err := <-p.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("connection gone: %v", err)
	}
	await(t, "the end of all that wait", func() bool { return r.waiting(t) == 0 })
}

// A stop waits for calls that wait, and cuts them off when the time of grace is over.
func TestStopWaitsForCallsThatWait(t *testing.T) {
	p := newPatient()
	r := start(t, Options{Methods: p.methods()})
	w := dialWire(t, r.addr)
	w.ask(1, late, "waits")
	<-p.began
	r.stop()
	w.until(func() bool { return w.gone != nil && w.gone.LastStreamID == 1 })
	close(p.let)
	w.wantMessage(1, "waits")
	if got := w.ended(); got != http2.ErrCodeNo {
		t.Errorf("got %v", got)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestStopCutsOffWhatWaitsTooLong(t *testing.T) {
	p := newPatient()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- New(Options{Methods: p.methods()}).Run(ctx, l, 50*time.Millisecond) }()
	w := dialWire(t, l.Addr().String())
	w.ask(1, late, "waits")
	<-p.began
	stop()
	if err := <-p.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Calls that are too many to wait are refused in a way by which Envoy fails closed.
func TestTooManyCallsThatWait(t *testing.T) {
	for name, test := range map[string]struct{ server, want int }{"of a server": {3, 3}, "of a connection": {0, maxWaiting}} {
		t.Run(name, func(t *testing.T) {
			p := newPatient()
			r := start(t, Options{Methods: p.methods(), MaxWaiting: test.server})
			w := dialWire(t, r.addr)
			id := uint32(1)
			for range test.want {
				w.ask(id, late, "waits")
				<-p.began
				id += 2
			}
			w.ask(id, late, "too many")
			if a := w.answer(id); a.fields["grpc-status"] != "14" {
				t.Errorf("got %v, want UNAVAILABLE", a.fields)
			}
			w.ask(id+2, echo, "at once")
			w.wantMessage(id+2, "at once")
			close(p.let)
			for id -= 2; int32(id) > 0; id -= 2 {
				w.wantMessage(id, "waits")
			}
			w.ask(3001, late, "again")
			w.wantMessage(3001, "again")
		})
	}
}

func TestTenThousandCallsThatWait(t *testing.T) {
	p := newPatient()
	r := start(t, Options{Methods: p.methods()})
	var all sync.WaitGroup
	wires := make([]*wire, 20)
	for i := range wires {
		wires[i] = dialWire(t, r.addr, window(1<<30))
		all.Go(func() {
			for n := range uint32(500) {
				wires[i].ask(2*n+1, late, numbered(int(n)))
			}
		})
	}
	all.Wait()
	for range 10_000 {
		<-p.began
	}
	if n := r.waiting(t); n != 10_000 {
		t.Errorf("%v calls wait", n)
	}
	for _, w := range wires {
		w.ask(2001, echo, "at once")
		w.wantMessage(2001, "at once")
	}
	close(p.let)
	for _, w := range wires {
		for n := range uint32(500) {
			w.wantMessage(2*n+1, numbered(int(n)))
		}
	}
	if n := r.waiting(t); n != 0 {
		t.Errorf("%v calls wait", n)
	}
}

func TestMethodsThatPanicAndWait(t *testing.T) {
	var log strings.Builder
	both := func(calls []*Call) {
		for _, c := range calls {
			c.Later = func(context.Context) Answer { return Answer{Reply: []byte("never")} }
		}
		panic("secret")
	}
	soon := func(calls []*Call) {
		for _, c := range calls {
			c.Later = func(context.Context) Answer { panic("secret") }
		}
	}
	r := start(t, Options{Methods: map[string]Method{panics: both, late: soon, echo: echoMethod}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	c := r.dial(t)
	for _, path := range []string{panics, late} {
		_, err := call(t.Context(), c, path, "x")
		wantCode(t, err, codes.Internal, "internal error")
	}
	mustCall(t, c, echo, "again", "again")
	if strings.Contains(log.String(), "secret") || strings.Count(log.String(), "method panicked") != 2 {
		t.Errorf("log: %s", log.String())
	}
}

// An answer that came late keeps to the client's windows, and may be somebody else's memory.
func TestLateAnswersWaitForWindows(t *testing.T) {
	shared := bytes.Repeat([]byte("shared "), 100)
	before := bytes.Clone(shared)
	method := func(calls []*Call) {
		for _, c := range calls {
			c.Later = func(context.Context) Answer { return Answer{Reply: shared} }
		}
	}
	r := start(t, Options{Methods: map[string]Method{late: method, echo: echoMethod}})
	w := dialWire(t, r.addr, window(100))
	for id := uint32(1); id < 20; id += 4 {
		w.ask(id, late, "x")
		w.until(func() bool { return len(w.at(id).body) == 100 })
		w.ask(id+2, echo, "at once")
		w.wantMessage(id+2, "at once")
		w.do(w.WriteWindowUpdate(id, 1000))
		w.wantMessage(id, string(before))
	}
	if !slices.Equal(before, shared) {
		t.Error("the method's answer was written to")
	}
}

// Clients that call, wait and give up as they like all get their own answers.
func TestWaitingUnderLoad(t *testing.T) {
	r := start(t, Options{Methods: map[string]Method{late: lateMethod, echo: echoMethod}})
	var all sync.WaitGroup
	var answered atomic.Int64
	for i := range 4 {
		c := r.dial(t)
		for j := range 8 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), uint64(j)))
				for range 200 {
					message := strings.Repeat("x", random.IntN(200)) + numbered(j)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(2000))*time.Microsecond)
					path := []string{late, echo}[random.IntN(2)]
					got, err := call(ctx, c, path, message)
					cancel()
					switch {
					case err == nil && got != message:
						t.Errorf("got %q, want %q", got, message)
					case err == nil:
						answered.Add(1)
					}
				}
			})
		}
	}
	all.Wait()
	c := r.dial(t)
	mustCall(t, c, late, "four", "four")
	await(t, "the end of all that wait", func() bool { return r.waiting(t) == 0 })
	if answered.Load() == 0 {
		t.Error("none was answered")
	}
}

func TestFinish(t *testing.T) {
	c := Call{Message: []byte("four")}
	lateMethod([]*Call{&c})
	c.Finish(t.Context())
	if string(c.Reply) != "four" || c.Later != nil {
		t.Errorf("got %+v", c)
	}
	c.Finish(t.Context())
	if string(c.Reply) != "four" {
		t.Errorf("got %+v", c)
	}
}
