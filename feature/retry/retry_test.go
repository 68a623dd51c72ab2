package retry_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/retry"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", retry.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  failing: {endpoints: [%q]}
  half: {endpoints: [%q, %q]}
routes:
  none: {hostnames: [none.test], backends: {failing: 1}}
  default: {hostnames: [default.test], backends: {failing: 1}, retry: {attempts: 3}}
  code: {hostnames: [code.test], backends: {failing: 1}, retry: {attempts: 3, retryOn: [503], backoff: {base: 1ms}}}
  other: {hostnames: [other.test], backends: {failing: 1}, retry: {attempts: 3, retryOn: [502]}}
  half: {hostnames: [half.test], backends: {half: 1}, retry: {}}
`

func TestAttempts(t *testing.T) {
	var tries atomic.Int32
	failing := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
		tries.Add(1)
		w.WriteHeader(503)
	})
	envoy := golden.Serve(t, fmt.Sprintf(live, failing, golden.Dead(t), golden.Backend(t, golden.Echo)), retry.Kind)
	for host, want := range map[string]int32{"none.test": 1, "default.test": 1, "code.test": 4, "other.test": 1} {
		tries.Store(0)
		// What clients ask for by header doesn't count.
		answer := envoy.Ask(t, "GET", host, "/", "x-envoy-retry-on", "5xx", "x-envoy-max-retries", "9")
		if got := tries.Load(); got != want || answer.Status != 503 {
			t.Errorf("%s: %d tries, status %d; want %d, 503", host, got, answer.Status, want)
		}
	}
	for range 10 {
		if got := envoy.Ask(t, "POST", "half.test", "/").Status; got != 200 {
			t.Errorf("one of two endpoints is dead: status %d, want 200 from the other", got)
		}
	}
}

// What the backend does by the path, and the conditions that it is tried again under; never stands for none of them.
var failures = map[string]string{
	"/500":         "5xx",
	"/503":         "5xx gateway-error",
	"/409":         "retriable-4xx",
	"/404":         "",
	"/reset":       "5xx gateway-error reset",
	"/grpc/1":      "cancelled",
	"/grpc/4":      "deadline-exceeded",
	"/grpc/8":      "resource-exhausted",
	"/grpc/13":     "internal",
	"/grpc/14":     "unavailable",
	"/grpc/5":      "",
	"/grpc/late14": "", // after the headers, as trailers
}

func TestConditions(t *testing.T) {
	conditions := strings.Fields("connect-failure refused-stream reset-before-request reset 5xx gateway-error retriable-4xx " +
		"cancelled deadline-exceeded internal resource-exhausted unavailable")
	var tries atomic.Int32
	failing := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		fail(w, r.URL.Path)
	})
	text := "gateways: {edge: {listeners: {http: {port: 10000}}}}\nroutes:\n"
	for _, c := range conditions {
		text += fmt.Sprintf("  %s: {hostnames: [%s.test], backends: {failing: 1}, retry: {retryOn: [%s], backoff: {base: 1ms}}}\n", c, c, c)
	}
	envoy := golden.Serve(t, text+fmt.Sprintf("services: {failing: {endpoints: [%q]}}\n", failing), retry.Kind)
	for path, retried := range failures {
		for _, c := range conditions {
			want := int32(1)
			if strings.Contains(" "+retried+" ", " "+c+" ") {
				want = 2
			}
			tries.Store(0)
			envoy.Ask(t, "GET", c+".test", path)
			if got := tries.Load(); got != want {
				t.Errorf("retryOn: [%s], %s: %d tries, want %d", c, path, got, want)
			}
		}
	}
}

func fail(w http.ResponseWriter, path string) {
	var status int
	switch _, err := fmt.Sscanf(path, "/grpc/%d", &status); {
	case path == "/reset":
		panic(http.ErrAbortHandler)
	case path == "/grpc/late14":
		w.Header().Set("trailer", "grpc-status")
		w.Write([]byte("half an answer"))
		w.Header().Set("grpc-status", "14")
	case err == nil:
		w.Header().Set("grpc-status", fmt.Sprint(status))
	default:
		fmt.Sscanf(path, "/%d", &status)
		w.WriteHeader(status)
	}
}

const methods = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {failing: {endpoints: [%q]}}
routes:
  default: {hostnames: [default.test], backends: {failing: 1}, retry: {retryOn: [503], backoff: {base: 1ms}}}
  all: {hostnames: [all.test], backends: {failing: 1}, retry: {retryOn: [503], methods: ["*"], backoff: {base: 1ms}}}
  some: {hostnames: [some.test], backends: {failing: 1}, retry: {retryOn: [503], methods: [GET, POST], backoff: {base: 1ms}}}
  grpc: {hostnames: [grpc.test], backends: {failing: 1}, retry: {retryOn: [unavailable], backoff: {base: 1ms}}}
`

func TestPOSTIsTriedAgainWhereAskedOnly(t *testing.T) {
	var tries atomic.Int32
	failing := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
		tries.Add(1)
		w.Header().Set("grpc-status", "14")
		w.WriteHeader(503)
	})
	envoy := golden.Serve(t, fmt.Sprintf(methods, failing), retry.Kind)
	for host, retried := range map[string]string{
		"default.test": "GET HEAD OPTIONS PUT DELETE",
		"all.test":     "GET HEAD OPTIONS PUT DELETE POST PATCH",
		"some.test":    "GET POST",
		"grpc.test":    "GET HEAD OPTIONS PUT DELETE POST PATCH",
	} {
		for _, method := range strings.Fields("GET HEAD OPTIONS PUT DELETE POST PATCH") {
			want := int32(1)
			if strings.Contains(" "+retried+" ", " "+method+" ") {
				want = 2
			}
			tries.Store(0)
			envoy.Ask(t, method, host, "/")
			if got := tries.Load(); got != want {
				t.Errorf("%s %s: %d tries, want %d", method, host, got, want)
			}
		}
	}
}

const hosts = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q, %q, %q]}}
routes:
  other: {hostnames: [other.test], backends: {orders: 1}, retry: {retryOn: [503], attempts: 2, backoff: {base: 1ms}}}
  any: {hostnames: [any.test], backends: {orders: 1}, retry: {retryOn: [503], attempts: 2, otherEndpoint: false, backoff: {base: 1ms}}}
`

// With three requests at a time the turns mix: without otherEndpoint some retry goes to an endpoint that has been tried.
func TestRetryGoesToAnotherEndpoint(t *testing.T) {
	var mu sync.Mutex
	tried := map[string][]int{} // the endpoints by request
	var addresses []any
	for i := range 3 {
		addresses = append(addresses, golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			tried[r.URL.Path] = append(tried[r.URL.Path], i)
			mu.Unlock()
			w.WriteHeader(503)
		}))
	}
	envoy := golden.Serve(t, fmt.Sprintf(hosts, addresses...), retry.Kind)
	for host, want := range map[string]bool{"other.test": true, "any.test": false} {
		clear(tried)
		var asking sync.WaitGroup
		for client := range 3 {
			asking.Go(func() {
				for i := range 50 {
					envoy.Ask(t, "GET", host, fmt.Sprintf("/%d-%d", client, i))
				}
			})
		}
		asking.Wait()
		all := true
		for _, endpoints := range tried {
			seen := map[int]bool{}
			for _, e := range endpoints {
				seen[e] = true
			}
			all = all && len(seen) == 3
		}
		if all != want {
			t.Errorf("%s: that each request tries three endpoints is %v, want %v", host, all, want)
		}
	}
}

const limited = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}}
routes:
  kept:
    hostnames: [kept.test]
    backends: {orders: 1}
    retry: {retryOn: [429], rateLimited: {header: Retry-After}}
  over:
    hostnames: [over.test]
    backends: {orders: 1}
    retry: {retryOn: [429], rateLimited: {header: x-wait, max: 1s}}
`

func TestBackendSaysHowLongToWait(t *testing.T) {
	var last time.Time
	var waited time.Duration
	first := true
	backend := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
		if first {
			w.Header().Set("retry-after", "1")
			w.Header().Set("x-wait", "100")
			w.WriteHeader(429)
		}
		waited, last, first = time.Since(last), time.Now(), !first
	})
	envoy := golden.Serve(t, fmt.Sprintf(limited, backend), retry.Kind)
	if got := envoy.Ask(t, "GET", "kept.test", "/").Status; got != 200 || waited < time.Second {
		t.Errorf("retry-after: 1: status %d after %s, want 200 after a second", got, waited)
	}
	if got := envoy.Ask(t, "GET", "over.test", "/").Status; got != 200 {
		t.Errorf("a pause above max: status %d, want 200 after a pause of backoff", got)
	}
}

const priorities = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q, {address: %q, priority: 1}]}}
routes:
  same: {hostnames: [same.test], backends: {orders: 1}, retry: {retryOn: [503], backoff: {base: 1ms}}}
  other: {hostnames: [other.test], backends: {orders: 1}, retry: {retryOn: [503], otherPriority: true, backoff: {base: 1ms}}}
`

func TestRetryGoesToAnotherPriority(t *testing.T) {
	failing := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	envoy := golden.Serve(t, fmt.Sprintf(priorities, failing, golden.Backend(t, golden.Echo)), retry.Kind)
	for host, want := range map[string]int{"same.test": 503, "other.test": 200} {
		for range 10 {
			if got := envoy.Ask(t, "GET", host, "/").Status; got != want {
				t.Errorf("%s: status %d, want %d", host, got, want)
			}
		}
	}
}
