package retry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Explain tells how often, on what and after which pause a request is tried again.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	if c.Served.GetRoute() == nil {
		return nil
	}
	if only := s.methods(); only != nil && !slices.Contains(only, Method(c.Request.Method)) {
		return []envoy.Fact{c.Fact(envoy.SentOn, "not for "+c.Request.Method+": the backend may have carried it out")}
	}
	names, codes := s.conditions()
	on := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "retriable-status-codes" })
	for _, code := range codes {
		on = append(on, fmt.Sprint(code))
	}
	base := policy.Or(s.Backoff.Base, policy.Duration(defaultBase))
	text := fmt.Sprintf("up to %d more, on %s, after %s to %s", policy.Or(s.Attempts, 1), strings.Join(on, ", "), base,
		policy.Or(s.Backoff.Max, 10*base))
	if policy.Or(s.OtherEndpoint, true) {
		text += ", at another endpoint"
	}
	return []envoy.Fact{c.Fact(envoy.SentOn, text)}
}

// ExplainWithout tells that nothing is tried again.
func (*Setting) ExplainWithout(c envoy.ExplainContext) []envoy.Fact {
	if c.Served.GetRoute() == nil {
		return nil
	}
	return []envoy.Fact{{Stage: envoy.SentOn, Topic: Kind.Key, Text: "none (default)"}}
}
