package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

type listenerDoc struct {
	Port          uint16           `policy:"port,required" doc:"the TCP port, 1 to 65535" schema:"port"`
	Address       ipAddress        `policy:"address" doc:"the IP address to listen on; default 0.0.0.0, all of IPv4"`
	Protocol      protocol         `policy:"protocol" doc:"what the listener speaks; default HTTP"`
	Certificates  []certificateDoc `policy:"certificates" doc:"what the listener shows to clients, by the name that they ask for (SNI); of HTTPS, and of TLS that ends here"`
	HTTPSRedirect httpsRedirect    `policy:"httpsRedirect" doc:"send clients of HTTP to https://: true, or {port: 8443}"`
	RouteTables   routeTables      `policy:"routeTables" doc:"one route table per listener (shared, the default) or per host, for many thousands of routes"`
}

type certificateDoc struct {
	Hostname serverName `policy:"hostname" doc:"a name, or *.name for all below it; left out for clients that ask for none of the others"`
	Secret   SecretName `policy:"secret,required" doc:"the certificate's chain and its key are NAME.crt and NAME.key among the secrets"`
}

type protocol Protocol

// Values are the protocols that a listener can speak.
func (protocol) Values() []string { return []string{"HTTP", "HTTPS", "TCP", "TLS"} }

type routeTables string

// Values are the ways to divide a listener's routes.
func (routeTables) Values() []string { return []string{"shared", "perHost"} }

type ipAddress string

// DecodePolicy reads an IP address.
func (a *ipAddress) DecodePolicy(d *Decode, n *Node) {
	ip, err := netip.ParseAddr(n.Text)
	if n.Kind != Scalar || err != nil || ip.Zone() != "" {
		d.Errorf(n, "want an IP address such as 127.0.0.1, got %s", n.shape()).
			Hintf("write 127.0.0.1 for this machine alone, 0.0.0.0 for all of IPv4")
		return
	}
	*a = ipAddress(ip.String())
}

// PolicySchema describes an IP address.
func (*ipAddress) PolicySchema(*Schemas) map[string]any { return map[string]any{"type": "string"} }

// serverName is what a client may ask for in its TLS hello (SNI): a name, or *.name.
type serverName string

// DecodePolicy reads a server name.
func (s *serverName) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Scalar {
		d.Errorf(n, "want a hostname, got %s", n.shape())
		return
	}
	name := strings.ToLower(n.Text)
	if name == "*" {
		d.Errorf(n, `"*" is no name that a client asks for`).Hintf("leave hostname out: the certificate is then for all clients that ask for no other")
		return
	}
	if why := badServerName(name); why != "" {
		d.Errorf(n, "%s is no hostname: %s", n.shape(), why)
		return
	}
	*s = serverName(name)
}

// PolicySchema describes a server name.
func (*serverName) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"type": "string", "minLength": 1, "maxLength": 255, "pattern": `^(\*\.)?[^*/:\s]+$`}
}

// httpsRedirect is where clients of HTTP are sent, as written: true, or {port: 8443}.
type httpsRedirect struct {
	on   bool
	port uint16 // 0 where none is written
}

// DecodePolicy reads a redirect.
func (h *httpsRedirect) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Map {
		if n.Kind != Scalar || n.Quoted || n.Text != "true" && n.Text != "false" {
			d.Errorf(n, "want true, false or {port: 8443}, got %s", n.shape())
		}
		h.on = n.Text == "true"
		return
	}
	var doc struct {
		Port uint16 `policy:"port,required"`
	}
	if d.Decode(n, &doc) && doc.Port == 0 {
		d.Errorf(n.Get("port"), "want a port from 1 to 65535, got 0")
	}
	h.on, h.port = true, doc.Port
}

// PolicySchema describes a redirect.
func (*httpsRedirect) PolicySchema(s *Schemas) map[string]any {
	return map[string]any{"oneOf": []any{map[string]any{"type": "boolean"}, OnlyKey("port", s.override("port", nil))}}
}

const (
	defaultHTTPS = 443

	mostListeners = 1000 // of one gateway: the routes that name none stand in the table of each
)

func (l *loader) decodeListeners(g *gatewayLayers, n *Node) {
	if n.Kind != Map {
		l.report(n, "", false, "want a map of listeners by name, got %s", n.shape()).Hintf("write {http: {port: 80}}")
		return
	}
	if len(n.Keys) == 0 {
		l.report(n, "", false, "a gateway needs a listener").Hintf("write {http: {port: 80}}")
	}
	if len(n.Keys) > mostListeners {
		l.report(n, "", false, "%d listeners, more than %d", len(n.Keys), mostListeners).Hintf("divide them between several gateways")
		return
	}
	g.listeners = make(map[string]*listenerLayer, len(n.Keys))
	redirects := make(map[*Listener]httpsRedirect)
	for i, key := range n.Keys {
		if l.full(key.Pos.File) {
			return
		}
		l.checkName(key)
		listener, redirect := l.decodeListener(key, n.Items[i])
		l.portConflict(g.gateway, listener, n.Items[i].Get("port"))
		g.gateway.Listeners = append(g.gateway.Listeners, listener)
		g.listeners[key.Text] = &listenerLayer{listener, n.Items[i]}
		if redirect.on {
			redirects[listener] = redirect
		}
	}
	slices.SortFunc(g.gateway.Listeners, func(a, b *Listener) int { return cmp.Compare(a.Name, b.Name) })
	only := g.gateway.onlyHTTPS()
	for listener, redirect := range redirects {
		listener.RedirectPort = cmp.Or(uint32(redirect.port), only, defaultHTTPS)
		if listener.Protocol == HTTP && redirect.port == 0 && only == 0 {
			l.checkRedirect(g.gateway, g.listeners[listener.Name].node)
		}
	}
}

// checkRedirect warns where clients are sent to a port that none of several listeners of HTTPS has.
func (l *loader) checkRedirect(g *Gateway, n *Node) {
	var port uint32
	for _, other := range g.Listeners {
		if other.Protocol == HTTPS && other.Port == defaultHTTPS {
			return
		}
		if other.Protocol == HTTPS {
			port = cmp.Or(port, other.Port)
		}
	}
	if port != 0 {
		l.report(n, "httpsRedirect", true, "the gateway has several listeners of HTTPS, none on port %d, which clients are sent to", defaultHTTPS).
			Hintf("write {port: %d}, or {port: %d} where something before Envoy listens there", port, defaultHTTPS)
	}
}

// onlyHTTPS is the port of the gateway's listener of HTTPS, 0 when it has none or several.
func (g *Gateway) onlyHTTPS() uint32 {
	port := uint32(0)
	for _, l := range g.Listeners {
		switch {
		case l.Protocol != HTTPS:
		case port != 0:
			return 0
		default:
			port = l.Port
		}
	}
	return port
}

func (l *loader) decodeListener(key, n *Node) (*Listener, httpsRedirect) {
	doc := listenerDoc{Address: "0.0.0.0", Protocol: protocol(HTTP)}
	listener := &Listener{Entry: Entry{Name: key.Text, Pos: key.Pos, Node: n}}
	before := l.errs
	l.layer(&listener.Entry, n, &doc, InListener)
	listener.Address, listener.Protocol = string(doc.Address), Protocol(doc.Protocol)
	listener.Port, listener.PerHost = uint32(doc.Port), doc.RouteTables == "perHost"
	l.checkPort(n)
	l.decodeCertificates(listener, doc.Certificates, n)
	if l.errs == before {
		l.checkProtocol(listener, doc, n)
	}
	return listener, doc.HTTPSRedirect
}

// checkPort refuses the one number that no port has.
func (l *loader) checkPort(n *Node) {
	if port := n.Get("port"); port != nil && port.Text == "0" {
		l.report(port, "", false, "want a port from 1 to 65535, got 0")
	}
}

// checkProtocol refuses what makes no sense with what a listener speaks.
func (l *loader) checkProtocol(listener *Listener, doc listenerDoc, n *Node) {
	speaks := listener.Protocol
	certificates := n.Get("certificates")
	switch {
	case speaks == HTTPS && len(doc.Certificates) == 0:
		l.report(n, "certificates", false, "a listener of HTTPS needs a certificate").Hintf("write certificates: [{secret: tls/example}]")
	case speaks == TLS && certificates != nil && len(doc.Certificates) == 0:
		l.report(certificates, "", false, "name at least one certificate").Hintf("leave certificates out to pass TLS through")
	case (speaks == HTTP || speaks == TCP) && certificates != nil:
		p := l.report(certificates, "", false, "a listener of %s shows no certificate", speaks)
		p.Hintf("write protocol: %s", map[Protocol]Protocol{HTTP: HTTPS, TCP: TLS}[speaks])
	}
	if doc.HTTPSRedirect.on && speaks != HTTP {
		l.report(n, "httpsRedirect", false, "only a listener of HTTP can send clients to https://, this one speaks %s", speaks)
	}
	if listener.PerHost && !listener.HTTP() {
		l.report(n, "routeTables", false, "a listener of %s has no route tables", speaks).Hintf("remove it")
	}
}

func (l *loader) decodeCertificates(listener *Listener, docs []certificateDoc, n *Node) {
	seen := make(map[serverName]*Node, len(docs))
	for i, doc := range docs {
		at := n.Get("certificates").Items[i]
		if doc.Secret == "" || at.Get("hostname") != nil && doc.Hostname == "" {
			continue // told while it was decoded
		}
		if first := seen[doc.Hostname]; first != nil {
			message := fmt.Sprintf("the hostname %s has a certificate already", quote(string(doc.Hostname)))
			if doc.Hostname == "" {
				message = "there is a certificate without a hostname already"
			}
			l.report(at, "hostname", false, "%s, at %s", message, first.Pos).also(first.Pos)
			continue
		}
		seen[doc.Hostname] = at
		listener.Certificates = append(listener.Certificates, Certificate{Hostname: string(doc.Hostname), Secret: string(doc.Secret), Pos: at.Pos})
		h, p := l.secret(at, "secret", CertificateSecret, string(doc.Secret))
		if p == nil && h.leaf != nil && doc.Hostname != "" && h.leaf.VerifyHostname(strings.Replace(string(doc.Hostname), "*", "any", 1)) != nil {
			l.report(at, "hostname", true, "the certificate %s is not for %s: clients will refuse it", doc.Secret, doc.Hostname).
				Hint = certifiedFor(h.leaf.DNSNames)
		}
	}
}

func certifiedFor(names []string) string {
	if len(names) == 0 {
		return "it names no host at all"
	}
	const most = 5
	list := cut(strings.Join(names[:min(len(names), most)], ", "))
	if len(names) > most {
		list += " and others"
	}
	return "it is for " + list
}

func (l *loader) portConflict(g *Gateway, listener *Listener, port *Node) {
	for _, other := range g.Listeners {
		if port == nil || listener.Port == 0 || !other.Meets(listener) {
			continue
		}
		l.report(port, "", false, "port %d is already taken by the listener %s at %s", listener.Port, quote(other.Name), other.Pos).
			also(other.Pos).Hintf("give one of the two another port")
		return
	}
}

// Meets tells whether two listeners would want the same connections if they stood on one machine.
func (l *Listener) Meets(other *Listener) bool {
	return l.Port == other.Port && overlap(l.Address, other.Address)
}

func overlap(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return a == b || errX == nil && x.IsUnspecified() || errY == nil && y.IsUnspecified()
}
