// Package mirror sends copies of requests to further services: the key mirror. [envoy.Translate] calls it.
package mirror

import (
	_ "embed"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key mirror.
var Kind = policy.Define[Setting]("mirror", policy.Layers, doc)

// Setting is what stands under mirror: services by name, with the share of the requests that are sent to them too.
type Setting map[string]policy.Percent

// maxMirrors bounds how many copies Envoy makes of one request.
const maxMirrors = 10

// Check wants services that there are.
func (s *Setting) Check(c *policy.Check) {
	if c.Route() == nil && len(c.Set().Node.Keys) == 0 {
		c.Errorf("", "name at least one service").Hintf("write {SERVICE: 10%%}, or `mirror: off` for none")
	}
	if len(*s) > maxMirrors {
		c.Errorf("", "%d services, more than %d: each request would be sent as often", len(*s), maxMirrors)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(*s)) {
		c.Ref(name, "services", name)
	}
	if r := c.Route(); r != nil {
		s.checkRoute(c, r)
	}
}

// checkRoute tells of copies that nobody can want. What comes from an outer layer is for routes in general, so that a
// route which sends nowhere may leave it alone.
func (s *Setting) checkRoute(c *policy.Check, r *policy.BoundRoute) {
	if r.Answers() && c.Set().Layer.Place == policy.InRoute {
		c.Errorf("", "the route answers by itself, so that there is nothing to copy").Hintf("take mirror away")
	}
	if len(r.Backends) != 1 {
		return
	}
	if share, ok := (*s)[r.Backends[0].Service.Name]; ok && share > 0 {
		name := r.Backends[0].Service.Name
		c.Warnf(name, "the service %s is the route's only backend: it gets the same requests twice", name)
	}
}

// Route writes a mirror policy for each service into the route's action.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	action := &routev3.RouteAction{}
	for _, name := range slices.Sorted(maps.Keys(*s)) {
		if share := (*s)[name]; share > 0 {
			action.RequestMirrorPolicies = append(action.RequestMirrorPolicies, mirrorPolicy(name, share))
		}
	}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}

func mirrorPolicy(service string, share policy.Percent) *routev3.RouteAction_RequestMirrorPolicy {
	return &routev3.RouteAction_RequestMirrorPolicy{
		Cluster:         service,
		RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: envoy.Fraction(share)},
		// Envoy would write "HOST-shadow", which a service that knows its hosts answers 404.
		DisableShadowHostSuffixAppend: true,
	}
}
