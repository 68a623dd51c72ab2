package store

import (
	"context"
	"errors"
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

// run makes a trip, alone or with others, within the timeout.
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

	l.send(batch)

	l.mu.Lock()
	var next *trip
	if l.away = len(l.waiting) > 0; l.away {
		next = l.waiting[0]
	}
	l.mu.Unlock()
	if next != nil {
		next.lead <- true
	}
	for _, b := range batch {
		if b != t {
			b.lead <- false
		}
	}
}

// send runs a batch; its deadline is the oldest trip's, so that who waited behind a slow batch doesn't wait twice. But
// one slow batch is no reason to give the next no time at all: an answer takes 1¼ timeouts at most.
func (l *lane) send(batch []*trip) {
	start := time.Now()
	left := max(time.Until(batch[0].started.Add(l.timeout)), l.timeout/4)
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
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
	l.judge(batch, time.Since(start))
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
func (l *lane) judge(batch []*trip, took time.Duration) {
	l.metrics.seconds.Observe(took.Seconds())
	for _, t := range batch {
		if t.err != nil && !redis.HasErrorPrefix(t.err, "WRONGTYPE") { // someone else's key, not the store's trouble
			l.metrics.failed.Inc()
			l.fail(reason(t.err))
			return
		}
	}
	l.metrics.ok.Inc()
	l.succeed()
}

// reason is err in a few words that don't change from one time to the next.
func reason(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	if _, ok := errors.AsType[redis.Error](err); ok {
		text, _, _ := strings.Cut(err.Error(), "\n")
		return text
	}
	return err.Error()
}

// check probes the lane. It writes, since a replica or a full Redis still answers a ping. The first write may have to
// connect, log in and find the primary; the second has to be in time.
func (l *lane) check(ctx context.Context) {
	slow, cancel := context.WithTimeout(ctx, max(l.timeout, 400*time.Millisecond))
	defer cancel()
	err := l.client.Set(slow, l.probe, "1", time.Minute).Err()
	if err == nil {
		timed, cancel := context.WithTimeout(ctx, l.timeout)
		defer cancel()
		err = l.client.Set(timed, l.probe, "1", time.Minute).Err()
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
