package xds

import (
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// This file is the make-before-break order. It keeps no plan: what may be sent now follows from what the Envoy has,
// what is on its way to it, and the target. So a later publish, a reconnection and a mere start need no cases of
// their own.
//
// Envoy holds back the acknowledgement of clusters until the new ones are warm, for which it needs their endpoints and
// secrets. So endpoints follow the clusters without waiting, and an explicit question never waits for an ACK.

// update is called after a publish.
func (st *stream) update() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.step()
}

// tick is called by the timer.
func (st *stream) tick() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.step()
}

// step queues what may be sent now, and tells the publication how the stream stands.
func (st *stream) step() {
	if st.closed || st.group == nil {
		return
	}
	now := time.Now()
	snapshot := st.group.served.Load()
	if snapshot == nil {
		return // held
	}
	if snapshot != st.target {
		st.aim(snapshot, now)
	}
	st.retry(now)
	st.queue()
	stand := st.stand(now)
	if stand == Working && now.Sub(st.progress) >= st.server.o.StageTimeout {
		st.late = true
		st.remark(now)
		st.queue()
		stand = Late
	}
	if stand == Acknowledged && !st.cleaning && st.quiet(now) {
		st.cleaning = true
		st.queue()
	}
	if stand == Acknowledged && st.complete(now) {
		st.revision = st.target.revision
	}
	if stand != Working {
		st.server.current.Load().arrive(st, st.target, stand)
	}
	st.arm(now, stand)
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

// queue puts a token in the channel of each type that is due. The response is made when go-control-plane takes the
// token: a slow Envoy gets the latest then, and a token that is dropped with its channel loses nothing.
func (st *stream) queue() {
	first := true // nothing of a lower rank is in a channel
	for _, t := range st.types {
		if t.send != nil && !t.queued {
			c := t.settle(st.target.set(t.url))
			if (first || t.kind.free) && (t.inflight == nil || st.late) && st.due(t, c) {
				t.queued = true
				t.send()
			}
		}
		first = first && (!t.queued || t.kind.free)
	}
}

// settle tells what is pending, and moves the base along when that is nothing.
func (t *subscription) settle(to *set) change {
	c := t.pending(to)
	t.settled = len(c.upserts)+len(c.asked)+len(c.absent) == 0 && (len(c.gone) == 0 || t.kind.late)
	if t.settled && t.base != to {
		t.commit(to, c, true, c.gone)
	}
	if t.settled && t.answered && t.inflight == nil && len(t.rejected) == 0 {
		t.acked = to.version
	}
	return c
}

// due is whether there is something to send of t now.
func (st *stream) due(t *subscription, c change) bool {
	if !t.answered && !st.blocked(t) {
		return true // even if empty: Envoy waits for a first answer
	}
	c, _, _ = st.allowed(t, c)
	if !t.answered {
		return len(c.asked)+len(c.absent) > 0
	}
	return !c.empty()
}

// allowed cuts the change down to what may be sent now. It tells whether that is everything but what is left over,
// which it lists.
func (st *stream) allowed(t *subscription, c change) (now change, all bool, left []*entry) {
	switch {
	case t.answered && st.blocked(t): // a first answer is whole or not at all
		return change{asked: c.asked, absent: c.absent}, false, nil
	case t.kind.late && !st.mayClean(t):
		left, c.gone = c.gone, nil
	}
	return c, true, left
}

// blocked is whether changes of t have to wait for the types below it.
func (st *stream) blocked(t *subscription) bool {
	if t.kind.free || t.kind.rank <= rankEndpoint {
		return false // endpoints go right behind their clusters: see queue
	}
	for _, o := range st.types {
		switch {
		case o.kind.rank >= t.kind.rank:
			return false // they are sorted
		case len(o.rejected) > 0 && t.answered: // a new Envoy has no last good: it gets what there is
			return true
		case o.inflight != nil && (!st.late || o.behind(st.target)):
			return true
		case o.inflight != nil: // it has had its time
		case o.queued || o.send == nil || !o.answered || !o.nothingFor(st.target):
			return true
		}
	}
	return false
}

// behind is whether the target has changes that wait behind the response in flight.
func (t *subscription) behind(s *Snapshot) bool {
	to := s.set(t.url)
	return t.wildcard && t.base != to && len(to.since(t.base).upserts) > 0
}

// nothingFor is whether no upsert is left to send.
func (t *subscription) nothingFor(s *Snapshot) bool {
	c := t.pending(s.set(t.url))
	return len(c.upserts)+len(c.asked)+len(c.absent) == 0
}

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

// leftover is whether t has something that has to be taken away.
func (t *subscription) leftover() bool {
	for name, e := range t.over {
		if t.kind.late && e != nil && e != forgotten && t.wants(name) {
			return true
		}
	}
	return false
}

// stand is how far the Envoy is with the target.
func (st *stream) stand(now time.Time) State {
	busy, open, rejected := false, false, false
	for _, t := range st.types {
		busy = busy || t.queued || t.inflight != nil || t.send == nil
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
	if now.Sub(st.opened) >= st.server.o.StageTimeout {
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
		if !st.cleaning {
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
	case at.IsZero() && st.timer != nil:
		st.timer.Stop()
	case at.IsZero():
	case st.timer == nil:
		st.timer = time.AfterFunc(at.Sub(now), st.tick)
	default:
		st.timer.Reset(at.Sub(now))
	}
}
