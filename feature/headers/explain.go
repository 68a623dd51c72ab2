package headers

import (
	"fmt"
	"strings"

	"github.com/legation/legation/envoy"
)

// Explain tells what is set, added and removed on either side.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	var facts []envoy.Fact
	for _, side := range []struct {
		stage   envoy.Stage
		name    string
		changes Changes
	}{{envoy.Changed, request, s.Request}, {envoy.Answered, response, s.Response}} {
		if text := side.changes.String(); text != "" {
			facts = append(facts, c.Fact(side.stage, side.name+": "+text, side.name))
		}
	}
	return facts
}

// String is the changes in words, values as they are written.
func (h Changes) String() string {
	var parts []string
	for _, name := range sorted(h.Set) {
		parts = append(parts, fmt.Sprintf("set %s: %s", name, h.Set[name]))
	}
	for _, name := range sorted(h.Add) {
		parts = append(parts, fmt.Sprintf("add %s: %s", name, h.Add[name]))
	}
	if len(h.Remove) > 0 {
		parts = append(parts, "remove "+strings.Join(h.Remove, ", "))
	}
	return strings.Join(parts, "; ")
}
