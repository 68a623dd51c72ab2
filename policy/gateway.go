package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// gatewayLayers is a gateway on its way.
type gatewayLayers struct {
	gateway  *Gateway
	raw      *rawEntry
	defaults layer
	locked   map[string]*Node // keys that defaults forbid to the other layers
}

type gatewayDoc struct {
	Listeners *Node `policy:"listeners,required" doc:"the ports that Envoy listens on, by name" schema:"listeners"`
	Defaults  *Node `policy:"defaults" doc:"settings of every route of this gateway; nearer ones win" schema:"defaults"`
}

type listenerDoc struct {
	Port        uint16      `policy:"port,required" doc:"the TCP port, 1 to 65535" schema:"port"`
	Address     ipAddress   `policy:"address" doc:"the IP address to listen on; default 0.0.0.0, all of IPv4"`
	Protocol    protocol    `policy:"protocol" doc:"what the listener speaks; default HTTP"`
	RouteTables routeTables `policy:"routeTables" doc:"one route table per listener (shared, the default) or per host, for many thousands of routes"`
}

type defaultsDoc struct {
	Locked []*Node `policy:"locked" doc:"keys that services and routes of this gateway may not write" schema:"locked"`
}

type protocol string

// Values are the protocols of this version.
func (protocol) Values() []string { return []string{"HTTP"} }

type routeTables string

// Values are the ways to divide a listener's routes.
func (routeTables) Values() []string { return []string{"shared", "perHost"} }

type ipAddress string

// DecodePolicy reads an IP address.
func (a *ipAddress) DecodePolicy(d *Decode, n *Node) {
	ip, err := netip.ParseAddr(n.Text)
	if n.Kind != Scalar || err != nil || ip.Zone() != "" {
		d.Errorf(n, "want an IP address such as 127.0.0.1, got %s", n.shape())
		return
	}
	*a = ipAddress(ip.String())
}

// PolicySchema describes an IP address.
func (*ipAddress) PolicySchema(*Schemas) map[string]any { return map[string]any{"type": "string"} }

func (l *loader) decodeGateway(g *gatewayLayers) {
	var doc gatewayDoc
	l.layer(&g.gateway.Entry, g.raw.value, &doc, InGateway)
	if doc.Listeners != nil {
		l.decodeListeners(g.gateway, doc.Listeners)
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

func (l *loader) decodeListeners(g *Gateway, n *Node) {
	if n.Kind != Map {
		l.report(n, "", false, "want a map of listeners by name, got %s", n.shape()).Hintf("write {http: {port: 80}}")
		return
	}
	if len(n.Keys) == 0 {
		l.report(n, "", false, "a gateway needs a listener").Hintf("write {http: {port: 80}}")
	}
	for i, key := range n.Keys {
		if l.full(key.Pos.File) {
			return
		}
		l.checkName(key)
		doc := listenerDoc{Address: "0.0.0.0", Protocol: "HTTP"}
		listener := &Listener{Entry: Entry{Name: key.Text, Pos: key.Pos}}
		l.layer(&listener.Entry, n.Items[i], &doc, InListener)
		listener.Address, listener.Protocol = string(doc.Address), Protocol(doc.Protocol)
		listener.Port, listener.PerHost = uint32(doc.Port), doc.RouteTables == "perHost"
		if port := n.Items[i].Get("port"); port != nil && port.Text == "0" {
			l.report(port, "", false, "want a port from 1 to 65535, got 0")
		}
		l.portConflict(g, listener, n.Items[i].Get("port"))
		g.Listeners = append(g.Listeners, listener)
	}
	slices.SortFunc(g.Listeners, func(a, b *Listener) int { return cmp.Compare(a.Name, b.Name) })
}

func (l *loader) portConflict(g *Gateway, listener *Listener, port *Node) {
	for _, other := range g.Listeners {
		if port == nil || listener.Port == 0 || other.Port != listener.Port || !overlap(other.Address, listener.Address) {
			continue
		}
		l.report(port, "", false, "port %d is already taken by the listener %s at %s", listener.Port, quote(other.Name), other.Pos).
			also(other.Pos).Hintf("give one of the two another port")
		return
	}
}

// overlap tells whether two listeners of one port would want the same connections.
func overlap(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return a == b || errX == nil && x.IsUnspecified() || errY == nil && y.IsUnspecified()
}
