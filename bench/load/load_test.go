package load

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// service is a rate limit service whose answers a test chooses.
type service struct {
	rls.UnimplementedRateLimitServiceServer
	answer func(context.Context, *rls.RateLimitRequest) (*rls.RateLimitResponse, error)
}

func (s service) ShouldRateLimit(ctx context.Context, q *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	return s.answer(ctx, q)
}

func says(code rls.RateLimitResponse_Code) *rls.RateLimitResponse {
	return &rls.RateLimitResponse{OverallCode: code}
}

// serve answers on a port of the kernel's choice.
func serve(t *testing.T, answer func(context.Context, *rls.RateLimitRequest) (*rls.RateLimitResponse, error)) (string, *grpc.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	rls.RegisterRateLimitServiceServer(s, service{answer: answer})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String(), s
}

func start(t *testing.T, o Options) *Run {
	t.Helper()
	if o.Call.Method == "" && o.Plain == nil {
		o.Call = RateLimits("d", []Entry{{"limit", "l"}, {"key", "k%d"}}, 10, true)
	}
	r, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Each call is made once, carries its own number, and its answer is told apart from the others.
func TestClosedLoopAsksEachOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	address, _ := serve(t, func(_ context.Context, q *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		if q.GetDomain() != "d" || len(q.GetDescriptors()) != 1 || len(q.GetDescriptors()[0].GetEntries()) != 2 {
			return nil, grpcstatus.Error(codes.InvalidArgument, "not what was to be asked")
		}
		value := q.GetDescriptors()[0].GetEntries()[1].GetValue()
		mu.Lock()
		seen[value]++
		mu.Unlock()
		n, _ := strconv.Atoi(strings.TrimPrefix(value, "k"))
		switch {
		case n%4 == 1:
			return says(rls.RateLimitResponse_OVER_LIMIT), nil
		case n%4 == 2:
			return nil, grpcstatus.Error(codes.Unavailable, "not now: "+value)
		case n%4 == 3:
			return says(rls.RateLimitResponse_UNKNOWN), nil
		}
		return says(rls.RateLimitResponse_OK), nil
	})
	got := start(t, Options{
		Addresses: []string{address}, Connections: 3, InFlight: 7, Calls: 4000,
		Call: RateLimits("d", []Entry{{"limit", "l"}, {"key", "k%d"}}, 4000, true),
	}).Wait(t.Context())
	if got.Allowed != 1000 || got.Refused != 1000 || got.Failed["grpc status 14"] != 1000 || got.Failed["not an answer"] != 1000 {
		t.Errorf("got %d allowed, %d refused, %v", got.Allowed, got.Refused, got.Failed)
	}
	if got.Latency.Count() != 2000 || got.Told.Count() != 2000 || len(seen) != 4000 {
		t.Errorf("%d latencies, %d of failures, %d values", got.Latency.Count(), got.Told.Count(), len(seen))
	}
}

func TestTakeTellsPhasesApart(t *testing.T) {
	address, _ := serve(t, func(context.Context, *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		return says(rls.RateLimitResponse_OK), nil
	})
	r := start(t, Options{Addresses: []string{address}, InFlight: 4, Calls: 1000})
	first := r.Take()
	rest := r.Wait(t.Context())
	if first.Allowed+rest.Allowed != 1000 || rest.Failures() != 0 || first.Elapsed <= 0 {
		t.Errorf("got %d, then %d", first.Allowed, rest.Allowed)
	}
}

// An answer that takes long makes those late that were due behind it: a closed loop would not have sent them.
func TestOpenLoopCountsFromWhenCallsWereDue(t *testing.T) {
	release := make(chan struct{})
	address, _ := serve(t, func(context.Context, *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		<-release
		return says(rls.RateLimitResponse_OK), nil
	})
	r := start(t, Options{Addresses: []string{address}, Rate: 1000})
	time.AfterFunc(200*time.Millisecond, func() { close(release) })
	<-release
	got := r.Stop()
	if n := got.Latency.Over(100 * time.Millisecond); n < 50 || got.Failures() != 0 {
		t.Errorf("%d of %d took longer than 100 ms, want the first hundred; %v", n, got.Answered(), got.Failed)
	}
}

func TestCancelResetsWhatTakesTooLong(t *testing.T) {
	ended := make(chan struct{}, 10_000)
	address, _ := serve(t, func(ctx context.Context, _ *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	})
	r := start(t, Options{Addresses: []string{address}, Rate: 1000, Cancel: 10 * time.Millisecond})
	for range 20 {
		<-ended // the server was told
	}
	if got := r.Stop(); got.Canceled < 20 || got.Answered() != 0 {
		t.Errorf("%d canceled, %d answered", got.Canceled, got.Answered())
	}
}

// A server that goes away in order takes no call with it, one that breaks takes those in flight.
func TestRedial(t *testing.T) {
	ok := func(context.Context, *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		return says(rls.RateLimitResponse_OK), nil
	}
	address, s := serve(t, ok)
	r := start(t, Options{Addresses: []string{address}, InFlight: 8, Redial: true})
	s.GracefulStop()
	if got := r.Take(); got.Failures() != 0 {
		t.Errorf("a graceful stop: %v", got.Failed)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	again := grpc.NewServer()
	asked := make(chan struct{})
	var calls atomic.Int32
	rls.RegisterRateLimitServiceServer(again, service{answer: func(ctx context.Context, q *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		n := calls.Add(1)
		if n < 100 {
			return ok(ctx, q)
		}
		if n == 100 {
			close(asked)
		}
		<-ctx.Done() // in flight when the server breaks
		return nil, ctx.Err()
	}})
	go func() { _ = again.Serve(l) }()
	<-asked
	again.Stop()
	if got := r.Stop(); got.Allowed == 0 || got.Failures() == 0 || got.Failures() > 8 {
		t.Errorf("%d allowed, %v", got.Allowed, got.Failed)
	}
}

func TestStartTellsWhatIsNoServer(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = http.Serve(plain, http.NotFoundHandler()) }()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	defer plain.Close()
	for _, l := range []net.Listener{plain, closed} {
		if _, err := Start(Options{Addresses: []string{l.Addr().String()}, Call: Checks(nil)}); err == nil {
			t.Errorf("%s is taken for a gRPC server", l.Addr())
		}
	}
}

func TestJudge(t *testing.T) {
	for _, row := range []struct {
		answer *authv3.CheckResponse
		want   Verdict
	}{
		{&authv3.CheckResponse{}, Allowed},
		{&authv3.CheckResponse{Status: &status.Status{}}, Allowed},
		{&authv3.CheckResponse{Status: &status.Status{Code: int32(codes.PermissionDenied)}}, Refused},
	} {
		message, err := marshal(row.answer)
		if err != nil {
			t.Fatal(err)
		}
		if got := judgeCheck(message); got != row.want {
			t.Errorf("%v: got %d, want %d", row.answer, got, row.want)
		}
	}
	for _, message := range [][]byte{nil, {0x80}, {8}, {8, 0}, {8, 3}, {0x12, 9, 1}} {
		if got := judgeLimit(message); got != Broken {
			t.Errorf("% x: got %d, want it told to be no answer", message, got)
		}
	}
}

// What is sent is what the generated types read.
func TestRateLimitsEncodes(t *testing.T) {
	call := RateLimits("edge", []Entry{{"a", "%d"}, {"b", "x%dy%z"}}, 1000, true)
	var got rls.RateLimitRequest
	if err := unmarshal(call.Body(nil, 345), &got); err != nil {
		t.Fatal(err)
	}
	want := &rls.RateLimitRequest{Domain: "edge", Descriptors: []*corev3.RateLimitDescriptor{{Entries: []*corev3.RateLimitDescriptor_Entry{
		{Key: "a", Value: "345"}, {Key: "b", Value: "x345y%z"},
	}}}}
	if got.String() != want.String() {
		t.Errorf("got %s, want %s", &got, want)
	}
}

func TestPlain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "1"):
			w.WriteHeader(429)
		case strings.HasSuffix(r.URL.Path, "2"):
			w.WriteHeader(503)
		}
		fmt.Fprint(w, "a body")
	})}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	got := start(t, Options{Addresses: []string{l.Addr().String()}, Connections: 4, Calls: 1000, Plain: func(b []byte, n uint64) []byte {
		return fmt.Appendf(b, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", n)
	}}).Wait(t.Context())
	if got.Allowed != 800 || got.Refused != 100 || got.Failed["http status 503"] != 100 {
		t.Errorf("got %d allowed, %d refused, %v", got.Allowed, got.Refused, got.Failed)
	}
}

func TestReadResponseRefuses(t *testing.T) {
	for _, text := range []string{"\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "HTTP/1.1 200"} {
		if got, err := readResponse(bufio.NewReader(strings.NewReader(text))); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
	}
}
