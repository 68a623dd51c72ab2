package e2e

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// The clients here are other people's: of WebSocket, gRPC, gRPC-Web and TLS.

// protocols serves a policy to an Envoy with a listener of HTTP at the first port, and one of TLS at the second.
func protocols(t *testing.T, policy string) (plain, passthrough int) {
	t.Helper()
	n := ports(t, 2)
	gateway := fmt.Sprintf(`gateways:
  edge:
    listeners:
      http: {port: %d, address: 127.0.0.1}
      tls: {port: %d, address: 127.0.0.1, protocol: TLS}
auth:
  demo:
    jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: {file: test-keys.json}}
`, n[0], n[1])
	p := newPlane(t, policyDir(t, gateway+policy))
	p.serve(t)
	p.envoy(t, "edge")
	return n[0], n[1]
}

// within bounds what one test does with its clients.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // it has answered
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	}))
	t.Cleanup(echo.Close)
	port, _ := protocols(t, fmt.Sprintf(`services: {chat: {endpoints: [%q]}, tls: {endpoints: [%q]}}
routes:
  chat: {hostnames: [127.0.0.1], match: {path: /chat}, auth: [demo], backends: {chat: 1}, upgrades: [websocket], timeouts: {request: 1s}}
  plain: {hostnames: [127.0.0.1], match: {path: /plain}, backends: {chat: 1}}
  tls: {hostnames: [tls.test], listeners: [tls], backends: {tls: 1}}
`, echo.Listener.Addr(), echo.Listener.Addr()))
	ctx := within(t)
	dial := func(path, bearer string) (*websocket.Conn, int) {
		header := http.Header{}
		if bearer != "" {
			header.Set("Authorization", "Bearer "+bearer)
		}
		c, answer, err := websocket.Dial(ctx, "ws://"+local(port)+path, &websocket.DialOptions{HTTPHeader: header})
		if answer == nil {
			t.Fatal(err)
		}
		return c, answer.StatusCode
	}
	if _, code := dial("/plain", ""); code != http.StatusForbidden {
		t.Errorf("a route without upgrades: got %d, want 403", code)
	}
	if _, code := dial("/chat", ""); code != http.StatusUnauthorized {
		t.Errorf("without a token: got %d, want 401", code)
	}
	c, code := dial("/chat", token(t, "alice"))
	if code != http.StatusSwitchingProtocols {
		t.Fatalf("with a token: got %d, want 101", code)
	}
	defer c.CloseNow()
	// Longer than the route's timeout in all, which ends with the handshake.
	began := time.Now()
	for i := 0; time.Since(began) < 1500*time.Millisecond; i++ {
		want := fmt.Sprintf("message %d", i)
		if err := c.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
}

// testService answers as the test service of gRPC does, as far as the tests here ask.
type testService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (testService) UnaryCall(_ context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	if s := r.GetResponseStatus(); s.GetCode() != 0 {
		return nil, status.Error(codes.Code(s.Code), s.Message)
	}
	return &grpc_testing.SimpleResponse{Payload: r.Payload}, nil
}

func (testService) FullDuplexCall(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: r.Payload}); err != nil {
			return err
		}
	}
}

func (testService) StreamingOutputCall(r *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	for _, p := range r.ResponseParameters {
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: payload(string(make([]byte, p.Size)))}); err != nil {
			return err
		}
	}
	return nil
}

func payload(text string) *grpc_testing.Payload { return &grpc_testing.Payload{Body: []byte(text)} }

// grpcBackend runs the test service.
func grpcBackend(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(s, testService{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

const grpcPolicy = `services: {greeter: {endpoints: [%q], protocol: grpc}}
routes:
  unary: {hostnames: [127.0.0.1], match: {grpc: {service: grpc.testing.TestService, method: UnaryCall}}, backends: {greeter: 1}, grpcWeb: true}
  streams: {hostnames: [127.0.0.1], match: {grpc: {service: grpc.testing.TestService}}, backends: {greeter: 1}, grpcWeb: true}
  closed: {hostnames: [127.0.0.1], match: {grpc: {service: grpc.testing.TestService, method: EmptyCall}}, auth: [demo], backends: {greeter: 1}}
  tls: {hostnames: [tls.test], listeners: [tls], backends: {greeter: 1}}
`

func TestGRPC(t *testing.T) {
	t.Parallel()
	port, passthrough := protocols(t, fmt.Sprintf(grpcPolicy, grpcBackend(t)))
	_ = passthrough
	conn, err := grpc.NewClient(local(port), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c, ctx := grpc_testing.NewTestServiceClient(conn), within(t)

	answer, err := c.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: payload("hello")})
	if err != nil || string(answer.GetPayload().GetBody()) != "hello" {
		t.Errorf("unary: got %v, %v, want hello", answer, err)
	}
	_, err = c.UnaryCall(ctx, &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: int32(codes.DataLoss), Message: "all gone"}})
	if s := status.Convert(err); s.Code() != codes.DataLoss || s.Message() != "all gone" {
		t.Errorf("a status of the server: got %v, want DataLoss: all gone", err)
	}
	if _, err := c.EmptyCall(ctx, new(grpc_testing.Empty)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a method behind auth: got %v, want Unauthenticated", err)
	}

	stream, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		want := fmt.Sprint("turn ", i)
		if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: payload(want)}); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil || string(got.GetPayload().GetBody()) != want {
			t.Fatalf("streaming: got %v, %v, want %s", got, err, want)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end of the stream: got %v, want EOF", err)
	}
}

func TestGRPCWeb(t *testing.T) {
	t.Parallel()
	port, _ := protocols(t, fmt.Sprintf(grpcPolicy, grpcBackend(t)))
	base, ctx := "http://"+local(port)+"/grpc.testing.TestService/", within(t)

	unary := connect.NewClient[grpc_testing.SimpleRequest, grpc_testing.SimpleResponse](http.DefaultClient, base+"UnaryCall", connect.WithGRPCWeb())
	answer, err := unary.CallUnary(ctx, connect.NewRequest(&grpc_testing.SimpleRequest{Payload: payload("hello")}))
	if err != nil || string(answer.Msg.GetPayload().GetBody()) != "hello" {
		t.Errorf("unary: got %v, %v, want hello", answer, err)
	}
	_, err = unary.CallUnary(ctx, connect.NewRequest(&grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: int32(codes.DataLoss), Message: "all gone"}}))
	if connect.CodeOf(err) != connect.CodeDataLoss {
		t.Errorf("a status of the server: got %v, want data_loss", err)
	}
	empty := connect.NewClient[grpc_testing.Empty, grpc_testing.Empty](http.DefaultClient, base+"EmptyCall", connect.WithGRPCWeb())
	if _, err = empty.CallUnary(ctx, connect.NewRequest(new(grpc_testing.Empty))); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a method behind auth: got %v, want unauthenticated", err)
	}

	streaming := connect.NewClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse](http.DefaultClient, base+"StreamingOutputCall", connect.WithGRPCWeb())
	sizes := []*grpc_testing.ResponseParameters{{Size: 1}, {Size: 100_000}, {Size: 10}}
	stream, err := streaming.CallServerStream(ctx, connect.NewRequest(&grpc_testing.StreamingOutputCallRequest{ResponseParameters: sizes}))
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for stream.Receive() {
		got = append(got, len(stream.Msg().GetPayload().GetBody()))
	}
	if err := stream.Err(); err != nil || fmt.Sprint(got) != "[1 100000 10]" {
		t.Errorf("streaming: got %v, %v, want 1, 100000 and 10 bytes", got, err)
	}
}

func TestTLSPassthrough(t *testing.T) {
	t.Parallel()
	servers := map[string]*httptest.Server{}
	roots := x509.NewCertPool()
	for _, name := range []string{"one", "two"} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s got %s over %s", name, r.Host, r.Proto)
		}))
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		servers[name] = s
		roots.AddCert(s.Certificate()) // for example.com and *.example.com
	}
	_, port := protocols(t, fmt.Sprintf(`services: {one: {endpoints: [%q]}, two: {endpoints: [%q]}}
routes:
  one: {hostnames: [example.com], listeners: [tls], backends: {one: 1}}
  two: {hostnames: ["*.example.com"], listeners: [tls], backends: {two: 1}}
  http: {hostnames: [plain.test], backends: {one: 1}}
`, servers["one"].Listener.Addr(), servers["two"].Listener.Addr()))

	toEnvoy := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, local(port))
	}
	transport := servers["one"].Client().Transport.(*http.Transport).Clone()
	transport.DialContext, transport.TLSClientConfig.RootCAs = toEnvoy, roots
	c := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	for host, want := range map[string]string{
		"example.com":   "one got example.com over HTTP/2.0",
		"b.example.com": "two got b.example.com over HTTP/2.0",
	} {
		a, err := c.Get("https://" + host + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if string(body) != want || !a.TLS.PeerCertificates[0].Equal(servers["one"].Certificate()) {
			t.Errorf("%s: got %q, want %q, and the backend's own certificate", host, body, want)
		}
	}
	if a, err := c.Get("https://other.test/"); err == nil {
		a.Body.Close()
		t.Errorf("a name that no route has: got %d, want no connection", a.StatusCode)
	}
}
