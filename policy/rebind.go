package policy

import (
	"maps"
	"slices"
)

// rebound is a gateway with the routes that it loses and those that it gets, in order of precedence.
type rebound struct {
	*gatewayLayers
	gone, come []*BoundRoute
	claims     map[request]int // how many more routes ask for something
	tables     tables
}

// rebind puts the routes together that differ, and runs their checks.
func (r *renewal) rebind() bool {
	r.stage = resolving
	r.warnNothing()
	gone := make(map[*Gateway][]*BoundRoute)
	for _, name := range slices.Sorted(maps.Keys(r.routes)) {
		if was := r.base.routes[name]; was != nil {
			for _, b := range was.bound {
				gone[b.bound.Gateway] = append(gone[b.bound.Gateway], b.bound)
			}
		}
		if is := r.loader.routes[name]; is != nil {
			r.resolveRoute(is)
		}
	}
	if r.errs > 0 {
		return false
	}
	s := &spread{bulk: r.base.bulk, sizes: make(map[*Node]int)}
	for _, g := range r.model.Gateways {
		of := &rebound{gatewayLayers: r.gateways[g.Name], gone: gone[g], come: r.model.Bound[g]}
		for _, b := range of.gone {
			s.count(g, b, -1)
		}
		for _, b := range of.come {
			s.count(g, b, 1)
		}
		if !r.retable(of) {
			return false
		}
	}
	if r.bulk = s.bulk; r.bulk.tooMuch() {
		return false
	}
	r.rehost()
	for _, h := range r.rehosted {
		for _, c := range h.askedBy {
			r.rerun(c)
		}
	}
	return r.recheck(func(of rank) bool { return of >= ofBound })
}

// retable gives a gateway its routes; false where they don't go together.
func (r *renewal) retable(g *rebound) bool {
	g.tables = g.gatewayLayers.tables
	if len(g.gone)+len(g.come) > 0 {
		slices.SortFunc(g.gone, byPrecedence)
		slices.SortFunc(g.come, byPrecedence)
		r.rebound = append(r.rebound, g)
		if !g.recount() {
			return false
		}
	}
	if all := (exchange[*BoundRoute]{g.gone, g.come}).of(r.base.model.Bound[g.gateway], byPrecedence); len(all) > 0 {
		r.model.Bound[g.gateway] = all
	} else {
		delete(r.model.Bound, g.gateway)
	}
	r.warnIdle(g.gatewayLayers, func(listener string) bool { return g.tables.named[listener] > 0 })
	return true
}

// recount holds the routes that come against those that stay; false where they are in conflict, or too many.
func (g *rebound) recount() bool {
	g.claims = make(map[request]int)
	g.tables.named, g.tables.sources = maps.Clone(g.tables.named), maps.Clone(g.tables.sources)
	for _, b := range g.gone {
		g.tables.count(b, -1)
		_, put := g.requests(b)
		for _, key := range put {
			g.claims[key]--
		}
	}
	for _, b := range g.come {
		g.tables.count(b, 1)
		look, put := g.requests(b)
		for _, key := range look {
			if g.gatewayLayers.claims[key].routes+g.claims[key] > 0 {
				return false
			}
		}
		for _, key := range put {
			g.claims[key]++
		}
	}
	for _, n := range g.tables.sources {
		if n > maxSources { // some of them may be the same
			return false
		}
	}
	return g.tables.places <= maxPlaces
}

// requests are what others must not ask for, and what the route asks for.
func (g *gatewayLayers) requests(r *BoundRoute) (look, put []request) {
	conditions := r.Match.canonical()
	looks, puts := g.spots(r)
	for _, h := range r.Hostnames {
		for _, spot := range looks {
			look = append(look, request{h, conditions, spot})
		}
		for _, spot := range puts {
			put = append(put, request{h, conditions, spot})
		}
	}
	return look, put
}

// rehost finds the hosts whose routes differ, if anybody has asked for hosts.
func (r *renewal) rehost() {
	if r.base.hosts == nil {
		return
	}
	r.hosts, r.moved = make(map[hostKey]*host), make(map[*host]*host)
	exchanges := make(map[hostKey]*exchange[*BoundRoute])
	at := func(b *BoundRoute, hostname string) *exchange[*BoundRoute] {
		key := hostKey{b.Gateway, hostname}
		if exchanges[key] == nil {
			exchanges[key] = &exchange[*BoundRoute]{}
		}
		return exchanges[key]
	}
	for _, g := range r.rebound {
		for _, b := range g.gone {
			for _, name := range b.Hostnames {
				x := at(b, name)
				x.out = append(x.out, b)
			}
		}
		for _, b := range g.come {
			for _, name := range b.Hostnames {
				x := at(b, name)
				x.in = append(x.in, b)
			}
		}
	}
	for key, x := range exchanges {
		h := r.base.hosts[key]
		if h == nil {
			h = &host{}
		}
		is := &host{routes: x.of(h.routes, byPrecedence), keys: slices.Clone(h.keys)}
		if h.alike(x) {
			r.moved[h] = is
		} else {
			r.rehosted = append(r.rehosted, h)
		}
		if r.hosts[key] = is; len(is.routes) == 0 {
			r.hosts[key] = nil
		}
	}
}

// commit makes the load the one that the next goes on from: it takes over what base has, and changes what differs.
func (r *renewal) commit() {
	l, base := r.loader, r.base
	r.rebook()
	r.takeOver()
	l.base = nil
	l.model.Secrets = l.book.secretsOf(l.vault)
	l.model.Files = l.book.fileNames()
	l.digest = base.digest.next(l.files, l.book.files, r.changed)
	l.model.Revision = l.digest.text
	l.done()
	l.problems.hide(l.files)
	l.settle()
}

// rebook brings the book of base up to date.
func (r *renewal) rebook() {
	book := r.base.book
	for name := range r.services {
		if s := r.loader.services[name]; s != nil {
			book.add(s.unit.met)
		}
		if was := r.base.services[name]; was != nil {
			book.drop(was.unit.met)
		}
	}
	for name := range r.routes {
		if is := r.loader.routes[name]; is != nil {
			book.enter(is)
			for _, b := range is.bound {
				for _, m := range b.merged {
					if book.use(m) {
						r.base.merged[m.key] = m
					}
				}
			}
		}
		if was := r.base.routes[name]; was != nil {
			book.leave(was)
			for _, b := range was.bound {
				for _, m := range b.merged {
					if book.disuse(m) {
						delete(r.base.merged, m.key)
					}
				}
			}
		}
	}
	for u := range r.dropped {
		for _, c := range slices.Clone(u.kept) {
			book.forget(c)
		}
	}
	for c := range r.again {
		book.forget(c)
	}
	for was, is := range r.moved {
		is.askedBy = was.askedBy
		for _, c := range was.askedBy {
			for i, h := range c.met.hosts {
				if h == was {
					c.met.hosts[i] = is
				}
			}
		}
	}
	for _, c := range r.ran {
		book.retain(c)
	}
}

// takeOver gives the load all that base has beside what differs.
func (r *renewal) takeOver() {
	l, base := r.loader, r.base
	for section, entries := range l.raw {
		if base.raw[section] == nil {
			base.raw[section] = make(map[string]*rawEntry)
		}
		replace(base.raw[section], entries)
	}
	for file, of := range l.blocks {
		base.blocks[file] = of
		if len(of) == 0 {
			delete(base.blocks, file)
		}
	}
	replace(base.services, l.services)
	replace(base.routes, l.routes)
	for _, g := range r.rebound {
		g.commit()
	}
	if base.hosts != nil { // else those of l are all, if anybody has asked for any
		replace(base.hosts, l.hosts)
		l.hosts = base.hosts
	}
	l.raw, l.blocks, l.services, l.routes, l.merged = base.raw, base.blocks, base.services, base.routes, base.merged
	l.expanded, l.book = base.expanded, base.book
}

// replace puts items in the place of others; nil ones are gone.
func replace[K comparable, T any](all, items map[K]*T) {
	for key, item := range items {
		if all[key] = item; item == nil {
			delete(all, key)
		}
	}
}

// commit counts what comes and goes in the gateway itself.
func (g *rebound) commit() {
	g.gatewayLayers.tables = g.tables
	for key, n := range g.claims {
		of := claim{routes: g.gatewayLayers.claims[key].routes + n}
		if g.gatewayLayers.claims[key] = of; of.routes == 0 {
			delete(g.gatewayLayers.claims, key)
		}
	}
}
