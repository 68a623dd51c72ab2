package circuitbreakers_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/legation/legation/feature/circuitbreakers"
	"github.com/legation/legation/feature/golden"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", circuitbreakers.Kind) }

// slow is a backend whose answers wait until they are let go.
type slow struct {
	address string
	arrived chan struct{} // one for each request
	release chan struct{} // one lets one request go
}

func serve(t *testing.T) *slow {
	s := &slow{arrived: make(chan struct{}, 100), release: make(chan struct{})}
	s.address = golden.Backend(t, func(_ http.ResponseWriter, r *http.Request) {
		s.arrived <- struct{}{}
		select {
		case <-s.release:
		case <-r.Context().Done():
		}
	})
	return s
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  requests: {endpoints: [%[1]q], circuitBreakers: {maxRequests: 2}}
  pending: {endpoints: [%[1]q], circuitBreakers: {maxConnections: 1, maxPendingRequests: 1}}
  endpoint: {endpoints: [%[1]q], circuitBreakers: {perEndpoint: {maxConnections: 1}, maxPendingRequests: 1}}
routes:
  requests: {hostnames: [requests.test], backends: {requests: 1}}
  pending: {hostnames: [pending.test], backends: {pending: 1}}
  endpoint: {hostnames: [endpoint.test], backends: {endpoint: 1}}
`

// TestOpenCircuitBreakerAnswers503 sends a request that the service is slow to answer, then two more, of which one is
// too many.
func TestOpenCircuitBreakerAnswers503(t *testing.T) {
	backend := serve(t)
	envoy := golden.Serve(t, fmt.Sprintf(live, backend.address), circuitbreakers.Kind)
	for _, service := range []string{"requests", "pending", "endpoint"} {
		t.Run(service, func(t *testing.T) {
			answered := make(chan int)
			ask := func() { answered <- envoy.Ask(t, "GET", service+".test", "/").Status }
			go ask()
			<-backend.arrived
			go ask()
			go ask()
			if got := <-answered; got != 503 {
				t.Errorf("one of three requests: got %d, want 503 at once", got)
			}
			for range 2 {
				backend.release <- struct{}{}
				if got := <-answered; got != 200 {
					t.Errorf("the others: got %d, want 200", got)
				}
			}
			<-backend.arrived
		})
	}
}
