package ratelimit

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// values are the overrides and the exempt values of a limit.
type values struct {
	texts    map[string]*rate       // nil: exempt
	prefixes map[netip.Prefix]*rate // of IP
	lengths  [2][]int               // of prefixes, the longest first; of IPv4, of IPv6
}

// newValues reads them; nil when there are none.
func newValues(l *Limit) (*values, error) {
	if len(l.Overrides) == 0 && len(l.Exempt) == 0 {
		return nil, nil
	}
	if len(l.By) != 1 {
		return nil, errors.New("overrides and exempt values want a limit that counts by one part")
	}
	v := &values{texts: map[string]*rate{}, prefixes: map[netip.Prefix]*rate{}}
	for _, o := range l.Overrides {
		r, err := newRate(l, o.Rate)
		if err != nil {
			return nil, fmt.Errorf("override of %q: %w", o.Value, err)
		}
		if err := v.add(l.By[0], o.Value, r); err != nil {
			return nil, err
		}
	}
	for _, e := range l.Exempt {
		if err := v.add(l.By[0], e, nil); err != nil {
			return nil, err
		}
	}
	for i := range v.lengths {
		slices.SortFunc(v.lengths[i], func(a, b int) int { return cmp.Compare(b, a) })
	}
	return v, nil
}

func (v *values) add(b By, value string, r *rate) error {
	if value == "" {
		return errors.New("the empty value, which all share that have none, can't be named")
	}
	if b.Kind != IP {
		value = b.normal(value)
		if _, ok := v.texts[value]; ok {
			return fmt.Errorf("%q is named twice", value)
		}
		v.texts[value] = r
		return nil
	}
	p, err := ParsePrefix(value)
	if err != nil {
		return err
	}
	if _, ok := v.prefixes[p]; ok {
		return fmt.Errorf("%s is named twice", p)
	}
	v.prefixes[p] = r
	lengths := &v.lengths[family(p.Addr())]
	if !slices.Contains(*lengths, p.Bits()) {
		*lengths = append(*lengths, p.Bits())
	}
	return nil
}

// ParsePrefix reads the value of an override or an exempt value of a limit by IP: an address or a prefix.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is neither an address nor a prefix", s)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q is an IPv4 prefix written as IPv6", s)
	}
	return p.Masked(), nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// find gives the rate for a value, nil when it is exempt. Of prefixes the longest holds.
func (v *values) find(text string, a netip.Addr) (r *rate, ok bool) {
	if !a.IsValid() {
		r, ok = v.texts[text]
		return r, ok
	}
	a = a.Unmap().WithZone("")
	for _, bits := range v.lengths[family(a)] {
		p, _ := a.Prefix(bits) // it has that many
		if r, ok = v.prefixes[p]; ok {
			return r, true
		}
	}
	return nil, false
}
