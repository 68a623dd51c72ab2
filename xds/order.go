package xds

import (
	"slices"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// This file is the make-before-break order. It keeps no plan: what may be sent now follows from what the Envoy has,
// what is on its way to it, and the target. So a later publish, a reconnection and a mere start need no cases of
// their own.
//
// Envoy holds back the acknowledgement of clusters until the new ones are warm, for which it needs their endpoints and
// secrets. So endpoints follow the clusters without waiting, and an explicit question never waits for an ACK. One for routes
// does: an Envoy that reconnects asks for clusters and routes in one breath, and works with what it has until then.
//
// Labels tell which of all this an Envoy has. They come last, and not to one that has refused something. Behind routes they
// are sent in one go: a thousand Envoys that were woken twice for each change would cost nearly twice as much.

// tick is called by the timer.
func (st *stream) tick() {
	st.mu.Lock()
	st.due = time.Time{}
	st.mu.Unlock()
	st.send(true)
}

// step finds what may be sent now, and tells the publication how the stream stands. It reports whether there is something
// to send, and nobody who does.
func (st *stream) step() bool {
	if st.closed || st.group == nil {
		return false
	}
	snapshot := st.serves()
	if snapshot == nil {
		return false // held
	}
	now := time.Now()
	if snapshot != st.target {
		st.aim(snapshot, now)
	}
	st.retry(now)
	for _, t := range st.types {
		t.settle(st.target)
	}
	next := st.next()
	stand := st.stand(next != nil)
	if stand == Working && now.Sub(st.progress) >= st.server.o.StageTimeout {
		st.late = true
		st.remark(now)
		next, stand = st.next(), Late
	}
	if stand == Acknowledged && !st.cleaning && st.leftover() && st.quiet(now) {
		st.cleaning = true
		next = st.next()
	}
	if stand == Acknowledged && st.complete(now) {
		st.revision = st.target.revision
	}
	if stand != Working {
		st.server.current.Load().arrive(st, st.target, stand)
	}
	st.arm(now, stand)
	return next != nil && !st.sending
}

// remark tells of what the Envoy has not answered in time. The change goes on without it.
func (st *stream) remark(now time.Time) {
	for _, t := range st.types {
		if t.inflight != nil {
			st.server.o.Log.Warn("envoy does not acknowledge its configuration", "node", st.node.GetId(), "group", st.group.name,
				"type", t.kind.short, "for", now.Sub(t.at).Round(time.Second))
		}
	}
}

// aim turns the stream to a new target.
func (st *stream) aim(s *Snapshot, now time.Time) {
	st.target, st.changed, st.progress = s, now, now
	st.late, st.cleaning = false, false
	for _, t := range st.types {
		t.absolve(s.set(t.url))
	}
}

// next is the type that is to be sent first, if any: one response of a type is on its way at a time.
func (st *stream) next() *subscription {
	for _, t := range st.types {
		if (t.inflight == nil || st.late) && st.ready(t) {
			return t
		}
	}
	return nil
}

// ready is whether there is something to send of t now.
func (st *stream) ready(t *subscription) bool {
	switch {
	case t.next == nil:
		return false
	case !t.answered && (!st.blocked(t) || t.kind.label && !t.had):
		return true // even if empty: Envoy waits for a first answer
	case t.kind.calm && st.behindOthers(t), t.kind.label && !t.answered:
		return false
	case len(t.next.found)+len(t.next.left)+len(t.next.absent) > 0:
		return true
	case !t.answered:
		return false // a first answer is whole or not at all
	case len(t.next.upserts) == 0 && (len(t.next.gone) == 0 || t.kind.late && !st.mayClean(t)):
		return false
	}
	return !st.blocked(t)
}

// allowed is the part of what leads to the target that may be sent now.
func (st *stream) allowed(t *subscription) part {
	p := t.next
	switch {
	case len(p.upserts)+len(p.gone) > 0 && t.answered && st.blocked(t):
		return answers
	case t.kind.late && !st.mayClean(t):
		return keeping
	}
	return everything
}

// blocked is whether changes of t have to wait for the types below it.
func (st *stream) blocked(t *subscription) bool {
	if t.kind.free || t.kind.rank <= rankEndpoint {
		return false // endpoints go right behind their clusters: see next
	}
	known := t.answered || t.kind.label && t.had // a new Envoy has no last good: it gets what there is
	for _, o := range st.types {
		if o.kind.rank < t.kind.rank && len(o.rejected) > 0 && known {
			return true
		}
	}
	return st.behindOthers(t)
}

// behindOthers is whether something of the types below t is on its way, or is yet to be sent.
func (st *stream) behindOthers(t *subscription) bool {
	for _, o := range st.types {
		switch {
		case o.kind.rank >= t.kind.rank:
			return false // they are sorted
		case o.inflight != nil && t.kind.label && o.kind.plain && !o.open():
			// It has been sent, and what follows it on the stream is read after it: one message more, and no wait.
		case o.inflight != nil && (!st.late || o.behind()):
			return true
		case o.inflight != nil: // it has had its time
		case !o.answered || o.open():
			return true
		}
	}
	return false
}

// behind is whether the target has changes that wait behind the response in flight.
func (t *subscription) behind() bool { return t.wildcard && t.next != nil && len(t.next.upserts) > 0 }

// mayClean is whether what is left over of t may go: routes before clusters before endpoints.
func (st *stream) mayClean(t *subscription) bool {
	if !st.cleaning {
		return false
	}
	for _, o := range st.types {
		before := o.kind.rank == rankRoute && t.kind.rank < rankRoute || o.kind.rank == rankCluster && t.kind.rank == rankEndpoint
		if o.inflight != nil || len(o.rejected) > 0 || before && o.leftover() {
			return false
		}
	}
	return true
}

// leftover is whether the Envoy has something that has to be taken away.
func (st *stream) leftover() bool {
	return slices.ContainsFunc(st.types, (*subscription).leftover)
}

// stand is how far the Envoy is with the target.
func (st *stream) stand(busy bool) State {
	open, rejected := false, false
	for _, t := range st.types {
		busy = busy || t.inflight != nil
		open = open || !t.answered || !t.settled
		rejected = rejected || len(t.rejected) > 0
	}
	switch {
	case rejected && !busy:
		return Rejected
	case !busy && !open:
		return Acknowledged
	case st.late:
		return Late
	default:
		return Working
	}
}

// complete is whether the Envoy has asked for all that it will ask for, as far as can be known.
func (st *stream) complete(now time.Time) bool {
	if st.only != "" || now.Sub(st.opened) >= st.server.o.StageTimeout {
		return true
	}
	for _, url := range []string{resource.ClusterType, resource.ListenerType} {
		if st.target.Len(url) > 0 && st.find(url) == nil {
			return false
		}
	}
	return true
}

// quiet is whether nothing has happened for so long that nothing needs what is left over. A stream that never gets
// quiet, as one with on-demand questions, is so after ten times that long.
func (st *stream) quiet(now time.Time) bool {
	grace := st.server.o.RemovalGrace
	return now.Sub(st.progress) >= grace || now.Sub(st.changed) >= 10*grace
}

// arm sets the timer to when time alone will change something.
func (st *stream) arm(now time.Time, stand State) {
	var at time.Time
	sooner := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	switch stand {
	case Working:
		sooner(st.progress.Add(st.server.o.StageTimeout))
	case Acknowledged:
		if !st.cleaning && st.leftover() {
			sooner(st.progress.Add(st.server.o.RemovalGrace))
		}
		if !st.complete(now) {
			sooner(st.opened.Add(st.server.o.StageTimeout))
		}
	}
	if every := st.server.o.RetryNACK; every > 0 {
		for _, t := range st.types {
			if len(t.rejected) > 0 && t.inflight == nil {
				sooner(t.at.Add(every))
			}
		}
	}
	switch {
	case at.IsZero() || !st.due.IsZero() && !at.Before(st.due):
		return // a timer that fires too soon finds nothing to do
	case st.timer == nil:
		st.timer = time.AfterFunc(at.Sub(now), st.tick)
	default:
		st.timer.Reset(at.Sub(now))
	}
	st.due = at
}
