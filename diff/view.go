package diff

import (
	"fmt"
	"strings"

	"github.com/legation/legation/policy"
)

// kind is what an entry is. The order is that in which people are told.
type kind uint8

const (
	gateway kind = iota
	sidecar
	listener
	service
	route
	setting // the settings of a route at a gateway, with those of all layers
	auth
	consumer
	plan
	domain
)

// String is the word for entries that come and go; "" for what comes and goes with a route.
func (k kind) String() string {
	if k == setting {
		return ""
	}
	return k.what()
}

func (k kind) what() string {
	return []string{"gateway", "sidecar", "listener", "service", "route", "route", "auth", "consumer", "plan", "domain"}[k]
}

// key names an entry.
type key struct {
	kind    kind
	name    string
	gateway string // of settings
}

// view is an entry as it is compared: the leaves of what it comes to, by their paths.
type view struct {
	at       policy.Pos
	leaves   map[string]leaf
	settings policy.Settings
	gateways []string // of settings: all that the route stands at
}

// views reads all entries of a policy.
func (r *reader) views(m *policy.Model) map[key]*view {
	all := make(map[key]*view)
	for _, g := range m.Gateways {
		k := gateway
		if g.Sidecar {
			k = sidecar
		}
		all[key{kind: k, name: g.Name}] = r.gateway(g)
		for _, l := range g.Listeners {
			all[key{kind: listener, name: g.Name + "/" + l.Name}] = r.listener(l)
		}
		for _, b := range m.Bound[g] {
			v := &view{at: b.Pos, leaves: make(map[string]leaf), settings: b.Settings, gateways: b.Gateways}
			r.settings(v, b.Name)
			all[key{setting, b.Name, g.Name}] = v
		}
	}
	for _, s := range m.Services {
		all[key{kind: service, name: s.Name}] = r.service(s)
	}
	for _, one := range m.Routes {
		all[key{kind: route, name: one.Name}] = r.route(one)
	}
	for _, a := range m.Auth {
		all[key{kind: auth, name: a.Name}] = r.view(&a.Entry)
	}
	for _, c := range m.Consumers {
		all[key{kind: consumer, name: c.Name}] = r.view(&c.Entry)
	}
	for _, p := range m.Plans {
		all[key{kind: plan, name: p.Name}] = r.view(&p.Entry)
	}
	for _, d := range m.Domains {
		all[key{kind: domain, name: d.Name}] = r.view(&d.Entry)
	}
	return all
}

// view is an entry that is its settings.
func (r *reader) view(e *policy.Entry) *view {
	v := &view{at: e.Pos, leaves: make(map[string]leaf), settings: e.Settings}
	r.settings(v, e.Name)
	return v
}

// settings adds the leaves of the settings. Those of the layers that hold beside each other are told apart by their layer.
func (r *reader) settings(v *view, owner string) {
	for _, s := range v.settings {
		suffix := ""
		if s.Kind.Stacked && s.Layer != (policy.Layer{Place: policy.InRoute, Name: owner}) {
			suffix = " of " + s.Layer.String()
		}
		for _, l := range r.leaves(s.Kind.Key, s.Node) {
			l.path += suffix
			v.add(l)
		}
	}
}

// listed renames the leaves of settings that stand without a list here, and with one in the other: rateLimit: {…} is the
// same as a list of it.
func (v *view) listed(other *view) {
	type written struct{ key, layer string }
	lists := make(map[written]bool)
	for path := range other.leaves {
		path, layer, _ := strings.Cut(path, " of ")
		if key, _, ok := strings.Cut(path, "[0]."); ok && !strings.Contains(key, ".") {
			lists[written{key, layer}] = true
		}
	}
	for path, l := range v.leaves {
		_, layer, _ := strings.Cut(path, " of ")
		if key, rest, ok := strings.Cut(path, "."); ok && lists[written{key, layer}] {
			delete(v.leaves, path)
			l.path = key + "[0]." + rest
			v.add(l)
		}
	}
}

func (v *view) add(all ...leaf) {
	for _, l := range all {
		v.leaves[l.path] = l
	}
}

// put adds a leaf of the model's own.
func (v *view) put(path, text string, at policy.Pos) {
	v.add(leaf{path: path, text: text, shown: text, at: at})
}

// at is where a key of an entry stands, or else the entry.
func at(e *policy.Entry, path ...string) policy.Pos {
	pos := e.Pos
	for n := e.Node; len(path) > 0; path = path[1:] {
		if n = n.Get(path[0]); n == nil {
			break
		}
		pos = n.Pos
	}
	return pos
}

func (r *reader) gateway(g *policy.Gateway) *view {
	v := r.view(&g.Entry)
	if locked := g.Node.Get("defaults").Get("locked"); locked != nil {
		v.add(r.leaves("defaults.locked", locked)...)
	}
	if g.Mesh != nil {
		v.put("mesh.certificate", g.Mesh.Certificate, g.Pos)
	}
	return v
}

func (r *reader) listener(l *policy.Listener) *view {
	v := r.view(&l.Entry)
	v.put("address", l.Address, at(&l.Entry, "address"))
	v.put("port", fmt.Sprint(l.Port), at(&l.Entry, "port"))
	v.put("protocol", string(l.Protocol), at(&l.Entry, "protocol"))
	if l.PerHost {
		v.put("routeTables", "perHost", at(&l.Entry, "routeTables"))
	}
	if l.RedirectPort != 0 {
		v.put("httpsRedirect.port", fmt.Sprint(l.RedirectPort), at(&l.Entry, "httpsRedirect"))
	}
	for _, c := range l.Certificates {
		name := c.Hostname
		if name == "" {
			name = "(any)"
		}
		v.put("certificates."+name, c.Secret, c.Pos)
	}
	if len(l.Peers) > 0 {
		v.put("peers", list(l.Peers), l.Pos)
	}
	return v
}

func (r *reader) service(s *policy.Service) *view {
	v := r.view(&s.Entry)
	for _, e := range s.Endpoints {
		v.put("endpoints."+address(e), endpoint(e), e.Pos)
	}
	if d := s.DNS; d != nil {
		text := "strict"
		if d.Logical {
			text = "logical"
		}
		if d.Refresh > 0 {
			text += ", refresh " + d.Refresh.String()
		}
		v.put("dns."+address(d.Endpoint), text, at(&s.Entry, "dns"))
	}
	return v
}

func address(e policy.Endpoint) string {
	if strings.Contains(e.Host, ":") {
		return fmt.Sprintf("[%s]:%d", e.Host, e.Port)
	}
	return fmt.Sprintf("%s:%d", e.Host, e.Port)
}

func endpoint(e policy.Endpoint) string {
	text := fmt.Sprintf("weight %d", e.Weight)
	if e.Zone != "" {
		text += ", zone " + e.Zone
	}
	if e.Priority > 0 {
		text += fmt.Sprintf(", priority %d", e.Priority)
	}
	return text
}

func (r *reader) route(one *policy.Route) *view {
	e := &one.Entry
	v := &view{at: e.Pos, leaves: make(map[string]leaf)}
	v.put("hostnames", list(one.Hostnames), at(e, "hostnames"))
	for _, b := range one.Backends {
		v.put("backends."+b.Service.Name, fmt.Sprint(b.Weight), b.Pos)
	}
	v.put("gateways", list(one.Gateways), at(e, "gateways"))
	if len(one.Listeners) > 0 {
		v.put("listeners", list(one.Listeners), at(e, "listeners"))
	}
	if one.Layer4 {
		return v
	}
	m := one.Match
	v.put("match.path", pathText(m.Path), at(e, "match", "path"))
	if len(m.Methods) > 0 {
		v.put("match.methods", list(m.Methods), at(e, "match", "methods"))
	}
	for in, values := range map[string][]policy.ValueMatch{"headers": m.Headers, "query": m.Query} {
		for _, value := range values {
			l := leaf{path: "match." + in + "." + value.Name, text: condition(value), at: value.Pos}
			l.show(value.Name)
			v.add(l)
		}
	}
	if len(m.Source) > 0 {
		v.put("match.source", list(m.Source), at(e, "match", "source"))
	}
	if m.GRPC {
		v.put("match.grpc", "true", at(e, "match", "grpc"))
	}
	return v
}

func pathText(p policy.PathMatch) string {
	text := []string{"", "exact ", "regex ", "template "}[p.Kind] + p.Value
	if p.IgnoreCase {
		text += ", in whatever case"
	}
	return text
}

func condition(v policy.ValueMatch) string {
	switch {
	case v.Present != nil && *v.Present:
		return "(there)"
	case v.Present != nil:
		return "(not there)"
	case v.Regex != "":
		return "regex " + v.Regex
	}
	return v.Exact
}

// list writes words as the language does.
func list[T any](words []T) string { return strings.Join(strings.Fields(fmt.Sprint(words)), ", ") }
