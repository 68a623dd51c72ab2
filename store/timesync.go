package store

import "time"

// redisClock tells the time of the Redis at the other end of a connection: all processes that count there share it,
// whatever their own clocks say. Each answer to TIME bounds how far Redis' clock is from this process' monotonic one: Redis
// read it between the question and the answer. Bounds from several answers are joined, widened by how far the clocks may
// have drifted apart since.
//
// A window's key is named by this time, so processes that are some µs apart differ only in which of two windows a hit at
// the boundary goes to; each window still holds no more than its limit. After this process' wall clock was set ahead, which
// [newClock] can't tell from a sleep, one batch may be counted in a window that is still to come.
type redisClock struct {
	low, high int64 // µs: Redis' time less the monotonic, within these
	synced    int64 // µs, monotonic: when they were last joined
	read      bool
}

const (
	drift    = 500     // one µs in so many
	resync   = 500_000 // µs after which to ask again
	firmness = 1_000   // µs: bounds that are apart by more than this tell of a clock that was set
	second   = int64(time.Second / time.Microsecond)
)

// due tells whether to ask for the time with the next batch.
func (c *redisClock) due(now int64) bool { return !c.read || now-c.synced >= resync }

// now is Redis' time in µs since 1970, at the monotonic time now.
func (c *redisClock) now(now int64) int64 { return now + c.low + (c.high-c.low)/2 }

// learn takes an answer to TIME, by what the monotonic clock said before it was asked and after it came. It tells whether
// Redis' clock was set since the last one, or is another's.
func (c *redisClock) learn(redis, asked, came int64) (set bool) {
	low, high := redis-came, redis-asked+1
	wide := (asked - c.synced) / drift
	oldLow, oldHigh := c.low-wide, c.high+wide
	known := c.read
	c.low, c.high, c.synced, c.read = low, high, came, true
	switch {
	case !known:
		return false
	case low > oldHigh || high < oldLow:
		return low > oldHigh+firmness || high < oldLow-firmness
	}
	c.low, c.high = max(low, oldLow), min(high, oldHigh)
	return false
}
