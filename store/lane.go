package store

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// lane is the way to one Redis, or to some slots of a Cluster: a breaker, and a queue with one batch away at a time.
// Decisions that come meanwhile go with the next batch: nothing waits when idle, and trips are shared under load.
type lane struct {
	breaker
	client  redis.UniversalClient
	batches bool // false on a Cluster: go-redis sends its batches again when a reply is lost
	timeout time.Duration
	metrics *metrics
	probe   string // a key of the lane

	mu      sync.Mutex // guards waiting and away
	waiting []*trip
	away    bool
}

// maxBatch keeps the last of a batch within its deadline.
const maxBatch = 256

// once is a command that is never sent twice.
type once struct{ *redis.IntSliceCmd }

// NoRetry keeps go-redis from sending the command again when the connection broke after it was sent.
func (once) NoRetry() bool { return true }

// trip is one run of a script.
type trip struct {
	script  *script
	args    []any // evalsha, the digest, the number of keys, the keys, the arguments
	started time.Time
	values  []int64
	err     error
	lead    chan bool // true: lead the next batch; false: done
}

var trips = sync.Pool{New: func() any { return &trip{lead: make(chan bool, 1)} }}

// run makes a trip, alone or with others.
func (l *lane) run(t *trip) {
	if l.open.Load() {
		t.err = errors.New("taken to be down")
		l.metrics.refused.Inc()
		return
	}
	t.started = time.Now()
	if !l.batches {
		l.send([]*trip{t})
		return
	}
	l.mu.Lock()
	l.waiting = append(l.waiting, t)
	if l.away {
		l.mu.Unlock()
		if lead := <-t.lead; !lead {
			return
		}
		l.mu.Lock()
	}
	l.away = true
	n := min(len(l.waiting), maxBatch)
	batch := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	l.mu.Unlock()

	l.handOver(l.send(batch))
	for _, b := range batch {
		if b != t {
			b.lead <- false
		}
	}
}

// An answer takes bound at most, the wait for a batch that fails included; a batch away has least or more. Who waited so
// long that less is left is not sent at all: it is known not to have been counted. Behind a batch that came back, bound is
// for the wait alone: Redis answers, and it was this process that didn't run.
func (l *lane) bound() time.Duration { return l.timeout * 7 / 5 }
func (l *lane) least() time.Duration { return l.timeout * 2 / 5 }

var errLate = errors.New("waited too long for an answer to others")

// handOver has the first who can still be in time lead the next batch; ok tells whether the last one came back.
func (l *lane) handOver(ok bool) {
	wait := l.bound()
	if !ok {
		wait -= l.least()
	}
	oldest := time.Now().Add(-wait)
	l.mu.Lock()
	n := 0
	for n < len(l.waiting) && l.waiting[n].started.Before(oldest) {
		n++
	}
	late := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	var next *trip
	if l.away = len(l.waiting) > 0; l.away {
		next = l.waiting[0]
	}
	l.mu.Unlock()
	if next != nil {
		next.lead <- true
	}
	for _, t := range late {
		t.err = errLate
		l.metrics.refused.Inc()
		t.lead <- false
	}
}

// send runs a batch within what is left of the bound to the oldest trip. The client itself waits for a reply for no longer
// than the timeout.
func (l *lane) send(batch []*trip) (ok bool) {
	start := time.Now()
	left := max(l.least(), l.bound()-start.Sub(batch[0].started))
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	l.attempt(ctx, batch)
	return l.judge(batch, time.Since(start))
}

func (l *lane) attempt(ctx context.Context, batch []*trip) {
	l.exec(ctx, batch, evalsha)
	var unknown []*trip
	for _, t := range batch {
		if redis.HasErrorPrefix(t.err, "NOSCRIPT") {
			unknown = append(unknown, t)
		}
	}
	if len(unknown) > 0 {
		l.exec(ctx, unknown, eval) // it brings the script along, so that no flush comes between
	}
}

type command string

const (
	evalsha command = "evalsha"
	eval    command = "eval"
)

func (l *lane) exec(ctx context.Context, batch []*trip, how command) {
	cmds := make([]once, len(batch))
	for i, t := range batch {
		t.args[0] = string(how)
		if t.args[1] = any(t.script.digest); how == eval {
			t.args[1] = t.script.source
		}
		cmds[i] = once{redis.NewIntSliceCmd(ctx, t.args...)}
		cmds[i].SetFirstKeyPos(3)
	}
	if len(batch) == 1 {
		_ = l.client.Process(ctx, cmds[0]) // the command holds the error
	} else {
		pipe := l.client.Pipeline()
		for i := range cmds {
			_ = pipe.Process(ctx, cmds[i])
		}
		_, _ = pipe.Exec(ctx)
	}
	for i, t := range batch {
		t.values, t.err = cmds[i].Result()
	}
}

// judge tells the breaker how a batch went: by its worst answer.
func (l *lane) judge(batch []*trip, took time.Duration) (ok bool) {
	l.metrics.seconds.Observe(took.Seconds())
	for _, t := range batch {
		if t.err != nil && !redis.HasErrorPrefix(t.err, "WRONGTYPE") { // someone else's key, not the store's trouble
			l.metrics.failed.Inc()
			l.fail(reason(t.err))
			return false
		}
	}
	l.metrics.ok.Inc()
	l.succeed()
	return true
}

// reason is err in a few words that don't change from one time to the next.
func reason(err error) string {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	if _, ok := errors.AsType[redis.Error](err); ok {
		text, _, _ := strings.Cut(err.Error(), "\n")
		return text
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		lasting := *op
		lasting.Source = nil // its port is another each time
		return lasting.Error()
	}
	return err.Error()
}

// check probes the lane by counting a hit: a replica, a full Redis and one that runs no scripts for us still answer a
// ping. The first may have to connect, log in and find the primary; the second has to be in time.
func (l *lane) check(ctx context.Context) {
	err := l.knock(ctx, max(l.timeout, 400*time.Millisecond))
	if err == nil {
		err = l.knock(ctx, l.timeout)
	}
	switch up, _ := l.state(); {
	case ctx.Err() != nil:
	case err == nil:
		l.set(true, "")
	case !up:
		l.set(false, reason(err))
	default:
		l.fail(reason(err))
	}
}

// knock counts one hit of the lane's own bucket.
func (l *lane) knock(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	t := trip{script: countScript, args: []any{
		nil, nil, 1, l.probe, uint8(FixedWindow), MaxCount, time.Minute.Microseconds(), 0, 1,
	}}
	l.attempt(ctx, []*trip{&t})
	return t.err
}
