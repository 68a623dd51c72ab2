// Package redirect sends clients elsewhere: the key redirect. [envoy.Translate] calls it.
package redirect

import (
	_ "embed"
	"regexp"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key redirect.
var Kind = policy.Define[Setting]("redirect", policy.InRoute, doc)

// Setting is what stands under redirect: the parts of the request's URL that change, and the status. Envoy's
// RedirectAction.
type Setting struct {
	Scheme     Scheme  `policy:"scheme" doc:"https or http; default: the one of the request"`
	Hostname   string  `policy:"hostname" doc:"takes the place of the host; default: the one of the request"`
	Port       *uint16 `policy:"port" doc:"the port in the new URL; default: none, which is the scheme's own"`
	Path       string  `policy:"path" doc:"takes the place of the whole path; the query stays"`
	Prefix     string  `policy:"prefix" doc:"takes the place of the path prefix that the route matches"`
	StripQuery bool    `policy:"stripQuery" doc:"leaves the query out; default: false"`
	Status     *Status `policy:"status" doc:"301, 302, 303, 307 or 308; default: 302"`
}

// Scheme is the scheme of a URL.
type Scheme string

// Values are the schemes that clients can be sent to.
func (Scheme) Values() []string { return []string{"http", "https"} }

// defaultPort is the port of a URL without one.
var defaultPort = map[Scheme]uint16{"http": 80, "https": 443}

// Status is the status of the answer.
type Status uint32

const found Status = 302

var codes = map[Status]routev3.RedirectAction_RedirectResponseCode{
	301:   routev3.RedirectAction_MOVED_PERMANENTLY,
	found: routev3.RedirectAction_FOUND,
	303:   routev3.RedirectAction_SEE_OTHER,
	307:   routev3.RedirectAction_TEMPORARY_REDIRECT,
	308:   routev3.RedirectAction_PERMANENT_REDIRECT,
}

// DecodePolicy reads a status.
func (s *Status) DecodePolicy(d *policy.Decode, n *policy.Node) {
	code, err := strconv.ParseUint(n.Text, 10, 32)
	if _, ok := codes[Status(code)]; n.Kind != policy.Scalar || err != nil || !ok {
		d.Errorf(n, "want the status of a redirect").
			Hintf("301 and 308 are for good, 302, 303 and 307 for now; 307 and 308 keep the method")
		return
	}
	*s = Status(code)
}

// PolicySchema describes a status.
func (*Status) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"enum": []int{301, 302, 303, 307, 308}}
}

// Answers tells that the route needs no backend.
func (*Setting) Answers() bool { return true }

// Check wants one way to change the path, one that fits how the route matches, and a URL that leads elsewhere.
func (s *Setting) Check(c *policy.Check) {
	if s.Scheme == "" && s.Hostname == "" && s.Port == nil && s.Path == "" && s.Prefix == "" {
		c.Errorf("", "leads nowhere else: want scheme, hostname, port, path or prefix")
		return
	}
	if s.Hostname != "" && !hostname.MatchString(s.Hostname) {
		c.Errorf("hostname", "%q is not a host name in lower case, without a port or wildcard", s.Hostname)
	}
	if s.Port != nil && *s.Port == 0 {
		c.Errorf("port", "want a port from 1 to 65535, got 0")
	}
	clean := checkPath(c, "path", s.Path)
	clean = checkPath(c, "prefix", s.Prefix) && clean
	if s.Path != "" && s.Prefix != "" {
		c.Errorf("prefix", "the path can be changed in one way only: path or prefix")
	}
	if r := c.Route(); r != nil && clean {
		s.checkRoute(c, r)
	}
}

// checkRoute holds the redirect against the route that it answers for.
func (s *Setting) checkRoute(c *policy.Check, r *policy.BoundRoute) {
	if len(r.Backends) > 0 {
		c.Errorf("", "the route has backends too, which would get no request").Hintf("take backends away, or redirect")
	}
	if r.Settings.Has("directResponse") {
		c.Errorf("", "the route answers in two ways: redirect and directResponse").Hintf("take one of them away")
	}
	if s.Prefix != "" && r.Match.Path.Kind != policy.PathPrefix {
		c.Errorf("prefix", "the route does not match a path prefix that could be replaced").
			Hintf("write `redirect: {path: %s}`, or `match: {path: …}` for a prefix", s.Prefix)
		return
	}
	if s.cuts() && policy.CheckRegex(cutting(r.Match.Path)) != nil {
		c.Errorf("prefix", "the prefix that the route matches is too long for Envoy to cut off").
			Hintf("replace it by a short prefix other than /")
	}
	if host := s.leadsBack(c, r); host != "" {
		c.Errorf("", "leads back to the same route, again and again, for the host %s", host).
			Hintf("let it change the scheme, the host or the path to what another route answers, or name its listeners")
	}
}

// cuts tells that the prefix is taken away and nothing put in its place.
func (s *Setting) cuts() bool { return s.Prefix != "" && strings.Trim(s.Prefix, "/") == "" }

var (
	hostname = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	// What may stand in a path (RFC 3986), percent signs only as escapes.
	cleanPath = regexp.MustCompile(`^/([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*$`)
)

// checkPath wants a path that all servers read in one way; "" is none.
func checkPath(c *policy.Check, field, path string) bool {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case path == "":
		return true
	case !strings.HasPrefix(path, "/"):
		c.Errorf(field, "%q does not begin with a slash", path).Hintf("another host or scheme goes under hostname and scheme")
	case strings.ContainsAny(path, "?#"):
		c.Errorf(field, "want a path without a query: the one of the request is kept").Hintf("stripQuery: true leaves it out")
	case !cleanPath.MatchString(path):
		c.Errorf(field, "%q holds characters that cannot stand in a path", path).Hintf("escape them, such as %%20 for a space")
	case strings.Contains(path, "//"), slices.Contains(segments, "."), slices.Contains(segments, ".."):
		c.Errorf(field, "%q holds empty or dotted segments, which servers read in different ways", path)
	default:
		return true
	}
	return false
}

// Route makes the answer.
func (s *Setting) Route(c envoy.RouteContext) envoy.RouteParts {
	action := &routev3.RedirectAction{
		HostRedirect: s.Hostname,
		ResponseCode: codes[s.status()],
		StripQuery:   s.StripQuery,
	}
	if s.Scheme != "" {
		action.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: string(s.Scheme)}
	}
	if s.Port != nil && *s.Port != defaultPort[s.Scheme] { // that one needs no mention
		action.PortRedirect = uint32(*s.Port)
	}
	switch {
	case s.Path != "":
		action.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: s.Path}
	case s.Prefix != "":
		replacePrefix(action, c.Route.Match.Path, s.Prefix)
	}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Redirect{Redirect: action}}}
}

func (s *Setting) status() Status {
	return policy.Or(s.Status, found)
}

// replacePrefix takes care of the slash: Envoy replaces the prefix as text, so that /a -> / would make //b of /a/b,
// which browsers take for a host, and / -> /x would make /xb of /b.
func replacePrefix(action *routev3.RedirectAction, match policy.PathMatch, to string) {
	from, to := strings.TrimRight(match.Value, "/"), strings.TrimRight(to, "/")
	switch {
	case from == to && !match.IgnoreCase:
	case to == "":
		action.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: &matcherv3.RegexMatchAndSubstitute{
			Pattern:      &matcherv3.RegexMatcher{Regex: cutting(match)},
			Substitution: "/",
		}}
	case from == "":
		action.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: to + "/"}
	default:
		action.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: to}
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
