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
	now    time.Time  // as of the last news
	calls  int        // in hand
	conns  int        // that have some
	from   time.Time  // when this slot began
	served int        // calls in it
	shed   int        // calls in it
	held   float64    // seconds of it times calls that were in hand
	busy   float64    // seconds of it times connections that had some
	rate   float64    // calls that the server answers in a second, of late
	crowds float64    // calls in hand by crowds, summed over the slots in a row that had too many
	until  time.Time  // the gate is closed
}

const (
	slot    = 12 * time.Millisecond  // over which figures are taken
	lasting = 4                      // crowds in slots in a row close the gate
	heavy   = 3                      // crowds of a slot, at most: two slots are the least that close it
	reopens = 500 * time.Millisecond // after calls were shed for the last time
	kept    = 19. / 20               // of the rate from one slot to the next, where calls are fewer

	crowd    = 1100                    // calls in hand, on average, that are never too many
	crowded  = 3 * time.Millisecond    // nor as many as are answered in so long
	room     = 256                     // calls in hand that are let in anyway
	roomTime = 2500 * time.Microsecond // and as many as are answered in so long
	leastFew = 16                      // calls of a connection: fewer cost too much each
)

func newGate(now time.Time) *gate {
	g := &gate{now: now, from: now}
	g.most.Store(math.MaxInt64)
	return g
}

// enter tells the gate of the calls that a connection's turn has brought.
func (g *gate) enter(now time.Time, calls int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tick(now)
	g.calls += calls
	g.conns++
}

// leave tells it that some of them were served, and some shed; last, that these were all that were left.
func (g *gate) leave(now time.Time, served, shed int, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tick(now)
	g.calls -= served + shed
	if last {
		g.conns--
	}
	g.served += served
	g.shed += shed
}

// tick has time go on.
func (g *gate) tick(now time.Time) {
	if !now.After(g.now) {
		return
	}
	seconds := now.Sub(g.now).Seconds()
	g.held += float64(g.calls) * seconds
	g.busy += float64(g.conns) * seconds
	g.now = now
	if now.Sub(g.from) >= slot {
		g.judge(now)
	}
}

// judge ends a slot.
func (g *gate) judge(now time.Time) {
	seconds := now.Sub(g.from).Seconds()
	g.rate = max(float64(g.served)/seconds, g.rate*kept)
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
		most = max(leastFew, int64(all/max(1, g.busy/seconds)))
	}
	g.most.Store(most)
	g.from, g.served, g.shed, g.held, g.busy = now, 0, 0, 0, 0
}
