package store

import (
	"sync"
	"sync/atomic"
)

// strikes is how many trips in a row fail before no more are made.
const strikes = 3

// breaker tells whether a lane is worth a trip. While it is open only the probe goes.
type breaker struct {
	open     atomic.Bool
	failures atomic.Int32
	change   func() // called after each change of state

	mu     sync.Mutex // guards up and reason, which change together
	up     bool
	reason string
}

func (b *breaker) succeed() {
	if b.failures.Load() == 0 && !b.open.Load() {
		return
	}
	b.set(true, "")
}

func (b *breaker) fail(reason string) {
	if b.failures.Add(1) >= strikes {
		b.set(false, reason)
	}
}

func (b *breaker) set(up bool, reason string) {
	b.mu.Lock()
	b.open.Store(!up)
	if up {
		b.failures.Store(0)
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
