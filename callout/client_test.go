package callout

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
)

func TestCallsOfAClient(t *testing.T) {
	var log strings.Builder
	r := start(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	c := r.dial(t)
	mustCall(t, c, echo, "hello", "hello")
	mustCall(t, c, echo, "", "")
	_, err := call(t.Context(), c, failed, "7 nicht größer als 100 %\n")
	wantCode(t, err, codes.PermissionDenied, "nicht größer als 100 %\n")
	_, err = call(t.Context(), c, failed, "99 a code of nobody's")
	wantCode(t, err, codes.Code(99), "a code of nobody's")
	_, err = call(t.Context(), c, panics, "secret")
	wantCode(t, err, codes.Internal, "internal error")
	mustCall(t, c, echo, "again", "again")

	if strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), panics) {
		t.Errorf("log: %s", log.String())
	}
	for code, want := range map[string]float64{"OK": 3, "PermissionDenied": 0} {
		if got := r.counted(t, "legation_callout_calls_total", code, echo); got != want {
			t.Errorf("%v calls of echo counted as %s, want %v", got, code, want)
		}
	}
	if got := r.counted(t, "legation_callout_calls_total", "Unknown", failed); got != 1 {
		t.Errorf("%v calls with an unknown code counted", got)
	}
}

func TestLargeMessages(t *testing.T) {
	for _, c := range []*grpc.ClientConn{
		start(t, Options{}).dial(t),
		start(t, Options{}).dial(t, grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10)), // and no larger
	} {
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				message := strings.Repeat(numbered(i), 1<<20/9/(i+1))
				if got, err := call(t.Context(), c, echo, message); err != nil || got != message {
					t.Errorf("%d bytes: got %d, %v", len(message), len(got), err)
				}
			})
		}
		all.Wait()
		_, err := call(t.Context(), c, echo, strings.Repeat("x", 1<<20+1))
		wantCode(t, err, codes.ResourceExhausted, "grpc: received message larger than max (1048577 vs. 1048576)")
		mustCall(t, c, echo, "x", "x")
	}
}

// held is a method whose turns wait to be let go.
func held() (m Method, began <-chan int, release chan<- struct{}) {
	in, out := make(chan int, 100), make(chan struct{})
	return func(calls []*Call) {
		in <- len(calls)
		<-out
		echoMethod(calls)
	}, in, out
}

// A call whose time is over, or that its client has given up, is not handed on when its turn comes.
func TestCallsThatNobodyWaitsFor(t *testing.T) {
	method, began, release := held()
	r := start(t, Options{Methods: map[string]Method{echo: method}})
	w := dialWire(t, r.addr)
	w.ask(1, echo, "in its turn")
	<-began
	w.ask(3, echo, "given up")
	w.do(w.WriteRSTStream(3, 8))
	w.ask(5, echo, "too late", "grpc-timeout", "0n")
	w.ask(7, echo, "in the next turn", "grpc-timeout", "1H")
	release <- struct{}{}
	w.wantMessage(1, "in its turn")
	if n := <-began; n != 1 {
		t.Errorf("%d calls handed on, want 1", n)
	}
	release <- struct{}{}
	w.wantMessage(7, "in the next turn")
	if got := w.answer(5).fields["grpc-status"]; got != "4" {
		t.Errorf("got %v", w.answer(5).fields)
	}
	if w.at(3).over {
		t.Errorf("the call that was given up is answered: %v", w.at(3))
	}
}

func TestDeadlineOfACall(t *testing.T) {
	deadlines := make(chan time.Time, 2)
	c := start(t, Options{Methods: map[string]Method{echo: func(calls []*Call) { deadlines <- calls[0].Deadline }}}).dial(t)
	mustCall(t, c, echo, "", "")
	if got := <-deadlines; !got.IsZero() {
		t.Errorf("got %v for a call without a deadline", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	before := time.Now()
	if _, err := call(ctx, c, echo, ""); err != nil {
		t.Fatal(err)
	}
	if got := (<-deadlines).Sub(before); got < time.Hour-time.Minute || got > time.Hour+time.Second {
		t.Errorf("got %v", got)
	}
}

// A client's cancellation takes nothing from other calls.
func TestCancelledCalls(t *testing.T) {
	method, began, release := held()
	c := start(t, Options{Methods: map[string]Method{echo: method}}).dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		_, err := call(ctx, c, echo, "")
		wantCode(t, err, codes.Canceled, "")
	})
	<-began
	cancel()
	all.Wait()
	close(release)
	for i := range 10 {
		mustCall(t, c, echo, numbered(i), numbered(i))
	}
}

func TestManyConnections(t *testing.T) {
	r := start(t, Options{})
	var all sync.WaitGroup
	for i := range 40 {
		c := r.dial(t)
		for range 10 {
			all.Go(func() {
				for k := range 20 {
					message := strings.Repeat(numbered(i), k)
					if got, err := call(t.Context(), c, echo, message); err != nil || got != message {
						t.Errorf("got %.50q, %v", got, err)
					}
				}
			})
		}
	}
	all.Wait()
}

// grpc-go's calls work as the first of a connection, which it then serves itself, and after calls of the loop.
func TestCallsOfTheFallback(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, c *grpc.ClientConn){
		"first": func(*testing.T, *grpc.ClientConn) {},
		"later": func(t *testing.T, c *grpc.ClientConn) { mustCall(t, c, echo, "x", "x") },
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, Options{})
			dial := func(o ...grpc.DialOption) *grpc.ClientConn {
				c := r.dial(t, o...)
				before(t, c)
				return c
			}
			t.Run("health", func(t *testing.T) { testHealth(t, dial()) })
			t.Run("reflection", func(t *testing.T) { testReflection(t, dial()) })
			t.Run("duplex", func(t *testing.T) { testDuplex(t, dial()) })
			t.Run("large", func(t *testing.T) { testLargeStream(t, dial()) })
			t.Run("windows", func(t *testing.T) {
				testLargeStream(t, dial(grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10)))
			})
			t.Run("compressed", func(t *testing.T) {
				m := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 1000)}}
				got, err := testpb.NewTestServiceClient(dial()).UnaryCall(t.Context(), m, grpc.UseCompressor(gzip.Name))
				if err != nil || len(got.GetPayload().GetBody()) != 1000 {
					t.Errorf("got %v, %v", got, err)
				}
			})
			t.Run("unknown", func(t *testing.T) {
				_, err := call(t.Context(), dial(), "/callout.Test/Missing", "")
				wantCode(t, err, codes.Unimplemented, "unknown service callout.Test")
			})
		})
	}
}

func testHealth(t *testing.T, c *grpc.ClientConn) {
	h := grpc_health_v1.NewHealthClient(c)
	got, err := h.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = h.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "none"})
	wantCode(t, err, codes.NotFound, "unknown service")
}

func testReflection(t *testing.T, c *grpc.ClientConn) {
	s, err := grpc_reflection_v1.NewServerReflectionClient(c).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list := &grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{ListServices: "*"},
	}
	if err := s.Send(list); err != nil {
		t.Fatal(err)
	}
	got, err := s.Recv()
	if err != nil || len(got.GetListServicesResponse().GetService()) != 4 {
		t.Errorf("got %v, %v", got, err)
	}
}

// testDuplex has answers come while the client may still send, and metadata, errors and cancellation go through.
func testDuplex(t *testing.T, c *grpc.ClientConn) {
	client := testpb.NewTestServiceClient(c)
	s, err := client.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range int32(10) {
		send(t, s, &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: i}}})
		if got, err := s.Recv(); err != nil || len(got.GetPayload().GetBody()) != int(i) {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	header, _ := s.Header()
	if got := header["at-first"]; strings.Join(got, " ") != "1 2" {
		t.Errorf("header: %v", header)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	if got := s.Trailer()["at-last-bin"]; len(got) != 1 || got[0] != "\x00\xff" {
		t.Errorf("trailer: %v", s.Trailer())
	}

	s, err = client.FullDuplexCall(t.Context()) // fails while the client is sending
	if err != nil {
		t.Fatal(err)
	}
	send(t, s, &testpb.StreamingOutputCallRequest{ResponseStatus: &testpb.EchoStatus{Code: 10, Message: "enough, größer"}})
	_, err = s.Recv()
	wantCode(t, err, codes.Aborted, "enough, größer")

	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "tell", "1"))
	s, err = client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	send(t, s, &testpb.StreamingOutputCallRequest{})
	if _, err := s.Header(); err != nil {
		t.Error(err)
	}
	cancel()
	_, err = s.Recv()
	wantCode(t, err, codes.Canceled, "")
	select {
	case <-ended:
	case <-t.Context().Done():
		t.Error("the handler never heard of the cancellation")
	}

	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s, err = client.FullDuplexCall(ctx)
	if err == nil {
		_, err = s.Recv()
	}
	wantCode(t, err, codes.DeadlineExceeded, "")
}

func send(t *testing.T, s testpb.TestService_FullDuplexCallClient, m *testpb.StreamingOutputCallRequest) {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
}

// testLargeStream has both sides send more than the windows hold, several streams at once.
func testLargeStream(t *testing.T, c *grpc.ClientConn) {
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			s, err := testpb.NewTestServiceClient(c).FullDuplexCall(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			m := &testpb.StreamingOutputCallRequest{
				Payload:            &testpb.Payload{Body: make([]byte, 300<<10)},
				ResponseParameters: []*testpb.ResponseParameters{{Size: 200 << 10}, {Size: 1}},
			}
			all.Go(func() {
				for range 10 {
					if err := s.Send(m); err != nil {
						t.Error(err)
					}
				}
				_ = s.CloseSend()
			})
			n := 0
			for {
				m, err := s.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				n += len(m.GetPayload().GetBody())
			}
			if n != 10*(200<<10+1) {
				t.Errorf("got %d bytes", n)
			}
		})
	}
	all.Wait()
}
