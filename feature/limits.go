package feature

import (
	"strings"

	"github.com/legation/legation/feature/plan"
	"github.com/legation/legation/feature/ratelimit"
	"github.com/legation/legation/policy"
	companionlimit "github.com/legation/legation/ratelimit"
)

// Limit is a limit that a policy comes to, in the words of policies, with what the policy left open.
type Limit struct {
	Name      string     `json:"name"` // as usage, reports and metrics call it
	Plan      string     `json:"plan,omitempty"`
	Rate      string     `json:"rate"`
	By        []string   `json:"by"` // empty: one bucket for all, of a domain one for each value
	Algorithm string     `json:"algorithm"`
	Mode      string     `json:"mode"`
	Lease     int64      `json:"lease,omitempty"` // of mode leased
	OnError   string     `json:"onError,omitempty"`
	Shadow    bool       `json:"shadow,omitempty"`
	Pos       policy.Pos `json:"at"`
}

// Limits lists the limits of a policy: those of routes and domains by name, then those of plans.
func Limits(m *policy.Model) []Limit {
	all := []Limit{}
	for _, w := range ratelimit.All(m) {
		l := inWords(w.Limit, w.Pos)
		if w.PerEnvoy {
			l.Mode, l.OnError = "perEnvoy", "" // nothing is asked that could fail
		}
		all = append(all, l)
	}
	for i, p := range plan.Plans(m) {
		for _, limit := range p.Limits {
			key := strings.TrimPrefix(limit.Name, "plan/")
			for set := range m.Plans[i].Settings.All(key) {
				l := inWords(limit, set.Pos())
				l.Plan = p.Name
				all = append(all, l)
			}
		}
	}
	return all
}

func inWords(l companionlimit.Limit, at policy.Pos) Limit {
	w := Limit{
		Name: l.Name, Rate: l.Rate.String(), By: []string{}, Algorithm: l.Algorithm.String(), Mode: "exact",
		OnError: l.OnError.String(), Shadow: l.Shadow, Pos: at,
	}
	if l.Lease > 0 && !l.Shadow && w.Algorithm != "slidingWindow" { // the others are decided in the store all the same
		w.Mode, w.Lease = "leased", l.Lease
	}
	for _, by := range l.By {
		w.By = append(w.By, by.String())
	}
	return w
}
