package control

import (
	"sync"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/ratelimit"
)

// NewCounter lets the auth service count requests in the same call; the two companion rooms don't know each other.
func NewCounter(limits *ratelimit.Service) auth.Counter { return counting{limits} }

type counting struct{ limits *ratelimit.Service }

// asked are the asks of a turn, used again.
var asked = sync.Pool{New: func() any { return new([]ratelimit.Ask) }}

var planUses = map[auth.PlanUse]ratelimit.PlanUse{
	auth.NoPlan: ratelimit.NoPlan, auth.PlanOptional: ratelimit.PlanOptional, auth.PlanRequired: ratelimit.PlanRequired,
}

// Count counts all asks of a turn with one trip to the store.
func (c counting) Count(asks []*auth.Ask) {
	room := asked.Get().(*[]ratelimit.Ask)
	defer asked.Put(room)
	list := (*room)[:0]
	for _, a := range asks {
		who := &a.Caller
		list = append(list, ratelimit.Ask{IDs: a.Limits, Hits: 1, Attributes: ratelimit.Attributes{
			Anonymous: !who.Identified, IP: who.IP, Consumer: who.Consumer, Plan: who.Plan, Plans: planUses[a.Plans],
			Route: who.Route, Method: who.Method, Host: who.Host, Path: who.Path, Scheme: who.Scheme,
			Header: who.Header, Claim: who.Claim,
		}})
	}
	c.limits.CountAll(list)
	for i, a := range asks {
		v := &list[i].Verdict
		headers := make([][2]string, len(v.Headers))
		for j, h := range v.Headers {
			headers[j] = [2]string{h.Name, h.Value}
		}
		a.Verdict = auth.Verdict{Allowed: v.Allowed, Status: v.Status, Headers: headers, Limit: v.Limit, Shadow: v.Shadow}
	}
	clear(list)
	*room = list
}
