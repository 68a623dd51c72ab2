package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// resolve binds the routes to their gateways, merges their settings and checks the result.
func (l *loader) resolve() {
	l.warnNothing()
	vague := make(map[string]bool)
	for _, r := range l.routesInTurn() {
		vague[r.route.Name] = r.vague
		l.resolveRoute(r)
	}
	if !l.spread() {
		return
	}
	for _, g := range l.model.Gateways {
		slices.SortStableFunc(l.model.Bound[g], byPrecedence)
		l.conflicts(l.gateways[g.Name], vague)
		l.idle(l.gateways[g.Name], vague)
		l.crowd(l.gateways[g.Name])
	}
	l.checks = append(l.checks, l.last...)
	l.runAll()
}

// warnNothing warns of a policy that has nothing to do.
func (l *loader) warnNothing() {
	if len(l.model.Gateways) == 0 && len(l.model.Domains) == 0 && len(l.model.Routes) == 0 && len(l.files) > 0 && !l.problems.HasErrors() {
		l.add(&Problem{Pos: Pos{File: "."}, Message: "there is no gateway: nothing will be served", Warning: true})
	}
}

// routesInTurn is the routes by name, those that sidecars expand to behind all others.
func (l *loader) routesInTurn() []*routeLayer {
	all := make([]*routeLayer, 0, len(l.model.Routes))
	for _, r := range l.model.Routes {
		if of := l.routes[r.Name]; of != nil {
			all = append(all, of)
		}
	}
	return append(all, l.expanded...)
}

// resolveRoute puts a route together for each of its gateways.
func (l *loader) resolveRoute(r *routeLayer) {
	for _, name := range r.route.Gateways {
		if g := l.gateways[name]; g != nil {
			l.bindRoute(g, r)
			l.served(g, r)
		}
	}
}

// served reports a route that no listener of a gateway would serve.
func (l *loader) served(g *gatewayLayers, r *routeLayer) {
	on := func(at *Listener) bool { return r.route.On(at) }
	if g.vague || len(r.route.Listeners) > 0 || r.adrift || slices.ContainsFunc(g.gateway.Listeners, on) {
		return
	}
	var redirecting, layer4 []string
	for _, at := range g.gateway.Listeners {
		if at.HTTP() {
			redirecting = append(redirecting, at.Name)
		} else {
			layer4 = append(layer4, at.Name)
		}
	}
	p := l.report(r.raw.value, "", false, "the gateway %s has no listener that would serve it", quote(g.gateway.Name)).suspect(g.raw.key.Pos.File)
	if len(redirecting) > 0 {
		p.Hintf("those of HTTP redirect; to have it there nevertheless write listeners: [%s]", cut(strings.Join(redirecting, ", ")))
	} else {
		p.Hintf("those of TCP and TLS have to be named: write listeners: [%s]", cut(strings.Join(layer4, ", ")))
	}
}

// idle warns of listeners that would close each connection, for want of a route.
func (l *loader) idle(g *gatewayLayers, vague map[string]bool) {
	if g.vague || l.unreadable {
		return
	}
	busy := make(map[string]bool)
	for _, r := range l.model.Bound[g.gateway] {
		if vague[r.Name] {
			return
		}
		for _, name := range r.Listeners {
			busy[name] = true
		}
	}
	l.warnIdle(g, func(listener string) bool { return busy[listener] })
}

func (l *loader) warnIdle(g *gatewayLayers, busy func(listener string) bool) {
	for _, at := range g.gateway.Listeners {
		if !at.HTTP() && !busy(at.Name) {
			l.report(g.listeners[at.Name].node, "", true, "no route names this listener of %s: it closes every connection", at.Protocol).
				Hintf("write a route with listeners: [%s]", at.Name)
		}
	}
}

// maxPlaces is how often the routes of a gateway may stand in its tables, once for each of their hostnames and listeners. A
// few lines could fill any memory otherwise, ours and Envoy's.
const maxPlaces = 500_000

// crowd refuses a gateway whose tables would be larger than anybody can mean.
func (l *loader) crowd(g *gatewayLayers) {
	g.tables = newTables(g.gateway)
	sources := make(map[string]map[netip.Prefix]bool) // by hostname
	for _, r := range l.model.Bound[g.gateway] {
		g.tables.count(r, 1)
		if len(r.Match.Source) > 0 {
			l.gatherSources(r, sources)
		}
	}
	if places := g.tables.places; places > maxPlaces {
		l.report(g.raw.value, "listeners", false, "the routes of this gateway stand in its tables %d times, more than %d: once for each hostname and listener",
			places, maxPlaces).Hintf("name the listeners of the routes, or divide them between several gateways")
	}
}

// gatherSources adds the ranges that a route asks for to those of its hosts.
func (l *loader) gatherSources(r *BoundRoute, of map[string]map[netip.Prefix]bool) {
	for _, h := range r.Hostnames {
		if of[h] == nil {
			of[h] = make(map[netip.Prefix]bool)
		}
		if len(of[h]) > maxSources {
			continue // told
		}
		for _, p := range r.Match.Source {
			of[h][p] = true
		}
		if len(of[h]) > maxSources {
			l.report(l.entry("routes", r.Name).value, "match.source", false, "the routes of %s ask for more than %d ranges together", h, maxSources)
		}
	}
}

// binding is one route at one gateway while its layers are merged.
type binding struct {
	gateway  *gatewayLayers
	route    *routeLayer
	services []*serviceLayer // that get requests
	bound    *BoundRoute
	merged   []*mergedSet
	unit     unit
}

// breaks tells that the route lacks a setting because of what was told already.
func (b *binding) breaks(k *Kind) { b.bound.broken = append(b.bound.broken, k.Key) }

func (l *loader) bindRoute(g *gatewayLayers, r *routeLayer) {
	b := &binding{gateway: g, route: r, bound: &BoundRoute{Route: r.route, Gateway: g.gateway}}
	b.unit = unit{rank: ofBound, name: r.unit.name, route: r.route}
	if r.unit.name == "" {
		b.unit.rank = ofExpansion
	}
	for _, backend := range r.route.Backends {
		b.services = append(b.services, l.service(backend.Service.Name))
	}
	r.bound = append(r.bound, b)
	l.within(&b.unit, func() { l.resolveLayers(b) })
	l.model.Bound[g.gateway] = append(l.model.Bound[g.gateway], b.bound)
}

func (l *loader) resolveLayers(b *binding) {
	l.lockedKeys(b)
	for _, kind := range b.kinds() {
		if kind.Stacked {
			l.stack(b, kind)
		} else {
			l.mergeKind(b, kind)
		}
	}
	l.needsBackend(b)
	l.inMesh(b)
	for _, set := range b.bound.Settings {
		l.queue(&Check{set: set, place: InRoute, of: b, entry: &b.route.route.Entry})
	}
}

// kinds are those that any layer of the route writes and a route can have, by key. A route of TCP or TLS listeners has
// none of those that are about requests.
func (b *binding) kinds() []*Kind {
	var kinds []*Kind
	add := func(y *layer) {
		for _, w := range y.sets {
			if w.kind.Places&InRoute != 0 && (w.kind.TCP || !b.route.route.Layer4) {
				kinds = append(kinds, w.kind)
			}
		}
	}
	add(&b.gateway.defaults)
	for _, s := range b.services {
		add(&s.layer)
	}
	add(&b.route.layer)
	slices.SortFunc(kinds, func(a, b *Kind) int { return strings.Compare(a.Key, b.Key) })
	return slices.Compact(kinds)
}

// files are those that decide on a setting of the route.
func (b *binding) files(k *Kind) []string {
	files := []string{b.route.raw.key.Pos.File}
	for _, s := range b.services {
		if s.layer.get(k) != nil {
			files = append(files, s.raw.key.Pos.File)
		}
	}
	if d := b.gateway.defaults.get(k); d != nil {
		files = append(files, d.node.Pos.File)
	}
	return files
}

// lockedKeys refuses what the gateway's defaults keep for themselves.
func (l *loader) lockedKeys(b *binding) {
	if len(b.gateway.locked) == 0 {
		return
	}
	refuse := func(y *layer) {
		for _, w := range y.sets {
			if lock := b.gateway.locked[w.kind.Key]; lock != nil {
				l.refuseLocked(b, y.node, w.kind.Key, "this key", lock)
				continue
			}
			for key, path := range w.reaches() {
				if lock := b.gateway.locked[key]; lock != nil {
					l.refuseLocked(b, w.node, path, key+", which this is about", lock)
				}
			}
		}
	}
	for _, s := range b.services {
		refuse(&s.layer)
	}
	refuse(&b.route.layer)
}

func (l *loader) refuseLocked(b *binding, n *Node, rel, what string, lock *Node) {
	l.report(n, rel, false, "the defaults of gateway %s lock %s (%s)", quote(b.gateway.gateway.Name), what, lock.Pos).
		suspect(lock.Pos.File, b.route.raw.key.Pos.File).
		Hintf("remove it here, or take it out of locked there")
}

// mergeKind gives the route the merged setting of a kind.
func (l *loader) mergeKind(b *binding, kind *Kind) {
	key := mergeKey{kind: kind}
	d, r := b.gateway.defaults.get(kind), b.route.layer.get(kind)
	layer := Layer{InDefaults, b.gateway.gateway.Name}
	bad := false
	if d != nil {
		key.defaults, bad = d.node, !d.ok
	}
	if r != nil {
		key.route, bad = r.node, bad || !r.ok
	}
	s, agree := l.serviceNode(b, key)
	if s != nil {
		key.service, bad = s.node, bad || !s.ok
		layer = Layer{InService, l.ownerOf(b, s)}
	}
	if r != nil {
		layer = Layer{InRoute, b.route.route.Name}
	}
	if bad || !agree {
		b.breaks(kind)
		return
	}
	m := l.mergedOf(key)
	b.merged = append(b.merged, m)
	switch {
	case m.ok:
		b.bound.Settings = append(b.bound.Settings, Set{Kind: kind, Setting: m.setting, Node: m.node, Layer: layer})
	case m.node != nil:
		b.breaks(kind)
	}
}

func (l *loader) ownerOf(b *binding, w *written) string {
	for _, s := range b.services {
		if s.layer.get(w.kind) == w {
			return s.service.Name
		}
	}
	return ""
}

// serviceNode finds what the services of a route say about a kind; false when they do not agree.
func (l *loader) serviceNode(b *binding, key mergeKey) (*written, bool) {
	var writers []*written
	for _, s := range b.services {
		if w := s.layer.get(key.kind); w != nil {
			writers = append(writers, w)
		}
	}
	switch {
	case len(writers) == 0:
		return nil, true
	case len(b.services) == 1:
		return writers[0], true
	}
	var want *Node
	for i, s := range b.services {
		var node *Node
		if w := s.layer.get(key.kind); w != nil {
			node = w.node
		}
		got := key.merge(node)
		if i > 0 && !got.equal(want) {
			l.disagree(b, key.kind, writers)
			return nil, false
		}
		want = got
	}
	return writers[0], true
}

// disagree reports that the services of a route say different things about what Envoy has only once per route.
func (l *loader) disagree(b *binding, kind *Kind, writers []*written) {
	var says []string
	p := &Problem{}
	for _, s := range b.services {
		if w := s.layer.get(kind); w != nil {
			says = append(says, s.service.Name+" ("+w.node.Pos.String()+")")
		} else {
			says = append(says, s.service.Name+" (nothing)")
		}
		p.suspect(s.raw.key.Pos.File)
	}
	l.report(b.route.raw.value, "backends", false, "the services disagree about %s: %s", kind.Key, strings.Join(says, ", ")).
		suspect(p.culprits...).Hintf("write %s in the route", kind.Key)
}

// stack gives the route the settings of a stacked kind, outermost first.
func (l *loader) stack(b *binding, kind *Kind) {
	var sets []Set
	put := func(w *written, layer Layer) {
		switch {
		case w == nil:
		case !w.ok:
			b.breaks(kind)
		case w.setting == nil:
			sets = nil
		default:
			if r, ok := w.setting.(Replacer); ok && r.Replaces() {
				sets = nil
			}
			sets = append(sets, Set{Kind: kind, Setting: w.setting, Node: w.node, Layer: layer})
		}
	}
	put(b.gateway.defaults.get(kind), Layer{InDefaults, b.gateway.gateway.Name})
	route := b.route.layer.get(kind)
	if !drops(route) && l.stackable(b, kind) {
		for _, s := range b.services {
			put(s.layer.get(kind), Layer{InService, s.service.Name})
		}
	}
	put(route, Layer{InRoute, b.route.route.Name})
	b.bound.Settings = append(b.bound.Settings, sets...)
}

// drops tells whether a written stacked setting leaves nothing of the outer ones.
func drops(w *written) bool {
	if w == nil || !w.ok {
		return false
	}
	r, ok := w.setting.(Replacer)
	return w.setting == nil || ok && r.Replaces()
}

// stackable tells whether the service layer of a stacked kind can count for the route: Envoy picks the service after
// it has asked, so there must be only one.
func (l *loader) stackable(b *binding, kind *Kind) bool {
	if len(b.services) < 2 {
		return true
	}
	writes := func(s *serviceLayer) bool { return s.layer.get(kind) != nil }
	if !slices.ContainsFunc(b.services, writes) {
		return false
	}
	off := func(s *serviceLayer) bool { w := s.layer.get(kind); return w != nil && w.ok && w.setting == nil }
	if !slices.ContainsFunc(b.services, func(s *serviceLayer) bool { return !off(s) }) {
		return true
	}
	for _, s := range b.services {
		if w := s.layer.get(kind); w != nil {
			l.report(b.route.raw.value, "backends", false, "%s of the service %s (%s) can't hold for a route with several services",
				kind.Key, quote(s.service.Name), w.node.Pos).suspect(s.raw.key.Pos.File).
				Hintf("write %s in the route, with replace: true or off where the service's own shall not count", kind.Key)
		}
	}
	return false
}

func (l *loader) needsBackend(b *binding) {
	r := b.route
	if len(r.route.Backends) > 0 || r.broken || len(b.bound.broken) > 0 || b.bound.Answers() {
		return
	}
	sends := []string{"backends"}
	misspelt := func(key *Node) bool { return nearest(key.Text, sends) != "" || translated(key.Text, sends) != "" }
	if slices.ContainsFunc(r.raw.value.Keys, misspelt) {
		return // told as an unknown key
	}
	what := "requests"
	if r.route.Layer4 {
		what = "connections"
	}
	l.report(r.raw.value, "", false, "the route sends %s nowhere", what).suspect(b.gateway.raw.key.Pos.File).
		Hintf("name a service: backends: {orders: 1}")
}
