package callout

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// await waits for what no channel tells of.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s does not come", what)
		}
	}
}

// A client that is told to go elsewhere has every call answered that it sent until it knew, and none later.
func TestStopLosesNothing(t *testing.T) {
	method, began, release := held()
	r := start(t, Options{Methods: map[string]Method{echo: method}})
	w := dialWire(t, r.addr)
	w.ask(1, echo, "in its turn")
	<-began
	w.ask(3, echo, "on its way")
	r.stop()
	close(release)
	w.until(func() bool { return w.gone != nil })
	if w.gone.LastStreamID != anyStream || w.gone.ErrCode != http2.ErrCodeNo {
		t.Errorf("first GOAWAY: %v", w.gone)
	}
	// The client's ping has not been answered: this one is welcome.
	last := w.gone
	w.wantMessage(1, "in its turn")
	w.wantMessage(3, "on its way")
	w.until(func() bool { return w.gone != last })
	if got := w.gone.LastStreamID; got != 3 {
		t.Errorf("last stream is %d", got)
	}
	if got := w.ended(); got != http2.ErrCodeNo {
		t.Errorf("got %v", got)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

// Between the two GOAWAYs calls are welcome; after the second they are not seen, and the client knows that.
func TestCallsWhileStopping(t *testing.T) {
	r := start(t, Options{})
	w := dialWire(t, r.addr)
	w.ask(1, echo, "before")
	w.wantMessage(1, "before")
	w.open(3, duplex)
	w.do(w.WriteData(3, false, ask(t, 10)))
	w.until(func() bool { return len(w.at(3).body) > 0 }) // grpc-go has it
	r.stop()
	var ping [8]byte
	for w.gone == nil || ping == [8]byte{} {
		f, err := w.ReadFrame()
		w.do(err)
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			w.gone = f
		case *http2.PingFrame:
			ping = f.Data
		}
	}
	w.ask(5, echo, "on its way")
	w.wantMessage(5, "on its way")
	w.do(w.WritePing(true, ping))
	w.until(func() bool { return w.gone.LastStreamID == 5 })
	w.ask(7, echo, "too late")
	w.do(w.WriteRSTStream(7, http2.ErrCodeCancel))
	w.do(w.WriteData(3, true, ask(t, 10))) // the stream goes on to its end
	if got := w.answer(3).fields["grpc-status"]; got != "0" {
		t.Errorf("got %v", w.answer(3).fields)
	}
	w.ended()
	if w.at(7).over {
		t.Errorf("answered: %v", w.at(7))
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

// Clients that call all the time notice a stop by nothing but that their next connection is refused.
func TestStopUnderLoad(t *testing.T) {
	r := start(t, Options{})
	var answered atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		c := r.dial(t)
		mustCall(t, c, echo, "", "")
		for range 8 {
			all.Go(func() {
				for {
					_, err := call(t.Context(), c, echo, "x")
					if err != nil {
						var refused *net.OpError
						if !errors.As(err, &refused) {
							wantCode(t, err, codes.Unavailable, "connection refused")
						}
						return
					}
					answered.Add(1)
				}
			})
		}
	}
	await(t, "a thousand calls", func() bool { return answered.Load() > 1000 })
	r.stop()
	all.Wait()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

// Streams without an end are cut off when the time of grace is over, wherever they are served.
func TestStopEndsStreams(t *testing.T) {
	for _, handed := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := New(Options{Methods: testMethods(), Fallback: fallback(Credentials())})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx, l, 50*time.Millisecond) }()
		c := dialTo(t, l.Addr().String(), nil)
		if !handed {
			mustCall(t, c, echo, "", "")
		}
		stream, err := testpb.NewTestServiceClient(c).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		send(t, stream, &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 1}}})
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_, err = stream.Recv()
		wantCode(t, err, codes.Unavailable, "")
	}
}

func TestRunTellsOfABrokenListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := New(Options{}).Run(t.Context(), l, time.Second); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// Whatever connections have gone through leaves nothing behind.
func TestNothingLeaks(t *testing.T) {
	r := start(t, Options{})
	round := func() {
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				w := rawWire(t, r.addr)
				defer w.net.Close()
				if i%5 == 0 { // goes before its first call
					w.must(io.WriteString(w.net, http2.ClientPreface[:i]))
					return
				}
				w.must(io.WriteString(w.net, http2.ClientPreface))
				w.do(w.WriteSettings())
				if i%5 == 1 { // handed over
					w.open(1, duplex)
					w.do(w.WriteData(1, false, ask(t, 1)))
					w.until(func() bool { return len(w.at(1).body) > 0 })
					return
				}
				w.ask(1, large, "100000") // goes with an answer unread,
				w.open(3, echo)           // a call in part,
				w.do(w.WriteData(3, false, make([]byte, 100)))
				w.open(5, duplex) // and a stream open
				w.do(w.WriteData(5, false, ask(t, 1)))
				w.until(func() bool { return len(w.at(5).fields) > 0 })
			})
		}
		all.Wait()
		await(t, "the end of all connections", func() bool {
			return r.counted(t, "legation_callout_connections", "loop")+r.counted(t, "legation_callout_connections", "grpc") == 0
		})
	}
	round()
	var before, after runtime.MemStats
	idle := func() bool { return runtime.NumGoroutine() < 100 }
	await(t, "rest", idle)
	goroutines := runtime.NumGoroutine()
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 100 {
		round()
	}
	await(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	await(t, "the end of what they used", func() bool {
		runtime.GC()
		runtime.ReadMemStats(&after)
		return int64(after.HeapAlloc)-int64(before.HeapAlloc) < 8<<20 // 4 KiB for each of 2,000, of which some are known to timers of net/http a little longer
	})
}

// weary is a listener that can't accept for a while.
type weary struct {
	net.Listener
	failures int
}

func (w *weary) Accept() (net.Conn, error) {
	if w.failures--; w.failures >= 0 {
		return nil, syscall.EMFILE
	}
	return w.Listener.Accept()
}

func TestAcceptIsTriedAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- New(Options{Methods: testMethods()}).Run(ctx, &weary{l, 3}, time.Second) }()
	mustCall(t, dialTo(t, l.Addr().String(), nil), echo, "x", "x")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A connection that has reached its age is told to end, and no call is lost over it.
func TestAgeLosesNothing(t *testing.T) {
	r := start(t, Options{MaxAge: 5 * time.Millisecond})
	w := dialWire(t, r.addr)
	w.ask(1, echo, "hello")
	w.until(func() bool { return w.gone != nil })
	if w.gone.ErrCode != http2.ErrCodeNo {
		t.Errorf("told to go with %s", w.gone.ErrCode)
	}
	w.wantMessage(1, "hello")
	c := dialTo(t, r.addr, nil)
	for range 500 { // over several ages
		mustCall(t, c, echo, "x", "x")
	}
}
