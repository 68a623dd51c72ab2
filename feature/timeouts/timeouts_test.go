package timeouts_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/timeouts"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", timeouts.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {silent: {endpoints: [%q]}}
routes:
  request: {hostnames: [request.test], backends: {silent: 1}, timeouts: {request: 100ms}}
  try: {hostnames: [try.test], backends: {silent: 1}, timeouts: {request: 1m, backendRequest: 100ms}}
  idle: {hostnames: [idle.test], backends: {silent: 1}, timeouts: {request: 0s, idle: 100ms}}
`

func TestSilentBackendGets504(t *testing.T) {
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, silent)), timeouts.Kind)
	for _, host := range []string{"request.test", "try.test", "idle.test"} {
		if got := envoy.Ask(t, "GET", host, "/").Status; got != 504 {
			t.Errorf("%s: status %d, want 504", host, got)
		}
	}
}
