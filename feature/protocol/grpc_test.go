package protocol_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const liveGRPC = `
gateways: {edge: {listeners: {http: {address: 127.0.0.1, port: %d}}}}
services: {greeter: {endpoints: [%q], protocol: grpc}}
routes: {greeter: {hostnames: [greeter.test], backends: {greeter: 1}}}
`

func client(t *testing.T, address, host string) grpc_health_v1.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithAuthority(host),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

func TestCallsAndStreamsGoThrough(t *testing.T) {
	well := health.NewServer()
	backend := golden.GRPC(t, func(s grpc.ServiceRegistrar) { grpc_health_v1.RegisterHealthServer(s, well) })
	port := golden.FreePort(t)
	m, problems := policy.New(kinds...).Load(policy.Files{"policy.yaml": fmt.Appendf(nil, liveGRPC, port, backend)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	golden.Start(t, m, kinds, golden.Dead(t))
	greeter := client(t, fmt.Sprintf("127.0.0.1:%d", port), "greeter.test")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	if got, err := greeter.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || got.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("call: got %v, %v, want SERVING", got, err)
	}
	if _, err := greeter.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("call for an unknown service: got %v, want NotFound of the backend", err)
	}
	stream, err := greeter.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING, grpc_health_v1.HealthCheckResponse_SERVING,
	} {
		well.SetServingStatus("", want)
		if got, err := stream.Recv(); err != nil || got.Status != want {
			t.Fatalf("stream: got %v, %v, want %v", got, err, want)
		}
	}
}

const liveDeadline = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {silent: {endpoints: [%q], protocol: grpc}}
routes: {silent: {hostnames: [a.test], backends: {silent: 1}}}
`

// TestDeadlineOfTheClientHolds asks a backend that knows nothing of deadlines, so that Envoy has to end the call.
func TestDeadlineOfTheClientHolds(t *testing.T) {
	ended := make(chan struct{})
	silent := serveH2C(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(ended)
	})
	envoy := golden.Serve(t, fmt.Sprintf(liveDeadline, silent), kinds...)
	got := envoy.Ask(t, "POST", "a.test", "/silent.Service/Call", "content-type", "application/grpc", "te", "trailers", "grpc-timeout", "200m")
	if want := fmt.Sprint(uint32(codes.DeadlineExceeded)); got.Header.Get("grpc-status") != want {
		t.Errorf("got %d %v, want grpc-status %s", got.Status, got.Header, want)
	}
	<-ended
}
