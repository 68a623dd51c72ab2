package redirect

import (
	"regexp"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// leadsBack gives a host of the route whose clients the redirect sends back to the route, "" where none is known. A
// way round over other routes is not seen.
func (s *Setting) leadsBack(c *policy.Check, r *policy.BoundRoute) string {
	if !s.staysOnListener(r) || !s.keepsConditions(r) {
		return ""
	}
	for _, host := range r.Hostnames {
		if s.staysOnHost(c, r, host) && s.staysOnPath(c, r, host) {
			return host
		}
	}
	return ""
}

// staysOnListener tells whether the new URL leads to a listener that serves the route, as far as schemes and ports tell.
func (s *Setting) staysOnListener(r *policy.BoundRoute) bool {
	return slices.ContainsFunc(r.Gateway.Listeners, func(l *policy.Listener) bool {
		scheme := Scheme("http")
		if l.Protocol == policy.HTTPS {
			scheme = "https"
		}
		return r.On(l) && (s.Scheme == "" || s.Scheme == scheme) && (s.Port == nil || uint32(*s.Port) == l.Port)
	})
}

// keepsConditions tells whether the client's next request fulfils what the route asks for beside host and path: after
// 301, 302 and 303 clients ask with GET, and the query may be gone.
func (s *Setting) keepsConditions(r *policy.BoundRoute) bool {
	method := s.status() == 307 || s.status() == 308 || len(r.Match.Methods) == 0 ||
		slices.Contains(r.Match.Methods, "GET") || slices.Contains(r.Match.Methods, "HEAD")
	return method && !(s.StripQuery && len(r.Match.Query) > 0)
}

// staysOnHost tells whether the host after the redirect is one that the route's hostname is the best match of.
func (s *Setting) staysOnHost(c *policy.Check, r *policy.BoundRoute, host string) bool {
	if s.Hostname == "" || s.Hostname == host {
		return true
	}
	if !covers(host, s.Hostname) {
		return false
	}
	return !slices.ContainsFunc(c.Model().Bound[r.Gateway], func(o *policy.BoundRoute) bool {
		return together(r, o) && slices.ContainsFunc(o.Hostnames, func(h string) bool {
			return len(h) > len(host) && covers(h, s.Hostname)
		})
	})
}

// covers tells whether a hostname of a route holds for a host.
func covers(pattern, host string) bool {
	suffix, wild := strings.CutPrefix(pattern, "*")
	return pattern == host || wild && strings.HasSuffix(host, suffix)
}

// staysOnPath tells whether the path after the redirect is the route's again, and no route's that goes before it.
func (s *Setting) staysOnPath(c *policy.Check, r *policy.BoundRoute, host string) bool {
	var path string
	switch {
	case s.Path != "":
		path = s.Path
	case s.Prefix != "":
		path = strings.TrimRight(s.Prefix, "/") + "/-" // and whatever is below
	default:
		return true
	}
	if !matches(r.Match.Path, path) {
		return false
	}
	for _, o := range besides(c, host) { // in order of precedence
		if o == r {
			return true
		}
		takes := o.Match.Path.Kind == policy.PathTemplate || matches(o.Match.Path, path)
		if takes && together(r, o) {
			return false
		}
	}
	return true
}

// besides is the routes of a hostname of the route, in order of precedence.
func besides(c *policy.Check, host string) []*policy.BoundRoute {
	return policy.Beside(c, host, func(all []*policy.BoundRoute) []*policy.BoundRoute { return all })
}

// together tells whether a listener serves both routes.
func together(r, o *policy.BoundRoute) bool {
	return slices.ContainsFunc(r.Gateway.Listeners, func(l *policy.Listener) bool { return r.On(l) && o.On(l) })
}

// matches tells whether a route matches a path; of a template that is not known.
func matches(m policy.PathMatch, path string) bool {
	value := m.Value
	if m.IgnoreCase {
		value, path = strings.ToLower(value), strings.ToLower(path)
	}
	switch m.Kind {
	case policy.PathExact:
		return path == value
	case policy.PathPrefix:
		value = strings.TrimRight(value, "/")
		return strings.HasPrefix(path+"/", value+"/")
	case policy.PathRegex:
		re, err := regexp.Compile("^(?:" + m.Value + ")$")
		return err == nil && re.MatchString(path)
	default:
		return false
	}
}
