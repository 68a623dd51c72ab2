package store

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// lane is the way to one Redis: a breaker, and a queue with one batch away at a time. Decisions that come meanwhile go
// with the next batch: nothing waits when idle, and trips are shared under load.
type lane struct {
	breaker
	link    link
	timeout time.Duration
	metrics *metrics
	missed  int           // probes in a row
	strayed func()        // is told that the probe's bucket isn't the lane's any more
	batch   batch         // of who leads
	usual   time.Duration // that a trip took of late; of who leads, too

	probe  atomic.Pointer[string] // a bucket of the lane: on a Cluster another when its slot moves
	offset atomic.Int64           // µs: Redis' time less the monotonic, as of the last batch

	mu      sync.Mutex // guards what follows
	waiting []*trip
	away    bool
	owed    []owed   // to be given back
	repairs []repair // to be made
}

// trip is decisions of one caller that go together.
type trip struct {
	decisions []*Decision
	settles   bool // goes without any, for what is owed
	probe     bool // goes even while the lane is taken to be down
	started   time.Time
	lead      chan bool // true: lead the next batch; false: done
}

func newTrip() any { return &trip{lead: make(chan bool, 1)} }

// Bounds of a batch: they keep the last of it within its deadline.
const (
	maxTrip  = 256 // decisions of a trip
	maxBatch = 512 // of all trips of a batch, with what is owed
	maxOwed  = 64  // of these that are owed
)

// owed are hits that were counted though they were refused.
type owed struct {
	end      int64 // of their window, µs by Redis' clock; 0 for a bucket without
	decision *Decision
}

// errDown is the error of what isn't sent.
var errDown = errors.New("taken to be down")

func (t *trip) fail(err error) {
	for _, d := range t.decisions {
		d.Err = err
	}
}

// run makes a trip, alone or with others.
func (l *lane) run(t *trip) {
	if l.open.Load() && !t.probe {
		t.fail(errDown)
		l.metrics.refused.Inc()
		return
	}
	t.started = time.Now()
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
	n := l.fit()
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

// fit is how many of those that wait go with the next batch.
func (l *lane) fit() int {
	room := maxBatch - maxOwed
	for i, t := range l.waiting {
		if room -= len(t.decisions); room < 0 {
			return i
		}
	}
	return len(l.waiting)
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
	settle := next == nil && ok && l.inDebt()
	l.mu.Unlock()
	if next != nil {
		next.lead <- true
	}
	for _, t := range late {
		t.fail(errLate)
		l.metrics.refused.Inc()
		t.lead <- false
	}
	if settle {
		go l.settle()
	}
}

// redisTime is Redis' time in µs, at the monotonic time now.
func (l *lane) redisTime(now int64) int64 { return now + l.offset.Load() }

// inDebt tells whether something is to be sent though nobody asks for anything.
func (l *lane) inDebt() bool {
	now := l.link.now()
	for i := range l.repairs {
		if l.repairs[i].due <= now {
			return true
		}
	}
	return len(l.owed) > 0
}

// settle makes a trip for what is owed.
func (l *lane) settle() { l.run(&trip{settles: true, lead: make(chan bool, 1)}) }

// send makes a batch within what is left of the bound to the oldest trip.
func (l *lane) send(trips []*trip) (ok bool) {
	start := time.Now()
	left := max(l.least(), l.bound()-start.Sub(trips[0].started))
	err := l.attempt(trips, start.Add(min(left, l.patience(trips))))
	took := time.Since(start)
	l.metrics.seconds.Observe(took.Seconds())
	ok = l.judge(err)
	if ok {
		l.usual += (took - l.usual) / 8
	}
	return ok
}

// patience is how long a batch waits for Redis: the timeout, and less after a batch that failed, if Redis usually answers
// sooner. What came while that one was waited for has waited too, unseen: calls are read when those before are answered.
func (l *lane) patience(trips []*trip) time.Duration {
	if !l.failing.Load() || slices.ContainsFunc(trips, func(t *trip) bool { return t.probe }) {
		return l.timeout
	}
	return min(max(l.timeout/4, 4*l.usual), l.timeout)
}

// attempt makes a batch. Every decision has outcomes or an error then; the error that it gives is of the connection.
func (l *lane) attempt(trips []*trip, deadline time.Time) error {
	c, err := l.link.get(deadline)
	if err != nil {
		for _, t := range trips {
			t.fail(err)
		}
		return err
	}
	b := &l.batch
	b.decisions = b.decisions[:0]
	l.collect(b, c)
	for _, t := range trips {
		b.decisions = append(b.decisions, t.decisions...)
	}
	l.metrics.sizes.Observe(float64(len(b.decisions)))
	b.make(c)
	l.offset.Store(b.windows.now - b.asked)
	err = b.exchange(c, deadline)
	if err != nil || b.misplaced() {
		l.link.drop(c)
	}
	l.mu.Lock()
	for i := range b.repairs {
		if !b.repairs[i].done {
			l.repairs = append(l.repairs, b.repairs[i])
		}
	}
	l.repairs = append(l.repairs, b.found...)
	l.repairs = l.repairs[max(0, len(l.repairs)-maxRepairs):]
	l.owed = append(l.owed, b.owed...)
	l.mu.Unlock()
	return err
}

// maxRepairs bounds what a lane remembers while Redis is away.
const maxRepairs = 1 << 14

// collect begins the batch with what is owed. Hits of a window that has ended are forgotten: its counter counts no more.
func (l *lane) collect(b *batch, c *conn) {
	b.repairs, b.found, b.owed = b.repairs[:0], b.found[:0], b.owed[:0]
	now := l.link.now()
	redis := c.clock.now(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, o := range l.owed {
		switch {
		case o.end > 0 && o.decision.Hits[0].windowEnd(redis) != o.end:
		case len(b.decisions) < maxOwed:
			b.decisions = append(b.decisions, o.decision)
		default:
			l.owed[n] = o
			n++
		}
	}
	clear(l.owed[n:])
	l.owed = l.owed[:n]
	n = 0
	for _, r := range l.repairs {
		if r.due <= now && len(b.repairs) < maxBatch {
			b.repairs = append(b.repairs, r)
		} else {
			l.repairs[n] = r
			n++
		}
	}
	clear(l.repairs[n:])
	l.repairs = l.repairs[:n]
}

// judge tells the breaker how a batch went: by its worst answer.
func (l *lane) judge(err error) (ok bool) {
	if err == nil {
		err = l.batch.trouble()
	}
	if err != nil {
		l.metrics.failed.Inc()
		l.fail(reason(err))
		return false
	}
	l.metrics.ok.Inc()
	l.succeed()
	return true
}

// trouble is the error of a decision that tells of Redis as a whole.
func (b *batch) trouble() error {
	for _, d := range b.decisions {
		if d.Err != nil && !foreign(d.Err) {
			return d.Err
		}
	}
	return nil
}

// foreign tells that a key is someone else's: not the store's trouble.
func foreign(err error) bool {
	return redis.HasErrorPrefix(err, "WRONGTYPE") || redis.HasErrorPrefix(err, "ERR value is not an integer")
}

// misplaced tells that the connection leads to a Redis that is no primary any more: the next one may lead to another.
func (b *batch) misplaced() bool {
	for _, d := range b.decisions {
		if d.Err != nil && redis.HasErrorPrefix(d.Err, "READONLY") {
			return true
		}
	}
	return false
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
// ping. The first probe may have to connect, log in and find the primary before; the second has to be in time. A few that
// fail in a row take the lane down though increments may go well in between.
func (l *lane) check(ctx context.Context) {
	_, err := l.link.ready(time.Now().Add(max(l.timeout, 400*time.Millisecond)))
	if err == nil {
		err = l.knock()
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil && moved(err) {
		l.strayed()
		err = nil // it is there and answers
	}
	if err == nil {
		l.missed = 0
		l.set(true, "")
		return
	}
	l.missed++
	if up, _ := l.state(); !up || l.missed >= strikes {
		l.set(false, reason(err))
		return
	}
	l.fail(reason(err))
}

// knock counts hits of the lane's own bucket, by the script.
func (l *lane) knock() error {
	h := Hit{Key: *l.probe.Load(), Limit: MaxCount, Window: time.Minute, Hits: 1}
	d := &Decision{Hits: []Hit{h, h}, Outcomes: make([]Outcome, 2)}
	l.run(&trip{decisions: []*Decision{d}, probe: true, lead: make(chan bool, 1)})
	return d.Err
}

// overdue tells whether a repair is due that no trip was made for.
func (l *lane) overdue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.away && l.inDebt()
}
