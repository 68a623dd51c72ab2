package callout

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	echo   = "/callout.Test/Echo"   // answers what it is asked
	failed = "/callout.Test/Fail"   // asked "5 some text" it fails with that code and text
	large  = "/callout.Test/Large"  // answers as many bytes as it is asked for
	panics = "/callout.Test/Panics" // asked anything

	duplex = "/grpc.testing.TestService/FullDuplexCall" // of grpc-go
)

func echoMethod(calls []*Call) {
	for _, c := range calls {
		c.Reply = append(c.Reply, c.Message...)
	}
}

func failMethod(calls []*Call) {
	for _, c := range calls {
		code, text, _ := strings.Cut(string(c.Message), " ")
		n, _ := strconv.Atoi(code)
		c.Code, c.Text = codes.Code(n), text
	}
}

func largeMethod(calls []*Call) {
	for _, c := range calls {
		n, _ := strconv.Atoi(string(c.Message))
		c.Reply = append(c.Reply, make([]byte, n)...)
	}
}

func testMethods() map[string]Method {
	return map[string]Method{
		echo: echoMethod, failed: failMethod, large: largeMethod,
		panics: func([]*Call) { panic("secret") },
	}
}

// fallback is a grpc-go server with health, reflection and a service of streams.
func fallback(creds credentials.TransportCredentials) *grpc.Server {
	s := grpc.NewServer(grpc.Creds(creds))
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	testpb.RegisterTestServiceServer(s, streams{})
	reflection.Register(s)
	return s
}

// streams answers each message of a stream at once, with as many bytes as it asks for.
type streams struct {
	testpb.UnimplementedTestServiceServer
}

func (streams) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	if md, _ := metadata.FromIncomingContext(s.Context()); len(md["tell"]) > 0 {
		defer func() { ended <- struct{}{} }()
		if err := s.SendHeader(nil); err != nil {
			return err
		}
	} else if err := s.SetHeader(metadata.Pairs("at-first", "1", "at-first", "2")); err != nil {
		return err
	}
	for {
		m, err := s.Recv()
		if err == io.EOF {
			s.SetTrailer(metadata.Pairs("at-last-bin", "\x00\xff"))
			return nil
		}
		if err != nil {
			return err
		}
		if st := m.GetResponseStatus(); st != nil {
			return status.Error(codes.Code(st.GetCode()), st.GetMessage())
		}
		for _, p := range m.GetResponseParameters() {
			if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
				return err
			}
		}
	}
}

// ended hears of the end of streams that ask for it.
var ended = make(chan struct{}, 1)

// UnaryCall tells who asks.
func (streams) UnaryCall(ctx context.Context, m *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	p, _ := peer.FromContext(ctx)
	answer := &testpb.SimpleResponse{Hostname: p.Addr.String(), Payload: m.GetPayload()}
	if t, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		answer.Username = t.State.PeerCertificates[0].Subject.CommonName
	}
	return answer, nil
}

// A running server of a test.
type running struct {
	*Server
	addr    string
	figures *prometheus.Registry
	stop    context.CancelFunc
	done    chan error // gets what Run returns
}

// counted is a figure with these values of its labels.
func (r *running) counted(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.figures.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if f.GetName() == name && slices.Equal(values, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// start runs a server until the test ends.
func start(t testing.TB, o Options) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if o.Methods == nil {
		o.Methods = testMethods()
	}
	if o.Fallback == nil {
		o.Fallback = fallback(Credentials())
	}
	ctx, stop := context.WithCancel(context.Background())
	figures := prometheus.NewRegistry()
	o.Metrics = figures
	r := &running{New(o), l.Addr().String(), figures, stop, make(chan error, 1)}
	go func() { r.done <- r.Run(ctx, l, 5*time.Second) }()
	t.Cleanup(func() {
		stop()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
		r.done <- nil
	})
	return r
}

// wait tells what Run returned.
func (r *running) wait() error {
	err := <-r.done
	r.done <- nil
	return err
}

// dial makes a grpc-go client with connections of its own.
func (r *running) dial(t testing.TB, o ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return dialTo(t, r.addr, nil, o...)
}

func dialTo(t testing.TB, addr string, config *tls.Config, o ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if config != nil {
		creds = credentials.NewTLS(config)
	}
	c, err := grpc.NewClient("passthrough:///"+addr, append(o, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// raw is a codec for messages that are bytes.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(b mem.BufferSlice, v any) error {
	*v.(*[]byte) = b.Materialize()
	return nil
}

// call calls a method of bytes.
func call(ctx context.Context, c *grpc.ClientConn, path, message string, o ...grpc.CallOption) (string, error) {
	in, out := []byte(message), []byte(nil)
	err := c.Invoke(ctx, path, &in, &out, append(o, grpc.ForceCodecV2(raw{}))...)
	return string(out), err
}

func wantCode(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	if got := status.Convert(err); got.Code() != code || !strings.Contains(got.Message(), text) {
		t.Errorf("got %v, want %v with %q", err, code, text)
	}
}

func mustCall(t testing.TB, c *grpc.ClientConn, path, message, want string) {
	t.Helper()
	if got, err := call(t.Context(), c, path, message); err != nil || got != want {
		t.Fatalf("%s asked %.50q: got %.50q, %v, want %.50q", path, message, got, err, want)
	}
}

func numbered(i int) string { return fmt.Sprintf("message %d", i) }

// ask is a message for [streams] that asks for answers of so many bytes.
func ask(t testing.TB, sizes ...int32) []byte {
	t.Helper()
	m := &testpb.StreamingOutputCallRequest{}
	for _, n := range sizes {
		m.ResponseParameters = append(m.ResponseParameters, &testpb.ResponseParameters{Size: n})
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return framed(string(b))
}
