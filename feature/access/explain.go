package access

import (
	"fmt"
	"strings"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Explain tells who may come.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	var parts []string
	if len(s.Allow) > 0 {
		parts = append(parts, "lets in "+some(s.Allow))
	}
	if len(s.Deny) > 0 {
		parts = append(parts, "keeps out "+some(s.Deny))
	}
	return []envoy.Fact{c.Fact(envoy.AtDoor, strings.Join(parts, ", ")+"; others get 403")}
}

// some is ranges, the first few where there are many.
func some(ranges []policy.Range) string {
	const most = 4
	var names []string
	for _, r := range ranges[:min(len(ranges), most)] {
		names = append(names, r.String())
	}
	if more := len(ranges) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
