package envoy

import (
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/policy"
)

// served is what was made of a gateway, so that the next translation makes only what has changed since. It is never
// changed itself: the next one has its own, with most of the same in it.
type served struct {
	routes  policy.Following[*policy.BoundRoute, *made]
	sites   []*site        // the hosts of those of HTTP, sorted by name
	uses    map[string]int // how many of the routes send to a service
	named   int            // how many of those of HTTP name their listeners
	filters map[*policy.Listener][]Filter
	trace   *routev3.Route
	outside []asks
	ports   map[*policy.Listener]*port
}

// made is a route with what was made of it: of one of HTTP itself, after those that its features put just before it.
type made struct {
	*policy.BoundRoute
	routes []*routev3.Route
	uses   []string // services that it sends to
}

// site is the routes of one hostname, in order of precedence. One whose routes are the same in the next translation is
// taken over as it is.
type site struct {
	name string
	all  []*made
}

// on is the routes that stand on a listener.
func (s *site) on(l *policy.Listener) []*made {
	off := func(m *made) bool { return !m.On(l) }
	if slices.ContainsFunc(s.all, off) {
		return slices.DeleteFunc(slices.Clone(s.all), off)
	}
	return s.all
}

// asks is a listener or a cluster, and the secrets that it asks for.
type asks struct {
	Resource
	secrets []string // by ID, as often as they stand there
}

// serve makes the routes of a gateway, but for those that are taken over from the translation before, and what all of its
// listeners have in common.
func (t *translation) serve(gw *policy.Gateway) *served {
	s := new(served)
	if t.before != nil {
		*s = *t.before.served[gw]
	}
	s.ports = make(map[*policy.Listener]*port, len(gw.Listeners))
	t.served[gw] = s
	if all, gone, come := s.routes.Next(t.model.Bound[gw], t.made); len(gone)+len(come) > 0 {
		s.put(all, gone, come)
	}
	if t.before != nil {
		return s // its filters and whom it asks outside go by the surroundings alone
	}
	var all []Filter // of all chains: route tables may be shared
	s.filters = make(map[*policy.Listener][]Filter)
	for _, l := range gw.Listeners {
		if l.HTTP() {
			s.filters[l] = t.chain(ListenerContext{Model: t.model, Gateway: gw, Listener: l})
			all = append(all, s.filters[l]...)
		}
	}
	s.trace = traceRoute(all)
	s.outside = t.outside(gw)
	return s
}

// put counts the routes and sorts those of HTTP by host, as far as that is not done already, but for what has gone and come.
func (s *served) put(all, gone, come []*made) {
	uses := make(map[string]int, len(s.uses))
	maps.Copy(uses, s.uses)
	s.uses = uses
	touched := make(map[string]bool) // hosts
	count := func(m *made, n int) {
		for _, name := range m.uses {
			if s.uses[name] += n; s.uses[name] == 0 {
				delete(s.uses, name)
			}
		}
		if m.Layer4 {
			return
		}
		if len(m.Listeners) > 0 {
			s.named += n
		}
		for _, host := range m.Hostnames {
			touched[host] = true
		}
	}
	for _, m := range gone {
		count(m, -1)
	}
	for _, m := range come {
		count(m, 1)
	}
	s.sites = changedSites(all, s.sites, touched, gone, come)
}

// made makes one route.
func (t *translation) made(r *policy.BoundRoute) *made {
	m, used := &made{BoundRoute: r}, make(services)
	used.ofSettings(r.Settings)
	if !r.Layer4 { // those are filter chains of their listeners
		m.routes = t.route(r)
	}
	for _, route := range m.routes {
		used.ofRequests(route)
	}
	m.uses = slices.Collect(maps.Keys(used))
	return m
}

// changedSites is the hosts of the routes: of those that are touched by what has gone and come they are made anew.
func changedSites(routes []*made, before []*site, touched map[string]bool, gone, come []*made) []*site {
	moved := make(map[*made]bool) // those of the touched hosts
	for _, s := range before {
		if touched[s.name] {
			for _, m := range s.all {
				moved[m] = true
			}
		}
	}
	for _, m := range gone {
		delete(moved, m)
	}
	for _, m := range come {
		moved[m] = !m.Layer4
	}
	changes := make(map[string][]*site, len(touched))
	for name := range touched {
		changes[name] = nil
	}
	for _, m := range routes {
		if !moved[m] {
			continue
		}
		for _, name := range m.Hostnames {
			if !touched[name] {
				continue
			}
			if changes[name] == nil {
				changes[name] = []*site{{name: name}}
			}
			changes[name][0].all = append(changes[name][0].all, m)
		}
	}
	return policy.Patch(before, func(s *site) string { return s.name }, changes)
}

// used is the services that the routes send to, and the settings of the gateway and its listeners.
func (s *served) used(gw *policy.Gateway) services {
	used := make(services, len(s.uses))
	for name := range s.uses {
		used[name] = true
	}
	used.ofSettings(gw.Settings)
	for _, l := range gw.Listeners {
		used.ofSettings(l.Settings)
	}
	return used
}
