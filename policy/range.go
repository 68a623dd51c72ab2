package policy

import (
	"net/netip"
	"strings"
)

// Range is addresses that begin with the same bits, as written: 10.0.0.0/8. One address is a range of its own.
type Range netip.Prefix

// String gives an address alone where the range is one.
func (r Range) String() string {
	p := netip.Prefix(r)
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// Covers tells whether all addresses of the other range are in this one.
func (r Range) Covers(o Range) bool {
	outer, inner := netip.Prefix(r), netip.Prefix(o)
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// DecodePolicy reads an address or a range. What Envoy would mask away or never see is refused: it is likely a slip.
func (r *Range) DecodePolicy(d *Decode, n *Node) {
	p, ok := parseRange(n.Text)
	switch {
	case n.Kind != Scalar, !ok && !strings.Contains(n.Text, "-"):
		d.Errorf(n, "want an address or a range such as 10.0.0.0/8, got %s", n.shape())
	case !ok:
		d.Errorf(n, "want an address or a range, got %s", n.shape()).Hintf("write ranges as prefixes: 10.0.0.0/8")
	case p.Addr().Is4In6():
		d.Errorf(n, "%s is IPv4 written as IPv6", quote(n.Text)).Hintf("write %s, which counts for both", unmapped(p))
	case p.Masked() != p:
		d.Errorf(n, "%s has bits behind its first %d, which do not count", quote(n.Text), p.Bits()).
			Hintf("write %s for the range, %s for the one address", p.Masked(), p.Addr())
	default:
		*r = Range(p)
	}
}

// PolicySchema describes an address or a range.
func (*Range) PolicySchema(*Schemas) map[string]any {
	return map[string]any{
		"type": "string", "pattern": `^[0-9a-fA-F.:]+(/[0-9]{1,3})?$`,
		"description": "an address or a range: 10.1.2.3, 10.0.0.0/8, 2001:db8::/32",
	}
}

// parseRange takes no zones, which nobody compares.
func parseRange(text string) (netip.Prefix, bool) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		return p, err == nil
	}
	a, err := netip.ParseAddr(text)
	return netip.PrefixFrom(a, a.BitLen()), err == nil && a.Zone() == ""
}

// unmapped is the IPv4 form of a range of IPv4-mapped addresses.
func unmapped(p netip.Prefix) Range {
	const mappedBits = 96 // that all of them begin with: ::ffff:10.1.2.3
	return Range(netip.PrefixFrom(p.Addr().Unmap(), max(p.Bits()-mappedBits, 0)).Masked())
}
