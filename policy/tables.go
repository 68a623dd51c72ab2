package policy

// tables is what the routes of a gateway come to together, as they are counted one by one.
type tables struct {
	unnamed int            // listeners that serve the routes that name none
	places  int            // see maxPlaces
	named   map[string]int // routes that name a listener
	sources map[string]int // ranges that the routes of a host ask for, by hostname: one that several ask for counts for each
}

func newTables(g *Gateway) tables {
	t := tables{named: make(map[string]int), sources: make(map[string]int)}
	for _, at := range g.Listeners {
		t.unnamed += count01((&Route{}).On(at))
	}
	return t
}

// count adds a route, or takes it away again.
func (t *tables) count(r *BoundRoute, by int) {
	on := len(r.Listeners)
	if on == 0 {
		on = t.unnamed
	}
	t.places += by * on * len(r.Hostnames)
	for _, name := range r.Listeners {
		t.named[name] += by
	}
	for _, h := range r.Hostnames {
		if n := by * len(r.Match.Source); n != 0 {
			t.sources[h] += n
		}
	}
}
