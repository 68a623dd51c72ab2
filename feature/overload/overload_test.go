package overload_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/overload"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", overload.Kind) }

// backend answers with one status, and counts.
type backend struct {
	address string
	asked   atomic.Int32
}

func serve(t *testing.T, status int) *backend {
	b := new(backend)
	b.address = golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
		b.asked.Add(1)
		w.WriteHeader(status)
	})
	return b
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  failing: {endpoints: [%[1]q], overload: {window: 10s, minRequestsPerSecond: 1}}
  quiet: {endpoints: [%[2]q], overload: {window: 10s, minRequestsPerSecond: 100000}}
  missing: {endpoints: [%[3]q], overload: {window: 10s, minRequestsPerSecond: 1}}
routes:
  failing: {hostnames: [failing.test], backends: {failing: 1}}
  quiet: {hostnames: [quiet.test], backends: {quiet: 1}}
  missing: {hostnames: [missing.test], backends: {missing: 1}}
`

// TestFailingServiceIsSpared sends 200 requests to each of three services in turn, of which one fails and one gets less
// traffic than it takes.
func TestFailingServiceIsSpared(t *testing.T) {
	failing, quiet, missing := serve(t, 500), serve(t, 500), serve(t, 404)
	envoy := golden.Serve(t, fmt.Sprintf(live, failing.address, quiet.address, missing.address), overload.Kind)
	statuses := map[string]map[int]int{"failing": {}, "quiet": {}, "missing": {}}
	for range 200 {
		for service, seen := range statuses {
			seen[envoy.Ask(t, "GET", service+".test", "/").Status]++
		}
	}
	// Of these, 10 come before minRequestsPerSecond is reached, and of the others about every fifth is let through.
	if got := failing.asked.Load(); got < 10 || got > 150 {
		t.Errorf("the failing service got %d requests of 200, want 10 to 150", got)
	}
	want := map[string]map[int]int{
		"failing": {500: int(failing.asked.Load()), 503: 200 - int(failing.asked.Load())},
		"quiet":   {500: 200},
		"missing": {404: 200},
	}
	if diff := cmp.Diff(want, statuses); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
}
