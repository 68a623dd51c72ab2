package policy

import (
	"maps"
	"slices"
)

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

// maxListeners is how many listeners one route may name: it is compared with others on each of them.
const maxListeners = 100

// listeners finds the listeners that a route names at each of its gateways, and tells what they speak.
func (l *loader) listeners(r *routeLayer, names []*Node, written *Node) map[Protocol]bool {
	if written == nil {
		return nil
	}
	if written.Kind == List && len(written.Items) == 0 {
		l.report(written, "", false, "name at least one listener").Hintf("leave listeners out for all of HTTP and HTTPS")
	}
	if len(names) > maxListeners {
		l.report(written, "", false, "%d listeners, more than %d", len(names), maxListeners)
		r.adrift = true
		return nil
	}
	speaks := make(map[Protocol]bool)
	for _, name := range names {
		switch {
		case name.Kind != Scalar:
			l.report(name, "", false, "want the name of a listener, got %s", name.shape())
		case slices.Contains(r.route.Listeners, name.Text):
			l.report(name, "", false, "the listener %s stands here twice", quote(name.Text))
		case l.listenerOf(r, name, speaks):
			r.route.Listeners = append(r.route.Listeners, name.Text)
		}
	}
	slices.Sort(r.route.Listeners)
	requests, connections := speaks[HTTP] || speaks[HTTPS], speaks[TCP] || speaks[TLS]
	r.adrift = len(r.route.Listeners) == 0 || requests && connections
	if requests && connections {
		l.report(written, "", false, "listeners of HTTP and HTTPS and those of TCP and TLS can't share a route").Hintf("write a route for each of the two")
	}
	r.route.Layer4 = connections && !requests
	return speaks
}

// listenerOf notes what a listener speaks at each gateway of a route, and reports the gateways that have none of that name.
func (l *loader) listenerOf(r *routeLayer, name *Node, speaks map[Protocol]bool) bool {
	found := false
	for _, gateway := range r.route.Gateways {
		g := l.gateways[gateway]
		if g == nil {
			continue
		}
		switch at := g.listeners[name.Text]; {
		case at != nil:
			found = true
			speaks[at.listener.Protocol] = true
		case !g.vague:
			p := l.report(name, "", false, "the gateway %s has no listener %s", quote(gateway), quote(name.Text))
			p.suspect(g.raw.key.Pos.File).stage = resolving
			p.Hint = l.guess(name.Text, slices.Sorted(maps.Keys(g.listeners)))
		}
	}
	return found
}

// layer4 holds a route of TCP or TLS listeners to what can be told of a connection.
func (l *loader) layer4(r *routeLayer, speaks map[Protocol]bool) {
	n := r.raw.value
	if match := n.Get("match"); match != nil {
		l.report(match, "", false, "a route of TCP or TLS listeners can't match requests: all connections with its hostnames are its own").Hintf("remove it")
	}
	switch hostnames := n.Get("hostnames"); {
	case hostnames == nil && speaks[TLS]:
		l.report(n, "hostnames", false, "is required, but missing").Hintf(`hostnames: the names that clients of TLS ask for (SNI); "*" for any`)
	case hostnames == nil:
		r.route.Hostnames = []string{"*"}
	case hostnames.Kind == List:
		for _, item := range hostnames.Items {
			l.layer4Host(item, speaks[TCP])
		}
	}
	for _, w := range r.layer.sets {
		if !w.kind.TCP {
			l.report(n, w.kind.Key, false, "%s is about requests: a route of TCP or TLS listeners knows connections only", w.kind.Key).Hintf("remove it")
		}
	}
}

func (l *loader) layer4Host(item *Node, tcp bool) {
	if item.Kind != Scalar || item.Text == "*" {
		return
	}
	why, what := "", "leave hostnames out"
	if tcp {
		why = "clients of TCP name no host"
	} else if badHostname(item.Text) == "" {
		why, what = badServerName(item.Text), `write "*" for clients that name none`
	}
	if why != "" {
		l.report(item, "", false, "%s can't be told from other hosts: %s", item.shape(), why).Hintf("%s", what)
	}
}
