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
	adrift bool // its listeners are not known: it was told already, or stands in a file that can't be read

	unit  unit
	bound []*binding // at each of its gateways
}

type routeDoc struct {
	Hostnames []hostname        `policy:"hostnames" doc:"the hosts that the route answers for, or the names that clients of TLS ask for (SNI); \"*\" for any; needed but for listeners of TCP" schema:"some"`
	Match     *matchDoc         `policy:"match" doc:"conditions on the request; all have to hold"`
	Backends  map[string]uint32 `policy:"backends" doc:"the services that the route sends to, by name, with their weights" schema:"backends"`
	Gateways  []*Node           `policy:"gateways" doc:"the gateways that serve the route; needed when there are several" schema:"names"`
	Listeners []*Node           `policy:"listeners" doc:"the listeners that serve the route; default all of HTTP and HTTPS that do not redirect" schema:"names"`
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
	l.bindings(r.route, doc.Gateways, n)
	speaks := l.listeners(r, doc.Listeners, n.Get("listeners"))
	l.hostnames(r.route, doc.Hostnames, n.Get("hostnames"))
	l.backends(r, doc.Backends, n.Get("backends"))
	if r.route.Layer4 {
		l.layer4(r, speaks)
		return
	}
	if n.Get("hostnames") == nil && !r.adrift {
		l.report(n, "hostnames", false, "is required, but missing").Hintf(`hostnames: the hosts that the route answers for; "*" for any`)
	}
	if doc.Match == nil {
		doc.Match = &matchDoc{}
	}
	r.route.Match = l.decodeMatch(doc.Match, n.Get("match"))
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
		if weight == 0 {
			l.refer("services", key.Text) // else it is one of the backends
		}
		sum += uint64(weight)
		s := l.service(key.Text)
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
