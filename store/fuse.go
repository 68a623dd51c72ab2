package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// fuse tells whether Redis is worth a trip. It blows after some in a row that Redis didn't answer, as a lane's breaker does;
// then every trip fails at once, but for the probe's, which mends it. A Redis that answers, though it refuses to write,
// may still tell what it has.
type fuse struct {
	blown atomic.Bool
	probe string // the key that the probe sets

	mu       sync.Mutex // guards what follows
	answered bool       // ever
	failures int        // since the last answer
	since    time.Time  // the first of them
	reason   string     // of the last
	refusal  string     // of the last probe; empty when it went well
}

// judge learns how a trip went.
func (f *fuse) judge(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil || answers(err) {
		f.failures = 0
		f.answered = f.answered || err == nil
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

// answers tells of an error that Redis itself has answered with.
func answers(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// set is for the probe, which alone mends what has blown.
func (f *fuse) set(err error) {
	f.judge(err)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.refusal = ""
		f.blown.Store(false)
	case answers(err):
		f.refusal = reason(err)
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
	case f.refusal != "":
		return f.refusal
	case !f.answered && f.failures > 0:
		return f.reason
	case !f.answered:
		return starting
	}
	return ""
}
