package ratelimit

import (
	"math"
	"slices"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

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
	s.warnUnused(c)
}

// warnUnused tells of limits on a route that answers by itself: the filter that asks the companion leaves these out.
func (s *Setting) warnUnused(c *policy.Check) {
	asks := slices.ContainsFunc(s.Limits, func(l Limit) bool { return !l.perEnvoy() })
	if r := c.Route(); r != nil && asks && len(r.Backends) == 0 && !knowsCaller(r) && c.Set().Layer.Place == policy.InRoute {
		c.Warnf("", "limits do nothing here: Envoy counts requests to a backend only").
			Hintf("with auth on the route they are counted, and with mode: perEnvoy")
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

// checkLimit holds a limit against itself.
func (s *Setting) checkLimit(c *policy.Check, i int) {
	l := &s.Limits[i]
	switch {
	case l.Rate == nil && l.Quota == nil:
		c.Errorf(s.at(i, ""), "want a rate or a quota").Hintf("write rate: 100/minute, or quota: 10000/month")
		return
	case l.Rate != nil && l.Quota != nil:
		c.Errorf(s.at(i, "quota"), "a limit has a rate or a quota, not both").Hintf("write a list of two limits")
		return
	case l.Quota != nil:
		s.checkQuota(c, i)
	default:
		s.checkRate(c, i)
	}
	s.checkMode(c, i)
	s.checkValues(c, i)
	for _, by := range l.By {
		if by.Kind == ratelimit.CEL {
			checkCEL(c, s.at(i, "by"), by.Name)
		}
	}
	l.Refund.Check(c, s.at(i, "refund"))
	if l.Refund != nil && l.By.counts(ratelimit.CEL) {
		c.Errorf(s.at(i, "refund"), "what an expression gives is not known any more when the answer is").
			Hintf("count by a header, a claim or another part in place of cel")
	}
	if l.Shadow && l.OnError != "" {
		c.Errorf(s.at(i, "onError"), "a limit in shadow refuses nobody, whether it can be counted or not").Hintf("leave onError out")
	}
	if l.Replace && c.Place() == policy.InDefaults {
		c.Warnf(s.at(i, "replace"), "there is no layer outside the defaults whose limits could be replaced")
	}
}

func (s *Setting) checkQuota(c *policy.Check, i int) {
	l := &s.Limits[i]
	if l.Burst != 0 {
		c.Errorf(s.at(i, "burst"), "a quota has no burst: all of it may come at once").Hintf("add a limit with a rate: rateLimit: [{quota: …}, {rate: …, burst: …}]")
	}
	if l.Algorithm != "" {
		c.Errorf(s.at(i, "algorithm"), "a quota is counted by the calendar").Hintf("leave algorithm out, or write a rate")
	}
}

func (s *Setting) checkRate(c *policy.Check, i int) {
	l := &s.Limits[i]
	switch {
	case l.TimeZone != "":
		c.Errorf(s.at(i, "timeZone"), "only a quota goes by the calendar").Hintf("leave timeZone out, or write quota: %d/day", l.Rate.Requests)
	case l.Burst == 0 && l.Algorithm == "gcra" && !l.perEnvoy():
		c.Errorf(s.at(i, "algorithm"), "gcra needs a burst").Hintf("add burst: how many requests may come at once")
	default:
		s.checkBurst(c, i, s.at(i, "burst"), l.rate(l.Rate, nil, l.Burst))
		s.checkCount(c, i, s.at(i, "rate"), l.rate(l.Rate, nil, l.Burst))
	}
}

// checkBurst holds a burst, the limit's or an override's, against its rate.
func (s *Setting) checkBurst(c *policy.Check, i int, at string, r ratelimit.Rate) {
	switch algorithm := s.Limits[i].Algorithm; {
	case r.Burst < 0:
		c.Errorf(at, "a burst can't be negative")
	case r.Burst > store.MaxCount:
		c.Errorf(at, "a burst of %d is too large to be counted", r.Burst).Hintf("the most is %d", store.MaxCount)
	case r.Burst > 0 && algorithm == "fixedWindow":
		c.Errorf(at, "a fixed window has no burst: its whole rate may come at once").Hintf("leave algorithm out, or write gcra")
	case r.Burst > 0 && algorithm == "slidingWindow":
		c.Errorf(at, "a sliding window has no burst: its whole rate may come at once").Hintf("leave burst out, or write algorithm: gcra")
	case slow(r):
		c.Errorf(at, "a bucket of %d takes longer than two years to fill at this rate", r.Burst).
			Hintf("raise the rate, or lower the burst")
	}
}

// slow tells whether a bucket takes longer to fill than the store keeps it.
func slow(r ratelimit.Rate) bool {
	windows := float64(r.Burst) / float64(max(r.Requests, 1))
	return windows*float64(r.Window) > float64(store.MaxWindow)
}

// checkMode holds what a limit says against who counts it.
func (s *Setting) checkMode(c *policy.Check, i int) {
	l := &s.Limits[i]
	requests := l.rate(l.Rate, l.Quota, l.Burst).Requests
	switch {
	case l.Lease != nil && l.Mode != leased:
		c.Errorf(s.at(i, "lease"), "only with mode: leased a process takes requests ahead of need").Hintf("write mode: leased")
	case l.Lease != nil && (*l.Lease < 1 || *l.Lease > requests):
		c.Errorf(s.at(i, "lease"), "want from 1 to %d, the limit itself, got %d", requests, *l.Lease)
	case l.Mode == leased && l.Algorithm == "slidingWindow":
		c.Errorf(s.at(i, "mode"), "a sliding window can't be leased: what is spent later than it was taken would leave the window too early").
			Hintf("leave mode out, or write algorithm: fixedWindow")
	case l.perEnvoy():
		s.checkPerEnvoy(c, i)
	}
}

// minFill is Envoy's own bound of a bucket's interval.
const minFill = 50 * time.Millisecond

// checkPerEnvoy refuses what Envoy's own limiter, buckets that fill evenly, can't do.
func (s *Setting) checkPerEnvoy(c *policy.Check, i int) {
	l := &s.Limits[i]
	no := func(key, format string, args ...any) *policy.Problem {
		return c.Errorf(s.at(i, key), format, args...)
	}
	if l.Quota != nil {
		no("quota", "an Envoy that counts by itself forgets its counts when it ends or its routes change: it can't keep a quota").
			Hintf("leave mode out, or write mode: leased")
		return
	}
	if l.Algorithm == "fixedWindow" || l.Algorithm == "slidingWindow" {
		no("algorithm", "an Envoy that counts by itself has buckets that fill evenly").Hintf("leave algorithm out, or write gcra")
	}
	if l.Rate.Window < minFill {
		no("rate", "an Envoy that counts by itself fills its buckets every %s at the fastest, got %s", minFill, l.Rate.Window)
	}
	if l.OnError != "" {
		no("onError", "an Envoy that counts by itself asks nobody that could fail").Hintf("leave onError out")
	}
	if l.Refund != nil {
		no("refund", "an Envoy that counts by itself gives nothing back").Hintf("leave mode out, or write mode: leased")
	}
	if slices.ContainsFunc(l.Headers, func(h HeaderSet) bool { return h != "legacy" && h != "none" }) {
		no("headers", "an Envoy that counts by itself tells of it in the headers x-ratelimit-* only").Hintf("write legacy or none")
	}
	if l.By.counts(ratelimit.Host) {
		no("by", "an Envoy that counts by itself takes a host in upper case for another one, and so gives each spelling a bucket").
			Hintf("count by route, or leave mode out")
	}
	if len(l.By) == 1 && l.By[0].Kind == ratelimit.IP && len(l.Overrides)+len(l.Exempt) > 0 {
		no("by", "an Envoy that counts by itself has the same rate for all addresses").Hintf("leave overrides and exempt out, or mode")
	}
}

// checkCount bounds what Envoy's buckets hold, and sliding windows.
func (s *Setting) checkCount(c *policy.Check, i int, at string, r ratelimit.Rate) {
	l := &s.Limits[i]
	switch {
	case l.perEnvoy() && (r.Requests > math.MaxUint32 || r.Burst > math.MaxUint32):
		c.Errorf(at, "an Envoy that counts by itself counts up to %d", uint32(math.MaxUint32)).Hintf("leave mode out")
	case !l.perEnvoy() && l.Algorithm == "slidingWindow" && r.Requests > store.MaxLogged:
		c.Errorf(at, "a sliding window counts up to %d", store.MaxLogged).Hintf("leave algorithm out, or write gcra with a burst")
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
		for _, a := range c.Common().Auth {
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

// caller is a setting of a route that tells whether its callers are known.
type caller interface{ KnowsCaller() bool }

func knowsCaller(r *policy.BoundRoute) bool {
	a, ok := policy.Find[caller](r.Settings)
	return ok && a.KnowsCaller()
}

// checkRoute refuses limits by who calls where nobody asks who calls: every request would fall into one bucket.
func (s *Setting) checkRoute(c *policy.Check, i int) {
	r := c.Route()
	known := knowsCaller(r)
	for _, by := range s.Limits[i].By {
		var p *policy.Problem
		switch {
		case by.Kind == ratelimit.CEL && (!known || s.Limits[i].perEnvoy()):
			p = checkEnvoyCEL(c, s.at(i, "by"), by.Name)
		case !known && (by.Kind == ratelimit.Consumer || by.Kind == ratelimit.Claim):
			p = c.Errorf(s.at(i, "by"), "counts by %s, but the route %q has no auth that tells who calls", by.Kind, r.Name).
				Hintf("give the route auth, count by ip, or write rateLimit: off for the route (or its own limit with replace: true)")
		}
		if p != nil {
			p.Also = append(p.Also, r.Pos)
			return
		}
	}
}
