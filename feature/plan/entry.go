package plan

import (
	"embed"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

//go:embed entry
var docs embed.FS

func entryDoc(name string) string {
	text, err := docs.ReadFile("entry/" + name + ".md")
	if err != nil {
		panic(err) // a fault of this file
	}
	return string(text)
}

// The keys of the entries of the section plans.
var (
	BurstKind    = policy.Define[Burst]("burst", policy.InPlan, entryDoc("burst"))
	HeadersKind  = policy.Define[Headers]("headers", policy.InPlan, entryDoc("headers"))
	ModeKind     = policy.Define[Mode]("mode", policy.InPlan, entryDoc("mode"))
	QuotaKind    = policy.Define[Quota]("quota", policy.InPlan, entryDoc("quota"))
	RateKind     = policy.Define[Rate]("rate", policy.InPlan, entryDoc("rate"))
	RefundKind   = policy.Define[Refund]("refund", policy.InPlan, entryDoc("refund"))
	TimeZoneKind = policy.Define[TimeZone]("timeZone", policy.InPlan, entryDoc("timezone"))
)

// Rate is what stands under rate.
type Rate struct{ policy.Rate }

// Check holds nothing against a rate alone.
func (*Rate) Check(*policy.Check) {}

// Burst is what stands under burst: how many requests may come at once.
type Burst int64

// Check holds the burst against the rate that fills its bucket.
func (b *Burst) Check(c *policy.Check) {
	rate, ok := policy.Find[*Rate](c.Entry().Settings)
	switch {
	case c.Broken("rate"):
	case !ok:
		c.Errorf("", "a burst needs the rate at which its bucket fills").Hintf("write rate: 10/second beside it")
	case *b < 1 || int64(*b) > store.MaxCount:
		c.Errorf("", "want a burst from 1 to %d, got %d", store.MaxCount, *b)
	case float64(*b)/float64(rate.Requests)*float64(rate.Window) > float64(store.MaxWindow):
		c.Errorf("", "a bucket of %d takes longer than two years to fill at this rate", *b).Hintf("raise the rate, or lower the burst")
	}
}

// Quota is what stands under quota.
type Quota struct{ policy.Quota }

// Check warns of a time zone that another plan's quota of the same period hasn't: their periods end at different moments,
// so that what was used doesn't go along from one to the other.
func (q *Quota) Check(c *policy.Check) {
	for _, p := range c.Common().Plans {
		if &p.Entry == c.Entry() {
			return
		}
		other, ok := policy.Find[*Quota](p.Settings)
		if !ok || other.Period != q.Period {
			continue
		}
		if zone(p.Settings) != zone(c.Entry().Settings) {
			c.Warnf("", "counts the %s in another time zone than the plan %q: who changes between the two begins anew", q.Period, p.Name).
				Hintf("write the same timeZone in both")
		}
		return // the first of the period stands for all
	}
}

// zone is where the plan's days begin, empty for UTC.
func zone(of policy.Settings) string {
	if z, ok := policy.Find[*TimeZone](of); ok {
		return strings.TrimPrefix(string(z.TimeZone), "UTC")
	}
	return ""
}

// TimeZone is what stands under timeZone.
type TimeZone struct{ policy.TimeZone }

// Check asks for the quota whose days it is about.
func (z *TimeZone) Check(c *policy.Check) {
	if !c.Entry().Settings.Has("quota") && !c.Broken("quota") {
		c.Errorf("", "only a quota goes by the calendar").Hintf("write quota: 10000/month beside it, or leave timeZone out")
	}
}

// Mode is what stands under mode: who counts.
type Mode string

// Values are the modes. An Envoy that counts by itself knows no plans.
func (Mode) Values() []string { return []string{"exact", "leased"} }

// Check asks for something to count.
func (m *Mode) Check(c *policy.Check) { checkCounts(c) }

// Headers is what stands under headers: sets of response headers, one or a list.
type Headers []HeaderSet

// HeaderSet is one of them.
type HeaderSet string

// Values are the sets.
func (HeaderSet) Values() []string { return []string{"draft03", "structured", "legacy", "none"} }

// DecodePolicy reads one or a list.
func (h *Headers) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.List {
		d.Decode(n, (*[]HeaderSet)(h))
		return
	}
	*h = make(Headers, 1)
	d.Decode(n, &(*h)[0])
}

// PolicySchema describes both forms.
func (*Headers) PolicySchema(s *policy.Schemas) map[string]any {
	one := s.Of(new(HeaderSet))
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "uniqueItems": true, "items": one}}}
}

// Check holds the sets against each other.
func (h *Headers) Check(c *policy.Check) {
	checkCounts(c)
	switch {
	case len(*h) == 0:
		c.Errorf("", "name at least one").Hintf("write headers: none for no headers")
	case len(*h) > 1 && slices.Contains(*h, "none"):
		c.Errorf("", "none stands alone, not in a list").Hintf("write headers: none")
	case len(slices.Compact(slices.Sorted(slices.Values(*h)))) < len(*h):
		c.Errorf("", "a name stands here twice").Hintf("remove one of the two")
	}
}

// checkCounts refuses a plan that has neither rate nor quota; it is told at one of its keys.
func checkCounts(c *policy.Check) {
	of := c.Entry().Settings
	if !of.Has("rate") && !of.Has("quota") && !c.Broken("rate") && !c.Broken("quota") {
		c.Errorf("", "the plan %q has neither a rate nor a quota", c.Entry().Name).Hintf("add rate: 10/second, or quota: 10000/month, or both")
	}
}

// Plans is what the companion counts for the consumers of each plan. The limits have the same names in all of them, so that
// who changes plans keeps what was used.
func Plans(m *policy.Model) []ratelimit.Plan {
	var all []ratelimit.Plan
	for _, p := range m.Plans {
		all = append(all, Companion(p))
	}
	return all
}

// Companion is what the companion counts for the consumers of one plan.
func Companion(p *policy.Plan) ratelimit.Plan {
	return ratelimit.Plan{Name: p.Name, Limits: limits(p.Settings)}
}

var periods = map[string]store.Period{"day": store.Day, "week": store.Week, "month": store.Month, "year": store.Year}

func limits(of policy.Settings) []ratelimit.Limit {
	var all []ratelimit.Limit
	if r, ok := policy.Find[*Rate](of); ok {
		rate := ratelimit.Rate{Requests: r.Requests, Window: r.Window}
		if burst, ok := policy.Find[*Burst](of); ok {
			rate.Burst, rate.Algorithm = int64(*burst), store.GCRA
		}
		all = append(all, limit("plan/rate", rate, of))
	}
	if q, ok := policy.Find[*Quota](of); ok {
		rate := ratelimit.Rate{Requests: q.Requests, Algorithm: store.Calendar, Period: periods[q.Period], Zone: zone(of)}
		all = append(all, limit("plan/quota", rate, of))
	}
	return all
}

func limit(name string, rate ratelimit.Rate, of policy.Settings) ratelimit.Limit {
	l := ratelimit.Limit{Name: name, By: []ratelimit.By{{Kind: ratelimit.Consumer}}, Rate: rate}
	if mode, ok := policy.Find[*Mode](of); ok && *mode == "leased" {
		l.Lease = ratelimit.DefaultLease(rate)
	}
	if sets, ok := policy.Find[*Headers](of); ok {
		for _, set := range *sets {
			l.Headers |= ratelimit.HeaderSets[string(set)]
		}
	}
	return l
}
