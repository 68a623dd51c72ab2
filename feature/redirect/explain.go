package redirect

import (
	"fmt"

	"github.com/legation/legation/envoy"
)

// Explain tells that the client is sent elsewhere.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	return []envoy.Fact{c.Fact(envoy.Answered, fmt.Sprintf("%d, to %s", s.status(), c.Set.Node.Inline()))}
}
