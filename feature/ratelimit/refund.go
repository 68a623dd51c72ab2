package ratelimit

import (
	"fmt"
	"strconv"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// What Envoy says of requests that limits, or auth before them, have refused: nothing was counted for them.
var (
	uncountedAsked = []string{"request_rate_limited", "rate_limiter_error", "local_rate_limited"}
	uncountedKnown = []string{"ext_authz_denied", "ext_authz_error"} // what Envoy counts by itself comes after the count
)

// planner is a setting of a route that has the companion count plans, in the place of limits by consumer.
type planner interface{ CountsPlans() bool }

// refund is the descriptor by which the companion gives a hit back.
func refund(l counted, c envoy.RouteContext, route string, asked bool) *routev3.RateLimit {
	r := envoy.Refund{Limit: strconv.Quote(l.ID()), Statuses: l.written.Refund, Uncounted: uncountedKnown}
	if asked {
		r.Uncounted = uncountedAsked
	}
	if p, ok := policy.Find[planner](c.Route.Settings); ok && p.CountsPlans() && l.ByConsumer() {
		r.Limit = unlessPlanned(r.Limit)
	}
	for _, by := range l.By {
		r.Entries = append(r.Entries, refundEntry(by, route))
	}
	return r.Descriptor()
}

// unlessPlanned is a limit for callers without a plan: for others their plan was counted, and the limit was not. Whose plan
// isn't known gets nothing back.
func unlessPlanned(limit string) string {
	return fmt.Sprintf(`"plan" in metadata.filter_metadata[%q] ? {'': ''}['none'] : %s`, envoy.AuthMetadata, limit)
}
