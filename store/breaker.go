package store

import (
	"sync"
	"sync/atomic"
	"time"
)

// A lane is taken to be down after so many failures in a row that went on for so long: a Redis that stalls for a moment
// is worth the next trip.
const (
	strikes = 3
	stall   = 100 * time.Millisecond
)

// breaker tells whether a lane is worth a trip. While it is open only the probe goes, and only the probe closes it: what
// comes back late from before, or needs less than the probe, tells nothing.
type breaker struct {
	open    atomic.Bool
	failing atomic.Bool // since the last success
	change  func()      // called after each change of state

	mu       sync.Mutex // guards what follows
	up       bool
	reason   string
	failures int       // since the last success
	since    time.Time // the first of them
}

// succeed ends a row of failures.
func (b *breaker) succeed() {
	if !b.failing.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.up {
		b.failures = 0
		b.failing.Store(false)
	}
}

func (b *breaker) fail(reason string) {
	b.mu.Lock()
	if b.failures++; b.failures == 1 {
		b.since = time.Now()
		b.failing.Store(true)
	}
	down := b.failures >= strikes && time.Since(b.since) >= stall
	b.mu.Unlock()
	if down {
		b.set(false, reason)
	}
}

// set is for the probe: it went well, or so badly that no more is to be waited for.
func (b *breaker) set(up bool, reason string) {
	b.mu.Lock()
	b.open.Store(!up)
	if up {
		b.failures = 0
		b.failing.Store(false)
	}
	changed := b.up != up || b.reason == starting
	b.up, b.reason = up, reason
	b.mu.Unlock()
	if changed {
		b.change()
	}
}

// starting is the reason before the first answer.
const starting = "no answer yet"

func (b *breaker) state() (up bool, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.up, b.reason
}
