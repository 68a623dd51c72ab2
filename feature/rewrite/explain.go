package rewrite

import (
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Explain tells which path and host the backend gets.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	var facts []envoy.Fact
	path, query, asks := strings.Cut(c.Request.Path, "?")
	if len(s.ways()) > 0 {
		to := s.Template + ", filled in"
		if s.Template == "" {
			to = rewritten(c.Served.GetRoute(), c.Route.Match.Path, path)
			if asks {
				to += "?" + query
			}
		}
		facts = append(facts, c.Fact(envoy.Changed, "the backend gets the path "+to, s.ways()...))
	}
	switch s.Hostname {
	case "":
	case auto:
		facts = append(facts, c.Fact(envoy.Changed, "the backend gets as host the name of its service under dns", "hostname"))
	default:
		facts = append(facts, c.Fact(envoy.Changed, "the backend gets the host "+s.Hostname, "hostname"))
	}
	return facts
}

var backreference = regexp.MustCompile(`\\([0-9])`)

// rewritten is the path that Envoy makes of one that the route matches.
func rewritten(action *routev3.RouteAction, match policy.PathMatch, path string) string {
	switch {
	case action.GetPathRewrite() != "":
		return strings.ReplaceAll(action.GetPathRewrite(), "%%", "%")
	case action.GetRegexRewrite() != nil:
		re, err := regexp.Compile(action.GetRegexRewrite().GetPattern().GetRegex())
		if err != nil {
			return path
		}
		return re.ReplaceAllString(path, backreference.ReplaceAllString(strings.ReplaceAll(action.GetRegexRewrite().GetSubstitution(), "$", "$$"), "$${$1}"))
	case action.GetPrefixRewrite() != "":
		matched := len(strings.TrimRight(match.Value, "/"))
		if matched == 0 {
			matched = 1 // the slash
		}
		return action.GetPrefixRewrite() + path[matched:]
	}
	return path
}
