// Package rewrite changes the path and the host of a request before it goes to the backend: the key rewrite.
// [envoy.Translate] calls it.
package rewrite

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key rewrite.
var Kind = policy.Define[Setting]("rewrite", policy.InRoute, doc)

// Setting is what stands under rewrite.
type Setting struct {
	Prefix   string `policy:"prefix" doc:"takes the place of the path prefix that the route matches"`
	Path     string `policy:"path" doc:"takes the place of the whole path; the query stays"`
	Regex    Regex  `policy:"regex" doc:"takes the place of a path that a pattern matches"`
	Hostname string `policy:"hostname" doc:"the host that the backend gets"`
}

// Check wants at most one way to change the path, and one that fits how the route matches.
func (s *Setting) Check(c *policy.Check) {
	var ways []string
	if s.Prefix != "" {
		ways = append(ways, "prefix")
		checkPath(c, "prefix", s.Prefix)
	}
	if s.Path != "" {
		ways = append(ways, "path")
		checkPath(c, "path", s.Path)
	}
	if s.Regex != (Regex{}) {
		ways = append(ways, "regex")
		s.Regex.check(c)
	}
	if len(ways) > 1 {
		c.Errorf(ways[1], "the path can be changed in one way only: %s", strings.Join(ways, " or "))
	}
	if len(ways) == 0 && s.Hostname == "" {
		c.Errorf("", "says nothing: want prefix, path, regex or hostname")
	}
	if s.Hostname != "" && !hostname.MatchString(s.Hostname) {
		c.Errorf("hostname", "%q is not a host name in lower case, without a port or wildcard", s.Hostname)
	}
	if r := c.Route(); r != nil && s.Prefix != "" {
		s.checkPrefix(c, r.Match.Path)
	}
}

func (s *Setting) checkPrefix(c *policy.Check, match policy.PathMatch) {
	if match.Kind != policy.PathPrefix {
		c.Errorf("prefix", "the route does not match a path prefix that could be replaced").
			Hintf("write `rewrite: {path: %s}`, or `match: {path: …}` for a prefix", s.Prefix)
		return
	}
	if strings.Trim(s.Prefix, "/") == "" && policy.CheckRegex(cutting(match.Value)) != nil {
		c.Errorf("prefix", "the prefix that the route matches is too long for Envoy to cut off").
			Hintf("replace it by a short prefix other than /")
	}
}

var (
	hostname = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	// What may stand in a path (RFC 3986), percent signs only as escapes.
	cleanPath = regexp.MustCompile(`^/([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*$`)
)

func checkPath(c *policy.Check, field, path string) {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case !strings.HasPrefix(path, "/"):
		c.Errorf(field, "%q does not begin with a slash", path).Hintf("write /%s", path)
	case strings.ContainsAny(path, "?#"):
		c.Errorf(field, "want a path without a query: the one of the request is kept")
	case !cleanPath.MatchString(path):
		c.Errorf(field, "%q holds characters that cannot stand in a path", path).Hintf("escape them, such as %%20 for a space")
	case strings.Contains(path, "//"), slices.Contains(segments, "."), slices.Contains(segments, ".."):
		c.Errorf(field, "%q holds empty or dotted segments, which servers read in different ways", path)
	}
}

// Route writes the rewrite into the route's action, and keeps what the client asked for in headers.
func (s *Setting) Route(c envoy.RouteContext) envoy.RouteParts {
	action := &routev3.RouteAction{}
	r := &routev3.Route{Action: &routev3.Route_Route{Route: action}}
	switch {
	case s.Prefix != "":
		replacePrefix(action, c.Route.Match.Path.Value, s.Prefix)
	case s.Path != "":
		action.PathRewrite = strings.ReplaceAll(s.Path, "%", "%%") // Envoy has variables here
	case s.Regex.Pattern != "":
		action.RegexRewrite = replace(string(s.Regex.Pattern), s.Regex.Substitution)
	}
	if s.Prefix != "" || s.Path != "" || s.Regex.Pattern != "" {
		r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, original("x-envoy-original-path", "%REQ(:PATH)%"))
	}
	if s.Hostname != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: s.Hostname}
		r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, original("x-envoy-original-host", "%REQ(:AUTHORITY)%"))
	}
	return envoy.RouteParts{Route: r}
}

// replacePrefix takes care of the slash: Envoy replaces the prefix as text, so that /a -> / would make //b of /a/b,
// and / -> /x would make /xb of /b.
func replacePrefix(action *routev3.RouteAction, from, to string) {
	from, to = strings.TrimRight(from, "/"), strings.TrimRight(to, "/")
	switch {
	case from == to:
	case to == "":
		action.RegexRewrite = replace(cutting(from), "/")
	case from == "":
		action.PrefixRewrite = to + "/"
	default:
		action.PrefixRewrite = to
	}
}

// cutting matches a prefix and the slashes after it.
func cutting(prefix string) string {
	return "^" + regexp.QuoteMeta(strings.TrimRight(prefix, "/")) + "/*"
}

func replace(pattern, substitution string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{
		Pattern:      &matcherv3.RegexMatcher{Regex: pattern},
		Substitution: substitution,
	}
}

// original is a header with what the client asked for, for backends and the access log. Envoy's router would write it
// itself, but is told to write no x-envoy- headers. Header variables are read before the rewrite. What is there already
// comes from a filter that has changed the request before, as clients can't send the header.
func original(name, variable string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: variable},
		AppendAction: corev3.HeaderValueOption_ADD_IF_ABSENT,
	}
}
