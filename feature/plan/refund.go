package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rlfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// Refund is what stands under refund: statuses of answers whose request is given back.
type Refund policy.Statuses

// Check holds the list against itself.
func (r *Refund) Check(c *policy.Check) {
	checkCounts(c)
	policy.Statuses(*r).Check(c, "")
}

// Route has Envoy tell the companion what to give back. The plans are counted in auth's callout, of which Envoy knows who
// called and by which plan.
func (u *Use) Route(c envoy.RouteContext) envoy.RouteParts {
	groups := refunds(c.Model)
	if len(groups) == 0 {
		return envoy.RouteParts{}
	}
	config := new(rlfilterv3.RateLimitPerRoute)
	for _, g := range groups {
		config.RateLimits = append(config.RateLimits, g.descriptor())
	}
	return envoy.RouteParts{Filters: map[string]proto.Message{envoy.LimitFilter: config}}
}

// group is the limits of one name whose hits are given back for the same statuses: one of each plan.
type group struct {
	name     string
	statuses policy.Statuses
	ids      []string // "gold": "plan/quota@gold"
}

// refunds are the groups of all plans, in the order of the plans' names.
func refunds(m *policy.Model) []*group {
	var all []*group
	for _, p := range m.Plans {
		r, ok := policy.Find[*Refund](p.Settings)
		if !ok {
			continue
		}
		for _, l := range Companion(p).Limits {
			i := slices.IndexFunc(all, func(g *group) bool { return g.name == l.Name && slices.Equal(g.statuses, policy.Statuses(*r)) })
			if i < 0 {
				i, all = len(all), append(all, &group{name: l.Name, statuses: policy.Statuses(*r)})
			}
			all[i].ids = append(all[i].ids, strconv.Quote(p.Name)+": "+strconv.Quote(Companion(p).LimitID(l)))
		}
	}
	return all
}

// refused is what Envoy says of requests for which nothing was counted.
var refused = []string{"ext_authz_denied", "ext_authz_error"}

// descriptor looks the limit up by the plan that the caller has. There is none for a caller without one of these.
func (g *group) descriptor() *routev3.RateLimit {
	return envoy.Refund{
		Limit:     fmt.Sprintf(`{%s}[metadata.filter_metadata[%q]["plan"]]`, strings.Join(g.ids, ", "), envoy.AuthMetadata),
		Statuses:  g.statuses,
		Uncounted: refused,
		Entries:   []*routev3.RateLimit_Action{envoy.MetadataEntry("consumer", envoy.AuthMetadata, "consumer")},
	}.Descriptor()
}
