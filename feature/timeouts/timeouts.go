// Package timeouts bounds how long a request may take: the key timeouts. [envoy.Translate] calls it.
package timeouts

import (
	_ "embed"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

//go:embed doc.md
var doc string

// Kind is the key timeouts.
var Kind = policy.Define[Setting]("timeouts", policy.Layers, doc)

// Setting is what stands under timeouts. A timeout of 0s is none.
type Setting struct {
	Request        *policy.Duration `policy:"request" doc:"the whole answer, all tries together; 0s for no bound; default: 15s"`
	BackendRequest *policy.Duration `policy:"backendRequest" doc:"one try; not more than request; 0s and default: no bound of its own"`
	Idle           *policy.Duration `policy:"idle" doc:"silence on a request or its answer; 0s for no bound; default: 5m"`
}

// defaultRequest is Envoy's own.
const defaultRequest = 15 * time.Second

// Check refuses what Envoy would take for no timeout, and holds the request timeouts against each other.
func (s *Setting) Check(c *policy.Check) {
	checkSpan(c, "request", s.Request)
	checkSpan(c, "backendRequest", s.BackendRequest)
	checkSpan(c, "idle", s.Idle)
	s.checkOrder(c)
}

// checkSpan bounds a timeout to what Envoy counts: whole milliseconds. It would take less than one for 0, no timeout.
func checkSpan(c *policy.Check, field string, d *policy.Duration) {
	if d != nil && *d > 0 && time.Duration(*d) < time.Millisecond {
		c.Errorf(field, "want at least 1ms, or 0s for no bound")
	}
}

func (s *Setting) checkOrder(c *policy.Check) {
	if s.BackendRequest == nil || *s.BackendRequest == 0 {
		return
	}
	try := time.Duration(*s.BackendRequest)
	switch {
	case s.Request != nil && *s.Request > 0 && try > time.Duration(*s.Request):
		c.Errorf("backendRequest", "one try may take %s, but the whole request only %s", try, s.Request).
			Hintf("lower backendRequest or raise request")
	case s.Request == nil && c.Route() != nil && try > defaultRequest:
		c.Errorf("backendRequest", "one try may take %s, but the whole request only %s, the default", try, defaultRequest).
			Hintf("write request, too; 0s for no bound")
	}
}

// Route writes the timeouts into the route's action. The bound of one try stands in Envoy's retry policy, where it
// holds without retries too; the key retry adds its part to the same message.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	action := &routev3.RouteAction{Timeout: span(s.Request), IdleTimeout: span(s.Idle)}
	if s.BackendRequest != nil && *s.BackendRequest > 0 {
		action.RetryPolicy = &routev3.RetryPolicy{PerTryTimeout: span(s.BackendRequest)}
	}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}

// span keeps nil, which leaves Envoy's default, apart from 0, which is no timeout.
func span(d *policy.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(time.Duration(*d))
}
