package callout

import (
	"context"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/codes"
)

// maxWaiting is how many calls of a connection may wait for others at once: some of its streams are left for calls that
// don't.
const maxWaiting = maxStreams * 9 / 10

// postpone has a call answered when what it waits for has come. One too many is to be answered at once.
func (c *conn) postpone(s *stream) (waits bool) {
	later := s.call.Later
	s.call.Later, s.call.Message = nil, nil
	if c.waits >= maxWaiting || c.server.waiting.Load() >= int64(c.server.o.MaxWaiting) {
		s.call.Code, s.call.Text = codes.Unavailable, "too many calls wait for others"
		return false
	}
	c.waits++
	c.server.waiting.Add(1)
	c.server.metrics.waiting.Inc()
	var ctx context.Context
	if s.call.Deadline.IsZero() {
		ctx, s.cancel = context.WithCancel(context.Background())
	} else {
		ctx, s.cancel = context.WithDeadline(context.Background(), s.call.Deadline)
	}
	c.hold(-len(s.body))
	s.body = s.body[:0]
	c.server.all.Go(func() { c.settle(s, c.await(ctx, s.method, later)) })
	return true
}

// await answers for a method that panics.
func (c *conn) await(ctx context.Context, m *method, later func(context.Context) Answer) (a Answer) {
	defer func() {
		if r := recover(); r != nil {
			c.server.o.Log.Error("method panicked", "method", m.path, "stack", string(debug.Stack()))
			a = Answer{Code: codes.Internal, Text: "internal error"}
		}
	}()
	return later(ctx)
}

// settle sends the answer of a call that waited, unless nobody wants it any more. Where many come at once the last writes
// them all.
func (c *conn) settle(s *stream, a Answer) {
	c.settling.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	s.cancel()
	c.waits--
	c.server.waiting.Add(-1)
	c.server.metrics.waiting.Dec()
	if !s.gone {
		s.cancel = nil
		s.opened = time.Now() // the client has as long to read the answer as with any other
		s.call.Reply, s.call.Code, s.call.Text = append(s.call.Reply[:0], a.Reply...), a.Code, a.Text
		s.method.answered(a.Code, 1)
		c.budget.earn(earnedByCall)
		c.reply(s)
	}
	if c.settling.Add(-1) > 0 && len(c.out) < flushAt {
		return
	}
	c.flush()
	if c.drained() {
		_ = c.net.SetReadDeadline(time.Now()) // the loop waits for a client that has nothing to say any more
	}
}
