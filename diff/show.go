package diff

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/legation/legation/policy"
)

// Shown is an entry by itself: what it comes to.
type Shown struct {
	Kind     string      `json:"kind"` // route, service, gateway or sidecar
	Name     string      `json:"name"`
	At       policy.Pos  `json:"at"`
	Settings []Effective `json:"settings"`
}

// Effective is one value that holds, and where it is written.
type Effective struct {
	Gateway string     `json:"gateway,omitempty"` // of a route's settings: the gateway that they hold at
	Path    string     `json:"path"`              // timeouts.request
	Text    string     `json:"text"`
	Hidden  bool       `json:"hidden,omitempty"` // some or all of it: it may hold a secret
	Layer   string     `json:"layer,omitempty"`  // of a route's settings: gateway/edge, service/orders or route/orders
	Locked  bool       `json:"locked,omitempty"` // the gateway's defaults forbid services and routes to write the key
	At      policy.Pos `json:"at"`
}

// Route tells what a route comes to: its own fields, and at each of its gateways the settings once all layers are merged.
func Route(m *policy.Model, name string) (*Shown, bool) {
	i := slices.IndexFunc(m.Routes, func(r *policy.Route) bool { return r.Name == name })
	if i < 0 {
		return nil, false
	}
	r := newReader()
	route := m.Routes[i]
	s := &Shown{Kind: "route", Name: name, At: route.Pos, Settings: effective("", r.route(route).leaves)}
	for _, g := range m.Gateways {
		for _, bound := range m.Bound[g] {
			if bound.Name == name {
				s.Settings = append(s.Settings, r.bound(bound)...)
			}
		}
	}
	return s, true
}

// bound is the settings of a route at a gateway, each with the layer that wrote it.
func (r *reader) bound(b *policy.BoundRoute) []Effective {
	v := &view{leaves: make(map[string]leaf), settings: b.Settings}
	r.settings(v, b.Name)
	layers := make(map[policy.Pos]string)
	from := func(settings policy.Settings, layer policy.Layer) {
		for _, set := range settings {
			for _, l := range r.leaves(set.Kind.Key, set.Node) {
				layers[l.at] = layer.String()
			}
		}
	}
	off := func(n *policy.Node, layer policy.Layer) {
		if n == nil {
			return
		}
		for i, key := range n.Keys {
			if value := n.Items[i]; value.Off() && !b.Settings.Has(key.Text) && v.leaves[key.Text].absent() {
				v.put(key.Text, "off", value.Pos)
				layers[value.Pos] = layer.String()
			}
		}
	}
	inner := policy.Layer{Place: policy.InRoute, Name: b.Name}
	from(b.Route.Settings, inner)
	off(b.Node, inner)
	for _, backend := range b.Backends {
		service := policy.Layer{Place: policy.InService, Name: backend.Service.Name}
		from(backend.Service.Settings, service)
		off(backend.Service.Node, service)
	}
	outer := policy.Layer{Place: policy.InDefaults, Name: b.Gateway.Name}
	from(b.Gateway.Defaults, outer)
	off(b.Gateway.Node.Get("defaults"), outer)
	all := effective("", v.leaves)
	for i := range all {
		all[i].Gateway, all[i].Layer = b.Gateway.Name, cmp.Or(all[i].Layer, layers[all[i].At])
	}
	lock(all, "", b.Gateway)
	return all
}

// lock marks what is written under keys that the defaults of a gateway lock.
func lock(all []Effective, prefix string, g *policy.Gateway) {
	locked := g.Node.Get("defaults").Get("locked")
	if locked == nil {
		return
	}
	for i := range all {
		key, below := strings.CutPrefix(all[i].Path, prefix)
		if end := strings.IndexAny(key, ".["); end >= 0 {
			key = key[:end]
		}
		all[i].Locked = below && slices.ContainsFunc(locked.Items, func(n *policy.Node) bool { return n.Text == key })
	}
}

// Service tells what a service comes to by itself. Those of its settings that are a layer of routes may hold otherwise there.
func Service(m *policy.Model, name string) (*Shown, bool) {
	i := slices.IndexFunc(m.Services, func(s *policy.Service) bool { return s.Name == name })
	if i < 0 {
		return nil, false
	}
	s := m.Services[i]
	return &Shown{Kind: "service", Name: name, At: s.Pos, Settings: effective("", newReader().service(s).leaves)}, true
}

// Gateway tells what a gateway or a sidecar comes to: its own settings, its listeners, and what it gives to its routes.
func Gateway(m *policy.Model, name string) (*Shown, bool) {
	i := slices.IndexFunc(m.Gateways, func(g *policy.Gateway) bool { return g.Name == name })
	if i < 0 {
		return nil, false
	}
	r, g := newReader(), m.Gateways[i]
	s := &Shown{Kind: "gateway", Name: name, At: g.Pos}
	if g.Sidecar {
		s.Kind = "sidecar"
	}
	s.Settings = effective("", r.gateway(g).leaves)
	for _, l := range g.Listeners {
		s.Settings = append(s.Settings, effective("listeners."+l.Name+".", r.listener(l).leaves)...)
	}
	defaults := &view{leaves: make(map[string]leaf), settings: g.Defaults}
	r.settings(defaults, "")
	s.Settings = append(s.Settings, effective("defaults.", defaults.leaves)...)
	for i := range s.Settings {
		s.Settings[i].Layer = "" // the gateway itself
	}
	lock(s.Settings, "defaults.", g)
	return s, true
}

// effective is leaves by their keys; those of settings that hold beside each other by their layers, the route's own last.
func effective(prefix string, leaves map[string]leaf) []Effective {
	all := make([]Effective, 0, len(leaves))
	for path, l := range leaves {
		path, layer, _ := strings.Cut(path, " of ")
		all = append(all, Effective{Path: prefix + path, Text: l.shown, Hidden: l.hidden, Layer: layer, At: l.at})
	}
	key := func(e Effective) string {
		if end := strings.IndexAny(e.Path[len(prefix):], ".["); end >= 0 {
			return e.Path[:len(prefix)+end]
		}
		return e.Path
	}
	own := func(e Effective) int {
		if e.Layer == "" {
			return 1
		}
		return 0
	}
	slices.SortFunc(all, func(a, b Effective) int {
		return cmp.Or(cmp.Compare(key(a), key(b)), cmp.Compare(own(a), own(b)), cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Path, b.Path))
	})
	return all
}

// mostValue is how many columns a value takes before its place no longer stands below the others.
const mostValue = 48

// Write shows an entry to people, a line for each value.
func (s *Shown) Write(w io.Writer, colour bool) error {
	var out bytes.Buffer
	p := printer{out: &out, colour: colour}
	fmt.Fprintf(&out, "%s  %s\n", p.paint("1", s.Kind+" "+printable(s.Name)), p.paint("2", s.At.String()))
	paths, values, layers := 0, 0, 0
	for _, e := range s.Settings {
		paths, layers = max(paths, utf8.RuneCountInString(printable(e.Path))), max(layers, len(e.Layer))
		if n := utf8.RuneCountInString(e.words()); n <= mostValue {
			values = max(values, n)
		}
	}
	gateway := ""
	for _, e := range s.Settings {
		if e.Gateway != gateway {
			gateway = e.Gateway
			p.title("at gateway " + gateway)
		}
		fmt.Fprintf(&out, "  %-*s  %-*s  ", paths, printable(e.Path), values, e.words())
		if e.Layer != "" {
			fmt.Fprintf(&out, "%-*s  ", layers, e.Layer)
		}
		at := p.paint("2", e.At.String())
		if e.Locked {
			at += "  locked"
		}
		fmt.Fprintln(&out, at)
	}
	_, err := w.Write(out.Bytes())
	return err
}

func (e Effective) words() string { return (&Value{Text: e.Text, Hidden: e.Hidden}).words() }
