package paths

import "github.com/legation/legation/envoy"

// Explain tells of a route that takes what others refuse.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	if !s.TakesAnyPath() {
		return nil
	}
	return []envoy.Fact{c.Fact(envoy.AtDoor, "lenient: paths that backends may read in another way are let through")}
}
