package callout

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A gate keeps the calls that a server has in hand, over all its connections, to as many as it answers soon. Calls that
// are more than that for a while are shed: they are told so at once, which an Envoy that waits in vain never is.
//
// Slow is not overloaded: what takes long and is bounded in number, as a closed loop of calls is, or a store that stalls
// for a moment, passes. So the gate closes by how many calls are in hand on average, not by how long they take, and only
// where that lasts. Once it is closed, each connection may have as many in hand as it answers in time, at the rate of
// the last moments.
type gate struct {
	most atomic.Int64 // calls that a connection may have in hand; beyond them it sheds

	mu     sync.Mutex // guards what follows
	from   time.Time  // when this slot began
	calls  int        // served in it
	shed   int        // in it
	held   float64    // seconds in it times calls that were in hand, shed ones too
	turns  float64    // seconds in it times connections that were busy
	rate   float64    // calls that the server answers in a second, of late
	crowds float64    // calls in hand by crowds, summed over the slots in a row that had too many
	until  time.Time  // the gate is closed
}

const (
	slot    = 25 * time.Millisecond  // over which figures are taken
	lasting = 4                      // crowds in slots in a row close the gate
	heavy   = 3                      // crowds of a slot, at most: two slots are the least that close it
	reopens = 500 * time.Millisecond // after calls were shed for the last time
	kept    = 9. / 10                // of the rate from one slot to the next, where calls are fewer

	crowd    = 1024                    // calls in hand, on average, that are never too many
	crowded  = 3 * time.Millisecond    // nor as many as are answered in so long
	room     = 256                     // calls in hand that are let in anyway
	roomTime = 2500 * time.Microsecond // and as many as are answered in so long
	leastFew = 16                      // calls of a connection: fewer cost too much each
)

func newGate(now time.Time) *gate {
	g := &gate{from: now}
	g.most.Store(math.MaxInt64)
	return g
}

// served tells the gate of a part of a connection's turn: how many calls it had in hand as the part began, how many of
// them it has served, and how many it has shed.
func (g *gate) served(began, ended time.Time, held, calls, shed int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	took := max(0, min(ended.Sub(began), ended.Sub(g.from))).Seconds()
	g.calls += calls
	g.shed += shed
	g.held += float64(held) * took
	g.turns += took
	if ended.Sub(g.from) >= slot {
		g.judge(ended)
	}
}

// judge ends a slot.
func (g *gate) judge(now time.Time) {
	seconds := now.Sub(g.from).Seconds()
	g.rate = max(float64(g.calls)/seconds, g.rate*kept)
	if crowds := g.held / seconds / max(crowd, g.rate*crowded.Seconds()); crowds > 1 {
		g.crowds += min(crowds, heavy)
	} else {
		g.crowds = 0
	}
	if g.crowds >= lasting || g.shed > 0 {
		g.until = now.Add(reopens)
	}
	most := int64(math.MaxInt64)
	if now.Before(g.until) {
		all := max(room, g.rate*roomTime.Seconds())
		most = max(leastFew, int64(all/max(1, g.turns/seconds)))
	}
	g.most.Store(most)
	g.from, g.calls, g.shed, g.held, g.turns = now, 0, 0, 0, 0
}
