package redirect

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Explain tells the URL that the client is sent to.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	return []envoy.Fact{c.Fact(envoy.Answered, fmt.Sprintf("%d, to %s", s.status(), s.location(c)))}
}

// location is the header of that name. Envoy has taken the port out of the host of the request.
func (s *Setting) location(c envoy.ExplainContext) string {
	action := c.Served.GetRedirect()
	host := cmp.Or(s.Hostname, c.Request.Host)
	if port := action.GetPortRedirect(); port != 0 {
		host = fmt.Sprintf("%s:%d", host, port)
	}
	path, query, asks := strings.Cut(c.Request.Path, "?")
	path = redirected(action, c.Route.Match.Path, path)
	if asks && !s.StripQuery {
		path += "?" + query
	}
	return cmp.Or(string(s.Scheme), c.Request.Scheme) + "://" + host + path
}

// redirected is the path that Envoy makes of one that the route matches.
func redirected(action *routev3.RedirectAction, match policy.PathMatch, path string) string {
	switch {
	case action.GetPathRedirect() != "":
		return action.GetPathRedirect()
	case action.GetRegexRewrite() != nil: // takes the prefix away
		re, err := regexp.Compile(action.GetRegexRewrite().GetPattern().GetRegex())
		if err != nil {
			return path
		}
		return re.ReplaceAllLiteralString(path, action.GetRegexRewrite().GetSubstitution())
	case action.GetPrefixRewrite() != "":
		return action.GetPrefixRewrite() + path[max(1, len(strings.TrimRight(match.Value, "/"))):]
	}
	return path
}
