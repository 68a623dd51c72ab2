package policy

import "fmt"

// Bounds of what a policy comes to: a few lines can stand for any number of listeners, routes and clusters otherwise.
const (
	// maxSpread is how much the settings of routes may say together, in bytes, where each route of each gateway has its own
	// copy of what its layers say.
	maxSpread = 128 << 20
	// maxTables is the same where each copy counts once for each hostname and listener of its route, as in Envoy's tables.
	maxTables = 512 << 20
	// maxAllPlaces is [maxPlaces] over all gateways.
	maxAllPlaces = 1_000_000
	// maxAllListeners is how many listeners all gateways and sidecars may have.
	maxAllListeners = 5_000
	// nodeSize is what a value of a setting counts besides its text, in bytes.
	nodeSize = 64
)

// bulk is what the routes of all gateways come to.
type bulk struct {
	places         int // in tables
	copies, tables int // bytes
}

// tooMuch tells whether that is more than anybody can mean.
func (b bulk) tooMuch() bool {
	return b.places > maxAllPlaces || b.copies > maxSpread || b.tables > maxTables
}

// spread finds out what the routes of a policy come to.
type spread struct {
	bulk
	load      *loader
	listeners int
	sizes     map[*Node]int // of what was written or merged
}

// spread refuses a policy that comes to more than anybody can mean, before its routes are looked at one by one. It tells
// whether that may be done.
func (l *loader) spread() bool {
	s := spread{load: l, sizes: make(map[*Node]int)}
	for _, g := range l.model.Gateways {
		if s.listeners += len(g.Listeners); s.listeners > maxAllListeners {
			s.refuse(g.Entry, "more than %d listeners of all gateways and sidecars", maxAllListeners)
			return false
		}
		for _, r := range l.model.Bound[g] {
			if !s.route(g, r) {
				return false
			}
		}
	}
	l.bulk = s.bulk
	return true
}

// count adds a route of a gateway, or takes it away again.
func (s *spread) count(g *Gateway, r *BoundRoute, by int) {
	places := placesOf(g, r)
	s.places += by * places
	for _, set := range r.Settings {
		size := by * s.size(set.Node)
		s.copies += size
		s.tables += size * places
	}
}

// placesOf is how often a route stands in the tables of a gateway.
func placesOf(g *Gateway, r *BoundRoute) int {
	on := 0
	for _, at := range g.Listeners {
		on += count01(r.On(at))
	}
	return on * max(1, len(r.Hostnames))
}

// route adds a route of a gateway.
func (s *spread) route(g *Gateway, r *BoundRoute) bool {
	places := placesOf(g, r)
	if s.places += places; s.places > maxAllPlaces {
		s.refuse(r.Entry, "the routes of all gateways stand in their tables more than %d times: once for each hostname, listener and gateway",
			maxAllPlaces).Hintf("have fewer hostnames, listeners or gateways in each route")
		return false
	}
	for _, set := range r.Settings {
		size := s.size(set.Node)
		s.copies += size
		s.tables += size * places
		what, most := "each route that has it", maxSpread
		if s.tables > maxTables {
			what, most = "each hostname and listener of each route that has it", maxTables
		}
		if s.copies > maxSpread || s.tables > maxTables {
			s.load.report(set.Node, "", false, "what the settings of routes say comes to more than %d MiB: this here stands in Envoy once for %s", most>>20, what).
				suspect(g.Pos.File, r.Pos.File).Hintf("say less here, or for fewer routes")
			return false
		}
	}
	return true
}

// refuse reports at an entry, which may be one that a sidecar was expanded to.
func (s *spread) refuse(e Entry, format string, args ...any) *Problem {
	return s.load.add(&Problem{Pos: e.Pos, Path: e.Node.Path(), Message: fmt.Sprintf(format, args...)})
}

// size is what a tree says, in bytes.
func (s *spread) size(n *Node) int {
	if n == nil {
		return 0
	}
	size, known := s.sizes[n]
	if known {
		return size
	}
	size = nodeSize + len(n.Text)
	for _, k := range n.Keys {
		size += len(k.Text)
	}
	for _, item := range n.Items {
		size += s.size(item)
	}
	s.sizes[n] = size
	return size
}
