package auth

import (
	"maps"
	"slices"

	"github.com/legation/legation/policy"
)

// plansLooked stands for a policy whose plans were looked at.
type plansLooked struct{}

// warnUncounted tells, at the first consumer with a plan, that no route counts plans: such a consumer looks limited.
func warnUncounted(c *policy.Check) {
	if c.Route() == nil {
		return // the routes are not put together yet
	}
	policy.Once(c, func() plansLooked {
		m := c.Model()
		if slices.ContainsFunc(slices.Collect(maps.Values(m.Bound)), countsPlans) {
			return plansLooked{}
		}
		for _, consumer := range m.Consumers {
			for set, p := range policy.Each[planned](consumer.Settings) {
				w := c.Warnf("", "no route counts plans: the plan %q limits nobody", p.Plan())
				w.Pos, w.Path = set.Pos(), "consumers."+consumer.Name+"."+set.Kind.Key
				w.Hintf("write plan: required, or plan: optional, in routes, services or the defaults of a gateway")
				return plansLooked{}
			}
		}
		return plansLooked{}
	})
}

// countsPlans tells whether one of the routes says plan, or means to.
func countsPlans(routes []*policy.BoundRoute) bool {
	return slices.ContainsFunc(routes, func(r *policy.BoundRoute) bool { return r.Settings.Has("plan") || r.Broken("plan") })
}
