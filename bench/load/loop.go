package load

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

// drain is how long answers are waited for after a load's end.
const drain = time.Second

// closed keeps InFlight calls under way. It writes and reads in turn: all that one read brought is answered, then all
// calls that follow go out in one write.
func (l *line) closed(ctx context.Context, c *conn) error {
	// A read that is under way when the load ends goes on for the drain at most.
	end := context.AfterFunc(ctx, func() { _ = c.net.SetReadDeadline(time.Now().Add(drain)) })
	defer end()
	wanted := l.run.o.InFlight
	for {
		now := time.Now()
		for wanted > 0 && ctx.Err() == nil {
			number, ok := l.run.claim()
			if !ok {
				wanted = 0
				break
			}
			if !c.send(number, now, l.run.o.Call.Body) {
				break
			}
			wanted--
		}
		if err := c.flush(); err != nil {
			return err
		}
		if c.unanswered() == 0 && (ctx.Err() != nil || wanted == 0) {
			return nil
		}
		answered, err := l.receive(c)
		switch {
		case err != nil && ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
			l.unanswered(c)
			return nil
		case err != nil:
			return err
		}
		wanted += answered
	}
}

// receive reads once and counts the answers.
func (l *line) receive(c *conn) (answered int, err error) {
	if err := c.fill(); err != nil {
		return 0, err
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	err = c.parse(func(a answer) {
		l.take(a, now)
		answered++
	})
	return answered, err
}

func (l *line) unanswered(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.fail("no answer at the end", uint64(c.unanswered()))
}

// open sends at a fixed rate. Its calls are due at even distances, and the lines take turns.
func (l *line) open(ctx context.Context, c *conn) error {
	var stopped atomic.Bool
	sent := make(chan error, 1)
	go func() {
		err := l.sendDue(ctx, c)
		stopped.Store(true)
		// The reader ends with the last answer, or when the drain is over.
		_ = c.net.SetReadDeadline(time.Now().Add(drain))
		if c.unanswered() == 0 {
			_ = c.net.SetReadDeadline(time.Now())
		}
		sent <- err
	}()
	var err error
	for err == nil && !(stopped.Load() && c.unanswered() == 0) {
		if _, err = l.receive(c); err != nil && stopped.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			l.unanswered(c)
			err = nil
			break
		}
	}
	c.net.Close() // ends the sender where the reader ended first
	return errors.Join(err, <-sent)
}

// sendDue sends what is due until the load ends. Sleeps of the scheduler would be late by more than the answers take, so
// it has a thread of its own.
func (l *line) sendDue(ctx context.Context, c *conn) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sharpen()
	o := &l.run.o
	interval := time.Duration(float64(time.Second) * float64(o.Connections) / o.Rate)
	due := time.Now().Add(interval * time.Duration(l.place) / time.Duration(o.Connections))
	for ctx.Err() == nil {
		now := time.Now()
		l.sendUntil(c, &due, now, interval)
		if o.Cancel > 0 {
			if n := c.cancel(now.Add(-o.Cancel)); n > 0 {
				l.mu.Lock()
				l.result.Canceled += n
				l.mu.Unlock()
			}
		}
		if err := c.flush(); err != nil {
			return err
		}
		least := minNap
		if interval < often {
			least = oftenNap
		}
		nap(min(max(time.Until(due), least), maxNap))
	}
	return nil
}

// Naps are short enough that the end of a load, and calls to cancel, are seen in time. Where calls follow each other
// closely several go out at once, as Envoy sends them: a nap for each would cost more than the service takes to answer it.
const (
	minNap   = 20 * time.Microsecond
	maxNap   = 5 * time.Millisecond
	often    = 200 * time.Microsecond // between calls
	oftenNap = 500 * time.Microsecond
)

// sendUntil queues the calls that are due by now. What the server does not take yet stays due, and pays for the wait; who
// would have been canceled by now is not sent any more.
func (l *line) sendUntil(c *conn, due *time.Time, now time.Time, interval time.Duration) {
	o := &l.run.o
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; !due.After(now); *due = due.Add(interval) {
		if o.Cancel > 0 && now.Sub(*due) > o.Cancel {
			l.result.Canceled++
			continue
		}
		number, _ := l.run.claim()
		if !c.send(number, *due, o.Call.Body) {
			return
		}
		l.result.Late.Add(now.Sub(*due))
	}
}
