package ratelimit

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

// Explain tells of each limit its rate, what it counts by and which bucket that is for the request, who counts, and in which
// call.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	facts := make([]envoy.Fact, 0, len(s.Limits))
	for i := range s.Limits {
		l := counted{s.limit(c.Set.Layer, i), &s.Limits[i]}
		at := c.Set.Pos()
		if s.listed {
			at = c.Set.Node.Items[i].Pos
		}
		facts = append(facts, envoy.Fact{
			Stage: envoy.HowOften, Topic: Kind.Key, Text: l.Name + ": " + strings.Join(l.words(c), ", "), At: []policy.Pos{at},
		})
	}
	return facts
}

func (l counted) words(c envoy.ExplainContext) []string {
	words := []string{l.Rate.String() + by(l.Limit, c)}
	if l.Shadow {
		words = append(words, "in shadow: refuses nobody")
	}
	words = append(words, l.algorithm(), l.mode(c))
	if n := len(l.Overrides) + len(l.Exempt); n > 0 {
		words = append(words, fmt.Sprintf("other rates for %d values", n))
	}
	if len(l.written.Refund) > 0 {
		words = append(words, "given back after some answers, by a call")
	}
	if inPlaceOf(l, c.RouteContext) {
		words = append(words, "a plan of the caller takes its place")
	}
	if !l.written.perEnvoy() {
		words = append(words, "onError "+l.OnError.String())
	}
	return words
}

// algorithm is how the limit counts, and why so where it isn't written.
func (l counted) algorithm() string {
	text := l.Algorithm.String()
	switch {
	case l.written.perEnvoy():
		return store.GCRA.String() + " (Envoy's token bucket)"
	case l.written.Algorithm != "":
		return text
	case l.written.Quota != nil:
		return text + " (a quota)"
	case l.Algorithm == store.GCRA:
		return text + " (with burst)"
	}
	return text + " (default)"
}

// mode is who counts, and in which call.
func (l counted) mode(c envoy.ExplainContext) string {
	text, call := "exact", "in the limits' call"
	switch {
	case l.written.Mode == "":
		text += " (default)"
	case l.Lease > 0 && l.Shadow:
		text += " in spite of mode: leased, as limits in shadow are,"
	case l.Lease > 0:
		text = fmt.Sprintf("leased in lots of up to %d", l.Lease)
	}
	if knowsCaller(c.Route) {
		call = "in auth's call"
	}
	if l.written.perEnvoy() {
		return "perEnvoy: each Envoy counts by itself, without a call"
	}
	return text + " " + call
}

// by is what the limit counts by, and the bucket of the request as far as it is known.
func by(l ratelimit.Limit, c envoy.ExplainContext) string {
	if len(l.By) == 0 {
		return " for all together"
	}
	var parts []string
	for _, one := range l.By {
		parts = append(parts, strings.TrimSpace(one.String()+" "+value(one, c)))
	}
	return " by " + strings.Join(parts, " and ")
}

// value is the part of a bucket's key that a request makes; empty where nobody can know it beforehand.
func value(b ratelimit.By, c envoy.ExplainContext) string {
	text := ""
	switch b.Kind {
	case ratelimit.IP:
		text = masked(b, c.Request.Client)
	case ratelimit.Path:
		text, _, _ = strings.Cut(c.Request.Path, "?")
	case ratelimit.Route:
		text = c.Route.Name
	case ratelimit.Method:
		text = c.Request.Method
	case ratelimit.Host:
		text = strings.ToLower(c.Request.Host)
	case ratelimit.Header:
		text = strings.Join(c.Request.Headers[b.Name], ",")
	}
	if text == "" {
		return ""
	}
	return "(" + text + ")"
}

// masked is as much of an address as counts.
func masked(b ratelimit.By, client netip.Addr) string {
	if !client.IsValid() {
		return ""
	}
	if bits := prefixBits(b); client.Is6() && bits < 128 {
		if p, err := client.Prefix(bits); err == nil {
			return p.String()
		}
	}
	return client.String()
}
