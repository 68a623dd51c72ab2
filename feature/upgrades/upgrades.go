// Package upgrades lets connections leave HTTP, as WebSocket does: the key upgrades. [envoy.Translate] calls it.
package upgrades

import (
	_ "embed"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key upgrades.
var Kind = policy.Define[Setting]("upgrades", policy.Layers, doc).ForApp()

// Setting is what stands under upgrades: what clients may upgrade to.
type Setting []Protocol

// Protocol is what a client writes into the header upgrade; case does not count.
type Protocol string

// DecodePolicy reads a protocol, and refuses those that would carry requests past auth and limits.
func (p *Protocol) DecodePolicy(d *policy.Decode, n *policy.Node) {
	name, version, _ := strings.Cut(strings.ToLower(n.Text), "/")
	switch {
	case n.Kind != policy.Scalar:
		d.Errorf(n, "want a protocol such as websocket")
	case name == "ws" || name == "wss":
		d.Errorf(n, "%q is a scheme of URLs; the protocol has another name", n.Text).Hintf("write websocket")
	case strings.HasPrefix(name, "connect"):
		d.Errorf(n, "CONNECT makes Envoy a tunnel to anywhere behind it, past every other route's auth: it is not to be had").
			Hintf("a listener of TCP or TLS passes bytes on")
	case name == "h2c" || name == "http":
		d.Errorf(n, "requests inside an upgraded connection would go past auth and limits; Envoy drops upgrades to h2c").
			Hintf("clients can speak HTTP/2 to every listener without an upgrade")
	case name == "tls":
		d.Errorf(n, "requests inside TLS that Envoy does not end would go past auth and limits").
			Hintf("write protocol: HTTPS for the listener")
	case !policy.IsToken(name), version != "" && !policy.IsToken(version), strings.HasSuffix(n.Text, "/"):
		d.Errorf(n, "%q is no protocol to upgrade to", n.Text).Hintf("write websocket, or what clients send in the header upgrade")
	default:
		*p = Protocol(n.Text)
	}
}

// PolicySchema describes a protocol.
func (*Protocol) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{
		"type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+(/[A-Za-z0-9!#$%&'*+.^_`|~-]+)?$",
		"description": "what clients write into the header upgrade", "examples": []string{"websocket"},
	}
}

// Check refuses lists that say nothing, and what Envoy takes for the same protocol twice.
func (s *Setting) Check(c *policy.Check) {
	if len(*s) == 0 {
		c.Errorf("", "name at least one protocol").Hintf("write `upgrades: off` to allow none")
	}
	seen := make(map[string]bool, len(*s))
	for i, p := range *s {
		name := strings.ToLower(string(p))
		if seen[name] {
			c.Errorf(policy.Item("", i), "%s stands here twice: case does not count", p)
		}
		seen[name] = true
	}
	if r := c.Route(); r != nil {
		checkBackends(c, r)
	}
}

// checkBackends wants services that speak HTTP/1.1: HTTP/2 knows no upgrades, and what stands in their place there
// (extended CONNECT) Envoy does not ask of a service. Routes that have the setting from the gateway's defaults may lead
// elsewhere.
func checkBackends(c *policy.Check, r *policy.BoundRoute) {
	if c.Set().Layer.Place == policy.InDefaults {
		return
	}
	if len(r.Backends) == 0 {
		c.Warnf("", "upgrades does nothing here: the route has no backend to speak to")
	}
	for _, b := range r.Backends {
		switch always, maybe := envoy.SpeaksHTTP2(b.Service.Settings); {
		case always:
			c.Errorf("", "upgrades need HTTP/1.1, and the service %s speaks HTTP/2", b.Service.Name).
				Hintf("write protocol: http1 for the service, if it can, or take a service of its own")
		case maybe:
			c.Warnf("", "upgrades need HTTP/1.1, and the service %s may agree on HTTP/2", b.Service.Name).
				Hintf("write protocol: http1 for the service")
		}
	}
}

// Route allows the upgrades in the route's action. The connection manager allows none, so that those of other routes
// are refused.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	action := new(routev3.RouteAction)
	for _, p := range *s {
		action.UpgradeConfigs = append(action.UpgradeConfigs, &routev3.RouteAction_UpgradeConfig{UpgradeType: string(p)})
	}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}
