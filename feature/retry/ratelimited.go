package retry

import (
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

// RateLimited is the pause that a backend asks for by a header of its answer. It holds in place of the backoff for every
// answer that is tried again and has the header.
type RateLimited struct {
	Header string           `policy:"header,required" doc:"the header that says how long to wait, such as retry-after"`
	Format Format           `policy:"format" doc:"seconds, or unixTimestamp for the second when to try again; default: seconds"`
	Max    *policy.Duration `policy:"max" doc:"the longest pause that is kept; a header that asks for more is passed over; default: 5s"`
}

// Format is how a header says how long to wait.
type Format string

// Values names the formats.
func (Format) Values() []string { return []string{"seconds", "unixTimestamp"} }

// defaultMax leaves a request, which has 15s by default, the time to be answered.
const defaultMax = 5 * time.Second

func (s *Setting) checkRateLimited(c *policy.Check) {
	r := s.RateLimited
	switch {
	case r == nil:
	case r.Header != "" && !policy.IsToken(r.Header):
		c.Errorf("rateLimited.header", "%q is not a header name", r.Header).Hintf("write header: retry-after")
	case r.Max != nil && time.Duration(*r.Max) < time.Second:
		c.Errorf("rateLimited.max", "want at least 1s: the header counts seconds")
	case c.Route() != nil && !slices.ContainsFunc(s.RetryOn, Condition.answered):
		c.Errorf("rateLimited", "no answer is tried again, so none can say how long to wait").Hintf("write retryOn: [429]")
	}
}

// answered tells whether the condition is about what the backend answers.
func (r Condition) answered() bool { return r.Name != "reset" && !slices.Contains(unseen, r.Name) }

func (r *RateLimited) retryBackOff() *routev3.RetryPolicy_RateLimitedRetryBackOff {
	if r == nil {
		return nil
	}
	format := routev3.RetryPolicy_SECONDS
	if r.Format == "unixTimestamp" {
		format = routev3.RetryPolicy_UNIX_TIMESTAMP
	}
	return &routev3.RetryPolicy_RateLimitedRetryBackOff{
		ResetHeaders: []*routev3.RetryPolicy_ResetHeader{{Name: strings.ToLower(r.Header), Format: format}},
		MaxInterval:  durationpb.New(time.Duration(policy.Or(r.Max, policy.Duration(defaultMax)))),
	}
}
