package store

import (
	"sync"
	"sync/atomic"
	"time"
)

// fuse tells whether Redis is worth a trip. It blows after some failures in a row, as a lane's breaker does; then every
// trip fails at once, but for the probe's, which mends it.
type fuse struct {
	blown atomic.Bool
	probe string // the key that the probe sets

	mu       sync.Mutex // guards what follows
	answered bool       // ever
	failures int        // since the last success
	since    time.Time  // the first of them
	reason   string
}

// judge learns how a trip went.
func (f *fuse) judge(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.failures, f.answered = 0, true
		return
	}
	if f.failures++; f.failures == 1 {
		f.since = time.Now()
	}
	f.reason = reason(err)
	if f.failures >= strikes && time.Since(f.since) >= stall {
		f.blown.Store(true)
	}
}

// set is for the probe, which alone mends what has blown.
func (f *fuse) set(err error) {
	f.judge(err)
	if err == nil {
		f.blown.Store(false)
	}
}

// state is empty when all is well.
func (f *fuse) state() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.blown.Load():
		return f.reason
	case !f.answered && f.failures > 0:
		return f.reason
	case !f.answered:
		return starting
	}
	return ""
}
