package policy

import "slices"

// gatewayLayers is a gateway on its way.
type gatewayLayers struct {
	gateway  *Gateway
	raw      *rawEntry
	defaults layer
	locked   map[string]*Node // keys that defaults forbid to the other layers

	listeners map[string]*listenerLayer // by name
	vague     bool                      // something about its listeners was told already: they may not be what they seem

	claims map[request]claim // what the routes of the gateway ask for
	tables tables
}

// listenerLayer is a listener on its way.
type listenerLayer struct {
	listener *Listener
	node     *Node
}

type gatewayDoc struct {
	Listeners *Node    `policy:"listeners,required" doc:"the ports that Envoy listens on, by name" schema:"listeners"`
	Mesh      *meshDoc `policy:"mesh" doc:"what the gateway shows to the sidecars of services, and whom it believes"`
	Defaults  *Node    `policy:"defaults" doc:"settings of every route of this gateway; nearer ones win" schema:"defaults"`
}

type defaultsDoc struct {
	Locked []*Node `policy:"locked" doc:"keys that services and routes of this gateway may not write" schema:"locked"`
}

func (l *loader) decodeGateway(g *gatewayLayers) {
	var doc gatewayDoc
	l.layer(&g.gateway.Entry, g.raw.value, &doc, InGateway)
	before := l.errs
	if doc.Listeners != nil {
		l.decodeListeners(g, doc.Listeners)
	}
	g.vague = l.errs != before || len(g.gateway.Listeners) == 0
	if doc.Mesh != nil {
		g.gateway.Mesh = l.mesh(g.gateway.Name, *doc.Mesh, g.raw.value.Get("mesh"))
	}
	if doc.Defaults == nil {
		return
	}
	var defaults defaultsDoc
	e := g.gateway.Entry
	g.defaults = l.layer(&e, doc.Defaults, &defaults, InDefaults)
	g.gateway.Defaults = e.Settings
	g.locked = make(map[string]*Node)
	keys := l.lang.keysOf(InService | InRoute)
	for _, n := range defaults.Locked {
		switch {
		case n.Kind != Scalar:
			l.report(n, "", false, "want a key, got %s", n.shape())
		case !slices.Contains(keys, n.Text):
			l.report(n, "", false, "there is no key %s to lock", quote(n.Text)).Hint = hint(n.Text, keys)
		default:
			g.locked[n.Text] = n
		}
	}
}
