package ratelimit

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/legation/legation/store"
)

// Rate is how many hits pass in a time.
type Rate struct {
	Requests  int64           `json:",omitzero"` // per Window or Period
	Window    time.Duration   `json:",omitzero"` // not for store.Calendar
	Burst     int64           `json:",omitzero"` // GCRA: the size of the bucket
	Algorithm store.Algorithm `json:",omitzero"`
	Period    store.Period    `json:",omitzero"` // store.Calendar
	Zone      string          `json:",omitzero"` // store.Calendar: an IANA name; empty is UTC
	Unlimited bool            `json:",omitzero"` // counts nothing and refuses nobody; then the rest is zero
}

// String gives the rate as policies write it: 100/minute, 10/30s, 5/second burst 20, 1000/month (Europe/Berlin).
func (r Rate) String() string {
	switch {
	case r.Unlimited:
		return "unlimited"
	case r.Algorithm == store.Calendar:
		return fmt.Sprintf("%d/%s (%s)", r.Requests, periodNames[min(int(r.Period), len(periodNames)-1)], cmp.Or(r.Zone, "UTC"))
	}
	text := fmt.Sprintf("%d/%s", r.Requests, r.Window)
	for name, unit := range map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": day} {
		if r.Window == unit {
			text = fmt.Sprintf("%d/%s", r.Requests, name)
		}
	}
	switch r.Algorithm {
	case store.GCRA:
		text += fmt.Sprintf(" burst %d", r.Burst)
	case store.SlidingWindow:
		text += " sliding"
	}
	return text
}

var periodNames = [...]string{store.Day: "day", store.Week: "week", store.Month: "month", store.Year: "year"}

// Limit is one limit of the table; immutable. Fields that are zero are left out of the ID, so that a field that is new in
// one version changes no ID of policies that don't use it.
type Limit struct {
	Name string `json:",omitzero"` // "route/orders/0": layer, name and position; part of every counter's key
	By   []By   `json:",omitzero"` // parts of the value that it counts by; none: one bucket for all
	Rate
	OnError   OnError    `json:",omitzero"`
	Lease     int64      `json:",omitzero"` // the most hits that a process takes ahead of need; 0 has each decided in the store
	Shadow    bool       `json:",omitzero"` // counts and reports, and refuses nobody
	Headers   Headers    `json:",omitzero"` // what answers tell of it
	Overrides []Override `json:",omitzero"` // By has one part: other rates for some of its values
	Exempt    []string   `json:",omitzero"` // By has one part: values that aren't counted; of IP also prefixes

	Known string `json:"-"` // the ID, where it was worked out before: who changes the rest has to empty it
}

// Override is the rate for one value, of IP also for each address of a prefix.
type Override struct {
	Value string `json:",omitzero"`
	Rate
}

// Headers is the set of response headers that tell of a limit; the zero value is Draft03.
type Headers uint8

// The sets; they are or-ed.
const (
	Draft03    Headers = 1 << iota // RateLimit-Limit, -Remaining, -Reset of draft-ietf-httpapi-ratelimit-headers-03
	Structured                     // RateLimit-Policy and RateLimit of the newer drafts (RFC 9651 fields)
	Legacy                         // X-RateLimit-Limit, -Remaining, -Reset
	NoHeaders                      // none, alone
)

// Plan is what the consumers that have it may use. It stands in the place of the limits that count by consumer and by
// nothing else ([Limit.ByConsumer]), so that nobody is held to both.
type Plan struct {
	Name   string
	Limits []Limit // by consumer; their names are the same in all plans ("plan/rate", "plan/quota"), so that what was used goes along
}

// LimitID names a limit of the plan for callouts, which only give back what was counted by it. It has no hash: a bucket
// belongs to the consumer, whatever the plan says of its size.
func (p Plan) LimitID(l Limit) string { return l.Name + "@" + p.Name }

// PlanUse says whether a request counts against its consumer's plan.
type PlanUse uint8

// The choices of PlanUse.
const (
	NoPlan       PlanUse = iota // plans don't hold here
	PlanOptional                // who has no plan, or one that isn't known, is held to the limits by consumer
	PlanRequired                // who has none is refused (403)
)

// Table is all that the service counts by. During a change it holds the old limits and the new: of several with one
// name the last is the current one.
type Table struct {
	Limits  []Limit
	Plans   []Plan
	Domains []Domain
}

// ID is what callouts carry: the name and a hash over the whole limit, so that a companion that has another version of
// the limit loaded doesn't count by it.
func (l Limit) ID() string {
	if l.Known != "" {
		return l.Known
	}
	j, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(j)
	return l.Name + "@" + hex.EncodeToString(sum[:6])
}

// ByConsumer tells whether the limit counts by consumer and by nothing else, so that a plan replaces it.
func (l *Limit) ByConsumer() bool { return len(l.By) == 1 && l.By[0].Kind == Consumer }

// byAddress tells whether the limit counts by where requests come from and by nothing else.
func (l *Limit) byAddress() bool {
	return len(l.By) > 0 && !slices.ContainsFunc(l.By, func(b By) bool { return b.Kind != IP })
}

// OnError says what becomes of a request when the store can't answer.
type OnError uint8

// The choices of OnError.
const (
	Local OnError = iota // count in this process
	Allow
	Deny
)

// String gives the name that policies use.
func (e OnError) String() string {
	switch e {
	case Local:
		return "local"
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	}
	return fmt.Sprintf("onError(%d)", uint8(e))
}
