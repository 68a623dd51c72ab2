package auth

import (
	"context"
	"sync"
	"time"

	"github.com/legation/legation/expr"
)

// permit judges what the rule asks of a caller that is known. What has to be fetched for it is missing then.
func (d *decision) permit(now time.Time) {
	if d.grant == nil || d.deny != nil || d.rule.demands == nil {
		return
	}
	d.facts = d.known(now)
	if d.forbid(d.rule.demands.screen(&d.facts)) {
		return
	}
	d.weigh(now)
}

// weigh judges once more, with what was fetched.
func (d *decision) weigh(now time.Time) {
	missing, v := d.rule.demands.lookUp(&d.facts, now)
	switch {
	case d.forbid(v):
	case len(missing) > 0:
		d.missing = missing
	default:
		d.missing = nil
		d.forbid(d.rule.demands.judge(&d.facts))
	}
}

func (d *decision) forbid(v *veto) bool {
	if v == nil {
		return false
	}
	d.veto, d.deny = v, v.denial
	return true
}

// fetch gets what is missing, and judges. What could not be got by then is not there.
func (d *decision) fetch(ctx context.Context, now time.Time) {
	var wg sync.WaitGroup
	for _, l := range d.missing {
		wg.Go(func() { l.fetch(ctx) })
	}
	wg.Wait()
	if d.weigh(now); d.missing != nil {
		d.forbid(vetoNoMetadata)
	}
}

// known is what conditions may ask of the request.
func (d *decision) known(now time.Time) expr.Facts {
	f := expr.Facts{
		Method: d.method, Host: d.host, Path: d.path, Scheme: d.scheme, IP: d.client(), Header: d.byHeader,
		Consumer: d.who.name, Claim: d.byClaim, Route: d.rule.name, Time: now, Plan: d.who.plan, Identity: d.grant.claims,
	}
	if len(d.others) > 0 {
		f.Identities = map[string]map[string]any{d.grant.provider: d.grant.claims}
		for _, g := range d.others {
			f.Identities[g.provider] = g.claims
		}
	}
	return f
}
