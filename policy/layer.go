package policy

import (
	"cmp"
	"iter"
	"reflect"
	"slices"
	"strings"
)

// layer is the settings of one entry as written.
type layer struct {
	node *Node
	sets []written // sorted by key
}

// written is one setting as it stands in one entry.
type written struct {
	kind    *Kind
	node    *Node
	setting Setting
	ok      bool
}

// reaches is the other keys that the setting has something to say about, each with where it does.
func (w *written) reaches() iter.Seq2[string, string] {
	if r, ok := w.setting.(Reacher); ok && w.ok {
		return r.Reaches()
	}
	return func(func(string, string) bool) {}
}

func (y *layer) get(k *Kind) *written {
	i, ok := slices.BinarySearchFunc(y.sets, k.Key, func(w written, key string) int { return strings.Compare(w.kind.Key, key) })
	if !ok || y.sets[i].kind != k { // another kind may have the key in another place
		return nil
	}
	return &y.sets[i]
}

// layer reads the entry that stands at n: its own keys into the struct that into points to, and the settings that may
// stand at place into e.
func (l *loader) layer(e *Entry, n *Node, into any, place Place) layer {
	out := layer{node: n}
	if l.full(n.Pos.File) {
		l.errs++
		return out
	}
	d := &Decode{load: l}
	v := reflect.ValueOf(into).Elem()
	d.structure(n, v, func(key, value *Node) {
		kind := l.lang.at(key.Text, place)
		if kind == nil {
			l.misplaced(d, key, place, fieldsOf(v.Type()).names)
			return
		}
		out.sets = append(out.sets, l.write(kind, value, place))
	})
	slices.SortFunc(out.sets, func(a, b written) int { return strings.Compare(a.kind.Key, b.kind.Key) })
	e.Settings = l.settings(e, out.sets, place)
	return out
}

func (l *loader) misplaced(d *Decode, key *Node, place Place, names []string) {
	elsewhere := l.lang.places(key.Text)
	if elsewhere == 0 {
		d.Unknown(key, append(slices.Clone(names), l.lang.keysOf(place)...))
		return
	}
	p := l.reportKey(key, "%s can't stand here", quote(key.Text))
	p.Hint = cmp.Or(translated(key.Text, l.lang.keysOf(place)), "it stands "+elsewhere.where())
}

// write decodes one setting.
func (l *loader) write(kind *Kind, n *Node, place Place) written {
	w := written{kind: kind, node: n}
	mergeable := place&Layers != 0 && kind.Places&InRoute != 0
	off := mergeable && n.Off()
	if off && !kind.Switched {
		w.ok = true
		return w
	}
	w.setting = kind.New()
	d := &Decode{load: l, layer: mergeable && !kind.Stacked && !off}
	w.ok = d.Decode(n, w.setting)
	return w
}

// settings gives the sets of an entry as written, and queues their checks.
func (l *loader) settings(e *Entry, sets []written, place Place) Settings {
	var settings Settings
	var broken []string
	for _, w := range sets {
		if !w.ok {
			broken = append(broken, w.kind.Key)
		}
	}
	for _, w := range sets {
		if !w.ok || w.setting == nil {
			continue
		}
		set := Set{Kind: w.kind, Setting: w.setting, Node: w.node, Layer: Layer{place, e.Name}}
		settings = append(settings, set)
		c := &Check{set: set, place: place, entry: e, broken: broken}
		l.queue(c)
		if of, ok := w.setting.(RouteChecker); ok {
			last := *c
			last.look, last.rank = of.CheckRoutes, ofRouteCheckers
			l.last = append(l.last, &last)
		}
	}
	return settings
}

// keysOf names the kinds that may stand at place.
func (l *Language) keysOf(place Place) []string {
	var keys []string
	for _, k := range l.kinds {
		if k.Places&place != 0 {
			keys = append(keys, k.Key)
		}
	}
	return slices.Compact(keys)
}

var placeWords = []struct {
	place Place
	words string
}{
	{InGateway, "gateways.NAME"},
	{InListener, "gateways.NAME.listeners.NAME"},
	{InDefaults, "gateways.NAME.defaults"},
	{InService, "services.NAME"},
	{InRoute, "routes.NAME"},
	{InAuth, "auth.NAME"},
	{InConsumer, "consumers.NAME"},
	{InPlan, "plans.NAME"},
	{InDomain, "rateLimits.NAME"},
}

// Names is where a key may stand: services.NAME.
func (p Place) Names() []string {
	var words []string
	for _, w := range placeWords {
		if p&w.place != 0 {
			words = append(words, w.words)
		}
	}
	return words
}

// where says in words where a key may stand.
func (p Place) where() string {
	words := p.Names()
	if len(words) == 1 {
		return "in " + words[0]
	}
	return "in " + strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
