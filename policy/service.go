package policy

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// serviceLayer is a service on its way.
type serviceLayer struct {
	service *Service
	raw     *rawEntry
	layer   layer
	unit    unit
}

type serviceDoc struct {
	Endpoints *endpointsDoc `policy:"endpoints" doc:"the addresses of the service: ip:port, an IPv6 address in brackets, or {address: ip:port, weight: 2, zone: a, priority: 1}; or {file: orders.endpoints} that lists them"`
	DNS       *dnsDoc       `policy:"dns" doc:"host:port instead of endpoints: a name that Envoy resolves; or {name: host:port, type: logical, refresh: 5s}"`
}

// hostPort is a host name and a port as written: host:port.
type hostPort Endpoint

// DecodePolicy reads host:port.
func (h *hostPort) DecodePolicy(d *Decode, n *Node) {
	host, port, ok := splitHostPort(d, n, "orders.internal:8080")
	if !ok {
		return
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil {
		d.Errorf(n, "%s is an IP address, not a host name", quote(host)).Hintf("write endpoints: [%q]", n.Text)
		return
	}
	if why := badHost(host); why != "" {
		d.Errorf(n, "%s is no host name: %s", quote(host), why)
		return
	}
	*h = hostPort{Host: host, Port: port, Weight: 1, Pos: n.Pos}
}

// PolicySchema describes host:port.
func (*hostPort) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": `^[^:\s]+:[0-9]+$`, "description": "host:port"}
}

func splitHostPort(d *Decode, n *Node, example string) (string, uint32, bool) {
	if n.Kind != Scalar {
		d.Errorf(n, "want an address such as %s, got %s", example, n.shape())
		return "", 0, false
	}
	host, port, err := net.SplitHostPort(n.Text)
	if err != nil || host == "" || strings.HasPrefix(port, "//") {
		p := d.Errorf(n, "want an address such as %s, got %s", example, n.shape())
		switch {
		case strings.Contains(n.Text, "://"):
			p.Hintf("leave out the scheme and the path")
		case strings.Count(n.Text, ":") > 1:
			p.Hintf("write an IPv6 address in brackets: \"[::1]:8080\"")
		case !strings.Contains(n.Text, ":"):
			p.Hintf("add the port: %s:8080", cut(n.Text))
		}
		return "", 0, false
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || !digits(port) {
		d.Errorf(n, "want a port from 1 to 65535, got %s", quote(port))
		return "", 0, false
	}
	return host, uint32(number), true
}

// dnsDoc is a name to resolve as written: host:port, or a map.
type dnsDoc DNS

type dnsType string

// Values are the ways to use what a name resolves to.
func (dnsType) Values() []string { return []string{"strict", "logical"} }

// Bounds of the time between two looks at a name.
const (
	leastRefresh = 100 * time.Millisecond
	mostRefresh  = 24 * time.Hour
)

// DecodePolicy reads a name to resolve.
func (s *dnsDoc) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Map {
		d.Decode(n, (*hostPort)(&s.Endpoint))
		return
	}
	var doc struct {
		Name    *hostPort `policy:"name,required"`
		Type    dnsType   `policy:"type"`
		Refresh *Duration `policy:"refresh"`
	}
	if !d.Decode(n, &doc) {
		return
	}
	s.Endpoint, s.Logical = Endpoint(*doc.Name), doc.Type == "logical"
	if doc.Refresh != nil {
		s.Refresh = time.Duration(*doc.Refresh)
		if s.Refresh < leastRefresh || s.Refresh > mostRefresh {
			d.Errorf(n.Get("refresh"), "want a time span from %s to 24h, got %s", leastRefresh, doc.Refresh)
		}
	}
}

// PolicySchema describes a name to resolve.
func (*dnsDoc) PolicySchema(s *Schemas) map[string]any {
	form := OnlyKey("name", s.Of(new(hostPort)))
	properties := form["properties"].(map[string]any)
	properties["type"], properties["refresh"] = s.Of(new(dnsType)), s.Of(new(Duration))
	return map[string]any{"oneOf": []any{s.Of(new(hostPort)), form}}
}

func (l *loader) decodeService(s *serviceLayer) {
	var doc serviceDoc
	n := s.raw.value
	s.layer = l.layer(&s.service.Entry, n, &doc, InService)
	switch endpoints, dns := n.Get("endpoints"), n.Get("dns"); {
	case n.Kind != Map:
		return
	case endpoints == nil && dns == nil:
		l.report(n, "", false, "a service needs endpoints, or dns").Hintf(`write endpoints: ["10.0.0.1:8080"], or dns: orders.internal:8080`)
	case endpoints != nil && dns != nil:
		l.report(dns, "", false, "a service has endpoints or dns, not both").Hintf("remove one of the two")
	}
	if doc.Endpoints != nil {
		s.service.Endpoints = l.endpoints(doc.Endpoints, n.Get("endpoints"))
	}
	if doc.DNS != nil {
		s.service.DNS = (*DNS)(doc.DNS)
	}
}
