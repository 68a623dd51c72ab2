package cors

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/legation/legation/envoy"
)

// Explain tells whose pages may call, and whether the request is from one of them.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	methods := s.AllowMethods
	if len(methods) == 0 {
		methods = c.Route.Match.Methods
	}
	text := "pages of " + strings.Join(s.AllowOrigins, ", ") + " may call"
	if len(methods) > 0 {
		text += " with " + strings.Join(methods, ", ")
	}
	if from := c.Request.Headers["origin"]; len(from) > 0 && from[0] != "" {
		allowed := "is not allowed"
		if slices.ContainsFunc(s.AllowOrigins, func(o string) bool { return allows(o, from[0]) }) {
			allowed = "is allowed"
		}
		text += fmt.Sprintf("; %q %s", from[0], allowed)
	}
	return []envoy.Fact{c.Fact(envoy.AtDoor, text)}
}

// allows tells whether an origin that a policy names stands for one that a browser sends.
func allows(written, origin string) bool {
	if strings.Contains(written, "*.") {
		return regexp.MustCompile("^(?:" + below(written) + ")$").MatchString(origin)
	}
	return written == "*" || written == origin
}
