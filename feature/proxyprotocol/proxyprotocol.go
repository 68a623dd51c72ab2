// Package proxyprotocol takes the client's address from proxies of TCP in front of a listener: the key proxyProtocol.
// [envoy.Translate] calls it.
package proxyprotocol

import (
	_ "embed"
	"net/netip"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key proxyProtocol.
var Kind = policy.Define[Setting]("proxyProtocol", policy.InListener, doc)

// Setting is what stands under proxyProtocol: required, or a map.
type Setting struct {
	From     []policy.Range `policy:"from,required" doc:"the proxies: addresses and ranges such as 10.0.0.0/8; all others are refused"`
	Optional bool           `policy:"optional" doc:"whether the proxies may also connect without a header, as their health checks do; default: false"`
}

const required = "required"

// DecodePolicy reads required, or a map.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	const want = "write required, or {from: [10.0.0.0/8]}"
	switch {
	case n.Kind == policy.Map:
		d.Decode(n, s)
	case n.Kind == policy.Scalar && n.Text == "optional":
		d.Errorf(n, "without knowing the proxies, everybody could claim any address").Hintf("name them: {from: [10.0.0.0/8], optional: true}")
	case n.Kind != policy.Scalar || n.Text != required:
		d.Errorf(n, "want %s, or a map", required).Hintf(want)
	}
}

// PolicySchema describes both forms.
func (s *Setting) PolicySchema(schemas *policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{map[string]any{"const": required}, schemas.Of(s)}}
}

// maxRanges bounds the list: it stands in every filter chain.
const maxRanges = 100

// Check refuses lists that let nobody in, or everybody.
func (s *Setting) Check(c *policy.Check) {
	if s.From != nil && len(s.From) == 0 {
		c.Errorf("from", "name at least one address or range")
	}
	if len(s.From) > maxRanges {
		c.Errorf("from", "want at most %d ranges, got %d", maxRanges, len(s.From))
		return
	}
	for i, r := range s.From {
		p := netip.Prefix(r)
		if p.Bits() == 0 && s.Optional {
			c.Errorf("optional", "everybody is in from (%s), and could claim any address", p).Hintf("name the proxies only, or leave optional out")
		}
		if slices.Contains(s.From[:i], r) {
			c.Warnf(policy.Item("from", i), "%s stands here twice", r)
		}
	}
}

// Listener reads the header of either version before TLS begins. Envoy closes connections without one, and those whose
// header does not come within 15 seconds.
func (s *Setting) Listener(c envoy.ListenerContext) *listenerv3.Listener {
	config := envoy.Pack(&proxyv3.ProxyProtocol{
		AllowRequestsWithoutProxyProtocol: s.Optional,
		StatPrefix:                        c.Listener.Name,
	})
	return &listenerv3.Listener{ListenerFilters: []*listenerv3.ListenerFilter{{
		Name:       "envoy.filters.listener.proxy_protocol",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: config},
	}}}
}

// FilterChainMatch lets in nobody but the proxies: it is their own address that counts, not what they say.
func (s *Setting) FilterChainMatch(envoy.ListenerContext) *listenerv3.FilterChainMatch {
	if len(s.From) == 0 {
		return nil
	}
	match := new(listenerv3.FilterChainMatch)
	for _, r := range s.From {
		match.DirectSourcePrefixRanges = append(match.DirectSourcePrefixRanges, envoy.CIDR(netip.Prefix(r)))
	}
	return match
}
