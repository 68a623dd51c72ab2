package fault_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/legation/legation/feature/fault"
	"github.com/legation/legation/feature/golden"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", fault.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}}
routes:
  none: {hostnames: [none.test], backends: {orders: 1}}
  zero: {hostnames: [zero.test], backends: {orders: 1}, fault: {abort: {status: 503, percent: 0%%}, delay: {fixed: 1m, percent: 0%%}}}
  abort: {hostnames: [abort.test], backends: {orders: 1}, fault: {abort: {status: 503, percent: 100%%}}}
  teapot: {hostnames: [teapot.test], backends: {orders: 1}, fault: {abort: {status: 418, percent: 100%%}}}
  grpc: {hostnames: [grpc.test], backends: {orders: 1}, fault: {abort: {grpcStatus: 14, percent: 100%%}}}
  delay: {hostnames: [delay.test], backends: {orders: 1}, fault: {delay: {fixed: 200ms, percent: 100%%}}}
  both: {hostnames: [both.test], backends: {orders: 1}, fault: {delay: {fixed: 200ms, percent: 100%%}, abort: {status: 500, percent: 100%%}}}
`

// asks is what a client may try to be given faults, or more of them.
var asks = []string{
	"x-envoy-fault-delay-request", "60000", "x-envoy-fault-delay-request-percentage", "100",
	"x-envoy-fault-abort-request", "418", "x-envoy-fault-abort-request-percentage", "100",
	"x-envoy-fault-abort-grpc-request", "5", "x-envoy-downstream-service-cluster", "a",
}

func TestFaults(t *testing.T) {
	var asked atomic.Int32
	backend := golden.Backend(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	envoy := golden.Serve(t, fmt.Sprintf(live, backend), fault.Kind)
	for _, tt := range []struct {
		host   string
		status int
		body   string
		passes bool
		least  time.Duration // half of the delay: Envoy's clock is coarse
	}{
		{host: "none.test", status: 200, passes: true},
		{host: "zero.test", status: 200, passes: true},
		{host: "abort.test", status: 503, body: `{"error":"service unavailable"}` + "\n"},
		{host: "teapot.test", status: 418, body: "fault filter abort"},
		{host: "grpc.test", status: 200, body: "fault filter abort"},
		{host: "delay.test", status: 200, passes: true, least: 100 * time.Millisecond},
		{host: "both.test", status: 500, body: `{"error":"internal server error"}` + "\n", least: 100 * time.Millisecond},
	} {
		for _, headers := range [][]string{nil, asks} {
			asked.Store(0)
			start := time.Now()
			got := envoy.Ask(t, "GET", tt.host, "/", headers...)
			if took := time.Since(start); got.Status != tt.status || got.Body != tt.body || took < tt.least {
				t.Errorf("%s %q: %d %q after %s, want %d %q after %s", tt.host, headers, got.Status, got.Body, took, tt.status, tt.body, tt.least)
			}
			if passed := asked.Load() == 1; passed != tt.passes {
				t.Errorf("%s: the backend was asked %t, want %t", tt.host, passed, tt.passes)
			}
		}
	}
}

func TestFailuresInGRPC(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Dead(t)), fault.Kind)
	for host, want := range map[string]string{"grpc.test": "14", "abort.test": "14", "teapot.test": "2"} {
		got := envoy.Ask(t, "POST", host, "/shop.Orders/List", "content-type", "application/grpc")
		if status := got.Header.Get("grpc-status"); got.Status != 200 || status != want {
			t.Errorf("%s: %d with grpc-status %q, want 200 with %s", host, got.Status, status, want)
		}
	}
}
