package outlierdetection_test

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/outlierdetection"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", outlierdetection.Kind) }

// backend answers with its name, and with the status that it is told.
type backend struct {
	address string
	name    string
	status  atomic.Int32
	asked   atomic.Int32
}

func serve(t *testing.T, name string, status int32) *backend {
	b := &backend{name: name}
	b.status.Store(status)
	b.address = golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
		b.asked.Add(1)
		w.WriteHeader(int(b.status.Load()))
		io.WriteString(w, name)
	})
	return b
}

// left tells whether the endpoint gets none of so many requests that it would get some.
func (b *backend) left(t *testing.T, envoy *golden.Envoy, host string) bool {
	before := b.asked.Load()
	for range 6 {
		envoy.Ask(t, "GET", host, "/")
	}
	return b.asked.Load() == before
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  defaults: {endpoints: [%[1]q, %[2]q], outlierDetection: true}
  short: {endpoints: [%[3]q, %[2]q], outlierDetection: {baseEjectionTime: 100ms, interval: 100ms}}
  dead: {endpoints: [%[4]q, %[2]q], outlierDetection: {consecutive5xx: 0, consecutiveLocalOriginFailures: 2}}
  share: {endpoints: [%[1]q, %[2]q], outlierDetection: {consecutive5xx: 0, interval: 100ms, failurePercentage: {threshold: 50%%, minEndpoints: 2, requestVolume: 3}}}
routes:
  defaults: {hostnames: [defaults.test], backends: {defaults: 1}}
  short: {hostnames: [short.test], backends: {short: 1}}
  dead: {hostnames: [dead.test], backends: {dead: 1}}
  share: {hostnames: [share.test], backends: {share: 1}}
`

func TestFailingEndpointIsTakenOut(t *testing.T) {
	failing, well, fickle := serve(t, "failing", 500), serve(t, "well", 200), serve(t, "fickle", 503)
	envoy := golden.Serve(t, fmt.Sprintf(live, failing.address, well.address, fickle.address, golden.Dead(t)), outlierdetection.Kind)

	t.Run("after five in a row", func(t *testing.T) {
		golden.Eventually(t, "out", func() bool { return failing.left(t, envoy, "defaults.test") })
		if got := failing.asked.Load(); got < 5 {
			t.Errorf("it was asked %d times only", got)
		}
	})
	t.Run("and comes back", func(t *testing.T) {
		golden.Eventually(t, "out", func() bool { return fickle.left(t, envoy, "short.test") })
		fickle.status.Store(200)
		golden.Eventually(t, "back", func() bool { return !fickle.left(t, envoy, "short.test") })
	})
	t.Run("when it can't be connected to", func(t *testing.T) {
		golden.Eventually(t, "out", func() bool {
			before := well.asked.Load()
			for range 6 {
				envoy.Ask(t, "GET", "dead.test", "/")
			}
			return well.asked.Load() == before+6
		})
	})
	t.Run("by its share of failures", func(t *testing.T) {
		golden.Eventually(t, "out", func() bool { return failing.left(t, envoy, "share.test") })
	})
}

const liveAlone = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  kept: {endpoints: [%[1]q], outlierDetection: {consecutive5xx: 1}}
  out: {endpoints: [%[1]q], outlierDetection: {consecutive5xx: 1, maxEjectionPercent: 100%%}}
routes:
  kept: {hostnames: [kept.test], backends: {kept: 1}}
  out: {hostnames: [out.test], backends: {out: 1}}
`

// TestOnlyEndpointIsAskedOn holds the odd case: whether Envoy may take it out or not, requests still reach the only
// endpoint that there is.
func TestOnlyEndpointIsAskedOn(t *testing.T) {
	failing := serve(t, "failing", 500)
	envoy := golden.Serve(t, fmt.Sprintf(liveAlone, failing.address), outlierdetection.Kind)
	for _, host := range []string{"kept.test", "out.test"} {
		for range 20 {
			if got := envoy.Ask(t, "GET", host, "/"); got.Body != "failing" {
				t.Errorf("%s: got %d %q, want the answer of the endpoint", host, got.Status, got.Body)
				break
			}
		}
	}
}
