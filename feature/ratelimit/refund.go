package ratelimit

import (
	"fmt"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// What Envoy says of requests that limits, or auth before them, have refused: nothing was counted for them.
var (
	uncountedAsked = []string{"request_rate_limited", "rate_limiter_error", "local_rate_limited"}
	uncountedKnown = []string{"ext_authz_denied", "ext_authz_error"} // what Envoy counts by itself comes after the count
)

// refund is the descriptor by which the companion gives a hit back.
func refund(l counted, c envoy.RouteContext, route string, asked bool) *routev3.RateLimit {
	r := envoy.Refund{Limit: strconv.Quote(l.ID()), Statuses: l.written.Refund, Uncounted: uncountedKnown}
	if asked {
		r.Uncounted = uncountedAsked
	}
	if inPlaceOf(l, c) {
		r.Limit = unlessPlanned(r.Limit, c.Model)
	}
	for _, by := range l.By {
		r.Entries = append(r.Entries, refundEntry(by, route))
	}
	return r.Descriptor()
}

// planner is a setting of a route that has the companion count plans, in the place of limits by consumer.
type planner interface{ CountsPlans() bool }

// inPlaceOf tells whether the plans of those who have one stand in the limit's place.
func inPlaceOf(l counted, c envoy.RouteContext) bool {
	p, ok := policy.Find[planner](c.Route.Settings)
	return ok && p.CountsPlans() && l.ByConsumer()
}

// unlessPlanned is an expression that names a limit for callers without a plan, and fails for others.
func unlessPlanned(limit string, m *policy.Model) string {
	var names []string
	for _, p := range m.Plans { // sorted
		names = append(names, strconv.Quote(p.Name))
	}
	caller := fmt.Sprintf("metadata.filter_metadata[%q]", envoy.AuthMetadata)
	return fmt.Sprintf(`"plan" in %[1]s && %[1]s["plan"] in [%[2]s] ? {'': ''}['none'] : %[3]s`, caller, strings.Join(names, ", "), limit)
}
