package policy

import (
	"math"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// Bounds of an endpoint.
const (
	maxWeight   = 1_000_000
	maxPriority = 127 // Envoy takes 128 of them
	maxZone     = 63

	maxEndpoints    = 10_000  // of one service
	maxAllEndpoints = 500_000 // of all: thousands of services may name one file
)

// endpointsDoc is the endpoints of a service as written: a list, or the file that lists them.
type endpointsDoc struct {
	list []endpoint
	file string // its full name, empty for a list
}

// listed is what a file of endpoints came to.
type listed struct {
	list  []endpoint
	wrong bool
}

// DecodePolicy reads the endpoints of a service.
func (e *endpointsDoc) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Map {
		switch {
		case n.Kind == List && len(n.Items) == 0:
			d.Errorf(n, "name at least one endpoint").Hintf(`write ["10.0.0.1:8080"]`)
		case len(n.Items) > maxEndpoints:
			d.Errorf(n, "%d endpoints, more than %d", len(n.Items), maxEndpoints)
		default:
			d.Decode(n, &e.list)
		}
		return
	}
	var doc struct {
		File string `policy:"file,required"`
	}
	if !d.Decode(n, &doc) {
		return
	}
	name := n.Get("file")
	if IsPolicy(doc.File) {
		d.Errorf(name, "%s is a policy file, not a list of endpoints", quote(doc.File)).Hintf("call it orders.endpoints, or orders.json")
		return
	}
	content, ok := d.File(name, doc.File)
	if !ok {
		return
	}
	e.file = path.Join(path.Dir(name.Pos.File), doc.File)
	read := OncePerFile(d, func() listed {
		before := d.load.errs
		return listed{d.endpointFile(e.file, content), d.load.errs > before}
	})
	if e.list = read.list; read.wrong {
		d.load.errs++ // it is told once, and wrong for all
	}
}

// PolicySchema describes the endpoints of a service.
func (*endpointsDoc) PolicySchema(s *Schemas) map[string]any {
	return map[string]any{"oneOf": []any{
		map[string]any{"type": "array", "minItems": 1, "items": s.Of(new(endpoint))},
		OnlyKey("file", map[string]any{"type": "string", "minLength": 1}),
	}}
}

// endpoint is an address as written: ip:port, or a map with its weight, zone and priority.
type endpoint Endpoint

// zone is the name of a part of a data center that fails by itself.
type zone string

// DecodePolicy reads the name of a zone.
func (z *zone) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Scalar || n.Text == "" || len(n.Text) > maxZone || strings.IndexFunc(n.Text, notZone) >= 0 {
		d.Errorf(n, "want a zone such as eu-1a, got %s", n.shape()).Hintf("it is up to %d letters, digits, -, . and _", maxZone)
		return
	}
	*z = zone(n.Text)
}

func notZone(c rune) bool {
	return c > 0x7f || !isAlphanumeric(byte(c)) && c != '-' && c != '.' && c != '_'
}

// DecodePolicy reads an endpoint.
func (e *endpoint) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Map {
		e.address(d, n)
		return
	}
	doc := struct {
		Address  *Node  `policy:"address,required"`
		Weight   uint32 `policy:"weight"`
		Zone     zone   `policy:"zone"`
		Priority uint32 `policy:"priority"`
	}{Weight: 1}
	if !d.Decode(n, &doc) {
		return
	}
	switch {
	case doc.Weight == 0 || doc.Weight > maxWeight:
		d.Errorf(n.Get("weight"), "want a weight from 1 to %d, got %d", maxWeight, doc.Weight)
		return
	case doc.Priority > maxPriority:
		d.Errorf(n.Get("priority"), "want a priority from 0, which is asked first, to %d, got %d", maxPriority, doc.Priority)
		return
	}
	e.address(d, doc.Address)
	e.Weight, e.Zone, e.Priority = doc.Weight, string(doc.Zone), doc.Priority
}

// address reads ip:port.
func (e *endpoint) address(d *Decode, n *Node) {
	at, ok := ipPort(d, n, "10.0.0.1:8080", func(host string, _ uint32) string {
		if badHost(host) != "" {
			return ""
		}
		return "a host name is written as dns: " + cut(n.Text)
	})
	if ok {
		*e = endpoint(at)
	}
}

// ipPort reads ip:port. The hint is what to write in place of a host.
func ipPort(d *Decode, n *Node, example string, hint func(host string, port uint32) string) (Endpoint, bool) {
	host, port, ok := splitHostPort(d, n, example)
	if !ok {
		return Endpoint{}, false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" {
		d.Errorf(n, "want an IP address before the port, got %s", quote(host)).Hint = hint(host, port)
		return Endpoint{}, false
	}
	return Endpoint{Host: ip.String(), Port: port, Weight: 1, Pos: n.Pos}, true
}

// PolicySchema describes an endpoint.
func (*endpoint) PolicySchema(s *Schemas) map[string]any {
	text := addressSchema()
	form := OnlyKey("address", text)
	properties := form["properties"].(map[string]any)
	properties["weight"] = map[string]any{"type": "integer", "minimum": 1, "maximum": maxWeight, "description": "its share among those of its zone; default 1"}
	properties["zone"] = map[string]any{"type": "string", "minLength": 1, "maxLength": maxZone, "pattern": "^[a-zA-Z0-9._-]+$"}
	properties["priority"] = map[string]any{"type": "integer", "minimum": 0, "maximum": maxPriority, "description": "0, the default, is asked first"}
	return map[string]any{"oneOf": []any{text, form}}
}

func addressSchema() map[string]any {
	return map[string]any{"type": "string", "pattern": `^(\[[0-9a-fA-F:.]+\]|[0-9.]+):[0-9]+$`, "description": "ip:port"}
}

// endpoints checks the endpoints of a service against each other. They stand below n, or in a file of their own.
func (l *loader) endpoints(doc *endpointsDoc, n *Node) []Endpoint {
	if l.endpointsTold += len(doc.list); l.endpointsTold > maxAllEndpoints {
		l.report(n, "", false, "the services have more than %d endpoints together", maxAllEndpoints)
		return nil
	}
	all := make([]Endpoint, 0, len(doc.list))
	wrong := func(e Endpoint, format string, args ...any) *Problem {
		at := &Node{Pos: e.Pos}
		if doc.file == "" {
			at.up, at.index = n.up, n.index
		}
		p := l.report(at, "", false, format, args...)
		if doc.file != "" {
			p.blames = append(p.blames, doc.file)
		}
		return p
	}
	seen := make(map[string]bool, len(doc.list))
	sums := make(map[uint32]uint64) // of the weights, by priority
	for _, e := range doc.list {
		if e.Port == 0 {
			continue // told while it was decoded
		}
		address := net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
		if seen[address] {
			wrong(Endpoint(e), "the endpoint %s stands here twice", address)
			continue
		}
		seen[address] = true
		before := sums[e.Priority]
		sums[e.Priority] += uint64(e.Weight)
		if before <= math.MaxUint32 && sums[e.Priority] > math.MaxUint32 {
			wrong(Endpoint(e), "the weights up to here add up to %d; Envoy takes %d", sums[e.Priority], uint32(math.MaxUint32)).
				Hintf("divide all weights by the same number")
		}
		all = append(all, Endpoint(e))
	}
	if len(all) < len(doc.list) {
		return all // the rest may have the priorities that these lack
	}
	for _, e := range all {
		if e.Priority > 0 && sums[e.Priority-1] == 0 {
			wrong(e, "priority %d stands here, but no endpoint has priority %d", e.Priority, e.Priority-1).
				Hintf("priorities count from 0, without gaps")
			break
		}
	}
	return all
}
