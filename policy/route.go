package policy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// routeLayer is a route on its way.
type routeLayer struct {
	route  *Route
	raw    *rawEntry
	layer  layer
	broken bool // something about its backends was told already
	vague  bool // something about it was told already: it may match what it seems to or not
}

type routeDoc struct {
	Hostnames []hostname        `policy:"hostnames,required" doc:"the hosts that the route answers for; \"*\" for any" schema:"some"`
	Match     *matchDoc         `policy:"match" doc:"conditions on the request; all have to hold"`
	Backends  map[string]uint32 `policy:"backends" doc:"the services that the route sends to, by name, with their weights" schema:"backends"`
	Gateways  []*Node           `policy:"gateways" doc:"the gateways that serve the route; needed when there are several" schema:"names"`
}

// maxBackends is how many services one route may be divided over: its settings are merged and compared for each.
const maxBackends = 1_000

func (l *loader) decodeRoute(r *routeLayer) {
	var doc routeDoc
	n := r.raw.value
	before := l.errs
	defer func() { r.vague = l.errs != before }()
	r.layer = l.layer(&r.route.Entry, n, &doc, InRoute)
	if n.Kind != Map || l.full(n.Pos.File) {
		r.broken = true
		return
	}
	l.hostnames(r.route, doc.Hostnames, n.Get("hostnames"))
	if doc.Match == nil {
		doc.Match = &matchDoc{}
	}
	r.route.Match = l.decodeMatch(doc.Match, n.Get("match"))
	l.backends(r, doc.Backends, n.Get("backends"))
	l.bindings(r.route, doc.Gateways, n)
}

func (l *loader) hostnames(r *Route, names []hostname, n *Node) {
	if n != nil && n.Kind == List && len(n.Items) == 0 {
		l.report(n, "", false, "name at least one hostname").Hintf(`write ["*"] for any`)
	}
	seen := make(map[hostname]bool, len(names))
	for i, name := range names {
		if name == "" {
			continue
		}
		if seen[name] {
			l.report(n, fmt.Sprintf("[%d]", i), false, "the hostname %s stands here twice", quote(string(name)))
			continue
		}
		seen[name] = true
		r.Hostnames = append(r.Hostnames, string(name))
	}
}

func (l *loader) backends(r *routeLayer, weights map[string]uint32, n *Node) {
	if n == nil {
		return
	}
	if n.Kind != Map {
		l.report(n, "", false, "want a map, got %s", n.shape()).Hintf("write {orders: 1}: the services with their weights")
		r.broken = true
		return
	}
	if len(n.Keys) > maxBackends {
		l.report(n, "", false, "%d services, more than %d", len(n.Keys), maxBackends)
		r.broken = true
		return
	}
	sum := uint64(0)
	for i, key := range n.Keys {
		if _, err := strconv.ParseUint(n.Items[i].Text, 10, 32); err != nil {
			r.broken = true // told while it was decoded
		}
		if !l.has("services", key.Text) {
			l.absent(l.reportKey(key, "there is no service %s", quote(key.Text)), "services", key.Text)
			r.broken = true
			continue
		}
		weight := weights[key.Text]
		sum += uint64(weight)
		s := l.services[key.Text]
		r.broken = r.broken || s == nil // it may stand in a file that can't be read
		if s != nil && weight > 0 {
			r.route.Backends = append(r.route.Backends, Backend{Service: s.service, Weight: weight, Pos: key.Pos})
		}
	}
	slices.SortFunc(r.route.Backends, func(a, b Backend) int { return cmp.Compare(a.Service.Name, b.Service.Name) })
	switch {
	case sum > math.MaxUint32:
		l.report(n, "", false, "the weights add up to %d; want at most %d", sum, uint32(math.MaxUint32))
	case sum == 0 && len(n.Keys) > 0 && !r.broken:
		l.report(n, "", false, "the weights add up to 0: no request would be sent").Hintf("give at least one backend a weight above 0")
		r.broken = true
	}
}

// bindings finds the gateways of a route.
func (l *loader) bindings(r *Route, names []*Node, n *Node) {
	if written := n.Get("gateways"); written != nil {
		if written.Kind == List && len(written.Items) == 0 {
			l.report(written, "", false, "name at least one gateway").Hintf("leave gateways out when there is only one")
		}
		for _, name := range names {
			l.bind(r, name)
		}
		slices.Sort(r.Gateways)
		return
	}
	switch len(l.model.Gateways) {
	case 0:
		if !l.unreadable {
			p := l.report(n, "", false, "there is no gateway to serve this route").
				Hintf("add a gateway: gateways: {edge: {listeners: {http: {port: 80}}}}")
			p.Missing, p.stage = &Target{Section: "gateways"}, resolving
		}
	case 1:
		r.Gateways = []string{l.model.Gateways[0].Name}
	default:
		p := l.report(n, "gateways", false, "is required: there are several gateways")
		p.stage = resolving
		all := make([]string, len(l.model.Gateways))
		for i, g := range l.model.Gateways {
			all[i] = g.Name
			p.suspect(g.Pos.File)
		}
		p.Hint = hint("", all)
	}
}

func (l *loader) bind(r *Route, name *Node) {
	switch {
	case name.Kind != Scalar:
		l.report(name, "", false, "want the name of a gateway, got %s", name.shape())
	case !l.has("gateways", name.Text):
		l.missing(name, "", "gateways", name.Text)
	case slices.Contains(r.Gateways, name.Text):
		l.report(name, "", false, "the gateway %s stands here twice", quote(name.Text))
	default:
		r.Gateways = append(r.Gateways, name.Text)
	}
}
