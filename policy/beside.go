package policy

import (
	"reflect"
	"slices"
)

// maxSteps is how many steps the checks of a load may take together in searches that only warn.
const maxSteps = 500_000

// Spend counts a step of a search whose length nobody can foresee; false when the checks of a load have taken as many
// together as they may.
func (c *Check) Spend() bool {
	c.load.steps++
	c.load.meets().steps++
	return c.load.steps <= maxSteps
}

// host is the routes of a gateway under one hostname, in order of precedence. It is another one as soon as any of them
// is another one.
type host struct {
	routes  []*BoundRoute
	made    map[reflect.Type]any
	askedBy []*Check // while the checks hold
	keys    []string // of the settings that somebody looks at
}

type hostKey struct {
	gateway  *Gateway
	hostname string
}

// Beside gives what build makes of the routes that the gateway of a merged setting's route has under a hostname, which is
// one of the route's own: they come in order of precedence. It is made once for all the checks that ask for this T. Whoever
// asks may look at the names of the routes, at what they ask for on which listeners, at their settings under the keys, and
// at [Check.Common]: when other things change the check is not run again.
func Beside[T any](c *Check, hostname string, build func(routes []*BoundRoute) T, keys ...string) T {
	l := c.load
	h := l.host(hostKey{c.of.gateway.gateway, hostname})
	m := l.meets()
	m.hosts = append(m.hosts, h)
	for _, key := range keys {
		if !slices.Contains(h.keys, key) {
			h.keys = append(h.keys, key)
		}
	}
	of := reflect.TypeFor[T]()
	v, ok := h.made[of].(T)
	if ok {
		return v
	}
	var looked *met
	outer, before := l.met, l.told
	l.met = &looked
	v = build(h.routes)
	l.met = outer
	l.odd = l.odd || looked != nil || l.told != before
	if h.made == nil {
		h.made = make(map[reflect.Type]any)
	}
	h.made[of] = v
	return v
}

// host finds the routes of a hostname; the hosts are found when the first of them is asked for.
func (l *loader) host(key hostKey) *host {
	if h := l.hosts[key]; h != nil {
		return h
	}
	if l.base != nil && l.base.hosts != nil {
		return l.base.hosts[key]
	}
	l.hosts = make(map[hostKey]*host)
	for _, g := range l.model.Gateways {
		for _, r := range l.model.Bound[g] {
			for _, name := range r.Hostnames {
				at := hostKey{g, name}
				if l.hosts[at] == nil {
					l.hosts[at] = &host{}
				}
				l.hosts[at].routes = append(l.hosts[at].routes, r)
			}
		}
	}
	return l.hosts[key]
}

// alike tells whether the routes that take the places of others look the same to those beside them.
func (h *host) alike(x *exchange[*BoundRoute]) bool {
	return slices.EqualFunc(x.out, x.in, func(a, b *BoundRoute) bool {
		return a.Name == b.Name && a.Layer4 == b.Layer4 && slices.Equal(a.Hostnames, b.Hostnames) && slices.Equal(a.Listeners, b.Listeners) &&
			a.Match.alike(&b.Match) && slices.EqualFunc(a.Settings.under(h.keys), b.Settings.under(h.keys), Set.alike)
	})
}

// alike compares conditions, wherever they are written.
func (m *Match) alike(o *Match) bool {
	same := func(a, b ValueMatch) bool {
		return a.Name == b.Name && a.Exact == b.Exact && a.Regex == b.Regex && (a.Present == nil) == (b.Present == nil) &&
			(a.Present == nil || *a.Present == *b.Present)
	}
	return m.Path == o.Path && m.GRPC == o.GRPC && slices.Equal(m.Methods, o.Methods) && slices.Equal(m.Source, o.Source) &&
		slices.EqualFunc(m.Headers, o.Headers, same) && slices.EqualFunc(m.Query, o.Query, same)
}

func (s Settings) under(keys []string) []Set {
	var all []Set
	for _, set := range s {
		if slices.Contains(keys, set.Kind.Key) {
			all = append(all, set)
		}
	}
	return all
}

func (s Set) alike(o Set) bool { return s.Kind == o.Kind && s.Layer == o.Layer && s.Node.equal(o.Node) }
