package access

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/legation/legation/policy"
)

// Range is addresses that begin with the same bits; one address is a range of its own.
type Range netip.Prefix

// String gives an address alone where the range is one.
func (r Range) String() string {
	p := netip.Prefix(r)
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// DecodePolicy reads an address or a range. What Envoy would mask away or never see is refused: it is likely a slip.
func (r *Range) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind != policy.Scalar {
		d.Errorf(n, "want an address or a range such as 10.0.0.0/8")
		return
	}
	p, err := parse(n.Text)
	switch {
	case err != nil && strings.Contains(n.Text, "-"):
		d.Errorf(n, "%q is no range of addresses", n.Text).Hintf("write ranges as prefixes: 10.0.0.0/8")
	case err != nil:
		d.Errorf(n, "%q is neither an address nor a range", n.Text).Hintf("write 10.1.2.3, 10.0.0.0/8, 2001:db8::1 or 2001:db8::/32")
	case p.Addr().Is4In6():
		d.Errorf(n, "%q is IPv4 in the clothes of IPv6", n.Text).Hintf("write %s, which counts for both", unmapped(p))
	case p.Masked() != p:
		d.Errorf(n, "%q has bits behind its first %d, which do not count", n.Text, p.Bits()).
			Hintf("write %s for the range, %s for the one address", p.Masked(), p.Addr())
	default:
		*r = Range(p)
	}
}

func parse(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if a.Zone() != "" {
		return netip.Prefix{}, errors.New("zones are not compared")
	}
	return netip.PrefixFrom(a, a.BitLen()), err
}

// mappedBits is the bits that all IPv4-mapped addresses of IPv6 begin with: ::ffff:10.1.2.3.
const mappedBits = 96

// unmapped is the IPv4 form of a range of IPv4-mapped addresses.
func unmapped(p netip.Prefix) Range {
	return Range(netip.PrefixFrom(p.Addr().Unmap(), max(p.Bits()-mappedBits, 0)).Masked())
}

// written is the ways in which the addresses of a range reach Envoy. A proxy in front of it that listens on IPv6 for
// both may write the mapped form of an IPv4 client, which Envoy takes for another address.
func (r Range) written() []netip.Prefix {
	p := netip.Prefix(r)
	if p.Addr().Is6() {
		return []netip.Prefix{p}
	}
	return []netip.Prefix{p, netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), p.Bits()+mappedBits)}
}

// PolicySchema describes an address or a range.
func (*Range) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{
		"type": "string", "pattern": `^[0-9a-fA-F.:]+(/[0-9]{1,3})?$`,
		"description": "an address or a range: 10.1.2.3, 10.0.0.0/8, 2001:db8::/32",
	}
}
