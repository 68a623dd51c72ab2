// Package proxyprotocol takes the client's address from proxies of TCP in front of a listener: the key proxyProtocol.
// [envoy.Translate] calls it.
package proxyprotocol

import (
	_ "embed"
	"net/netip"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key proxyProtocol.
var Kind = policy.Define[Setting]("proxyProtocol", policy.InListener, doc)

// Setting is what stands under proxyProtocol: required, or a map.
type Setting struct {
	From     []Range `policy:"from,required" doc:"the proxies: addresses and ranges such as 10.0.0.0/8; all others are refused"`
	Optional bool    `policy:"optional" doc:"whether the proxies may also connect without a header, as their health checks do; default: false"`
}

// Range is addresses that begin with the same bits; one address is a range of its own.
type Range netip.Prefix

// DecodePolicy reads an address or a range.
func (r *Range) DecodePolicy(d *policy.Decode, n *policy.Node) {
	p, err := netip.ParsePrefix(n.Text)
	if a, wrong := netip.ParseAddr(n.Text); wrong == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case n.Kind != policy.Scalar || err != nil:
		d.Errorf(n, "want an address or a range").Hintf("write 10.1.2.3, 10.0.0.0/8, 2001:db8::1 or 2001:db8::/32")
	case p.Masked() != p:
		d.Errorf(n, "%q has bits behind its first %d, which do not count", n.Text, p.Bits()).
			Hintf("write %s for the range, %s for the one address", p.Masked(), p.Addr())
	default:
		*r = Range(p)
	}
}

// PolicySchema describes an address or a range.
func (*Range) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": `^[0-9a-fA-F.:]+(/[0-9]{1,3})?$`}
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
			c.Warnf("from["+strconv.Itoa(i)+"]", "%s stands here twice", p)
		}
	}
}

// Listener reads the header of either version before TLS begins. Envoy closes connections without one, and those whose
// header does not come within 15 seconds.
func (s *Setting) Listener(c envoy.ListenerContext) *listenerv3.Listener {
	config, err := anypb.New(&proxyv3.ProxyProtocol{
		AllowRequestsWithoutProxyProtocol: s.Optional,
		StatPrefix:                        c.Listener.Name,
	})
	if err != nil {
		panic(err) // names of listeners are ASCII
	}
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
		p := netip.Prefix(r)
		match.DirectSourcePrefixRanges = append(match.DirectSourcePrefixRanges, &corev3.CidrRange{
			AddressPrefix: p.Addr().String(),
			PrefixLen:     wrapperspb.UInt32(uint32(p.Bits())),
		})
	}
	return match
}
