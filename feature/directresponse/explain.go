package directresponse

import (
	"fmt"

	"github.com/legation/legation/envoy"
)

// Explain tells that no backend is asked.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	text := fmt.Sprintf("%d", s.status())
	if body := s.body(); body != nil {
		text += ", with a body of " + s.contentType()
	}
	return []envoy.Fact{c.Fact(envoy.Answered, text+": no backend is asked")}
}
