package envoy

import (
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Extension is the configuration of one of Envoy's extensions. Most are found by the type of the message, some by name.
func Extension(name string, m proto.Message) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: Pack(m)}
}

// Duration is a time span as Envoy has it; nil, which leaves its default, stays apart from 0.
func Duration(d *policy.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(time.Duration(*d))
}

// UInt32 is a number as Envoy has those that may be missing; nil, which leaves its default, stays apart from 0.
func UInt32(n *uint32) *wrapperspb.UInt32Value {
	if n == nil {
		return nil
	}
	return wrapperspb.UInt32(*n)
}

// Fraction is a share of requests, which Envoy draws for each.
func Fraction(share policy.Percent) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: share.Millionths(), Denominator: typev3.FractionalPercent_MILLION}
}

// CIDR is a range of addresses as Envoy compares it.
func CIDR(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
}

// ClientRanges is the ways in which the addresses of a range reach Envoy as those of clients. A proxy in front of it that
// listens on IPv6 for both may write the mapped form of an IPv4 client, which Envoy takes for another address.
func ClientRanges(p netip.Prefix) []*corev3.CidrRange {
	if p.Addr().Is6() {
		return []*corev3.CidrRange{CIDR(p)}
	}
	mapped := netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), p.Bits()+mappedBits)
	return []*corev3.CidrRange{CIDR(p), CIDR(mapped)}
}

// HTTPVersion is a setting of a service that tells in which HTTP it is spoken to: 1.1 without one.
type HTTPVersion interface {
	AlwaysHTTP2() bool // on every connection
	Negotiated() bool  // 2 or 1.1 by ALPN
}

// SpeaksHTTP2 tells whether a service with these settings is spoken to in HTTP/2: always, or where ALPN has it so.
func SpeaksHTTP2(s policy.Settings) (always, maybe bool) {
	v, ok := policy.Find[HTTPVersion](s)
	if !ok {
		return false, false
	}
	return v.AlwaysHTTP2(), v.AlwaysHTTP2() || v.Negotiated()
}
