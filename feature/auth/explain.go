package auth

import (
	"fmt"
	"slices"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Explain tells which ways to tell who calls the route accepts, in the order in which they are asked, and who asks.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	if s.None {
		return []envoy.Fact{c.Fact(envoy.WhoCalls, "none: anyone may call")}
	}
	text := "any of these, "
	switch {
	case len(s.Of) == 1:
		text = "this one, "
	case s.All:
		text = "all of these, "
	}
	facts := []envoy.Fact{c.Fact(envoy.WhoCalls, text+s.where(c.Model, c.Route))}
	for _, name := range s.Of {
		if i := slices.IndexFunc(c.Model.Auth, func(a *policy.Auth) bool { return a.Name == name }); i >= 0 {
			a := c.Model.Auth[i]
			facts = append(facts, envoy.Fact{Stage: envoy.WhoCalls, Topic: "", Text: shown(a), At: []policy.Pos{a.Pos}})
		}
	}
	return facts
}

// where tells who checks the callers of a route.
func (s *Setting) where(m *policy.Model, r *policy.BoundRoute) string {
	filters, why := s.placement(&m.Common, r)
	switch {
	case len(filters) == 0:
		return "checked by the companion"
	case why != "":
		return "checked by the companion, in spite of verify: envoy: " + why
	}
	return "checked by Envoy itself (verify: envoy); the companion is asked about what Envoy does not accept"
}

// ExplainWithout tells that nobody is asked.
func (*Setting) ExplainWithout(c envoy.ExplainContext) []envoy.Fact {
	return []envoy.Fact{{Stage: envoy.WhoCalls, Topic: Kind.Key, Text: "none: anyone may call (no layer says otherwise)"}}
}

// demander is a kind of entry that tells in a few words what a caller has to show.
type demander interface{ Demands() string }

// shown is an entry of the section auth with its kind, and what it demands.
func shown(a *policy.Auth) string {
	for _, set := range a.Settings {
		text := fmt.Sprintf("%s: %s", a.Name, set.Kind.Key)
		if d, ok := set.Setting.(demander); ok {
			text += ": " + d.Demands()
		}
		return text
	}
	return a.Name
}
