package policy

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// serviceLayer is a service on its way.
type serviceLayer struct {
	service *Service
	raw     *rawEntry
	layer   layer
}

type serviceDoc struct {
	Endpoints []endpoint `policy:"endpoints" doc:"the addresses of the service: ip:port, an IPv6 address in brackets" schema:"some"`
	DNS       *hostPort  `policy:"dns" doc:"host:port instead of endpoints: a name that Envoy resolves"`
}

// endpoint is an address as written: ip:port.
type endpoint Endpoint

// DecodePolicy reads ip:port.
func (e *endpoint) DecodePolicy(d *Decode, n *Node) {
	host, port, ok := splitHostPort(d, n, "10.0.0.1:8080")
	if !ok {
		return
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" {
		p := d.Errorf(n, "want an IP address before the port, got %s", quote(host))
		if badHost(host) == "" {
			p.Hintf("a host name is written as dns: %s", cut(n.Text))
		}
		return
	}
	*e = endpoint{Host: ip.String(), Port: port, Pos: n.Pos}
}

// PolicySchema describes ip:port.
func (*endpoint) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": `^(\[[0-9a-fA-F:.]+\]|[0-9.]+):[0-9]+$`, "description": "ip:port"}
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
	*h = hostPort{Host: host, Port: port, Pos: n.Pos}
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
	if err != nil || host == "" {
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
	case endpoints != nil && endpoints.Kind == List && len(endpoints.Items) == 0:
		l.report(endpoints, "", false, "name at least one endpoint").Hintf(`write ["10.0.0.1:8080"]`)
	}
	seen := make(map[string]bool, len(doc.Endpoints))
	for _, e := range doc.Endpoints {
		if e.Port == 0 {
			continue
		}
		address := net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
		if seen[address] {
			l.add(&Problem{Pos: e.Pos, Path: join(n.Path(), "endpoints"), Message: "the endpoint " + address + " stands here twice"})
		}
		seen[address] = true
		s.service.Endpoints = append(s.service.Endpoints, Endpoint(e))
	}
	if doc.DNS != nil {
		s.service.DNS = &DNS{Endpoint: Endpoint(*doc.DNS)}
	}
}
