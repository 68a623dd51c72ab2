package auth

import (
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// returner is a setting of an auth entry that sends browsers away, to come back on a path.
type returner interface{ ComesBack() string }

// landings are the entries whose browsers come back to a path of a host that some route takes, with the entry's auth.
type landings map[string]bool

func newLandings(entries []*policy.Auth, routes []*policy.BoundRoute) landings {
	all := landings{}
	paths := map[string]string{}
	for _, a := range entries {
		if b, ok := policy.Find[returner](a.Settings); ok {
			paths[a.Name] = b.ComesBack()
		}
	}
	for _, r := range routes {
		s, ok := policy.Find[*Setting](r.Settings)
		if !ok {
			continue
		}
		for _, entry := range s.Of {
			if path, ok := paths[entry]; ok && takes(r.Match, path) {
				all[entry] = true
			}
		}
	}
	return all
}

// warnLost warns of a route whose callers log in, and come back to a path that no route takes.
func (s *Setting) warnLost(c *policy.Check) {
	r := c.Route()
	if r == nil || s.None {
		return
	}
	for _, a := range c.Common().Auth {
		b, ok := policy.Find[returner](a.Settings)
		if !ok || !slices.Contains(s.Of, a.Name) {
			continue
		}
		for _, host := range r.Hostnames {
			all := policy.Beside(c, host, func(routes []*policy.BoundRoute) landings { return newLandings(c.Common().Auth, routes) }, Kind.Key)
			if all[a.Name] {
				continue
			}
			c.Warnf("", "who logs in by %q at the host %q comes back to %s, which no route with this auth takes: that ends in 404", a.Name, host, b.ComesBack()).
				Hintf("add a route with the path %s and auth: [%s]", b.ComesBack(), a.Name)
		}
	}
}

// takes tells whether a route may be asked for a path with GET; of patterns it is believed.
func takes(m policy.Match, path string) bool {
	if len(m.Methods) > 0 && !slices.Contains(m.Methods, "GET") {
		return false
	}
	switch m.Path.Kind {
	case policy.PathPrefix:
		below := strings.TrimSuffix(m.Path.Value, "/")
		return path == below || strings.HasPrefix(path, below+"/")
	case policy.PathExact:
		return m.Path.Value == path
	default:
		return true
	}
}
