package ratelimit

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// Override is the rate or the quota for one value, as written: as a text, or with a burst of its own.
type Override struct {
	Rate      *policy.Rate  `policy:"rate" doc:"as the limit's rate"`
	Burst     *int64        `policy:"burst" doc:"as the limit's burst, which is the default"`
	Quota     *policy.Quota `policy:"quota" doc:"as the limit's quota"`
	Unlimited bool
}

const unlimited = "unlimited"

// DecodePolicy reads a rate, a quota, the word unlimited, or a map. What is written per day may be either.
func (o *Override) DecodePolicy(d *policy.Decode, n *policy.Node) {
	_, unit, _ := strings.Cut(n.Text, "/")
	switch {
	case n.Kind == policy.Map:
		if d.Decode(n, o); o.Rate != nil && o.Quota != nil {
			d.Errorf(n, "a value has a rate or a quota, not both")
		}
	case n.Kind != policy.Scalar:
		d.Errorf(n, "want a rate such as 1000/minute, {rate: 1000/minute, burst: 50} or unlimited")
	case n.Text == unlimited:
		o.Unlimited = true
	case unit == "day":
		d.Decode(n, &o.Rate)
		d.Decode(n, &o.Quota)
	case unit == "week" || unit == "month" || unit == "year":
		d.Decode(n, &o.Quota)
	default:
		d.Decode(n, &o.Rate)
	}
}

// PolicySchema describes the forms.
func (*Override) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"type": "string"}, s.Of(new(Override))}}
}

// overrides are the rates for some values, by value.
func (l *Limit) overrides() []ratelimit.Override {
	var all []ratelimit.Override
	for _, value := range slices.Sorted(maps.Keys(l.Overrides)) {
		all = append(all, ratelimit.Override{Value: l.normal(value), Rate: l.override(l.Overrides[value])})
	}
	slices.SortFunc(all, func(a, b ratelimit.Override) int { return cmp.Compare(a.Value, b.Value) })
	return all
}

func (l *Limit) override(o Override) ratelimit.Rate {
	switch {
	case o.Unlimited:
		return ratelimit.Rate{Unlimited: true}
	case l.Quota != nil:
		return l.rate(nil, o.Quota, 0)
	}
	return l.rate(o.Rate, nil, policy.Or(o.Burst, l.Burst))
}

func (l *Limit) exempt() []string {
	var all []string
	for _, value := range l.Exempt {
		all = append(all, l.normal(value))
	}
	slices.Sort(all)
	return all
}

// normal is a value as it is counted: addresses and hosts are written in more than one way.
func (l *Limit) normal(value string) string {
	if len(l.By) != 1 {
		return value
	}
	switch l.By[0].Kind {
	case ratelimit.IP:
		if p, ok := prefix(value); ok {
			return p
		}
	case ratelimit.Host:
		return strings.ToLower(value)
	}
	return value
}

// prefix is the one form of an address or a prefix.
func prefix(text string) (string, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().String(), a.Zone() == ""
	}
	p, err := netip.ParsePrefix(text)
	return p.String(), err == nil && p == p.Masked() && !p.Addr().Is4In6()
}

// maxValues is how many values a limit may name under overrides, and under exempt. What Envoy counts by itself is copied into
// each route.
const (
	maxValues         = 1000
	maxValuesPerEnvoy = 100
)

// checkValues holds overrides and exempt against what the limit counts.
func (s *Setting) checkValues(c *policy.Check, i int) {
	l := &s.Limits[i]
	most := maxValues
	if l.perEnvoy() {
		most = maxValuesPerEnvoy
	}
	for _, list := range []struct {
		key string
		n   int
	}{{"overrides", len(l.Overrides)}, {"exempt", len(l.Exempt)}} {
		switch at := s.at(i, list.key); {
		case list.n == 0:
		case list.n > most:
			c.Errorf(at, "%d values, more than %d", list.n, most).Hintf("give the many a part of their own to count by, or a plan")
			return
		case len(l.By) != 1:
			c.Errorf(at, "values can be named where by has exactly one part, got %d", len(l.By)).
				Hintf("write by with one part, such as by: consumer")
			return
		case l.By[0].Kind == ratelimit.Route:
			c.Errorf(at, "a route that is counted otherwise has a limit of its own").Hintf("write rateLimit in that route, or rateLimit: off there")
			return
		}
	}
	seen := map[string]bool{}
	for _, value := range slices.Sorted(maps.Keys(l.Overrides)) {
		at := s.at(i, "overrides."+value)
		s.checkValue(c, i, at, value)
		s.checkTwice(c, at, l.normal(value), seen)
		s.checkOverride(c, i, at, l.Overrides[value])
	}
	for j, value := range l.Exempt {
		at := s.at(i, fmt.Sprintf("exempt[%d]", j))
		s.checkValue(c, i, at, value)
		s.checkTwice(c, at, l.normal(value), seen)
	}
}

func (s *Setting) checkTwice(c *policy.Check, at, value string, seen map[string]bool) {
	if seen[value] {
		c.Errorf(at, "the value %.64q is named twice", value).Hintf("it stands under overrides or under exempt, once")
	}
	seen[value] = true
}

// checkValue tells what the part can never be.
func (s *Setting) checkValue(c *policy.Check, i int, at, value string) {
	by := s.Limits[i].By[0]
	switch by.Kind {
	case ratelimit.IP:
		s.checkAddress(c, i, at, value)
	case ratelimit.Consumer:
		section, name := "consumers", value
		if entry, _, identity := strings.Cut(value, "/"); identity {
			section, name = "auth", entry
		}
		c.Ref(at, section, name)
	case ratelimit.Method:
		if value == "" || value != strings.ToUpper(value) {
			c.Errorf(at, "want a method in upper case, got %.64q", value)
		}
	case ratelimit.Path:
		if !strings.HasPrefix(value, "/") || strings.Contains(value, "?") {
			c.Errorf(at, "want a path without its query, such as /v1/orders, got %.64q", value)
		}
	case ratelimit.Host:
		if value == "" || strings.ContainsAny(value, ":/*") {
			c.Errorf(at, "want a host name without port, got %.64q", value)
		}
	default:
		if value == "" || len(value) > maxName {
			c.Errorf(at, "want a value of 1 to %d bytes, got %d", maxName, len(value))
		}
	}
}

// checkAddress takes no IPv6 address that is only a part of what one bucket counts.
func (s *Setting) checkAddress(c *policy.Check, i int, at, value string) {
	text, ok := prefix(value)
	if !ok {
		p := c.Errorf(at, "want an IP address or a prefix such as 10.0.0.0/8, got %.64q", value)
		if network, err := netip.ParsePrefix(value); err == nil {
			p.Hintf("no bits may be set behind the prefix: write %s", network.Masked())
		}
		return
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a := netip.MustParseAddr(text)
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if bits := prefixBits(s.Limits[i].By[0]); p.Addr().Is6() && p.Bits() > bits {
		network, _ := p.Addr().Prefix(bits)
		c.Errorf(at, "%s is a part of the /%d that a bucket counts", value, bits).Hintf("write %s, or by: {ip: /%d}", network, p.Bits())
	}
}

// checkOverride holds a rate for a value against the limit that it stands in.
func (s *Setting) checkOverride(c *policy.Check, i int, at string, o Override) {
	l := &s.Limits[i]
	if o.Unlimited {
		return
	}
	switch {
	case l.Quota != nil && (o.Quota == nil || o.Burst != nil):
		c.Errorf(at, "the limit is a quota: want another one for the value, such as 50000/%s, or unlimited", l.Quota.Period)
	case l.Quota == nil && o.Rate == nil:
		c.Errorf(at, "the limit is a rate: want another one for the value, such as 1000/minute, or unlimited")
	case l.Quota == nil:
		s.checkBurst(c, i, at, l.override(o))
		s.checkCount(c, i, at, l.override(o))
	}
}
