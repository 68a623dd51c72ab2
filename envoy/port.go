package envoy

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
)

// port is a listener with its route tables, and what they were made of beside the gateway and its filters.
type port struct {
	listener asks
	uses     services             // that its connections are sent to
	strip    []string             // headers
	keys     scopeKeys            // of a table per host
	layer4   []*policy.BoundRoute // of TCP and TLS

	frame  frame
	hosts  []host
	groups []group    // of a table per host
	tables []Resource // with their scopes
}

// listeners makes the listeners of a gateway and their route tables.
func (t *translation) listeners(gw *policy.Gateway, s *served) []asks {
	var asking []asks
	shared := false // the per-host tables, which such listeners of the gateway may have in common
	for _, l := range gw.Listeners {
		before := new(port)
		if t.before != nil {
			before = t.before.served[gw].ports[l]
		}
		p := t.port(ListenerContext{Model: t.model, Gateway: gw, Listener: l}, s, before)
		switch {
		case !l.HTTP():
		case !scoped(l):
			t.table(p, s, l, before)
		case !shared || p.keys.prefix != "":
			t.checkPerHost(s, l)
			t.tables(p, s, l, before)
			shared = true
		}
		s.ports[l] = p
		asking = append(asking, p.listener)
	}
	return asking
}

// port makes a listener, unless all that it is made of is as it was. It has no tables yet.
func (t *translation) port(c ListenerContext, s *served, before *port) *port {
	l := c.Listener
	p := &port{strip: t.strip, frame: before.frame}
	if scoped(l) {
		p.keys = scopeKeysOf(s.sites, s.named, c.Gateway, l)
	}
	if !l.HTTP() {
		p.layer4 = connectionRoutes(c)
	}
	same := before.listener.Message != nil && slices.Equal(p.strip, before.strip) && p.keys.equal(before.keys) &&
		slices.Equal(p.layer4, before.layer4)
	if same {
		p.listener, p.uses = before.listener, before.uses
		return p
	}
	p.uses = make(services)
	message := t.listener(c, p.keys, s.filters[l], p.uses)
	p.listener = asksOf(t.valid(Resource{Type: resource.ListenerType, Name: l.Name, Message: message, Pos: l.Pos}))
	if p.frame.before == nil {
		p.frame = frame{before: []*routev3.Route{s.trace}}
		if l.RedirectPort != 0 {
			p.frame.after = redirects(l.RedirectPort, s.filters[l])
		}
	}
	return p
}

// table is the one route table of a listener.
func (t *translation) table(p *port, s *served, l *policy.Listener, before *port) {
	p.hosts = t.hosts(s, l, p.frame, before.hosts)
	if before.tables != nil && slices.Equal(p.hosts, before.hosts) {
		p.tables = before.tables
		return
	}
	hosts := make([]*routev3.VirtualHost, 0, len(p.hosts)+1)
	for _, h := range p.hosts {
		hosts = append(hosts, h.VirtualHost)
	}
	if l.RedirectPort != 0 {
		hosts = withAnyHost(hosts, p.frame)
	}
	p.tables = []Resource{{Type: resource.RouteType, Name: l.Name, Message: routeConfiguration(l.Name, hosts), Pos: l.Pos}}
}

// tables is those of a listener with a table per host, and the scopes that lead to them.
func (t *translation) tables(p *port, s *served, l *policy.Listener, before *port) {
	p.hosts = t.hosts(s, l, p.frame, before.hosts)
	var known []group
	if p.keys.equal(before.keys) {
		known = before.groups
	}
	p.groups = t.groups(p.keys, p.hosts, known)
	p.tables = make([]Resource, 0, 2*len(p.groups))
	for _, g := range p.groups {
		p.tables = append(p.tables, g.table, g.scope)
	}
}
