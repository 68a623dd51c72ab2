package credentials

import (
	_ "embed"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

//go:embed anonymous.md
var anonymousDoc string

// AnonymousKind is the key anonymous of an auth entry.
var AnonymousKind = policy.Define[Anonymous]("anonymous", policy.InAuth, anonymousDoc)

// Anonymous is what stands under anonymous: what callers without credentials have.
type Anonymous struct {
	Plan string `policy:"plan" doc:"the plan that all of them have together; default: none"`
}

// Check holds the plan against those that there are.
func (a *Anonymous) Check(c *policy.Check) {
	if a.Plan != "" {
		c.Ref("plan", "plans", a.Plan)
	}
}

// Provider is the companion's half.
func (a *Anonymous) Provider(name string) auth.Provider {
	return auth.Provider{Name: name, Anonymous: &auth.Anonymous{Plan: a.Plan}}
}

// PlanClaim is where the plan of the guests stands; empty for none.
func (a *Anonymous) PlanClaim() string {
	if a.Plan == "" {
		return ""
	}
	return "plan"
}

// TakesGuests tells that who brings nothing is accepted.
func (*Anonymous) TakesGuests() bool { return true }
