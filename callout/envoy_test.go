package callout

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

const shouldRateLimit = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

// bootstrap asks one server for each request, whose header who is limited, and sends it the access log.
const bootstrap = `{
"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
"static_resources": {
  "listeners": [{
    "name": "http", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
      "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
      "stat_prefix": "http",
      "access_log": [{"name": "als", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "common_config": {"log_name": "test", "transport_api_version": "V3", "buffer_flush_interval": "0.01s",
          "grpc_service": {"envoy_grpc": {"cluster_name": "companion"}}}}}],
      "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
        "match": {"prefix": "/"}, "route": {"cluster": "backend",
          "rate_limits": [{"actions": [{"request_headers": {"header_name": "who", "descriptor_key": "who"}}]}]}}]}]},
      "http_filters": [
        {"name": "limit", "typed_config": {
          "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
          "domain": "test", "timeout": "5s", "failure_mode_deny": true,
          "rate_limit_service": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "companion"}}}}},
        {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
    }}]}]
  }],
  "clusters": [{
    "name": "companion", "type": "STATIC", "connect_timeout": "1s",
    "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
      "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
      "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": {"interval": "0.1s", "timeout": "5s"}}}}},
    "load_assignment": {"cluster_name": "companion", "endpoints": [{"lb_endpoints": [{"endpoint": {
      "address": {"socket_address": {"address": "127.0.0.1", "port_value": %s}}}}]}]}
  }, {
    "name": "backend", "type": "STATIC",
    "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [{"endpoint": {
      "address": {"socket_address": {"address": "127.0.0.1", "port_value": %s}}}}]}]}
  }]
}}`

// limit refuses those whose name begins with b.
func limit(calls []*Call) {
	for _, c := range calls {
		var m rlsv3.RateLimitRequest
		if err := proto.Unmarshal(c.Message, &m); err != nil {
			c.Code, c.Text = codes.InvalidArgument, err.Error()
			continue
		}
		answer := &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}
		if strings.HasPrefix(m.GetDescriptors()[0].GetEntries()[0].GetValue(), "b") {
			answer.OverallCode = rlsv3.RateLimitResponse_OVER_LIMIT
		}
		c.Reply, _ = proto.MarshalOptions{}.MarshalAppend(c.Reply, answer)
	}
}

// accessLog counts entries.
type accessLog struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	entries atomic.Int64
}

func (a *accessLog) StreamAccessLogs(s grpc.ClientStreamingServer[accesslogv3.StreamAccessLogsMessage, accesslogv3.StreamAccessLogsResponse]) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		a.entries.Add(int64(len(m.GetHttpLogs().GetLogEntry())))
	}
}

// The real Envoy asks the loop, and has grpc-go take its access log over the same connection, or another.
func TestEnvoyAsks(t *testing.T) {
	binary := os.Getenv("LEGATION_ENVOY")
	if binary == "" {
		t.Skip("LEGATION_ENVOY names no Envoy")
	}
	logs := &accessLog{}
	grpcServer := fallback(Credentials())
	accesslogv3.RegisterAccessLogServiceServer(grpcServer, logs)
	r := start(t, Options{Methods: map[string]Method{shouldRateLimit: limit}, Fallback: grpcServer})
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(backend.Close)
	address := runEnvoy(t, binary, r.addr, backend.Listener.Addr().String())

	var all sync.WaitGroup
	for i := range 20 {
		who, want := fmt.Sprintf("a%d", i), http.StatusOK
		if i%2 == 0 {
			who, want = fmt.Sprintf("b%d", i), http.StatusTooManyRequests
		}
		all.Go(func() {
			for range 50 {
				if got := get(t, address, who); got != want {
					t.Errorf("%s: got %d, want %d", who, got, want)
					return
				}
			}
		})
	}
	all.Wait()
	await(t, "the access log", func() bool { return logs.entries.Load() == 1000 })
	if got := r.counted(t, "legation_callout_calls_total", "OK", shouldRateLimit); got != 1000 {
		t.Errorf("%v calls counted", got)
	}
	if r.counted(t, "legation_callout_connections", "loop") == 0 {
		t.Error("no connection of the loop's is left: was one closed?")
	}
}

// Envoy's other requests go on while one waits for its answer, and one that may not wait any more is refused.
func TestEnvoyWaits(t *testing.T) {
	binary := os.Getenv("LEGATION_ENVOY")
	if binary == "" {
		t.Skip("LEGATION_ENVOY names no Envoy")
	}
	began, release := make(chan struct{}), make(chan struct{})
	method := func(calls []*Call) {
		limit(calls)
		for _, c := range calls {
			if reply := bytes.Clone(c.Reply); bytes.Contains(c.Message, []byte("waits")) {
				c.Later = func(context.Context) Answer {
					began <- struct{}{}
					<-release
					return Answer{Reply: reply}
				}
			}
		}
	}
	r := start(t, Options{Methods: map[string]Method{shouldRateLimit: method}, MaxWaiting: 2})
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(backend.Close)
	address := runEnvoy(t, binary, r.addr, backend.Listener.Addr().String())
	var all sync.WaitGroup
	for who, want := range map[string]int{"a waits": http.StatusOK, "b waits": http.StatusTooManyRequests} {
		all.Go(func() {
			if got := get(t, address, who); got != want {
				t.Errorf("%s: got %d, want %d", who, got, want)
			}
		})
		<-began
	}
	for who, want := range map[string]int{"a": http.StatusOK, "b": http.StatusTooManyRequests, "a third waits": http.StatusInternalServerError} {
		if got := get(t, address, who); got != want {
			t.Errorf("%s while two wait: got %d, want %d", who, got, want)
		}
	}
	close(release)
	all.Wait()
}

func get(t *testing.T, address, who string) int {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	request.Header.Set("who", who)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

// runEnvoy runs an Envoy on bootstrap until the test ends. It tells where it listens.
func runEnvoy(t *testing.T, binary string, upstreams ...string) string {
	t.Helper()
	dir := t.TempDir()
	var ports []any
	for _, address := range upstreams {
		_, port, _ := net.SplitHostPort(address)
		ports = append(ports, port)
	}
	admin := filepath.Join(dir, "admin")
	p := exec.Command(binary, "--config-yaml", fmt.Sprintf(bootstrap, ports...), "--admin-address-path", admin,
		"--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn", "--drain-time-s", "1")
	p.Stdout, p.Stderr = t.Output(), t.Output()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		killed := time.AfterFunc(5*time.Second, func() { _ = p.Process.Kill() })
		_ = p.Wait()
		killed.Stop()
	})
	var listeners struct {
		Statuses []struct {
			Address struct {
				Socket struct {
					Port int `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	await(t, "Envoy's listener", func() bool {
		at, err := os.ReadFile(admin)
		if err != nil || len(at) == 0 {
			return false
		}
		answer, err := http.Get("http://" + string(at) + "/listeners?format=json")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return json.NewDecoder(answer.Body).Decode(&listeners) == nil && len(listeners.Statuses) > 0
	})
	return fmt.Sprintf("127.0.0.1:%d", listeners.Statuses[0].Address.Socket.Port)
}
