package grpcweb_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/grpcweb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", grpcweb.Kind, golden.Protocol) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {health: {endpoints: [%q], protocol: http2}, gone: {endpoints: [%q], protocol: http2}}
routes:
  web: {hostnames: [a.test], backends: {health: 1}, grpcWeb: true}
  gone: {hostnames: [gone.test], backends: {gone: 1}, grpcWeb: true}
  off: {hostnames: [off.test], backends: {health: 1}}
`

// serve runs an Envoy in front of a gRPC server that knows how the service orders does.
func serve(t *testing.T) (*golden.Envoy, *health.Server) {
	t.Helper()
	state := health.NewServer()
	state.SetServingStatus("orders", healthv1.HealthCheckResponse_SERVING)
	address := golden.GRPC(t, func(s grpc.ServiceRegistrar) { healthv1.RegisterHealthServer(s, state) })
	return golden.Serve(t, fmt.Sprintf(live, address, golden.Dead(t)), grpcweb.Kind, golden.Protocol), state
}

const (
	binaryMode = "application/grpc-web+proto"
	textMode   = "application/grpc-web-text" // base64, for pages that can't read bytes as they come
)

// call asks how a service does, in the way of a page.
func call(t *testing.T, edge *golden.Envoy, host, method, mode, service string) *http.Response {
	t.Helper()
	message, err := proto.Marshal(&healthv1.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	if mode == textMode {
		body = []byte(base64.StdEncoding.EncodeToString(body))
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+edge.Address(t, "http")+"/grpc.health.v1.Health/"+method, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Content-Type", mode)
	req.Header.Set("Accept", mode)
	req.Header.Set("X-Grpc-Web", "1")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// reads gives the frames of an answer; text comes in groups of four letters, padded wherever a piece ended.
func reads(resp *http.Response) io.Reader {
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), textMode) {
		return resp.Body
	}
	out, in := io.Pipe()
	go func() {
		group := make([]byte, 4)
		for {
			if _, err := io.ReadFull(resp.Body, group); err != nil {
				in.CloseWithError(err)
				return
			}
			piece, err := base64.StdEncoding.DecodeString(string(group))
			if err != nil {
				in.CloseWithError(err)
				return
			}
			in.Write(piece)
		}
	}()
	return out
}

// frame reads the next message, or the trailers as text.
func frame(t *testing.T, r io.Reader) (status healthv1.HealthCheckResponse_ServingStatus, trailers string) {
	t.Helper()
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, binary.BigEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatal(err)
	}
	const isTrailers = 0x80
	if head[0]&isTrailers != 0 {
		return 0, string(payload)
	}
	message := new(healthv1.HealthCheckResponse)
	if err := proto.Unmarshal(payload, message); err != nil {
		t.Fatal(err)
	}
	return message.Status, ""
}

func TestPagesCall(t *testing.T) {
	edge, _ := serve(t)
	for _, mode := range []string{binaryMode, textMode} {
		resp := call(t, edge, "a.test", "Check", mode, "orders")
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || !strings.HasPrefix(got, strings.TrimSuffix(mode, "+proto")) {
			t.Errorf("%s: got %d %s", mode, resp.StatusCode, got)
		}
		r := reads(resp)
		if status, _ := frame(t, r); status != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%s: got %v", mode, status)
		}
		if _, trailers := frame(t, r); !strings.Contains(trailers, "grpc-status:0\r\n") {
			t.Errorf("%s: got the trailers %q", mode, trailers)
		}
	}
}

// The server says something new only once the page has read what it said before.
func TestServerStreamsArriveAsTheyCome(t *testing.T) {
	edge, state := serve(t)
	for _, mode := range []string{binaryMode, textMode} {
		r := reads(call(t, edge, "a.test", "Watch", mode, "orders"))
		for _, want := range []healthv1.HealthCheckResponse_ServingStatus{
			healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING, healthv1.HealthCheckResponse_SERVING,
		} {
			state.SetServingStatus("orders", want)
			if got, _ := frame(t, r); got != want {
				t.Errorf("%s: got %v, want %v", mode, got, want)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	edge, _ := serve(t)
	for _, tt := range []struct {
		name, host, mode, service string
		status                    int
		grpcStatus                string
	}{
		{"of the service", "a.test", binaryMode, "carts", 200, "5"},
		{"of the service, as text", "a.test", textMode, "carts", 200, "5"},
		{"no endpoint", "gone.test", binaryMode, "orders", 503, "14"},
		{"not translated", "off.test", binaryMode, "orders", 415, "3"}, // the server's own word,
	} {
		resp := call(t, edge, tt.host, "Check", tt.mode, tt.service)
		got := []string{fmt.Sprint(resp.StatusCode), resp.Header.Get("Grpc-Status")}
		if diff := cmp.Diff([]string{fmt.Sprint(tt.status), tt.grpcStatus}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
