package healthcheck_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/legation/legation/feature/golden"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const liveGRPC = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  greeter:
    endpoints: [%q, %q, %q]
    protocol: grpc
    healthCheck: {grpc: {service: hello.Greeter}, interval: 100ms, unhealthyThreshold: 1000}
routes:
  greeter: {hostnames: [a.test], backends: {greeter: 1}}
`

// greeter is a gRPC server with the health service of grpc-go, which answers all other calls with its name.
func greeter(t *testing.T, name string) (*health.Server, string) {
	t.Helper()
	h := health.NewServer()
	h.SetServingStatus("hello.Greeter", grpc_health_v1.HealthCheckResponse_SERVING)
	register := func(s grpc.ServiceRegistrar) { grpc_health_v1.RegisterHealthServer(s, h) }
	return h, golden.GRPC(t, register, grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return status.Error(codes.Aborted, name)
	}))
}

func TestGRPCServerThatIsNotServingIsLeftOut(t *testing.T) {
	fickle, fickleAddress := greeter(t, "fickle")
	_, first := greeter(t, "well")
	_, second := greeter(t, "well")
	envoy := golden.Serve(t, fmt.Sprintf(liveGRPC, fickleAddress, first, second), kinds...)
	asked := func() bool {
		for range 6 {
			got := envoy.Ask(t, "POST", "a.test", "/hello.Greeter/Hello", "content-type", "application/grpc", "te", "trailers")
			if got.Header.Get("grpc-message") == "fickle" {
				return true
			}
		}
		return false
	}
	golden.Eventually(t, "the endpoint is asked", asked)
	// One answer takes it out, whatever unhealthyThreshold says.
	fickle.SetServingStatus("hello.Greeter", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	golden.Eventually(t, "the endpoint is left out", func() bool { return !asked() })
	fickle.SetServingStatus("hello.Greeter", grpc_health_v1.HealthCheckResponse_SERVING)
	golden.Eventually(t, "the endpoint is back", asked)
}

const liveTCP = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  connects: {endpoints: [%[1]q, %[2]q, %[3]q], healthCheck: {tcp: true, interval: 100ms}}
  answers: {endpoints: [%[4]q, %[2]q, %[3]q], healthCheck: {tcp: {send: "PING\r\n", receive: PONG}, interval: 100ms}}
routes:
  connects: {hostnames: [connects.test], backends: {connects: 1}}
  answers: {hostnames: [answers.test], backends: {answers: 1}}
`

// ponger answers PING with what it is told, and any request of HTTP with its name.
func ponger(t *testing.T, name string) (answer *atomic.Value, address string) {
	t.Helper()
	answer = new(atomic.Value)
	answer.Store("+PONG\r\n")
	return answer, golden.Accept(t, func(conn net.Conn) {
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			switch line := lines.Text(); {
			case line == "PING":
				io.WriteString(conn, answer.Load().(string))
			case line == "": // the end of a request's headers
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(name), name)
			}
		}
	})
}

func TestTCPEndpointIsLeftOut(t *testing.T) {
	answer, fickle := ponger(t, "fickle")
	_, first := ponger(t, "well")
	_, second := ponger(t, "well")
	envoy := golden.Serve(t, fmt.Sprintf(liveTCP, golden.Dead(t), first, second, fickle), kinds...)
	all := func(host, body string) bool {
		for range 6 {
			if got := envoy.Ask(t, "GET", host, "/"); got.Body != body {
				return false
			}
		}
		return true
	}
	golden.Eventually(t, "what can't be connected to is left out", func() bool { return all("connects.test", "well") })
	golden.Eventually(t, "what answers is asked", func() bool { return !all("answers.test", "well") })
	answer.Store("-LOADING\r\n")
	golden.Eventually(t, "what answers otherwise is left out", func() bool { return all("answers.test", "well") })
	answer.Store("+PONG\r\n")
	golden.Eventually(t, "and is back", func() bool { return !all("answers.test", "well") })
}

const liveHTTP = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  plain: {endpoints: [%q], healthCheck: {path: /plain, method: HEAD}}
  h2c: {endpoints: [%q], protocol: http2, healthCheck: {path: /h2c}}
  h2: {endpoints: [%q], protocol: http2, tls: {}, healthCheck: {path: /h2, method: POST}}
  auto: {endpoints: [%q], protocol: auto, tls: {}, healthCheck: {path: /auto}}
  old: {endpoints: [%q], protocol: auto, tls: {}, healthCheck: {path: /old}}
  grpc: {endpoints: [%q], protocol: grpc, tls: {}, healthCheck: {grpc: true, hostname: grpc.test}}
routes:
  all: {hostnames: [a.test], backends: {plain: 1, h2c: 1, h2: 1, auto: 1, old: 1, grpc: 1}}
`

// TestChecksSpeakAsRequestsDo holds the checks against servers that speak nothing else.
func TestChecksSpeakAsRequestsDo(t *testing.T) {
	heard := make(chan string, 100)
	serve := func(start func(*httptest.Server)) string {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			heard <- strings.Join([]string{r.Method, r.Host, r.URL.Path, r.Proto}, " ")
		}))
		t.Cleanup(server.Close)
		start(server)
		return server.Listener.Addr().String()
	}
	h2c := func(s *httptest.Server) {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	}
	h2 := func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }
	golden.Serve(t, fmt.Sprintf(liveHTTP, serve((*httptest.Server).Start), serve(h2c), serve(h2), serve(h2),
		serve((*httptest.Server).StartTLS), serve(h2)), kinds...)

	missing := map[string]bool{
		"HEAD plain /plain HTTP/1.1":                           true,
		"GET h2c /h2c HTTP/2.0":                                true,
		"POST h2 /h2 HTTP/2.0":                                 true,
		"GET auto /auto HTTP/2.0":                              true,
		"GET old /old HTTP/1.1":                                true,
		"POST grpc.test /grpc.health.v1.Health/Check HTTP/2.0": true,
	}
	golden.Eventually(t, "every server was asked in its own way", func() bool {
		for {
			select {
			case asked := <-heard:
				delete(missing, asked)
			default:
				return len(missing) == 0
			}
		}
	})
}
