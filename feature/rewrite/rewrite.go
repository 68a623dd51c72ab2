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
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
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
	Template string `policy:"template" doc:"takes the place of the path; {name} is a variable of the template that the route matches"`
	Hostname string `policy:"hostname" doc:"the host that the backend gets; auto for the name that its service has under dns"`
}

// auto is the word for the host name of the endpoint.
const auto = "auto"

// Check wants at most one way to change the path, and one that fits how the route matches.
func (s *Setting) Check(c *policy.Check) {
	ways := s.ways()
	if len(ways) > 1 {
		c.Errorf(ways[1], "the path can be changed in one way only: %s", strings.Join(ways, " or "))
	}
	if len(ways) == 0 && s.Hostname == "" {
		c.Errorf("", "says nothing: want prefix, path, regex, template or hostname")
	}
	checkPath(c, "prefix", s.Prefix)
	checkPath(c, "path", s.Path)
	if s.Regex != (Regex{}) {
		s.Regex.check(c)
	}
	if s.Hostname != "" && !hostname.MatchString(s.Hostname) {
		c.Errorf("hostname", "%q is not a host name in lower case, without a port or wildcard", s.Hostname)
	}
	if r := c.Route(); r != nil {
		s.checkRoute(c, r)
	}
}

// ways names the keys that change the path.
func (s *Setting) ways() []string {
	var ways []string
	for _, way := range []struct {
		name    string
		written bool
	}{
		{"prefix", s.Prefix != ""},
		{"path", s.Path != ""},
		{"regex", s.Regex != Regex{}},
		{"template", s.Template != ""},
	} {
		if way.written {
			ways = append(ways, way.name)
		}
	}
	return ways
}

// checkRoute holds the rewrite against how the route matches, and where it sends to.
func (s *Setting) checkRoute(c *policy.Check, r *policy.BoundRoute) {
	if r.Answers() {
		c.Errorf("", "the route answers by itself, so that there is no backend to get another path or host").
			Hintf("take rewrite away; a redirect has prefix, path and hostname of its own")
	}
	if s.Prefix != "" {
		s.checkPrefix(c, r.Match.Path)
	}
	if s.Template != "" {
		s.checkTemplate(c, r.Match.Path)
	}
	for _, b := range r.Backends {
		if s.Hostname == auto && b.Service.DNS == nil {
			p := c.Errorf("hostname", "auto takes the host name of the endpoint, and those of the service %s are addresses", b.Service.Name).
				Hintf("write the host name, or the service with dns: HOST:PORT")
			p.Also = append(p.Also, b.Service.Pos)
		}
	}
}

func (s *Setting) checkPrefix(c *policy.Check, match policy.PathMatch) {
	if match.Kind != policy.PathPrefix {
		c.Errorf("prefix", "the route does not match a path prefix that could be replaced").
			Hintf("write `rewrite: {path: %s}`, or `match: {path: …}` for a prefix", s.Prefix)
		return
	}
	if strings.Trim(s.Prefix, "/") == "" && policy.CheckRegex(cutting(match)) != nil {
		c.Errorf("prefix", "the prefix that the route matches is too long for Envoy to cut off").
			Hintf("replace it by a short prefix other than /")
	}
}

var (
	hostname = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	// What may stand in a path (RFC 3986), percent signs only as escapes.
	cleanPath = regexp.MustCompile(`^/([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*$`)
)

// checkPath wants a path that all servers read in one way; "" is none.
func checkPath(c *policy.Check, field, path string) {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case path == "":
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
		replacePrefix(action, c.Route.Match.Path, s.Prefix)
	case s.Path != "":
		action.PathRewrite = strings.ReplaceAll(s.Path, "%", "%%") // Envoy has variables here
	case s.Regex.Pattern != "":
		action.RegexRewrite = replace(string(s.Regex.Pattern), s.Regex.Substitution)
	case s.Template != "":
		action.PathRewritePolicy = fillTemplate(s.Template)
	}
	if len(s.ways()) > 0 {
		r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, original("x-envoy-original-path", "%REQ(:PATH)%"))
	}
	switch s.Hostname {
	case "":
		return envoy.RouteParts{Route: r}
	case auto:
		action.HostRewriteSpecifier = &routev3.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
	default:
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: s.Hostname}
	}
	r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, original("x-envoy-original-host", "%REQ(:AUTHORITY)%"))
	return envoy.RouteParts{Route: r}
}

// replacePrefix takes care of the slash: Envoy replaces the prefix as text, so that /a -> / would make //b of /a/b,
// and / -> /x would make /xb of /b.
func replacePrefix(action *routev3.RouteAction, match policy.PathMatch, to string) {
	from, to := strings.TrimRight(match.Value, "/"), strings.TrimRight(to, "/")
	switch {
	case from == to && !match.IgnoreCase:
	case to == "":
		action.RegexRewrite = replace(cutting(match), "/")
	case from == "":
		action.PrefixRewrite = to + "/"
	default:
		action.PrefixRewrite = to
	}
}

// cutting matches a prefix and the slashes after it.
func cutting(match policy.PathMatch) string {
	prefix := "^" + regexp.QuoteMeta(strings.TrimRight(match.Value, "/")) + "/*"
	if match.IgnoreCase {
		return "(?i)" + prefix
	}
	return prefix
}

// fillTemplate puts the variables of the match into a path.
func fillTemplate(template string) *corev3.TypedExtensionConfig {
	return envoy.Extension("envoy.path.rewrite.uri_template.uri_template_rewriter",
		&templatev3.UriTemplateRewriteConfig{PathTemplateRewrite: template})
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
