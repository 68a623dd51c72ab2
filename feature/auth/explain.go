package auth

import (
	"fmt"
	"slices"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Explain tells which ways to tell who calls the route accepts, and who asks.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	if s.None {
		return []envoy.Fact{c.Fact(envoy.WhoCalls, "none: anyone may call")}
	}
	text := "any of these, checked by the companion"
	switch {
	case len(s.Of) == 1:
		text = "this one, checked by the companion"
	case s.All:
		text = "all of these, checked by the companion"
	}
	facts := []envoy.Fact{c.Fact(envoy.WhoCalls, text)}
	for _, a := range c.Model.Auth {
		if slices.Contains(s.Of, a.Name) {
			facts = append(facts, envoy.Fact{Stage: envoy.WhoCalls, Topic: "", Text: entry(a), At: []policy.Pos{a.Pos}})
		}
	}
	return facts
}

// ExplainWithout tells that nobody is asked.
func (*Setting) ExplainWithout(c envoy.ExplainContext) []envoy.Fact {
	return []envoy.Fact{{Stage: envoy.WhoCalls, Topic: Kind.Key, Text: "none: anyone may call (no layer says otherwise)"}}
}

// entry is an entry of the section auth with its kind.
func entry(a *policy.Auth) string {
	for _, set := range a.Settings {
		return fmt.Sprintf("%s: %s", a.Name, set.Kind.Key)
	}
	return a.Name
}
