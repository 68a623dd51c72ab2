// Package retry tries requests again that a backend failed: the key retry. [envoy.Translate] calls it.
package retry

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key retry.
var Kind = policy.Define[Setting]("retry", policy.Layers, doc)

// Setting is what stands under retry.
type Setting struct {
	Attempts *uint32     `policy:"attempts" doc:"how many times to try again after the first try, 1 to 10; default: 1"`
	RetryOn  []Condition `policy:"retryOn" doc:"what to try again on: conditions and status codes; default: connect-failure and refused-stream"`
	Backoff  Backoff     `policy:"backoff" doc:"the pause before a try"`
}

// Backoff is the pause before a try: random, up to base before the first and twice as much before each further one.
type Backoff struct {
	Base *policy.Duration `policy:"base" doc:"the longest pause before the first retry, in whole milliseconds; default: 25ms"`
	Max  *policy.Duration `policy:"max" doc:"the longest pause of all; default: ten times base"`
}

const (
	maxAttempts = 10
	defaultBase = 25 * time.Millisecond // Envoy's
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
}

func (b *Backoff) check(c *policy.Check) {
	if b.Base != nil && time.Duration(*b.Base) < time.Millisecond {
		c.Errorf("backoff.base", "want at least 1ms")
	}
	base := defaultBase
	if b.Base != nil {
		base = time.Duration(*b.Base)
	}
	if b.Max != nil && time.Duration(*b.Max) < base {
		c.Errorf("backoff.max", "want at least base, which is %s", base)
	}
}

// Condition is a failure that is tried again: one of Envoy's names, or a status code.
type Condition struct {
	Name   string
	Status uint32 // 0 for a name
}

// The names of Envoy's that stand for themselves; those that take further fields are left out.
var conditions = []string{
	"connect-failure", "refused-stream", "reset", "reset-before-request", "5xx", "gateway-error", "retriable-4xx",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

// DecodePolicy reads a name or a status code.
func (r *Condition) DecodePolicy(d *policy.Decode, n *policy.Node) {
	status, err := strconv.ParseUint(n.Text, 10, 32)
	switch {
	case n.Kind != policy.Scalar:
		d.Errorf(n, "want a condition such as connect-failure, or a status code")
	case slices.Contains(conditions, n.Text):
		r.Name = n.Text
	case err == nil && status >= 400 && status <= 599:
		r.Status = uint32(status)
	case err == nil:
		d.Errorf(n, "%d is not the status of a failure: want 400 to 599", status)
	case n.Text == "retriable-status-codes":
		d.Errorf(n, "status codes are listed themselves").Hintf("write retryOn: [connect-failure, 503]")
	default:
		d.Errorf(n, "%q is not a condition", n.Text).Hintf("want a status code such as 503, or a condition such as %s", strings.Join(conditions[:4], ", "))
	}
}

// PolicySchema describes a name or a status code.
func (*Condition) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"enum": conditions},
		map[string]any{"type": "integer", "minimum": 400, "maximum": 599},
	}}
}

// Route writes the retry policy into the route's action.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	action := &routev3.RouteAction{RetryPolicy: s.retryPolicy()}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}

func (s *Setting) retryPolicy() *routev3.RetryPolicy {
	names, codes := s.conditions()
	attempts := uint32(1)
	if s.Attempts != nil {
		attempts = *s.Attempts
	}
	return &routev3.RetryPolicy{
		RetryOn:              strings.Join(names, ","),
		RetriableStatusCodes: codes,
		NumRetries:           wrapperspb.UInt32(attempts),
		RetryBackOff:         s.Backoff.retryBackOff(),
		// Without these a retry may go to the endpoint that has just failed.
		RetryHostPredicate:            []*routev3.RetryPolicy_RetryHostPredicate{previousHosts()},
		HostSelectionRetryMaxAttempts: 3,
	}
}

func (s *Setting) conditions() (names []string, codes []uint32) {
	if len(s.RetryOn) == 0 {
		return []string{"connect-failure", "refused-stream"}, nil // the backend has not seen the request: safe for all methods
	}
	for _, r := range s.RetryOn {
		if r.Status > 0 {
			codes = append(codes, r.Status)
		} else {
			names = append(names, r.Name)
		}
	}
	if len(codes) > 0 {
		names = append(names, "retriable-status-codes")
	}
	return names, codes
}

func (b *Backoff) retryBackOff() *routev3.RetryPolicy_RetryBackOff {
	if b.Base == nil && b.Max == nil {
		return nil
	}
	r := &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(defaultBase)}
	if b.Base != nil {
		r.BaseInterval = durationpb.New(time.Duration(*b.Base))
	}
	if b.Max != nil {
		r.MaxInterval = durationpb.New(time.Duration(*b.Max))
	}
	return r
}

// previousHosts refuses the endpoints that have been tried.
func previousHosts() *routev3.RetryPolicy_RetryHostPredicate {
	config, _ := anypb.New(&previoushostsv3.PreviousHostsPredicate{}) // an empty message always packs
	return &routev3.RetryPolicy_RetryHostPredicate{
		Name:       "envoy.retry_host_predicates.previous_hosts",
		ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: config},
	}
}
