package callout

import (
	"time"

	"golang.org/x/net/http2"
)

// A budget bounds what a connection asks for beside calls. Frames that bring no call cost something, and answered calls
// and time earn it back, so that a client may send several such frames for each of its calls, for ever, and a burst of
// them without any call; one that sends nothing else is cut off.
type budget struct {
	left   int
	filled time.Time
}

const (
	budgetMax       = 4096
	earnedByCall    = 4 // window updates for the connection and the stream, a ping, and one to spare
	earnedBySecond  = 100
	earnedBytes     = 1024 // of large answers bring one back, for window updates
	costOfFrame     = 1
	costOfReset     = 2 // with HEADERS before it, that was a call for nothing
	costOfSettings  = 4
	costOfMalformed = 4
	costOfRefused   = 4 // for its headers, of which a byte each may be some KiB in HPACK's table
)

func (b *budget) earn(n int) { b.left = min(b.left+n, budgetMax) }

// tick earns what time brings.
func (b *budget) tick(now time.Time) {
	if seconds := int(now.Sub(b.filled) / time.Second); seconds > 0 {
		b.earn(min(seconds, budgetMax) * earnedBySecond)
		b.filled = now
	}
}

// spend takes the cost of a frame of some kind.
func (c *conn) spend(cost int, kind string) error {
	if c.budget.left -= cost; c.budget.left >= 0 {
		return nil
	}
	c.server.metrics.floods.WithLabelValues(kind).Inc()
	return violate(http2.ErrCodeEnhanceYourCalm, "too many frames: "+kind)
}
