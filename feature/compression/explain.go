package compression

import (
	"strings"

	"github.com/legation/legation/envoy"
)

// Explain tells whether the request takes a compressed answer.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	offered := s.Algorithms
	if offered == nil {
		offered = []Algorithm{brotli, gzip}
	}
	text := "offers " + join(offered)
	if len(c.Request.Headers["accept-encoding"]) == 0 {
		text += "; the request takes none (accept-encoding)"
	}
	return []envoy.Fact{c.Fact(envoy.Answered, text)}
}

func join(all []Algorithm) string {
	var names []string
	for _, a := range all {
		names = append(names, string(a))
	}
	return strings.Join(names, ", ")
}
