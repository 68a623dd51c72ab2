package auth

import (
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// returner is a setting of an auth entry that sends browsers away, to come back on a path.
type returner interface{ ComesBack() string }

// landings are the hosts on which some route takes the path that browsers of an entry come back to.
type landings map[landing]bool

type landing struct {
	gateway     *policy.Gateway
	entry, host string
}

func newLandings(m *policy.Model) landings {
	all := landings{}
	paths := map[string]string{}
	for _, a := range m.Auth {
		if b, ok := policy.Find[returner](a.Settings); ok {
			paths[a.Name] = b.ComesBack()
		}
	}
	for _, g := range m.Gateways {
		for _, r := range m.Bound[g] {
			s, ok := policy.Find[*Setting](r.Settings)
			if !ok || len(paths) == 0 {
				continue
			}
			for _, entry := range s.Of {
				path, ok := paths[entry]
				if !ok || !takes(r.Match, path) {
					continue
				}
				for _, host := range r.Hostnames {
					all[landing{g, entry, host}] = true
				}
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
	for _, a := range c.Model().Auth {
		b, ok := policy.Find[returner](a.Settings)
		if !ok || !slices.Contains(s.Of, a.Name) {
			continue
		}
		all := policy.Once(c, func() landings { return newLandings(c.Model()) })
		for _, host := range r.Hostnames {
			if all[landing{r.Gateway, a.Name, host}] {
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
