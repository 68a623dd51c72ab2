package ratelimit

import (
	"fmt"
	"net/netip"
	"strings"

	"google.golang.org/grpc/codes"
)

// OwnDomain is what our Envoys ask with.
const OwnDomain = "legation"

// read finds the limits that the turn's request asks for.
func (s *Service) read(t *turn, d *decision) {
	d.places = len(t.request.descriptors)
	if t.request.domain != OwnDomain {
		if from := t.table.domains[t.request.domain]; from != nil {
			s.readForeign(t, d, from)
		} else {
			s.metrics.foreign.Inc()
		}
		return
	}
	for place := range t.request.descriptors {
		if !s.readOwn(t, d, place) {
			return
		}
	}
}

// readOwn reads a descriptor of our own domain; false when there can be no decision.
func (s *Service) readOwn(t *turn, d *decision, place int) bool {
	w := &t.request.descriptors[place]
	id, ok := w.entry("limit")
	if !ok {
		s.metrics.foreign.Inc()
		return true
	}
	l := t.table.limits[id]
	if l == nil {
		s.metrics.unknown.Inc()
		d.fail(codes.Unavailable, fmt.Sprintf("limit %.100q isn't loaded here", id))
		return false
	}
	prefix := l.prefix
	var other *overriding
	if w.limited {
		var err error
		if other, err = l.override(w.limit); err != nil {
			s.metrics.invalid.Inc()
			d.fail(codes.InvalidArgument, fmt.Sprintf("descriptor %d: %v", place, err))
			return false
		}
		if other != nil {
			prefix = other.prefix
		}
	}
	key, r := l.bucket(t.key[:0], prefix, w)
	if other != nil && r != nil {
		r = other.rate
	}
	t.key = key
	d.add(l, r, s.keys.get(key), t.request.addend(w), place)
	if text, ok := w.entry("quota"); ok {
		d.reserve(text)
	}
	return true
}

// value is what the descriptor has for a part.
func (d *wireDescriptor) value(p *part) (text string, address netip.Addr) {
	text, ok := d.entry(p.entry)
	if p.Kind != IP {
		return text, netip.Addr{}
	}
	if !ok {
		text = d.envoyAddress()
	}
	if address, err := netip.ParseAddr(text); err == nil {
		return "", address
	}
	return text, netip.Addr{}
}

// envoyAddress is the address by the names that Envoy's own actions have for it.
func (d *wireDescriptor) envoyAddress() string {
	if value, ok := d.entry("remote_address"); ok {
		return value
	}
	value, _ := d.entry("masked_remote_address")
	address, _, _ := strings.Cut(value, "/") // "10.0.0.1/32"
	return address
}
