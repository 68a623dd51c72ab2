package plan

import (
	"fmt"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// mostPlans is how many plans are told of.
const mostPlans = 5

// Explain tells what the plans of callers come to.
func (u *Use) Explain(c envoy.ExplainContext) []envoy.Fact {
	text := "optional: counts against the plan of the caller, who may have none; in auth's call"
	if *u == required {
		text = "required: counts against the plan of the caller; 403 for those without one; in auth's call"
	}
	facts := []envoy.Fact{c.Fact(envoy.HowOften, text)}
	for i, p := range c.Model.Plans {
		if i == mostPlans {
			return append(facts, envoy.Fact{Stage: envoy.HowOften, Topic: Kind.Key, Text: fmt.Sprintf("and %d more plans", len(c.Model.Plans)-i)})
		}
		for _, l := range Companion(p).Limits {
			mode := "exact"
			if l.Lease > 0 {
				mode = fmt.Sprintf("leased in lots of up to %d", l.Lease)
			}
			facts = append(facts, envoy.Fact{
				Stage: envoy.HowOften, Topic: Kind.Key, At: []policy.Pos{p.Pos},
				Text: fmt.Sprintf("%s: %s, %s, %s", p.Name, l.Rate, l.Algorithm, mode),
			})
		}
	}
	return facts
}
