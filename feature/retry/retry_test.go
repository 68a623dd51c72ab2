package retry_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

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
