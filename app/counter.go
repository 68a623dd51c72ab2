package app

import (
	"context"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/ratelimit"
)

// counter lets the auth service count a request in the same call; the two companion rooms don't know each other.
type counter struct{ limits *ratelimit.Service }

func (c counter) Count(asks []*auth.Ask) {
	for _, a := range asks {
		who := &a.Caller
		v := c.limits.Count(context.Background(), a.Limits, ratelimit.Attributes{
			Anonymous: !who.Identified, IP: who.IP, Consumer: who.Consumer, Header: who.Header, Claim: who.Claim,
		}, 1)
		headers := make([][2]string, len(v.Headers))
		for i, h := range v.Headers {
			headers[i] = [2]string{h.Name, h.Value}
		}
		a.Verdict = auth.Verdict{Allowed: v.Allowed, Status: v.Status, Headers: headers, Limit: v.Limit}
	}
}
