package ratelimit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

// Limit is one limit as written.
type Limit struct {
	Rate      *policy.Rate        `policy:"rate" doc:"requests per second, minute, hour, day or time span: 100/minute, 10/30s"`
	Burst     int64               `policy:"burst" doc:"how many requests may come at once; the bucket then fills at the rate (gcra)"`
	Quota     *policy.Quota       `policy:"quota" doc:"in place of a rate, requests per day, week, month or year of the calendar: 10000/month"`
	TimeZone  policy.TimeZone     `policy:"timeZone" doc:"where the quota's days begin at midnight, by its IANA name; default: UTC"`
	By        By                  `policy:"by" doc:"what each bucket belongs to: ip, consumer, path, route, method, host, {header: x}, {claim: x}, {cookie: x}, {ip: /56}, {cel: x}, or a list of these; default: one bucket for all"`
	Algorithm Algorithm           `policy:"algorithm" doc:"fixedWindow, slidingWindow or gcra; default: gcra with burst, else fixedWindow"`
	Mode      Mode                `policy:"mode" doc:"who counts: exact (the store, each request; the default), leased (each process in lots) or perEnvoy (each Envoy by itself)"`
	Lease     *int64              `policy:"lease" doc:"the most requests that a process takes ahead of need with mode: leased; default: one of a hundred, 1000 at most"`
	Headers   Headers             `policy:"headers" doc:"the response headers that tell of the limit: draft03, structured, legacy, none, or a list; default: draft03, with mode: perEnvoy legacy"`
	Shadow    bool                `policy:"shadow" doc:"whether the limit counts and reports, and refuses nobody"`
	Overrides map[string]Override `policy:"overrides" doc:"other rates for some of the values that by counts, each by its value"`
	Exempt    []string            `policy:"exempt" doc:"values of by that are not counted"`
	Refund    policy.Statuses     `policy:"refund" doc:"statuses of answers whose request is given back: classes and codes, [5xx, 429]"`
	OnError   OnError             `policy:"onError" doc:"when counts can't be had: local (each process counts for itself, the default), allow or deny"`
	Replace   bool                `policy:"replace" doc:"whether the limits of outer layers don't hold here"`
}

// Algorithm is the way to count.
type Algorithm string

// Values are the algorithms.
func (Algorithm) Values() []string { return []string{"fixedWindow", "slidingWindow", "gcra"} }

var algorithms = map[Algorithm]store.Algorithm{
	"fixedWindow": store.FixedWindow, "slidingWindow": store.SlidingWindow, "gcra": store.GCRA,
}

// Mode is who counts.
type Mode string

// The modes.
const (
	exact    Mode = "exact" // as nothing
	leased   Mode = "leased"
	perEnvoy Mode = "perEnvoy"
)

// Values are the modes.
func (Mode) Values() []string { return []string{string(exact), string(leased), string(perEnvoy)} }

// OnError is what becomes of requests that can't be counted.
type OnError string

// Values are the choices.
func (OnError) Values() []string { return []string{"local", "allow", "deny"} }

var onErrors = map[OnError]ratelimit.OnError{
	"": ratelimit.Local, "local": ratelimit.Local, "allow": ratelimit.Allow, "deny": ratelimit.Deny,
}

var periods = map[string]store.Period{"day": store.Day, "week": store.Week, "month": store.Month, "year": store.Year}

// Headers is the sets of response headers that tell of a limit, as written: one or a list.
type Headers []HeaderSet

// HeaderSet is one of them.
type HeaderSet string

// Values are the sets.
func (HeaderSet) Values() []string { return []string{"draft03", "structured", "legacy", "none"} }

// DecodePolicy reads one or a list.
func (h *Headers) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind != policy.List {
		*h = make(Headers, 1)
		d.Decode(n, &(*h)[0])
		return
	}
	d.Decode(n, (*[]HeaderSet)(h))
	for i, set := range *h {
		switch {
		case slices.Contains((*h)[:i], set):
			d.Errorf(n.Items[i], "%s stands here twice", set).Hintf("remove one of the two")
		case set == "none" && len(*h) > 1:
			d.Errorf(n.Items[i], "none stands alone, not in a list").Hintf("write headers: none")
		}
	}
	if len(n.Items) == 0 {
		d.Errorf(n, "name at least one").Hintf("write headers: none for no headers")
	}
}

// PolicySchema describes both forms.
func (*Headers) PolicySchema(s *policy.Schemas) map[string]any {
	one := s.Of(new(HeaderSet))
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "uniqueItems": true, "items": one}}}
}

// set is what the companion reads. The default is no value of its own, so that writing it out changes nothing.
func (h Headers) set() ratelimit.Headers {
	var set ratelimit.Headers
	for _, name := range h {
		set |= ratelimit.HeaderSets[string(name)]
	}
	if set == ratelimit.Draft03 {
		return 0
	}
	return set
}

func (l *Limit) perEnvoy() bool { return l.Mode == perEnvoy }

// limit is what is counted. Its name is part of the bucket's key in the store: the layer and the place in the list,
// never the file or a hash, so that editing a policy doesn't forget the counts.
func (s *Setting) limit(layer policy.Layer, i int) ratelimit.Limit {
	l := &s.Limits[i]
	limit := ratelimit.Limit{
		Name:      fmt.Sprintf("%s/%d", layer, i),
		By:        l.By,
		Rate:      l.rate(l.Rate, l.Quota, l.Burst),
		OnError:   onErrors[l.OnError],
		Shadow:    l.Shadow,
		Headers:   l.Headers.set(),
		Overrides: l.overrides(),
		Exempt:    l.exempt(),
	}
	if l.Mode == leased {
		limit.Lease = policy.Or(l.Lease, ratelimit.DefaultLease(limit.Rate))
	}
	return limit
}

// rate is what the limit means by a rate or a quota, its own or that of an override.
func (l *Limit) rate(r *policy.Rate, q *policy.Quota, burst int64) ratelimit.Rate {
	if q != nil {
		return ratelimit.Rate{Requests: q.Requests, Algorithm: store.Calendar, Period: periods[q.Period], Zone: l.zone()}
	}
	rate := ratelimit.Rate{Requests: r.Requests, Window: r.Window, Burst: burst, Algorithm: algorithms[l.Algorithm]}
	if l.Algorithm == "" && burst > 0 {
		rate.Algorithm = store.GCRA
	}
	return rate
}

// zone is empty for UTC, however that is written.
func (l *Limit) zone() string { return strings.TrimPrefix(string(l.TimeZone), "UTC") }
