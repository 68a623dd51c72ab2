// Package retry tries requests again that a backend failed: the key retry. [envoy.Translate] calls it.
package retry

import (
	_ "embed"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key retry.
var Kind = policy.Define[Setting]("retry", policy.Layers, doc)

// Setting is what stands under retry.
type Setting struct {
	Attempts      *uint32      `policy:"attempts" doc:"how many times to try again after the first try, 1 to 10; default: 1"`
	RetryOn       []Condition  `policy:"retryOn" doc:"what to try again on: conditions and status codes; default: connect-failure and refused-stream"`
	Methods       []Method     `policy:"methods" doc:"the methods that are tried again, or [\"*\"] for all; default: all, but those that do the same when done twice where the backend may have seen the request"`
	Backoff       Backoff      `policy:"backoff" doc:"the pause before a try"`
	RateLimited   *RateLimited `policy:"rateLimited" doc:"the pause that a backend asks for, in place of backoff"`
	OtherEndpoint *bool        `policy:"otherEndpoint" doc:"whether a retry goes to an endpoint that the request has not tried, where there is one; default: true"`
	OtherPriority bool         `policy:"otherPriority" doc:"whether a retry goes to endpoints of another priority than those tried; default: false"`
}

// Backoff is the pause before a try: random, up to base before the first and twice as much before each further one.
type Backoff struct {
	Base *policy.Duration `policy:"base" doc:"the longest pause before the first retry, in whole milliseconds; default: 25ms"`
	Max  *policy.Duration `policy:"max" doc:"the longest pause of all; default: ten times base"`
}

const (
	maxAttempts = 10
	defaultBase = 25 * time.Millisecond // Envoy's
	// hostAttempts is how often an endpoint is chosen anew when the one chosen was tried already. With two endpoints and a
	// choice at random one retry in a thousand goes to the same again.
	hostAttempts = 10
)

// Check bounds the attempts: each one multiplies the load on a backend that is already failing.
func (s *Setting) Check(c *policy.Check) {
	if s.Attempts != nil && *s.Attempts == 0 {
		c.Errorf("attempts", "want at least 1").Hintf("write `retry: off` for no retries")
	}
	if s.Attempts != nil && *s.Attempts > maxAttempts {
		c.Errorf("attempts", "want at most %d: each attempt multiplies the load on a backend that fails", maxAttempts)
	}
	if s.RetryOn != nil && len(s.RetryOn) == 0 {
		c.Errorf("retryOn", "name at least one condition").Hintf("write `retry: off` for no retries")
	}
	s.Backoff.check(c)
	s.checkRateLimited(c)
	s.checkMethods(c)
	if c.Route() != nil {
		s.checkReach(c)
	}
}

func (b *Backoff) check(c *policy.Check) {
	if b.Base != nil && time.Duration(*b.Base) < time.Millisecond {
		c.Errorf("backoff.base", "want at least 1ms")
	}
	base := time.Duration(policy.Or(b.Base, policy.Duration(defaultBase)))
	if b.Max != nil && time.Duration(*b.Max) < base {
		c.Errorf("backoff.max", "want at least base, which is %s", policy.Duration(base))
	}
}

// Route writes the retry policy into the route's action.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	action := &routev3.RouteAction{RetryPolicy: s.retryPolicy()}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}

func (s *Setting) retryPolicy() *routev3.RetryPolicy {
	names, codes := s.conditions()
	p := &routev3.RetryPolicy{
		RetryOn:                 strings.Join(names, ","),
		RetriableStatusCodes:    codes,
		RetriableRequestHeaders: s.retriableRequests(),
		NumRetries:              wrapperspb.UInt32(policy.Or(s.Attempts, 1)),
		RetryBackOff:            s.Backoff.retryBackOff(),
		RateLimitedRetryBackOff: s.RateLimited.retryBackOff(),
	}
	if policy.Or(s.OtherEndpoint, true) {
		p.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{previousHosts()}
		p.HostSelectionRetryMaxAttempts = hostAttempts
	}
	if s.OtherPriority {
		p.RetryPriority = previousPriorities()
	}
	return p
}

func (b *Backoff) retryBackOff() *routev3.RetryPolicy_RetryBackOff {
	if b.Base == nil && b.Max == nil {
		return nil
	}
	base := policy.Or(b.Base, policy.Duration(defaultBase))
	return &routev3.RetryPolicy_RetryBackOff{BaseInterval: envoy.Duration(&base), MaxInterval: envoy.Duration(b.Max)}
}

// previousHosts refuses the endpoints that have been tried.
func previousHosts() *routev3.RetryPolicy_RetryHostPredicate {
	return &routev3.RetryPolicy_RetryHostPredicate{
		Name:       "envoy.retry_host_predicates.previous_hosts",
		ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: envoy.Pack(&previoushostsv3.PreviousHostsPredicate{})},
	}
}

// previousPriorities takes the priorities that have been tried out of the choice, until none is left.
func previousPriorities() *routev3.RetryPolicy_RetryPriority {
	return &routev3.RetryPolicy_RetryPriority{
		Name: "envoy.retry_priorities.previous_priorities",
		ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
			TypedConfig: envoy.Pack(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 1}),
		},
	}
}
