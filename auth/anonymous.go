package auth

import "time"

// Anonymous accepts callers that bring no credentials for any other provider of the rule. Whose credentials another one
// refuses is no guest.
type Anonymous struct {
	Plan string `json:"plan,omitempty"` // of all guests together
}

// guestName is the name of all of them.
const guestName = "anonymous"

// guests is the way of an [Anonymous]. It looks at nothing by itself: whether a caller is a guest is known once all others
// have looked.
type guests struct{ grant *grant }

func compileAnonymous(_ *compiler, p Provider, to *provider) (_ way, err error) {
	if p.Anonymous.Plan != "" {
		if err := checkName(p.Anonymous.Plan, ""); err != nil {
			return nil, err
		}
	}
	to.reading, err = newReading(Reading{Plan: "plan"})
	if err != nil {
		return nil, err
	}
	g, err := to.newGrant(claims{"sub": guestName, "plan": p.Anonymous.Plan}, time.Time{})
	return guests{g}, err
}

func (guests) look(*decision, time.Time) finding { return finding{} }
func (guests) challenge() string                 { return "" }
func (guests) same(way) bool                     { return true } // the plan is part of the provider

// guest is the grant of a caller that brings no credentials, where the rule takes guests. Where all providers have to
// accept, a guest is nobody.
func (d *decision) guest() (*grant, *provider) {
	if d.rule.all {
		return nil, nil
	}
	for _, p := range d.rule.providers {
		if g, ok := p.way.(guests); ok {
			return g.grant, p
		}
	}
	return nil, nil
}
