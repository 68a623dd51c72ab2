package tracing

import (
	_ "embed"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed route.md
var routeDoc string

// RouteKind is the key tracing of a route and the layers outside it.
var RouteKind = policy.Define[Route]("tracing", policy.Layers, routeDoc).Switch()

// Route is what stands under tracing in a route.
type Route struct {
	Off        bool
	Sampling   *policy.Percent `policy:"sampling" doc:"the share of requests that is traced, in steps of 0.01%; default: the gateway's"`
	Attributes Attributes      `policy:"attributes" doc:"further attributes of the spans by name: a text, or {header: x}"`
}

// DecodePolicy reads the fields, or off.
func (r *Route) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if r.Off = n.Off(); !r.Off {
		d.Decode(n, r)
	}
}

// PolicySchema describes the fields; off is known of any key of a route.
func (*Route) PolicySchema(s *policy.Schemas) map[string]any { return s.Of(new(Route)) }

// Check looks at the share and the attributes, and whether there is a collector.
func (r *Route) Check(c *policy.Check) {
	checkSampling(c, r.Sampling)
	r.Attributes.check(c)
	route := c.Route()
	if route == nil || r.Off || c.Set().Layer.Place != policy.InRoute || route.Gateway.Settings.Has("tracing") {
		return
	}
	c.Warnf("", "the gateway %q has no tracing, so that this says nothing", route.Gateway.Name).
		Hintf("write tracing: {openTelemetry: {service: NAME}} in gateways.%s", route.Gateway.Name)
}

// Route says which share of the requests is traced; Envoy's defaults would force a trace where a client asks for one.
func (r *Route) Route(c envoy.RouteContext) envoy.RouteParts {
	gateway, ok := policy.Find[*Setting](c.Route.Gateway.Settings)
	if !ok {
		return envoy.RouteParts{}
	}
	sampling := gateway.sampling()
	switch {
	case r.Off:
		sampling = 0
	case r.Sampling != nil:
		sampling = *r.Sampling
	}
	return envoy.RouteParts{Route: &routev3.Route{Tracing: &routev3.Tracing{
		ClientSampling:  envoy.Fraction(0),
		RandomSampling:  envoy.Fraction(sampling),
		OverallSampling: envoy.Fraction(100),
		CustomTags:      r.Attributes.tags(),
	}}}
}
