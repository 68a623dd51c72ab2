package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Policy is what is served: a model, the resources that it comes to by gateway, and the kinds of its settings.
type Policy struct {
	Model     *policy.Model
	Resources map[string][]envoy.Resource
	Kinds     []*policy.Kind
}

// door is a listener of HTTP, as its Envoys have it.
type door struct {
	policy   Policy
	gateway  *policy.Gateway
	listener *policy.Listener
	served   *listenerv3.Listener
	matcher  *matcher
	byName   map[string]*policy.BoundRoute
	tables   map[string]map[string]*routev3.VirtualHost // by route table and domain, once they were looked into
}

// Unclear is a question that more than one listener, or none, is meant by.
type Unclear struct{ message string }

func (u *Unclear) Error() string { return u.message }

// open finds the listener that a question is about.
func (p Policy) open(q Question, u target) (*door, error) {
	all, err := p.named(q)
	if err != nil {
		return nil, err
	}
	fits := filter(all, func(d *door) bool { return d.listener.Protocol == protocols[u.scheme] })
	if len(fits) == 0 {
		return nil, &Unclear{fmt.Sprintf("no listener speaks %s: there is %s", protocols[u.scheme], list(all))}
	}
	if u.port != 0 {
		if at := filter(fits, func(d *door) bool { return d.listener.Port == u.port }); len(at) > 0 {
			fits = at
		} else if q.Listener == "" {
			return nil, &Unclear{fmt.Sprintf("no listener of %s has the port %d: there is %s; where another port leads to it, name it with --listener",
				protocols[u.scheme], u.port, list(fits))}
		}
	}
	host := strings.ToLower(u.name())
	fits = narrow(fits, func(d *door) bool { return !d.gateway.Sidecar })
	fits = narrow(fits, func(d *door) bool { return d.hasHost(host) })
	fits = narrow(fits, func(d *door) bool { return d.listener.Port == cmp.Or(u.port, defaultPorts[u.scheme]) })
	if len(fits) > 1 {
		return nil, &Unclear{fmt.Sprintf("several listeners could take it: name one with --gateway and --listener: %s", list(fits))}
	}
	return fits[0], nil
}

var (
	protocols    = map[string]policy.Protocol{"http": policy.HTTP, "https": policy.HTTPS}
	defaultPorts = map[string]uint32{"http": 80, "https": 443}
)

// named is the listeners of HTTP that a question names, or all.
func (p Policy) named(q Question) ([]*door, error) {
	var all []*door
	for _, g := range p.Model.Gateways {
		for _, l := range g.Listeners {
			if l.HTTP() && (q.Gateway == "" || q.Gateway == g.Name) && (q.Listener == "" || q.Listener == l.Name) {
				all = append(all, &door{policy: p, gateway: g, listener: l})
			}
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	everything, _ := p.named(Question{})
	if q.Gateway == "" && q.Listener == "" || len(everything) == 0 {
		return nil, &Unclear{"no listener of the policy speaks HTTP or HTTPS"}
	}
	return nil, &Unclear{fmt.Sprintf("there is no such listener: there is %s", list(everything))}
}

func filter(all []*door, holds func(*door) bool) []*door {
	var some []*door
	for _, d := range all {
		if holds(d) {
			some = append(some, d)
		}
	}
	return some
}

// narrow is filter, but for all of them where it holds for none.
func narrow(all []*door, holds func(*door) bool) []*door {
	if some := filter(all, holds); len(some) > 0 && len(all) > 1 {
		return some
	}
	return all
}

func list(doors []*door) string {
	var names []string
	for _, d := range doors {
		names = append(names, fmt.Sprintf("%s/%s (%s, port %d)", d.gateway.Name, d.listener.Name, d.listener.Protocol, d.listener.Port))
	}
	return strings.Join(names, ", ")
}

// routes is those of the gateway, in order of precedence.
func (d *door) routes() []*policy.BoundRoute { return d.policy.Model.Bound[d.gateway] }

// hasHost tells whether a route of the listener is for a host.
func (d *door) hasHost(host string) bool {
	return slices.ContainsFunc(d.routes(), func(r *policy.BoundRoute) bool {
		return !r.Layer4 && r.On(d.listener) && slices.ContainsFunc(r.Hostnames, func(name string) bool { return covers(name, host) })
	})
}

// covers tells whether a domain of a virtual host stands for a host in lower case.
func covers(domain, host string) bool {
	if below, wildcard := strings.CutPrefix(domain, "*"); wildcard {
		return len(host) > len(below) && strings.HasSuffix(host, below) || domain == "*"
	}
	return domain == host
}

// prepare looks the listener's resources up.
func (d *door) prepare() {
	d.matcher, d.tables = newMatcher(), map[string]map[string]*routev3.VirtualHost{}
	d.byName = make(map[string]*policy.BoundRoute, len(d.routes()))
	for _, r := range d.routes() {
		d.byName[r.Name] = r
	}
	d.served, _ = d.resource(resource.ListenerType, d.listener.Name).(*listenerv3.Listener)
}

func (d *door) resource(kind, name string) any {
	all := d.policy.Resources[d.gateway.Name]
	i, found := slices.BinarySearchFunc(all, envoy.Resource{Type: kind, Name: name}, func(a, b envoy.Resource) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	if !found {
		return nil
	}
	return all[i].Message
}

// manager is the connection manager for a connection; none, with the reason, where it is not taken.
func (d *door) manager(serverName string, from netip.Addr) (*hcmv3.HttpConnectionManager, string) {
	chains := d.served.GetFilterChains()
	if d.listener.Protocol == policy.HTTPS {
		if chains = bySNI(chains, serverName); len(chains) == 0 {
			return nil, "the listener has no certificate for " + cmp.Or(serverName, "clients that ask for no server name")
		}
	}
	if from.IsValid() {
		chains = bySource(chains, from)
	}
	if len(chains) == 0 {
		return nil, "clients of this address may not connect"
	}
	for _, f := range chains[0].Filters {
		manager := new(hcmv3.HttpConnectionManager)
		if f.GetTypedConfig().UnmarshalTo(manager) == nil {
			return manager, ""
		}
	}
	return nil, "the listener speaks no HTTP"
}

// bySNI is the filter chains for the server name of a client: those that name it, else the longest wildcard, else those for
// any name.
func bySNI(chains []*listenerv3.FilterChain, name string) []*listenerv3.FilterChain {
	longest := -1
	var found []*listenerv3.FilterChain
	for _, c := range chains {
		score := 0
		if names := c.GetFilterChainMatch().GetServerNames(); len(names) > 0 {
			score = -1
			for _, n := range names {
				switch {
				case n == name:
					score = len(n) + 1<<16
				case name != "" && strings.HasPrefix(n, "*.") && covers(n, name):
					score = max(score, len(n))
				}
			}
		}
		switch {
		case score < 0 || score < longest:
		case score > longest:
			longest, found = score, []*listenerv3.FilterChain{c}
		default:
			found = append(found, c)
		}
	}
	return found
}

func bySource(chains []*listenerv3.FilterChain, from netip.Addr) []*listenerv3.FilterChain {
	var found []*listenerv3.FilterChain
	for _, c := range chains {
		if ranges := c.GetFilterChainMatch().GetSourcePrefixRanges(); len(ranges) == 0 || inRanges(ranges, from) {
			found = append(found, c)
		}
	}
	return found
}

// target is the parts of a URL, as they are written.
type target struct {
	scheme, host string // host with its port
	port         uint32 // 0 where none is written
	path         string // with the query
}

// name is the host without the port.
func (u target) name() string {
	if u.port != 0 {
		return u.host[:strings.LastIndexByte(u.host, ':')]
	}
	return u.host
}

// parseURL takes a URL apart and leaves the path as it is, which libraries would tidy up.
func parseURL(url string) (target, error) {
	scheme, rest, ok := strings.Cut(url, "://")
	u := target{scheme: strings.ToLower(scheme)}
	if !ok || protocols[u.scheme] == "" {
		return u, fmt.Errorf("want a URL of http:// or https://, got %q", url)
	}
	rest, _, _ = strings.Cut(rest, "#") // clients keep it to themselves
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	u.host, u.path = rest[:end], rest[end:]
	if !strings.HasPrefix(u.path, "/") {
		u.path = "/" + u.path
	}
	if u.host == "" || strings.Contains(u.host, "@") {
		return u, fmt.Errorf("want a host after %s://, without a name or a password, got %q", u.scheme, u.host)
	}
	for i := range len(u.host) + len(u.path) {
		if c := (u.host + u.path)[i]; c <= ' ' || c == 0x7f {
			return u, fmt.Errorf("the URL has a space or a control character: a client would write %%%02X", c)
		}
	}
	if i := strings.LastIndexByte(u.host, ':'); i >= 0 && !strings.HasSuffix(u.host, "]") {
		port, err := strconv.ParseUint(u.host[i+1:], 10, 16)
		if err != nil || port == 0 {
			return u, fmt.Errorf("want a port from 1 to 65535 after the host, got %q", u.host[i+1:])
		}
		u.port = uint32(port)
	}
	return u, nil
}
