package auth

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/legation/legation/callout"
)

// Answer is the [callout.Method] of envoy.service.auth.v3.Authorization/Check. It asks the Counter once for
// all calls together. Calls that have to wait for others are answered [callout.Call.Later], so that the rest goes on. Only a
// message that can't be read is answered with an error, of which Envoy makes a 503; whatever else goes wrong is a 503 that
// Envoy passes on.
func (s *Service) Answer(calls []*callout.Call) {
	start := time.Now()
	t := newTurn(len(calls))
	defer t.end()
	for i, d := range t.decisions {
		s.guard(d, func() { d.unread = d.decode(calls[i].Message) != nil })
	}
	s.decide(context.Background(), t, start, false)
	for i, d := range t.decisions {
		c := calls[i]
		switch {
		case d.unread:
			c.Code, c.Text = codes.Internal, errMessage.Error()
		case d.later:
			c.Later = s.later(bytes.Clone(c.Message), start)
		default:
			c.Code, c.Reply = codes.OK, s.appendAnswer(c.Reply, d)
		}
	}
	s.observe(t.decisions, start)
}

// later decides a call anew and by itself, where it may wait for others. The message is its own.
func (s *Service) later(message []byte, start time.Time) func(context.Context) callout.Answer {
	return func(ctx context.Context) callout.Answer {
		t := newTurn(1)
		defer t.end()
		d := t.decisions[0]
		s.guard(d, func() { d.unread = d.decode(message) != nil }) // it could be read before
		s.decide(ctx, t, time.Now(), true)
		a := callout.Answer{Code: codes.OK, Reply: s.appendAnswer(nil, d)}
		s.metrics.waited.Inc()
		s.observe(t.decisions, start)
		return a
	}
}

// observe tells of requests that were decided together.
func (s *Service) observe(decisions []*decision, start time.Time) {
	took := time.Since(start)
	s.metrics.observe(decisions, took)
	s.decisions.observe(decisions, start, took)
}

// Check answers Envoy by way of grpc-go. The error is nil: what goes wrong is a 503 that Envoy passes on.
func (s *Service) Check(ctx context.Context, q *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	start := time.Now()
	t := newTurn(1)
	defer t.end()
	d := t.decisions[0]
	s.guard(d, func() { d.read(q) })
	s.decide(ctx, t, start, true)
	answer := new(authv3.CheckResponse)
	if err := proto.Unmarshal(s.appendAnswer(nil, d), answer); err != nil {
		return nil, err
	}
	s.observe(t.decisions, start)
	return answer, nil
}

// decide decides all requests of a turn, but for those that would have to wait for others where that may not be.
func (s *Service) decide(ctx context.Context, t *turn, now time.Time, wait bool) {
	table := s.table.Load()
	for _, d := range t.decisions {
		if d.unread || d.deny != nil {
			continue
		}
		s.guard(d, func() { d.begin(table, now) })
		if d.pending != nil {
			t.pending = append(t.pending, d)
		}
	}
	s.work(ctx, t.pending, now, wait)
	for _, d := range t.decisions {
		if d.later {
			continue
		}
		s.guard(d, func() {
			d.identify(table)
			d.permit(now)
		})
	}
	s.fetch(ctx, t, now, wait)
	for _, d := range t.decisions {
		s.guard(d, func() {
			if !d.later && d.counts() {
				t.asks = append(t.asks, d.asked())
			}
		})
	}
	s.count(t)
}

// work does what takes time. A token takes some 50 µs, so that several are spread over the cores.
func (s *Service) work(ctx context.Context, pending []*decision, now time.Time, wait bool) {
	if len(pending) <= 1 {
		for _, d := range pending {
			s.guard(d, func() { d.work(ctx, now, wait) })
		}
		return
	}
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, d := range pending {
		group.Go(func() error {
			s.guard(d, func() { d.work(ctx, now, wait) })
			return nil
		})
	}
	_ = group.Wait() // none gives an error
}

// fetch gets what conditions need of others, for all requests at once.
func (s *Service) fetch(ctx context.Context, t *turn, now time.Time, wait bool) {
	var wg sync.WaitGroup
	for _, d := range t.decisions {
		switch {
		case len(d.missing) == 0:
		case !wait:
			d.later = true
		default:
			wg.Go(func() { s.guard(d, func() { d.fetch(ctx, now) }) })
		}
	}
	wg.Wait()
}

// count asks the Counter for the whole turn. If it panics, nobody in the turn is let in who had to be counted.
func (s *Service) count(t *turn) {
	if len(t.asks) == 0 {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			for _, d := range t.decisions {
				if d.asks {
					d.outcome = outcome{deny: denyInternal}
				}
			}
		}
	}()
	s.counter.Count(t.asks)
	for _, d := range t.decisions {
		if d.asks {
			d.counted(d.ask.Verdict)
		}
	}
}

// guard turns a panic, ours or a library's, in a step of one decision into a denial: a crash would let nobody in
// anywhere.
func (s *Service) guard(d *decision, step func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			d.outcome = outcome{deny: denyInternal}
		}
	}()
	step()
	return true
}

func (s *Service) panicked(p any) {
	s.log.Error("check panicked", "type", fmt.Sprintf("%T", p)) // its text might hold a token
}

// appendAnswer appends the message that answers d.
func (s *Service) appendAnswer(b []byte, d *decision) []byte {
	whole := b
	if !s.guard(d, func() { whole = d.appendTo(b) }) {
		return d.appendTo(b) // the denial, in which nothing is left of what went wrong
	}
	return whole
}

// turn is the requests that are decided together.
type turn struct {
	room      []*decision // decisions of this turn and of later ones
	decisions []*decision
	pending   []*decision
	asks      []*Ask
}

// mostRoom is how many decisions' room is kept.
const mostRoom = 256

var turns = sync.Pool{New: func() any { return new(turn) }}

// newTurn has room for n requests; end gives it back.
func newTurn(n int) *turn {
	t := turns.Get().(*turn)
	for len(t.room) < n {
		t.room = append(t.room, newDecision())
	}
	t.decisions = t.room[:n]
	return t
}

// end lets go of all that came with the requests.
func (t *turn) end() {
	for _, d := range t.decisions {
		d.reset()
	}
	clear(t.pending)
	clear(t.asks)
	t.decisions, t.pending, t.asks = nil, t.pending[:0], t.asks[:0]
	if len(t.room) <= mostRoom {
		turns.Put(t)
	}
}
