package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"
)

// identification is how far it is known who calls.
type identification struct {
	grant        *grant    // of the caller; nil: nobody that we know
	others       []*grant  // of the providers after the first, where all have to accept
	place        int       // of the provider that is looked at
	pending      work      // of that provider
	later        bool      // the work waits for others, and may not be waited for here
	why          error     // nobody was accepted
	by           *provider // that gave grant, or why
	hits, misses int       // of tokens in the cache of the verified
	presented    bool      // some provider found credentials

	sum    [sha256.Size]byte // of the token
	summed string
	parsed *unverified // a token that several providers may look at
	bad    error       // why it can't be parsed
	text   string      // the token that was parsed
}

// look asks the providers what they can tell at once, in the rule's order. It stops at one that has work to do: of those
// that accept, the first names the caller, however long it takes.
func (d *decision) look(now time.Time) {
	for ; d.place < len(d.rule.providers); d.place++ {
		f := d.rule.providers[d.place].way.look(d, now)
		if f.work != nil {
			d.pending = f.work
			return
		}
		if d.settle(f, now) {
			return
		}
	}
	d.conclude(now)
}

// work does what is pending, and goes on. Where it may not wait for others it stops before such work.
func (d *decision) work(ctx context.Context, now time.Time, wait bool) {
	for d.pending != nil {
		if d.pending.waits() && !wait {
			d.later = true
			return
		}
		w := d.pending
		d.pending = nil
		var f finding
		if w.waits() {
			f = await(ctx, w, now)
		} else {
			f = w.do(ctx, now)
		}
		if d.pending = f.work; f.work != nil { // what it found has to be waited for
			continue
		}
		if d.settle(f, now) {
			return
		}
		d.place++
		d.look(now)
	}
}

// What waits for others is given up ahead of the client's deadline, so that our answer comes before it counts as none.
const (
	headStart = 10 * time.Millisecond
	mostWait  = 5 * time.Second // where the client sets no deadline
)

func ahead(ctx context.Context) (context.Context, context.CancelFunc) {
	until, ok := ctx.Deadline()
	if ok {
		until = until.Add(-headStart)
	} else {
		until = time.Now().Add(mostWait)
	}
	return context.WithDeadline(ctx, until)
}

// await does work that waits for others. What does not come in time leaves the credential undecided.
func await(ctx context.Context, w work, now time.Time) finding {
	ctx, cancel := ahead(ctx)
	defer cancel()
	f := w.do(ctx, now)
	if errors.Is(f.err, context.DeadlineExceeded) || errors.Is(f.err, context.Canceled) {
		f.err = denyLate
	}
	return f
}

// settle takes what the provider at place found; done tells that no other has to be asked.
func (d *decision) settle(f finding, now time.Time) (done bool) {
	if f.grant != nil {
		if err := d.table.revoked.check(f.grant); err != nil {
			f = finding{err: err}
		}
	}
	p := d.rule.providers[d.place]
	d.presented = d.presented || f.err != nil && !(f.err == error(errRevoked) && d.greets())
	switch {
	case f.answer != nil:
		d.deny, d.answer, d.by = denyAnswered, f.answer, p
		return true
	case f.grant != nil && d.grant == nil:
		d.grant, d.by = f.grant, p
		return !d.rule.all
	case f.grant != nil:
		d.others = append(d.others, f.grant)
		return false
	case f.err != nil && (d.why == nil || ambiguous(f.err) || d.why == error(errIssuer) || undecided(f.err)):
		d.why, d.by = f.err, p // of several refusals the one that came furthest: a wrong issuer says least
	}
	if final := d.rule.all || ambiguous(f.err); final {
		d.turnAway(now, p)
		return true
	}
	return false
}

// ambiguous tells that a request brings credentials that can be read in two ways, so that no other may be looked at.
func ambiguous(err error) bool {
	d, ok := err.(*denial)
	return ok && d.status == 400
}

// conclude ends the look when no provider is left.
func (d *decision) conclude(now time.Time) {
	if d.grant != nil {
		return
	}
	if g, by := d.guest(); g != nil && d.why == nil { // who was refused, be it a login that was revoked, is no guest
		d.by = by
		if d.why = d.table.revoked.check(g); d.why == nil {
			d.grant = g
			return
		}
		d.presented = true
	}
	d.turnAway(now, d.rule.providers...)
}

// turnAway refuses a caller, but for one that one of the providers sends where it gets the credentials that it lacks.
func (d *decision) turnAway(now time.Time, providers ...*provider) {
	if !d.presented {
		for _, p := range providers {
			if g, ok := p.way.(greeter); ok {
				if d.answer = g.greet(d, now); d.answer != nil {
					d.grant, d.others = nil, nil
					d.deny, d.by = denyAnonymous, p
					return
				}
			}
		}
	}
	d.fail()
}

// greets tells whether the provider at place sends callers without credentials somewhere. There a revoked login is as good
// as none: else its browser would bring it for ever.
func (d *decision) greets() bool {
	_, ok := d.rule.providers[d.place].way.(greeter)
	return ok
}

// greeter is a way that answers callers without credentials itself: sends them where they get some.
type greeter interface {
	greet(d *decision, now time.Time) *response // nil: the usual 401
}

// fail refuses a caller that was not accepted.
func (d *decision) fail() {
	d.grant, d.others = nil, nil
	if d.why == nil {
		d.deny = denyAnonymous
		return
	}
	if r, ok := errors.AsType[*refusal](d.why); ok {
		d.deny, d.refusal = r.deny, r
		return
	}
	if known, ok := errors.AsType[*denial](d.why); ok {
		d.deny = known
		return
	}
	d.deny = denyInternal
}

// undecided tells that a credential may be good, but could not be judged.
func undecided(err error) bool {
	d, ok := errors.AsType[*denial](err)
	return ok && d.status >= 500
}

// bearer is the token in the Authorization header, without one if it holds something else.
func (d *decision) bearer() (raw string, err error) {
	scheme, raw, _ := strings.Cut(d.header("authorization"), " ")
	switch {
	case !strings.EqualFold(scheme, "bearer"):
		return "", nil
	case len(raw) > maxToken || raw == "":
		return "", errMalformed
	}
	return raw, nil
}

// tokenSum is the hash of a token, made once though several providers ask.
func (d *decision) tokenSum(raw string) *[sha256.Size]byte {
	if d.summed != raw {
		d.summed, d.sum = raw, sumOf(raw)
	}
	return &d.sum
}

// parseToken passes a token through the gate, once though several providers ask.
func (d *decision) parseToken(raw string) (*unverified, error) {
	if d.text == raw {
		return d.parsed, d.bad
	}
	d.text = raw
	d.parsed, d.bad = nil, nil
	t, err := parseToken(raw)
	if err != nil {
		d.bad = err
		return nil, err
	}
	c, err := strictObject(t.payload)
	if err != nil {
		d.bad = errMalformed
		return nil, d.bad
	}
	d.parsed = &unverified{t, c, *d.tokenSum(raw)}
	return d.parsed, nil
}
