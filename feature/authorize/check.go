package authorize

import (
	"slices"
	"strings"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

// Check holds what is asked against what the companion can judge, and on a route against who is known there.
func (s *Setting) Check(c *policy.Check) {
	if c.Route() != nil {
		if len(s.Rules) > auth.MaxDemands || !s.affordable(c) {
			return // told where it was written
		}
		s.checkCallers(c)
		s.checkMetadata(c)
		return
	}
	if len(s.Scopes)+len(s.Claims)+len(s.Rules) == 0 && len(s.Metadata) == 0 {
		c.Errorf("", "asks for nothing").Hintf("write scopes, claims or rules; authorize: off drops what outer layers ask for")
	}
	if !s.affordable(c) {
		return
	}
	for _, a := range s.Authorizations(c.Set().Layer) {
		for _, f := range a.Flaws() {
			s.tell(c, f)
		}
	}
	s.checkTwice(c, "deny", s.Deny)
	for i, r := range s.Rules {
		s.checkTwice(c, policy.Item("rules", i)+".deny", r.Deny)
	}
}

// affordable tells whether all expressions may be looked at; else that was told.
func (s *Setting) affordable(c *policy.Check) bool {
	for i, r := range s.Rules {
		if len(s.Rules) <= auth.MaxDemands && !c.Affords(s.rule(i), r.CEL, auth.RuleCost(r.CEL)) {
			return false
		}
	}
	return true
}

// tell reports a flaw where it was written.
func (s *Setting) tell(c *policy.Check, f *auth.Flaw) {
	at := s.written(f.At)
	p := c.Errorf(at, "%s", f.Text)
	if f.Expression != nil {
		p.Pos = c.Inside(at, f.Expression.Line, f.Expression.Column)
	}
	if f.Hint != "" {
		p.Hintf("%s", f.Hint)
	}
}

// written is the path of a flaw in the form that the policy has.
func (s *Setting) written(at string) string {
	if bare, ok := strings.CutSuffix(at, ".cel"); ok {
		for i, r := range s.Rules {
			if r.bare && bare == policy.Item("rules", i) {
				return bare
			}
		}
	}
	before, header, ok := strings.Cut(at, ".headers.")
	if !ok {
		return at
	}
	for name := range s.denies(before).Headers {
		if strings.EqualFold(name, header) {
			return before + ".headers." + name
		}
	}
	return at
}

// denies is the answer at a path: deny, or rules[0].deny.
func (s *Setting) denies(at string) *Reply {
	for i, r := range s.Rules {
		if at == policy.Item("rules", i)+".deny" {
			return r.Deny
		}
	}
	return s.Deny
}

// checkTwice refuses a header that stands in one answer in two cases.
func (s *Setting) checkTwice(c *policy.Check, at string, r *Reply) {
	if r == nil {
		return
	}
	seen := map[string]bool{}
	for name := range r.Headers {
		lower := strings.ToLower(name)
		if seen[lower] {
			c.Errorf(at+".headers", "%s stands here twice: case does not count", lower)
		}
		seen[lower] = true
	}
}

// caller is a setting of a route that tells whether its callers are known.
type caller interface{ KnowsCaller() bool }

// aboutCallers are what rules can read where auth knows who calls.
var aboutCallers = []string{"claims", "consumer", "identities", "identity", "metadata", "plan"}

// checkCallers refuses to judge callers whom nobody knows. The companion isn't asked about requests of routes without auth,
// so there nothing would be judged at all.
func (s *Setting) checkCallers(c *policy.Check) {
	r := c.Route()
	if a, ok := policy.Find[caller](r.Settings); ok && a.KnowsCaller() || c.Broken("auth") {
		return
	}
	at, what := s.asks()
	p := c.Errorf(at, "%s, but the route %q has no auth that tells who calls", what, r.Name).
		Hintf("give the route auth, or write authorize: off for the route")
	if at == "" {
		p.Hint += "; access keeps addresses out without auth"
	}
	p.Also = append(p.Also, r.Pos)
}

// asks names the first of what is asked: that which can't be had without auth, if there is any.
func (s *Setting) asks() (at, what string) {
	switch {
	case len(s.Scopes) > 0:
		return "scopes", "asks for scopes"
	case len(s.Claims) > 0:
		return "claims", "asks for claims"
	case len(s.Metadata) > 0:
		return "metadata", "fetches metadata about callers"
	}
	for i, r := range s.Rules {
		for _, name := range auth.RuleUses(r.CEL).Variables {
			if slices.Contains(aboutCallers, name) {
				return s.rule(i), "reads " + name
			}
		}
	}
	return "", "the rules are judged together with auth"
}

// rule is the path of a rule's expression.
func (s *Setting) rule(i int) string { return s.written(policy.Item("rules", i) + ".cel") }

// checkMetadata holds what rules read against what any layer of the route fetches.
func (s *Setting) checkMetadata(c *policy.Check) {
	r := c.Route()
	fetched := map[string]policy.Set{}
	for set, other := range policy.Each[*Setting](r.Settings) {
		for name, source := range other.Metadata {
			first, ok := fetched[name]
			if !ok {
				fetched[name] = set
				continue
			}
			outer := first.Setting.(*Setting).Metadata[name]
			if other == s && source.metadata(name) != outer.metadata(name) {
				p := c.Errorf("metadata."+name, "%s fetches something else under this name", first.Layer).Hintf("use another name")
				p.Also = append(p.Also, first.Pos(), r.Pos)
			}
		}
	}
	for i, rule := range s.Rules {
		for _, member := range auth.RuleUses(rule.CEL).Members {
			name, ok := strings.CutPrefix(member, "metadata.")
			if _, known := fetched[name]; !ok || known {
				continue
			}
			p := c.Errorf(s.rule(i), "reads metadata.%s, which no layer of the route %q fetches", name, r.Name).
				Hintf("write metadata: {%s: {url: …}}", name)
			p.Also = append(p.Also, r.Pos)
		}
	}
}
