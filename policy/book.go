package policy

import (
	"maps"
	"slices"
	"strings"
)

// book is what the parts of a load have looked up, all together.
type book struct {
	files   map[string]int           // how often each file was read
	names   map[Target]int           // how often a service or a route was referred to by its name
	secrets map[string][]Pos         // where each secret is referred to, by its ID
	steps   int                      // of all checks
	always  map[*Check]bool          // to be run again in each load: they told something, or looked at the whole model
	users   map[string][]*routeLayer // the routes that send to a service, by its name
}

// newBook opens the book of a load that was good.
func newBook(l *loader) *book {
	b := &book{
		files: make(map[string]int), names: make(map[Target]int), secrets: make(map[string][]Pos), always: make(map[*Check]bool), users: make(map[string][]*routeLayer),
	}
	b.add(l.common.met)
	for _, s := range l.services {
		b.add(s.unit.met)
	}
	for _, r := range l.routesInTurn() {
		b.enter(r)
		for _, of := range r.bound {
			for _, m := range of.merged {
				b.use(m)
			}
		}
	}
	for _, c := range l.ran {
		b.retain(c)
	}
	return b
}

// enter notes a route and its use of services.
func (b *book) enter(r *routeLayer) {
	b.add(r.unit.met)
	for _, of := range r.bound {
		b.add(of.unit.met)
	}
	for _, to := range r.route.Backends {
		b.users[to.Service.Name] = append(b.users[to.Service.Name], r)
	}
}

// leave takes back what enter has noted.
func (b *book) leave(r *routeLayer) {
	b.drop(r.unit.met)
	for _, of := range r.bound {
		b.drop(of.unit.met)
	}
	for _, to := range r.route.Backends {
		b.users[to.Service.Name] = without(b.users[to.Service.Name], r)
		if len(b.users[to.Service.Name]) == 0 {
			delete(b.users, to.Service.Name)
		}
	}
}

// without takes one item out of a list whose order does not matter.
func without[T comparable](list []T, item T) []T {
	i := slices.Index(list, item)
	if i < 0 {
		return list
	}
	last := len(list) - 1
	list[i] = list[last]
	clear(list[last:])
	return list[:last]
}

func (b *book) add(m *met) {
	if m == nil {
		return
	}
	for _, name := range m.files {
		b.files[name]++
	}
	for _, t := range m.names {
		b.names[t]++
	}
	for _, s := range m.secrets {
		b.secrets[s.id] = append(b.secrets[s.id], s.pos)
	}
	b.steps += m.steps
}

// drop takes back what add has noted.
func (b *book) drop(m *met) {
	if m == nil {
		return
	}
	for _, name := range m.files {
		if b.files[name]--; b.files[name] == 0 {
			delete(b.files, name)
		}
	}
	for _, t := range m.names {
		if b.names[t]--; b.names[t] == 0 {
			delete(b.names, t)
		}
	}
	for _, s := range m.secrets {
		if b.secrets[s.id] = without(b.secrets[s.id], s.pos); len(b.secrets[s.id]) == 0 {
			delete(b.secrets, s.id)
		}
	}
	b.steps -= m.steps
}

// use notes that a route has a merged setting; it tells whether it is the first one.
func (b *book) use(m *mergedSet) bool {
	m.uses++
	if m.uses == 1 {
		b.add(m.met)
	}
	return m.uses == 1
}

// disuse takes back what use has noted; it tells whether nobody has the setting any more.
func (b *book) disuse(m *mergedSet) bool {
	m.uses--
	if m.uses == 0 {
		b.drop(m.met)
	}
	return m.uses == 0
}

// retain keeps a check that told or met something.
func (b *book) retain(c *Check) {
	c.unit.kept = append(c.unit.kept, c)
	b.add(c.met)
	if c.told || c.met != nil && c.met.whole {
		b.always[c] = true
	}
	if c.met != nil {
		for _, h := range c.met.hosts {
			h.askedBy = append(h.askedBy, c)
		}
	}
}

// forget takes back what retain has noted.
func (b *book) forget(c *Check) {
	c.unit.kept = without(c.unit.kept, c)
	b.drop(c.met)
	delete(b.always, c)
	if c.met != nil {
		for _, h := range c.met.hosts {
			h.askedBy = without(h.askedBy, c)
		}
	}
}

// secretsOf gives the secrets that are referred to, by their ID. Those of the vault that nobody refers to leave it, and
// one that stands elsewhere now is another one.
func (b *book) secretsOf(v vault) []*Secret {
	var all []*Secret
	for id, h := range v {
		places := b.secrets[id]
		if len(places) == 0 {
			delete(v, id)
			continue
		}
		if at := slices.MinFunc(places, Pos.compare); h.secret.Pos != at {
			moved, secret := *h, *h.secret
			secret.Pos = at
			moved.secret = &secret
			h = &moved
			v[id] = h
		}
		all = append(all, h.secret)
	}
	slices.SortFunc(all, func(a, b *Secret) int { return strings.Compare(a.ID(), b.ID()) })
	return all
}

func (b *book) fileNames() []string { return slices.Sorted(maps.Keys(b.files)) }
