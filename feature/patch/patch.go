// Package patch is the key envoy: fields of Envoy's own messages for what no other key can say, laid over what Legation
// makes of a route, a service or a listener. Only fields that can't open auth or limits may be written. [envoy.Translate]
// calls it.
package patch

import (
	_ "embed"
	"iter"
	"slices"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed route.md
var routeDoc string

//go:embed service.md
var serviceDoc string

//go:embed listener.md
var listenerDoc string

// The key envoy in its three places.
var (
	RouteKind    = policy.Define[Route]("envoy", policy.InRoute, routeDoc)
	ServiceKind  = policy.Define[Service]("envoy", policy.InService, serviceDoc)
	ListenerKind = policy.Define[Listener]("envoy", policy.InListener, listenerDoc)
)

// parts is the messages that are written under envoy.
type parts []part

// Patches are what is laid over ours.
func (s parts) Patches() []envoy.Patch {
	var all []envoy.Patch
	for _, p := range s {
		all = append(all, envoy.Patch{Message: p.message, Pos: p.node.Pos, Path: p.node.Path()})
	}
	return all
}

// Reaches yields the keys whose matter the fields are: where a gateway locks one, they are refused.
func (s parts) Reaches() iter.Seq2[string, string] {
	return func(yield func(key, path string) bool) {
		for _, p := range s {
			for _, w := range p.wrote {
				if w.key != "" && !yield(w.key, w.at) {
					return
				}
			}
		}
	}
}

// Whole tells that fields of two layers are not mixed.
func (s parts) Whole() {}

// part finds the part of a name.
func (s parts) part(name string) *part {
	if i := slices.IndexFunc(s, func(p part) bool { return p.of.name == name }); i >= 0 {
		return &s[i]
	}
	return nil
}

// checkNeeds wants the keys that make what some fields are details of.
func (s parts) checkNeeds(c *policy.Check, settings policy.Settings) {
	for _, p := range s {
		for _, w := range p.wrote {
			if w.needs && !settings.Has(w.key) && !c.Broken(w.key) {
				c.Errorf(w.at, "a detail of %s, which there is none of here", w.key).Hintf("write %s beside envoy", w.key)
			}
		}
	}
}

// Route is what stands under envoy in a route.
type Route struct{ parts }

// DecodePolicy reads the patches of a route.
func (s *Route) DecodePolicy(d *policy.Decode, n *policy.Node) { s.parts = read(d, n, ofRoutes) }

// PolicySchema describes the parts.
func (*Route) PolicySchema(*policy.Schemas) map[string]any { return schema(ofRoutes) }

// Check holds the patch against the rest of the route.
func (s *Route) Check(c *policy.Check) {
	r := c.Route()
	if r == nil {
		return
	}
	s.checkNeeds(c, r.Settings)
	p := s.part("route")
	if p == nil || p.message.(*routev3.Route).GetRoute().GetPriority() != corev3.RoutingPriority_HIGH {
		return
	}
	for _, b := range r.Backends {
		own, _ := policy.Find[*Service](b.Service.Settings)
		if b.Service.Settings.Has("circuitBreakers") && (own == nil || !own.bounds(corev3.RoutingPriority_HIGH)) {
			c.Errorf(p.at("route.priority"), "the circuitBreakers of the service %s don't bound requests of HIGH priority: they would get past them", b.Service.Name).
				Hintf("the service has to say what it takes: envoy: {cluster: {circuitBreakers: {thresholds: [{priority: HIGH, maxRequests: 100}]}}}")
		}
	}
}

// Service is what stands under envoy in a service.
type Service struct{ parts }

// DecodePolicy reads the patches of a service.
func (s *Service) DecodePolicy(d *policy.Decode, n *policy.Node) { s.parts = read(d, n, ofServices) }

// PolicySchema describes the parts.
func (*Service) PolicySchema(*policy.Schemas) map[string]any { return schema(ofServices) }

// Check holds the patch against the rest of the service.
func (s *Service) Check(c *policy.Check) {
	s.checkNeeds(c, c.Entry().Settings)
	if p := s.part("dns"); p != nil {
		s.checkDNS(c, p)
	}
	seen := make(map[corev3.RoutingPriority]bool)
	for i, t := range s.thresholds() {
		at := s.part("cluster").at("circuit_breakers.thresholds") + "[" + strconv.Itoa(i) + "]"
		switch {
		case t.Priority == corev3.RoutingPriority_DEFAULT:
			c.Errorf(at, "Envoy reads one list of bounds for requests of DEFAULT priority, and there is one").
				Hintf("write circuitBreakers for these; here stand those of priority: HIGH")
		case seen[t.Priority]:
			c.Errorf(at, "the bounds for requests of this priority stand here twice: Envoy would read the first only")
		}
		seen[t.Priority] = true
	}
}

// checkDNS wants a service that has a name, and times that make sense together.
func (s *Service) checkDNS(c *policy.Check, p *part) {
	if c.Service().DNS == nil {
		c.Errorf("dns", "the service has endpoints, and no name to resolve").Hintf("leave it out")
	}
	again := p.message.(*dnsv3.DnsCluster).GetDnsFailureRefreshRate()
	if most := again.GetMaxInterval(); most != nil && again.BaseInterval != nil && most.AsDuration() < again.BaseInterval.AsDuration() {
		c.Errorf(p.at("dns_failure_refresh_rate"), "maxInterval is shorter than baseInterval")
	}
}

// thresholds are those that the patch adds.
func (s *Service) thresholds() []*clusterv3.CircuitBreakers_Thresholds {
	p := s.part("cluster")
	if p == nil {
		return nil
	}
	return p.message.(*clusterv3.Cluster).GetCircuitBreakers().GetThresholds()
}

func (s *Service) bounds(priority corev3.RoutingPriority) bool {
	return slices.ContainsFunc(s.thresholds(), func(t *clusterv3.CircuitBreakers_Thresholds) bool { return t.Priority == priority })
}

// Listener is what stands under envoy in a listener.
type Listener struct {
	parts
	added []added
}

// DecodePolicy reads the patches of a listener and its further filters.
func (s *Listener) DecodePolicy(d *policy.Decode, n *policy.Node) {
	s.parts = read(d, n, ofListeners, "filters")
	if filters := n.Get("filters"); filters != nil {
		s.added = readFilters(d, filters)
	}
}

// PolicySchema describes the parts.
func (*Listener) PolicySchema(s *policy.Schemas) map[string]any {
	form := schema(ofListeners)
	form["properties"].(map[string]any)["filters"] = map[string]any{
		"type": "array", "minItems": 1, "items": map[string]any{"type": "object"},
	}
	return form
}

// Check holds the patch against what the listener speaks.
func (s *Listener) Check(c *policy.Check) {
	for _, l := range c.Listeners() {
		for _, p := range s.parts {
			_, http := p.message.(*hcmv3.HttpConnectionManager)
			_, tcp := p.message.(*tcpproxyv3.TcpProxy)
			if http && !l.HTTP() || tcp && l.HTTP() {
				c.Errorf(p.of.name, "a listener of %s has none", l.Protocol).Hintf("remove it")
			}
		}
		if len(s.added) > 0 && !l.HTTP() {
			c.Errorf("filters", "a listener of %s has no filters of HTTP", l.Protocol).Hintf("remove them")
		}
	}
}

// Filters stand after auth, limits and every filter of Legation's own, in the order that they are written in: none of
// them sees a request that was refused, and none can have one refused or taken that is not.
func (*Listener) Filters(c envoy.ListenerContext) []envoy.Filter {
	own, _ := policy.Find[*Listener](c.Listener.Settings)
	if own == nil {
		return nil
	}
	var all []envoy.Filter
	for i, a := range own.added {
		all = append(all, envoy.Filter{Name: a.name, Phase: envoy.Transform, Order: i + 1, Config: a.config, Enabled: true})
	}
	return all
}
