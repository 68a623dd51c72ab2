package policy

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
)

// renewal is a load that goes on from the last good one, base: of files of which few differ. Only routes and services may
// differ; it gives up where anything else does, or where anything is wrong, so that a whole load tells of it.
//
// A service is done again when something differs in its section of its file, or in a file that it reads. A route is when
// something differs in its section of its file, or a service that it sends to is done again. A check is run again when
// its entry is done again or, for a merged setting, its route; when it had something to tell, since what several checks
// tell is joined; and when it looked at something that differs. Everything else is as it was: what routes and services
// have around them is the same, and a check has no other way to look beyond its own entry, or route with its gateway and
// services, than those that are noted in [met].
//
// Nothing of base is changed before all is well.
type renewal struct {
	*loader
	base     *loader
	changed  map[string]bool   // files
	services map[string]bool   // by name, that are done again or are gone
	routes   map[string]bool   // the same
	dropped  map[*unit]bool    // of base
	again    map[*Check]*Check // of base, and what is run in their place
	rebound  []*rebound        // the gateways whose routes differ
	rehosted []*host           // as they were, where their routes differ
	moved    map[*host]*host   // those whose routes are others that look the same, and what takes their place
}

// renew loads files that differ little from those of base; nil where that can't be told to be good.
func (base *loader) renew(lang *Language, files Files, kept map[string]*Secret, known trees) *loader {
	changed, ok := base.changes(files)
	if !ok {
		return nil
	}
	l := lang.begin(files, kept)
	for _, h := range base.vault {
		if !l.still(h) {
			return nil
		}
	}
	if len(changed) == 0 {
		base.files = files
		return base
	}
	if l.values = base.values + base.moreValues(files, changed); l.values > maxAllValues {
		return nil
	}
	l.number = base.number + 1
	l.base, l.gateways, l.common, l.early = base, base.gateways, base.common, base.early
	l.model.Common, l.once, l.vault = base.model.Common, maps.Clone(base.once), maps.Clone(base.vault)
	l.steps, l.endpointsTold = base.book.steps, base.endpointsTold
	l.worked, l.spent = maps.Clone(base.worked), maps.Clone(base.spent) // of what is gone as well: a whole load tells
	r := &renewal{
		loader: l, base: base, changed: changed,
		services: make(map[string]bool), routes: make(map[string]bool),
		dropped: make(map[*unit]bool), again: make(map[*Check]*Check),
	}
	if !r.regather(known) || !r.spread() || !r.redecode() || !r.rebind() || l.unit.met != nil {
		return nil
	}
	r.commit()
	return l
}

// changes finds the files that differ, of those that count; false where they can't be right.
func (base *loader) changes(files Files) (map[string]bool, bool) {
	changed := make(map[string]bool)
	total, number, same := 0, 0, 0
	for name, content := range files {
		total += len(content)
		if IsPolicy(name) {
			number++
		}
		was, had := base.files[name]
		if had {
			same++
		}
		if !had || !bytes.Equal(was, content) {
			changed[name] = true
		}
	}
	if same < len(base.files) {
		for name := range base.files {
			if _, there := files[name]; !there {
				changed[name] = true
			}
		}
	}
	for name := range changed {
		if !IsPolicy(name) && base.book.files[name] == 0 {
			delete(changed, name)
		}
	}
	return changed, number > 0 && number <= MaxFiles && total <= MaxTotal
}

// moreValues is about how many values more there are in the files that changed.
func (base *loader) moreValues(files Files, changed map[string]bool) (n int) {
	for name := range changed {
		if IsPolicy(name) {
			n += separators(files[name]) - separators(base.files[name])
		}
	}
	return n
}

// regather takes the entries of the files that differ.
func (r *renewal) regather(known trees) bool {
	r.stage = shaping
	var names, there []string
	for _, name := range slices.Sorted(maps.Keys(r.changed)) {
		if !IsPolicy(name) {
			continue
		}
		names = append(names, name)
		if _, ok := r.files[name]; ok {
			there = append(there, name)
		}
	}
	for _, file := range known.parse(r.files, there) {
		if len(file.problems) > 0 || file.unreadable {
			return false
		}
		for _, root := range file.roots {
			r.gather(root)
		}
	}
	if r.errs > 0 {
		return false
	}
	for _, name := range names {
		if !r.compare(name) {
			return false
		}
	}
	return r.settleNames("services", r.services) && r.settleNames("routes", r.routes)
}

// compare notes what differs in a file, and takes what does not from base. Only of services and routes some may differ.
func (r *renewal) compare(file string) bool {
	was, is := r.base.blocks[file], r.blocks[file]
	if is == nil {
		is = make(block)
		r.blocks[file] = is
	}
	for _, section := range sections {
		kept := keep(was[section], is[section])
		redo := map[string]map[string]bool{"services": r.services, "routes": r.routes}[section]
		for i, e := range is[section] {
			if k := kept[e.key.Text]; k != nil {
				delete(r.raw[section], e.key.Text)
				is[section][i] = k
			} else if redo == nil {
				return false
			} else {
				redo[e.key.Text] = true
			}
		}
		for _, e := range was[section] {
			if kept[e.key.Text] != nil {
				continue
			}
			if redo == nil {
				return false
			}
			redo[e.key.Text] = true
		}
	}
	return true
}

// maxLoads is how many loads the entries of a section of a file may be from, so that few versions of a file are kept in
// memory.
const maxLoads = 3

// keep finds the entries of a section that stand in a file as they did before, by name.
func keep(before, after []*rawEntry) map[string]*rawEntry {
	known := make(map[string]*rawEntry, len(before))
	for _, e := range before {
		known[e.key.Text] = e
	}
	kept := make(map[string]*rawEntry, len(before))
	loads := make(map[int]bool)
	for _, e := range after {
		if k := known[e.key.Text]; k != nil && k.same(e) {
			kept[e.key.Text] = k
			loads[k.load] = true
		}
	}
	if len(kept) < len(after) && len(loads) >= maxLoads {
		return nil
	}
	return kept
}

// settleNames tells the entries that are gone from those that are there; false where one is there twice.
func (r *renewal) settleNames(section string, redo map[string]bool) bool {
	if r.raw[section] == nil {
		r.raw[section] = make(map[string]*rawEntry)
	}
	before := make(map[string]bool) // in the files that differ
	for file := range r.changed {
		for _, e := range r.base.blocks[file][section] {
			before[e.key.Text] = true
		}
	}
	for name := range redo {
		switch e := r.raw[section][name]; {
		case e == nil:
			r.raw[section][name] = nil
		case r.base.raw[section][name] != nil && !before[name]:
			return false
		}
	}
	return true
}

func (e *rawEntry) same(o *rawEntry) bool { return e.key.same(o.key) && e.value.same(o.value) }

// same compares what two trees say, and where.
func (n *Node) same(o *Node) bool {
	if n == o {
		return true
	}
	return n.Kind == o.Kind && n.Quoted == o.Quoted && n.Text == o.Text && n.Pos == o.Pos &&
		slices.EqualFunc(n.Keys, o.Keys, (*Node).same) && slices.EqualFunc(n.Items, o.Items, (*Node).same)
}

// spread finds what else has to be done again; false where that is more than routes and services.
func (r *renewal) spread() bool {
	if !r.readers() {
		return false
	}
	for name := range r.services {
		if r.base.raw["sidecars"][name] != nil {
			return false
		}
		for _, user := range r.base.book.users[name] {
			if user.unit.name == "" {
				return false // a sidecar expands to it
			}
			r.routes[user.unit.name] = true
		}
	}
	for name := range r.services {
		if s := r.base.services[name]; s != nil {
			r.drop(&s.unit)
			r.endpointsTold -= len(s.service.Endpoints)
		}
	}
	for name := range r.routes {
		if route := r.base.routes[name]; route != nil {
			r.drop(&route.unit)
			for _, b := range route.bound {
				r.drop(&b.unit)
			}
		}
	}
	return !r.missed()
}

func (r *renewal) drop(u *unit) {
	r.dropped[u] = true
	for _, c := range u.kept {
		r.undo(c)
	}
}

// undo takes back the steps of a check that is run again or not at all.
func (r *renewal) undo(c *Check) {
	if c.met != nil {
		r.steps -= c.met.steps
	}
}

// readers finds the services that read files which differ; false where others read them, too.
func (r *renewal) readers() bool {
	for file := range r.changed {
		readers := r.base.book.files[file]
		if readers == 0 {
			continue
		}
		for name, s := range r.base.services {
			if s.unit.met == nil {
				continue
			}
			for _, read := range s.unit.met.files {
				if read == file {
					readers--
					r.services[name] = true
				}
			}
		}
		if readers > 0 {
			return false
		}
	}
	return true
}

// missed tells whether something that is not done again refers to an entry that is gone.
func (r *renewal) missed() bool {
	gone := make(map[Target]int) // with how often what is done again refers to it
	for section, redo := range map[string]map[string]bool{"services": r.services, "routes": r.routes} {
		for name := range redo {
			if r.entry(section, name) == nil {
				gone[Target{section, name}] = 0
			}
		}
	}
	count := func(m *met) {
		if m == nil {
			return
		}
		for _, t := range m.names {
			if n, ok := gone[t]; ok {
				gone[t] = n + 1
			}
		}
	}
	for u := range r.dropped {
		count(u.met)
		for _, c := range u.kept {
			count(c.met)
		}
	}
	for t, n := range gone {
		if r.base.book.names[t] > n {
			return true
		}
	}
	return false
}

// redecode reads the entries that differ, and runs their checks.
func (r *renewal) redecode() bool {
	r.stage = decoding
	for _, p := range r.early {
		r.add(p.clone())
	}
	var services exchange[*Service]
	for _, name := range slices.Sorted(maps.Keys(r.services)) {
		if was := r.base.services[name]; was != nil {
			services.out = append(services.out, was.service)
		}
		if e := r.entry("services", name); e != nil {
			services.in = append(services.in, r.nameService(e).service)
		} else {
			r.loader.services[name] = nil
		}
	}
	var routes exchange[*Route]
	for _, name := range slices.Sorted(maps.Keys(r.routes)) {
		if was := r.base.routes[name]; was != nil {
			routes.out = append(routes.out, was.route)
		}
		if e := r.entry("routes", name); e != nil {
			routes.in = append(routes.in, r.nameRoute(e).route)
		} else {
			r.loader.routes[name] = nil
		}
	}
	r.model.Services = services.of(r.base.model.Services, func(a, b *Service) int { return cmp.Compare(a.Name, b.Name) })
	r.model.Routes = routes.of(r.base.model.Routes, func(a, b *Route) int { return cmp.Compare(a.Name, b.Name) })
	for _, s := range services.in {
		of := r.loader.services[s.Name]
		r.within(&of.unit, func() { r.decodeService(of) })
	}
	for _, s := range routes.in {
		of := r.loader.routes[s.Name]
		r.within(&of.unit, func() { r.decodeRoute(of) })
	}
	return r.errs == 0 && r.recheck(func(of rank) bool { return of < ofBound })
}

// recheck runs the checks of these ranks: those of what is done again, and those that are run in each load.
func (r *renewal) recheck(turn func(rank) bool) bool {
	for c := range r.base.book.always {
		if turn(c.rank) {
			r.rerun(c)
		}
	}
	if turn(ofRouteCheckers) {
		r.checks = append(r.checks, r.last...)
	}
	slices.SortFunc(r.checks, inTurn)
	r.runAll()
	return r.errs == 0 && !r.odd && r.steps <= maxSteps
}

// rerun queues a check of base, unless it is queued already or its unit is done again.
func (r *renewal) rerun(c *Check) {
	if r.dropped[c.unit] || r.again[c] != nil {
		return
	}
	r.again[c] = c.again()
	r.undo(c)
	r.checks = append(r.checks, r.again[c])
}

// exchange is items of a sorted list that go and others that come, both sorted.
type exchange[T any] struct{ out, in []T }

// of gives the list after the exchange. No two items of a list are equal.
func (x exchange[T]) of(list []T, compare func(a, b T) int) []T {
	next := make([]T, 0, len(list)-len(x.out)+len(x.in))
	for len(x.out)+len(x.in) > 0 {
		if len(x.out) == 0 || len(x.in) > 0 && compare(x.in[0], x.out[0]) <= 0 {
			i, _ := slices.BinarySearchFunc(list, x.in[0], compare)
			next = append(append(next, list[:i]...), x.in[0])
			list, x.in = list[i:], x.in[1:]
		} else {
			i, _ := slices.BinarySearchFunc(list, x.out[0], compare)
			next = append(next, list[:i]...)
			list, x.out = list[i+1:], x.out[1:]
		}
	}
	return append(next, list...)
}
