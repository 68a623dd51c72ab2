package store

import (
	"sync/atomic"
	"time"
)

// clock tells the time in µs since 1970, and never goes back.
type clock struct{ now func() int64 }

const (
	jump  = second // µs by which the wall clock has to be ahead for a clock to go with it
	heeds = 10_000 // µs after which to look at it again
)

// newClock is the wall clock at its start. From then on it runs by the monotonic clock, which nobody sets. That one stands
// still while the machine is suspended: so once the wall clock is ahead by more than jump, this one catches up, and what
// ended meanwhile has ended. A wall clock that is set ahead looks the same; one that is set back isn't followed.
func newClock() clock {
	start := time.Now()
	return catchUp(
		func() int64 { return start.UnixMicro() + time.Since(start).Microseconds() },
		func() int64 { return time.Now().UnixMicro() },
	)
}

// catchUp is a clock by two others, in µs since 1970.
func catchUp(monotonic, wall func() int64) clock {
	var heeded atomic.Int64 // µs, monotonic: when it last looked at the wall clock
	var missed atomic.Int64 // µs by the monotonic clock
	return clock{func() int64 {
		at := monotonic()
		if last := heeded.Load(); at-last >= heeds && heeded.CompareAndSwap(last, at) {
			ahead := wall() - monotonic() // in this order: what passes in between makes it less
			if ahead-missed.Load() > jump {
				missed.Store(ahead)
			}
		}
		return at + missed.Load()
	}}
}
