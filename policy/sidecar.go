package policy

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// This file expands the section sidecars. An entry becomes a gateway of its name with the listeners inbound and outbound,
// a service for the app, a route from inbound to the app, and a route from outbound to each service that the app calls.
// Everything after that knows gateways, services and routes only.

const (
	inboundName  = "inbound" // the names of a sidecar's listeners
	outboundName = "outbound"
	appSuffix    = "/app" // of the service that is the app

	usualPort = 15006 // of inbound, in hints

	// maxCalls is how many services all sidecars may call together: each is a cluster of its own for each sidecar.
	maxCalls = 15_000
)

type sidecarDoc struct {
	meshDoc
	App      *appAddress  `policy:"app" doc:"where the app itself listens, ip:port; needed for inbound"`
	Inbound  *Node        `policy:"inbound" doc:"the calls of others, over mutual TLS" schema:"inbound"`
	Outbound *outboundDoc `policy:"outbound" doc:"the app's own calls, in plain text to the sidecar"`
}

type inboundDoc struct {
	Port    uint16    `policy:"port,required" doc:"the TCP port, 1 to 65535: that of the service's endpoints" schema:"port"`
	Address ipAddress `policy:"address" doc:"the IP address to listen on; default 0.0.0.0, all of IPv4"`
	Peers   []*Node   `policy:"peers,required" doc:"who may call: gateways and sidecars, by name" schema:"names"`
}

type outboundDoc struct {
	Port     uint16    `policy:"port,required" doc:"the TCP port, 1 to 65535" schema:"port"`
	Address  ipAddress `policy:"address" doc:"the IP address to listen on; default 127.0.0.1: whoever connects calls as the app"`
	Services []*Node   `policy:"services,required" doc:"the services that the app may call, each by its name as the host" schema:"names"`
}

// appAddress is where an app listens: ip:port.
type appAddress Endpoint

// DecodePolicy reads ip:port.
func (a *appAddress) DecodePolicy(d *Decode, n *Node) {
	at, ok := ipPort(d, n, "127.0.0.1:8080", func(_ string, port uint32) string {
		return fmt.Sprintf("write 127.0.0.1:%d for an app beside its sidecar", port)
	})
	if ok {
		*a = appAddress(at)
	}
}

// PolicySchema describes ip:port.
func (*appAddress) PolicySchema(*Schemas) map[string]any { return addressSchema() }

// sidecarLayers is a sidecar on its way.
type sidecarLayers struct {
	*gatewayLayers
	service *serviceLayer // of its name; nil where there is none
}

func (l *loader) decodeSidecars() {
	l.common.rank = ofSidecars
	for _, e := range l.entriesOf("sidecars") {
		l.decodeSidecar(e)
	}
	slices.SortFunc(l.model.Gateways, func(a, b *Gateway) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(l.model.Services, func(a, b *Service) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(l.model.Routes, func(a, b *Route) int { return cmp.Compare(a.Name, b.Name) })
}

func (l *loader) decodeSidecar(e *rawEntry) {
	name := e.key.Text
	if g := l.raw["gateways"][name]; g != nil {
		l.reportKey(e.key, "there is a gateway %s as well, at %s", quote(name), g.key.Pos).also(g.key.Pos).
			Hintf("Envoys join one or the other by that name: rename one of the two")
		return
	}
	s := &sidecarLayers{
		gatewayLayers: &gatewayLayers{
			gateway: &Gateway{Entry: e.entry(), Sidecar: true}, raw: e, listeners: make(map[string]*listenerLayer),
		},
		service: l.service(name),
	}
	before := l.errs
	var doc sidecarDoc
	l.layer(&s.gateway.Entry, e.value, &doc, InGateway)
	if e.value.Kind == Map {
		s.gateway.Mesh = l.mesh(name, doc.meshDoc, e.value)
		l.sidecarHalves(s, doc)
	}
	s.vague = l.errs != before
	l.gateways[name] = s.gatewayLayers
	l.model.Gateways = append(l.model.Gateways, s.gateway)
}

// sidecarHalves expands inbound and outbound.
func (l *loader) sidecarHalves(s *sidecarLayers, doc sidecarDoc) {
	n := s.raw.value
	switch {
	case doc.Inbound == nil && doc.Outbound == nil:
		l.report(n, "", false, "a sidecar needs inbound, outbound or both").
			Hintf("write inbound: {port: 15006, peers: [edge]}, or outbound: {port: 15001, services: [orders]}")
	case doc.Inbound != nil && doc.App == nil && n.Get("app") == nil:
		l.report(n, "app", false, "is required, but missing").Hintf("app: where the app itself listens, such as 127.0.0.1:8080")
	case doc.Inbound == nil && doc.App != nil:
		l.report(n, "app", false, "without inbound nothing is sent to the app").Hintf("write inbound: {port: 15006, peers: [edge]}, or remove app")
	}
	if doc.Inbound != nil {
		l.inbound(s, doc)
	}
	if doc.Outbound != nil {
		l.outbound(s, doc.Outbound, n.Get(outboundName))
	}
	if doc.App == nil || doc.App.Port == 0 {
		return
	}
	for _, at := range s.gateway.Listeners {
		if at.Port == doc.App.Port && overlap(at.Address, doc.App.Host) {
			l.report(n, "app", false, "the listener %s of the sidecar itself has this address", at.Name).Hintf("give one of the two another port")
		}
	}
}

// inbound makes the listener that peers call, and the route from there to the app.
func (l *loader) inbound(s *sidecarLayers, all sidecarDoc) {
	n, name := all.Inbound, s.gateway.Name
	key := s.raw.value.keyOf(inboundName)
	route := &Route{
		Entry: Entry{Name: name + "/" + inboundName, Pos: key.Pos}, Hostnames: []string{"*"}, Match: l.decodeMatch(&matchDoc{}, nil),
		Gateways: []string{name}, Listeners: []string{inboundName},
	}
	r := &routeLayer{route: route, raw: &rawEntry{key: key, value: n}}
	before := l.errs
	doc := inboundDoc{Address: "0.0.0.0"}
	r.layer = l.layer(&route.Entry, n, &doc, InRoute)
	at := &Listener{
		Entry: Entry{Name: inboundName, Pos: key.Pos}, Address: string(doc.Address), Port: uint32(doc.Port), Protocol: HTTPS,
		Certificates: []Certificate{{Secret: all.meshDoc.name(), Pos: key.Pos}}, Trusted: true, Peers: l.peers(doc.Peers, n),
	}
	l.sidecarListener(s, at, n)
	if s.service == nil && !l.has("services", name) {
		p := l.reportKey(s.raw.key, "there is no service %s that the sidecar could take calls for", quote(name))
		l.absent(p, "services", name).Hintf("write services: {%s: {endpoints: [\"10.0.0.1:%d\"]}}: where its sidecars listen", cut(name), cmp.Or(doc.Port, usualPort))
	}
	if all.App != nil {
		l.app(s, r, all.App)
	}
	if s.service != nil && l.errs == before {
		s.service.service.Sidecar = s.gateway
		l.otherPort(s.service.service, n, at.Port)
	}
	r.broken, r.vague = len(route.Backends) == 0, l.errs != before
	l.addRoute(r)
}

// otherPort warns of a service whose endpoints are not where its sidecar listens: calls would meet the app, which speaks
// no TLS.
func (l *loader) otherPort(s *Service, n *Node, port uint32) {
	addresses := s.Endpoints
	if s.DNS != nil {
		addresses = []Endpoint{s.DNS.Endpoint}
	}
	for _, e := range addresses {
		if e.Port != port {
			l.report(n, "port", true, "callers of the service %s meet port %d, at %s", quote(s.Name), e.Port, e.Pos).
				Hintf("where a service has a sidecar, its endpoints are those of the sidecars")
			return
		}
	}
}

// app makes the service that is the app itself. What the service of the sidecar says of how it is spoken to holds for it.
func (l *loader) app(s *sidecarLayers, r *routeLayer, address *appAddress) {
	n := s.raw.value
	at := n.Get("app")
	if ip, err := netip.ParseAddr(address.Host); err == nil && !ip.IsLoopback() {
		l.report(at, "", true, "the way from the sidecar to %s is not encrypted", net.JoinHostPort(address.Host, strconv.Itoa(int(address.Port)))).
			Hintf("have the app listen on 127.0.0.1, beside its sidecar")
	}
	app := &Service{Entry: Entry{Name: s.gateway.Name + appSuffix, Pos: at.Pos}, Endpoints: []Endpoint{Endpoint(*address)}}
	layers := &serviceLayer{service: app, raw: s.raw}
	if s.service != nil {
		app.AppOf, layers.raw = s.service.service, s.service.raw
		layers.layer.node = s.service.layer.node
		for _, w := range s.service.layer.sets {
			if w.kind.App {
				layers.layer.sets = append(layers.layer.sets, w)
			}
		}
		for _, set := range app.AppOf.Settings {
			if set.Kind.App {
				app.Settings = append(app.Settings, set)
			}
		}
	}
	l.services[app.Name] = layers
	l.model.Services = append(l.model.Services, app)
	r.route.Backends = []Backend{{Service: app, Weight: 1, Pos: at.Pos}}
}

// outbound makes the listener that the app calls, and a route for each service that it may call.
func (l *loader) outbound(s *sidecarLayers, doc *outboundDoc, n *Node) {
	if n.Kind != Map {
		return // told while it was decoded
	}
	at := &Listener{
		Entry:   Entry{Name: outboundName, Pos: s.raw.value.keyOf(outboundName).Pos},
		Address: cmp.Or(string(doc.Address), "127.0.0.1"), Port: uint32(doc.Port), Protocol: HTTP, Trusted: true,
	}
	l.sidecarListener(s, at, n)
	if ip, err := netip.ParseAddr(at.Address); err == nil && !ip.IsLoopback() {
		l.report(n, "address", true, "whoever reaches %s calls the services as %s does", at.Address, s.gateway.Name).
			Hintf("leave address out, for 127.0.0.1, unless nobody else is in the app's network")
	}
	if services := n.Get("services"); services != nil && services.Kind == List && len(services.Items) == 0 {
		l.report(services, "", false, "name at least one service").Hintf("leave outbound out for an app that calls none")
	}
	if l.calls += len(doc.Services); l.calls > maxCalls {
		l.report(n, "services", false, "the sidecars call more than %d services together, each counted for each sidecar", maxCalls)
		return
	}
	seen := make(map[string]bool, len(doc.Services))
	for _, item := range doc.Services {
		switch {
		case item.Kind != Scalar:
			l.report(item, "", false, "want the name of a service, got %s", item.shape())
		case !l.has("services", item.Text):
			l.missing(item, "", "services", item.Text)
		case seen[item.Text]:
			l.report(item, "", false, "the service %s stands here twice", quote(item.Text))
		case badHostname(item.Text) != "":
			l.report(item, "", false, "the app can't call %s by its name: %s", item.shape(), badHostname(item.Text)).Hintf("rename the service")
		default:
			l.call(s, item)
		}
		seen[item.Text] = true
	}
}

// call makes the route to a service that the app may call.
func (l *loader) call(s *sidecarLayers, item *Node) {
	called := l.service(item.Text)
	if called == nil {
		return // it may stand in a file that can't be read
	}
	route := &Route{
		Entry:     Entry{Name: s.gateway.Name + "/" + outboundName + "/" + item.Text, Pos: item.Pos},
		Hostnames: []string{item.Text}, Match: l.decodeMatch(&matchDoc{}, nil),
		Backends: []Backend{{Service: called.service, Weight: 1, Pos: item.Pos}},
		Gateways: []string{s.gateway.Name}, Listeners: []string{outboundName},
	}
	l.addRoute(&routeLayer{route: route, raw: &rawEntry{key: item, value: item}, layer: layer{node: item}})
}

func (l *loader) addRoute(r *routeLayer) {
	l.model.Routes = append(l.model.Routes, r.route)
	l.expanded = append(l.expanded, r)
}

func (l *loader) sidecarListener(s *sidecarLayers, at *Listener, n *Node) {
	l.checkPort(n)
	l.portConflict(s.gateway, at, n.Get("port"))
	s.gateway.Listeners = append(s.gateway.Listeners, at)
	s.listeners[at.Name] = &listenerLayer{at, n}
}
