package app

import (
	"context"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/ratelimit"
)

// counter lets the auth service count a request in the same call; the two companion rooms don't know each other.
type counter struct{ limits *ratelimit.Service }

func (c counter) Count(ctx context.Context, limits []string, who auth.Caller) auth.Verdict {
	v := c.limits.Count(ctx, limits, ratelimit.Attributes{
		Anonymous: !who.Identified, IP: who.IP, Consumer: who.Consumer, Header: who.Header, Claim: who.Claim,
	}, 1)
	headers := make([][2]string, len(v.Headers))
	for i, h := range v.Headers {
		headers[i] = [2]string{h.Name, h.Value}
	}
	return auth.Verdict{Allowed: v.Allowed, Status: v.Status, Headers: headers, Limit: v.Limit}
}
