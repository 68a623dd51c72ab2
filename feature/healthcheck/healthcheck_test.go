package healthcheck_test

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/healthcheck"
	"github.com/legation/legation/policy"
)

var kinds = []*policy.Kind{healthcheck.Kind, golden.Protocol, golden.UpstreamTLS}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  orders:
    endpoints: [%q, %q, %q]
    healthCheck: {path: /healthz, interval: 100ms, unhealthyThreshold: 2, expectedStatuses: [200-204]}
routes:
  orders: {hostnames: [a.test], backends: {orders: 1}}
`

func TestSickEndpointIsLeftOut(t *testing.T) {
	var sick atomic.Bool
	var host atomic.Value
	fickle := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			host.Store(r.Host)
		}
		if sick.Load() {
			w.WriteHeader(500)
		}
		io.WriteString(w, "fickle")
	})
	well := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	envoy := golden.Serve(t, fmt.Sprintf(live, fickle, well, golden.Backend(t, golden.Echo)), healthcheck.Kind)

	asked := func() bool {
		for range 6 {
			if envoy.Ask(t, "GET", "a.test", "/").Body == "fickle" {
				return true
			}
		}
		return false
	}
	golden.Eventually(t, "the endpoint is asked", asked)
	if got := host.Load(); got != "orders" {
		t.Errorf("the check asks for the host %v, want the service's name", got)
	}
	sick.Store(true)
	golden.Eventually(t, "the sick endpoint is left out", func() bool { return !asked() })
	sick.Store(false)
	golden.Eventually(t, "the endpoint is back", asked)
}
