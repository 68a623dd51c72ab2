// Package ratelimit is the key rateLimit: how many requests a gateway, a service or a route takes, and by whom they are
// counted. envoy asks it for the callout to the companion, control for the limits that the companion counts ([Limits]):
// both are made of the same [ratelimit.Limit], so that the descriptor that Envoy sends is the one that is read.
package ratelimit

import (
	_ "embed"
	"fmt"
	"slices"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

//go:embed doc.md
var doc string

// Kind is the key rateLimit. A nearer layer's limits stand beside those of the outer ones.
var Kind = policy.Define[Setting]("rateLimit", policy.Layers, doc).Stack()

// Setting is what stands under rateLimit: one limit, or a list of them.
type Setting struct {
	Limits []Limit
	listed bool
}

// Limit is one limit as written.
type Limit struct {
	Rate      policy.Rate `policy:"rate,required" doc:"requests per second, minute, hour, day or time span: 100/minute, 10/30s"`
	Burst     int64       `policy:"burst" doc:"how many requests may come at once; the bucket then fills at the rate (gcra)"`
	By        By          `policy:"by" doc:"what each bucket belongs to: ip, consumer, {header: x}, {claim: x}, or a list of these; default: one bucket for all"`
	Algorithm Algorithm   `policy:"algorithm" doc:"fixedWindow or gcra; default: gcra with burst, else fixedWindow"`
	OnError   OnError     `policy:"onError" doc:"when counts can't be had: local (each process counts for itself, the default), allow or deny"`
	Replace   bool        `policy:"replace" doc:"whether the limits of outer layers don't hold here"`
}

// Algorithm is the way to count.
type Algorithm string

// Values are the algorithms.
func (Algorithm) Values() []string { return []string{"fixedWindow", "gcra"} }

// OnError is what becomes of requests that can't be counted.
type OnError string

// Values are the choices.
func (OnError) Values() []string { return []string{"local", "allow", "deny"} }

var onErrors = map[OnError]ratelimit.OnError{
	"": ratelimit.Local, "local": ratelimit.Local, "allow": ratelimit.Allow, "deny": ratelimit.Deny,
}

// DecodePolicy reads one limit or a list.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	switch n.Kind {
	case policy.List:
		s.listed = true
		d.Decode(n, &s.Limits)
	case policy.Map:
		s.Limits = make([]Limit, 1)
		d.Decode(n, &s.Limits[0])
	case policy.Scalar:
		d.Errorf(n, "want a limit or a list of limits, got %q", n.Text).Hintf("write {rate: 100/minute}, or off")
	default:
		d.Errorf(n, "want a limit or a list of limits, got nothing").Hintf("write {rate: 100/minute}, or off")
	}
}

// PolicySchema describes both forms.
func (*Setting) PolicySchema(s *policy.Schemas) map[string]any {
	one := s.Of(new(Limit))
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "items": one}}}
}

// Replaces tells whether the limits of outer layers don't hold.
func (s *Setting) Replaces() bool {
	for _, l := range s.Limits {
		if l.Replace {
			return true
		}
	}
	return false
}

// LimitIDs names the limits for a callout that counts them; layer is the one that wrote the setting.
func (s *Setting) LimitIDs(layer policy.Layer) []string {
	var ids []string
	for i := range s.Limits {
		ids = append(ids, s.limit(layer, i).ID())
	}
	return ids
}

// limit is what the companion counts. Its name is part of the bucket's key in the store: the layer and the place in the
// list, never the file or a hash, so that editing a policy doesn't forget the counts.
func (s *Setting) limit(layer policy.Layer, i int) ratelimit.Limit {
	l := &s.Limits[i]
	return ratelimit.Limit{
		Name:    fmt.Sprintf("%s/%d", layer, i),
		By:      l.By,
		Rate:    ratelimit.Rate{Requests: l.Rate.Requests, Window: l.Rate.Window, Burst: l.Burst, Algorithm: l.algorithm()},
		OnError: onErrors[l.OnError],
	}
}

func (l *Limit) algorithm() store.Algorithm {
	if l.Algorithm == "gcra" || l.Algorithm == "" && l.Burst > 0 {
		return store.GCRA
	}
	return store.FixedWindow
}

// Check holds each limit against what can be counted, and where.
func (s *Setting) Check(c *policy.Check) {
	if len(s.Limits) == 0 {
		c.Errorf("", "name at least one limit").Hintf("write rateLimit: off to drop the limits of outer layers")
	}
	for i := range s.Limits {
		if c.Route() != nil {
			s.checkRoute(c, i)
			continue
		}
		s.checkLimit(c, i)
		s.checkHeaders(c, i)
	}
	s.checkNumber(c)
	if r := c.Route(); r != nil && len(r.Backends) == 0 && !knowsCaller(r) && c.Set().Layer.Place == policy.InRoute {
		c.Warnf("", "limits do nothing here: Envoy counts requests to a backend only").Hintf("with auth on the route they are counted")
	}
}

// maxLimits hold on a route at most. Each may carry a request's headers once, of 32 KiB at most, and the companion reads
// messages of 1 MiB; one that it doesn't read would pass where the filter fails open.
const maxLimits = 24

// checkNumber counts the limits of all layers; the nearest that has too many beside it is named.
func (s *Setting) checkNumber(c *policy.Check) {
	r := c.Route()
	if r == nil {
		if len(s.Limits) > maxLimits {
			c.Errorf("", "%d limits in one list, at most %d", len(s.Limits), maxLimits).Hintf("keep those that matter")
		}
		return
	}
	n := 0
	var nearest *Setting
	for _, each := range policy.Each[*Setting](r.Settings) {
		n += len(each.Limits)
		nearest = each
	}
	if n > maxLimits && s == nearest && len(s.Limits) <= maxLimits {
		p := c.Errorf("", "%d limits of all layers hold on the route %q, at most %d", n, r.Name, maxLimits)
		p.Hintf("keep those that matter, or replace the outer ones with replace: true")
		p.Also = append(p.Also, r.Pos)
	}
}

func (s *Setting) checkLimit(c *policy.Check, i int) {
	l := &s.Limits[i]
	switch {
	case l.Burst < 0:
		c.Errorf(s.at(i, "burst"), "a burst can't be negative")
	case l.Burst > 0 && l.Algorithm == "fixedWindow":
		c.Errorf(s.at(i, "burst"), "a fixed window has no burst: its whole rate may come at once").
			Hintf("leave algorithm out, or write gcra")
	case l.Burst == 0 && l.Algorithm == "gcra":
		c.Errorf(s.at(i, "algorithm"), "gcra needs a burst").Hintf("add burst: how many requests may come at once")
	case l.Replace && c.Place() == policy.InDefaults:
		c.Warnf(s.at(i, "replace"), "there is no layer outside the defaults whose limits could be replaced")
	case slow(l):
		c.Errorf(s.at(i, "burst"), "a bucket of %d takes longer than two years to fill at this rate", l.Burst).
			Hintf("raise the rate, or lower the burst")
	default:
		if err := s.limit(c.Set().Layer, i).Validate(); err != nil {
			c.Errorf(s.at(i, "rate"), "can't be counted: %v", err)
		}
	}
}

// checkHeaders refuses to count by headers that are removed from requests because auth sets them: when limits are
// counted they are not there. On the inbound listener of a sidecar a peer has set them, unless it asks itself.
func (s *Setting) checkHeaders(c *policy.Check, i int) {
	if asks, ok := policy.Find[caller](c.Entry().Settings); c.Trusted() && !(ok && asks.KnowsCaller()) {
		return
	}
	for _, by := range s.Limits[i].By {
		if by.Kind != ratelimit.Header {
			continue
		}
		for _, a := range c.Model().Auth {
			for set, stripper := range policy.Each[envoy.Stripper](a.Settings) {
				if !slices.Contains(stripper.StripHeaders(), by.Name) {
					continue
				}
				p := c.Errorf(s.at(i, "by"), "counts by the header %q, which the auth entry %q sets after limits are counted", by.Name, a.Name).
					Hintf("count by the claim: {claim: NAME}")
				p.Also = append(p.Also, set.Pos())
			}
		}
	}
}

// slow tells whether a bucket takes longer to fill than the store keeps it.
func slow(l *Limit) bool {
	windows := float64(l.Burst) / float64(max(l.Rate.Requests, 1))
	return windows*float64(l.Rate.Window) > float64(store.MaxWindow)
}

// caller is a setting of a route that tells whether its callers are known.
type caller interface{ KnowsCaller() bool }

func knowsCaller(r *policy.BoundRoute) bool {
	a, ok := policy.Find[caller](r.Settings)
	return ok && a.KnowsCaller()
}

// checkRoute refuses limits by who calls where nobody asks who calls: every request would fall into one bucket.
func (s *Setting) checkRoute(c *policy.Check, i int) {
	r := c.Route()
	if knowsCaller(r) {
		return
	}
	for _, by := range s.Limits[i].By {
		if by.Kind != ratelimit.Consumer && by.Kind != ratelimit.Claim {
			continue
		}
		p := c.Errorf(s.at(i, "by"), "counts by %s, but the route %q has no auth that tells who calls", by.Kind, r.Name)
		p.Hintf("give the route auth, count by ip, or write rateLimit: off for the route (or its own limit with replace: true)")
		p.Also = append(p.Also, r.Pos)
		return
	}
}

// at is the path of a key of a limit, relative to the setting.
func (s *Setting) at(i int, key string) string {
	if s.listed {
		return fmt.Sprintf("[%d].%s", i, key)
	}
	return key
}
