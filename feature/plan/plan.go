// Package plan is the key plan of routes and of consumers, and what stands in the section plans: what consumers may use.
// feature/auth asks it whether a route counts plans and which one a consumer has, control for the limits of each ([Plans]).
// The companion counts them in the call that auth makes; Envoy only tells it what is given back.
package plan

import (
	_ "embed"
	"slices"
	"strings"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key plan of routes.
var Kind = policy.Define[Use]("plan", policy.Layers, doc)

// Use is what stands under plan: whether requests count against the plans of those who call.
type Use string

const required Use = "required"

// Values are the choices.
func (Use) Values() []string { return []string{string(required), "optional"} }

// HintFor tells where a plan's name goes.
func (Use) HintFor(string) string {
	return "write plan: required; which plan a caller has is said by its consumer (plan: gold) or its token (plan under jwt)"
}

// PlanUse is the companion's half.
func (u *Use) PlanUse() auth.PlanUse {
	if *u == required {
		return auth.PlanRequired
	}
	return auth.PlanOptional
}

// CountsPlans tells those who count by consumer that plans stand in their place.
func (*Use) CountsPlans() bool { return true }

// asker is a setting of a route that names the auth entries of which a caller has to satisfy one.
type asker interface{ Entries() []string }

// Check holds the routes that count plans against who calls them.
func (u *Use) Check(c *policy.Check) {
	r := c.Route()
	if r == nil || r.Broken("auth") {
		return
	}
	a, ok := policy.Find[asker](r.Settings)
	switch {
	case !ok || len(a.Entries()) == 0:
		p := c.Errorf("", "counts the plans of those who call, but the route %q has no auth that tells who they are", r.Name)
		p.Hintf("give the route auth, or write plan: off for it")
		p.Also = append(p.Also, r.Pos)
		return
	case len(c.Common().Plans) == 0:
		c.Errorf("", "there are no plans").Hintf("write the section plans: {free: {rate: 10/second, quota: 10000/month}}")
		return
	}
	all := policy.Once(c, func() givers { return newGivers(c.Common()) })
	for _, entry := range a.Entries() {
		if all[entry] {
			return
		}
	}
	tell, what := c.Warnf, "no caller of the route %q can have a plan"
	if *u == required {
		tell, what = c.Errorf, "no caller of the route %q can have a plan: all are refused"
	}
	p := tell("", what, r.Name)
	p.Hintf("write plan: NAME in a consumer that calls by %s, or plan: CLAIM under jwt there", strings.Join(a.Entries(), " or "))
	p.Also = append(p.Also, r.Pos)
}

// claimer is a setting of an auth entry that may take the plan from a claim.
type claimer interface{ PlanClaim() string }

// givers are the auth entries by which callers may have a plan.
type givers map[string]bool

func newGivers(m *policy.Common) givers {
	all := givers{}
	for _, a := range m.Auth {
		if j, ok := policy.Find[claimer](a.Settings); ok && j.PlanClaim() != "" {
			all[a.Name] = true
		}
	}
	for _, c := range m.Consumers {
		if _, ok := policy.Find[*Name](c.Settings); !ok {
			continue
		}
		for _, ids := range policy.Each[auth.Identifier](c.Settings) {
			for _, id := range ids.Identities() {
				entry, _, _ := strings.Cut(id, "/")
				all[entry] = true
			}
		}
	}
	return all
}

//go:embed consumer.md
var consumerDoc string

// ConsumerKind is the key plan of a consumer.
var ConsumerKind = policy.Define[Name]("plan", policy.InConsumer, consumerDoc)

// Name is what stands under plan in a consumer: an entry of the section plans.
type Name string

// Check holds the name against the plans.
func (n *Name) Check(c *policy.Check) { c.Ref("", "plans", string(*n)) }

// CheckRoutes tells, at the first consumer with a plan, that no route counts plans: such a consumer looks limited.
func (n *Name) CheckRoutes(c *policy.Check) {
	for _, consumer := range c.Common().Consumers {
		if _, ok := policy.Find[*Name](consumer.Settings); ok {
			if &consumer.Entry == c.Entry() {
				break
			}
			return
		}
	}
	asks := func(r *policy.BoundRoute) bool {
		a, ok := policy.Find[asker](r.Settings)
		return ok && len(a.Entries()) > 0
	}
	all := c.Model().Bound
	if some(all, asks) && !some(all, func(r *policy.BoundRoute) bool { return r.Settings.Has(Kind.Key) || r.Broken(Kind.Key) }) {
		c.Warnf("", "no route counts plans: the plan %q limits nobody", *n).
			Hintf("write plan: required, or plan: optional, in routes, services or the defaults of a gateway")
	}
}

// some tells whether one of the routes is such a one.
func some(routes map[*policy.Gateway][]*policy.BoundRoute, such func(*policy.BoundRoute) bool) bool {
	for _, of := range routes {
		if slices.ContainsFunc(of, such) {
			return true
		}
	}
	return false
}

// Plan is the name.
func (n *Name) Plan() string { return string(*n) }
