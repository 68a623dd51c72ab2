package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options of [Start].
type Options struct {
	Addresses   []string // the connections are spread over these
	Call        Call
	Plain       func(dst []byte, number uint64) []byte // instead of Call: the text of HTTP/1.1 requests; a closed loop, one in flight
	Connections int                                    // default 1 for each address
	InFlight    int                                    // closed loop: calls in flight on each connection; default 1
	Rate        float64                                // open loop: calls a second over all connections; 0 is a closed loop
	Calls       uint64                                 // closed loop: how many to make; 0 is until Stop
	Timeout     time.Duration                          // told with each call, as Envoy does; 0 tells none
	Cancel      time.Duration                          // open loop: calls without an answer for so long are reset, as Envoy does; 0 waits
	Redial      bool                                   // connects anew where a connection broke, until Stop

	// Answered hears of each call that was allowed or refused; many connections tell at once.
	Answered func(number uint64, v Verdict, start, end time.Time)
}

// Call is what is asked. Calls are numbered from 0, over all connections.
type Call struct {
	Method string // "/package.Service/Method"
	Body   func(dst []byte, number uint64) []byte
	Judge  func(message []byte) Verdict
}

// Verdict is what an answer says.
type Verdict uint8

// The verdicts.
const (
	Allowed Verdict = iota
	Refused
	Broken // not an answer of this method
)

// Result is what became of the calls that ended in a time.
type Result struct {
	Elapsed                    time.Duration
	Allowed, Refused, Canceled uint64
	Failed                     map[string]uint64 // by reason
	Latency                    Histogram         // of what was allowed or refused
	Told                       Histogram         // of failures that the server told
	Late                       Histogram         // open loop: how long after they were due calls went out
}

// Answered is how many calls were allowed or refused.
func (r *Result) Answered() uint64 { return r.Allowed + r.Refused }

// Failures is how many calls came to nothing, canceled ones aside.
func (r *Result) Failures() (n uint64) {
	for _, f := range r.Failed {
		n += f
	}
	return n
}

// Rate is answers a second.
func (r *Result) Rate() float64 { return float64(r.Answered()) / r.Elapsed.Seconds() }

// Merge adds what o holds; the time stays.
func (r *Result) Merge(o *Result) {
	r.Allowed += o.Allowed
	r.Refused += o.Refused
	r.Canceled += o.Canceled
	for reason, n := range o.Failed {
		r.fail(reason, n)
	}
	r.Latency.Merge(&o.Latency)
	r.Told.Merge(&o.Told)
	r.Late.Merge(&o.Late)
}

func (r *Result) fail(reason string, n uint64) {
	if n == 0 {
		return
	}
	if r.Failed == nil {
		r.Failed = map[string]uint64{}
	}
	r.Failed[reason] += n
}

// Run is a load under way.
type Run struct {
	o      Options
	stop   context.CancelFunc
	done   sync.WaitGroup
	number atomic.Uint64
	lines  []*line

	mu    sync.Mutex // guards since
	since time.Time
}

// line is one connection's part, over all times that it is dialed.
type line struct {
	run     *Run
	place   int // among the lines
	address string

	mu     sync.Mutex // guards result
	result *Result
}

// session makes calls over one connection until the load ends or the connection breaks, and closes it.
type session func(context.Context) error

// Start connects and begins.
func Start(o Options) (*Run, error) {
	o.Connections = cmp.Or(o.Connections, len(o.Addresses))
	o.InFlight = cmp.Or(o.InFlight, 1)
	ctx, stop := context.WithCancel(context.Background())
	r := &Run{o: o, stop: stop, since: time.Now()}
	sessions := make([]session, o.Connections)
	for i := range sessions {
		l := &line{run: r, place: i, address: o.Addresses[i%len(o.Addresses)], result: &Result{}}
		r.lines = append(r.lines, l)
		var err error
		if sessions[i], err = l.dial(); err != nil {
			stop()
			for _, s := range sessions[:i] {
				_ = s(ctx) // which has ended: it only closes
			}
			return nil, err
		}
	}
	for i, l := range r.lines {
		r.done.Go(func() { l.keep(ctx, sessions[i]) })
	}
	return r, nil
}

// Take gives what ended since the last Take, or since Start.
func (r *Run) Take() *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := &Result{}
	for _, l := range r.lines {
		l.mu.Lock()
		part := l.result
		l.result = &Result{}
		l.mu.Unlock()
		all.Merge(part)
	}
	now := time.Now()
	all.Elapsed = now.Sub(r.since)
	r.since = now
	return all
}

// Wait waits until Options.Calls are made, or ctx ends, then gives the last result.
func (r *Run) Wait(ctx context.Context) *Result {
	defer context.AfterFunc(ctx, r.stop)()
	r.done.Wait()
	return r.Stop()
}

// Stop sends nothing more, waits for answers that are under way, for a second at most, and gives the last result.
func (r *Run) Stop() *Result {
	r.stop()
	r.done.Wait()
	return r.Take()
}

func (l *line) dial() (session, error) {
	o := &l.run.o
	if o.Plain != nil {
		nc, err := net.DialTimeout("tcp", l.address, patience)
		return func(ctx context.Context) error { return l.plain(ctx, nc) }, err
	}
	c, err := dial(l.address, o.Call.Method, o.Timeout)
	return func(ctx context.Context) error {
		defer c.net.Close()
		loop := l.closed
		if o.Rate > 0 {
			loop = l.open
		}
		err := loop(ctx, c)
		if err != nil && !errors.Is(err, errGone) {
			l.broke(c.unanswered(), err)
		}
		return err
	}, err
}

// redialPause is how long a line waits before it connects anew.
const redialPause = 20 * time.Millisecond

// keep makes calls over one connection after the other.
func (l *line) keep(ctx context.Context, s session) {
	for {
		err := s(ctx)
		if err == nil || !l.run.o.Redial && !errors.Is(err, errGone) {
			return
		}
		for err != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(redialPause):
			}
			s, err = l.dial()
		}
	}
}

// broke counts the calls that a connection took with it; one that had none counts as one failure.
func (l *line) broke(unanswered int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err
	}
	l.result.fail("connection: "+err.Error(), uint64(max(1, unanswered)))
}

// take counts an answer; l.mu is held.
func (l *line) take(a answer, now time.Time) {
	switch {
	case a.code > 0:
		l.told(fmt.Sprintf("grpc status %d", a.code), a, now)
	case a.http != 200 && a.http != 0:
		l.told(fmt.Sprintf("http status %d", a.http), a, now)
	case a.code < 0:
		l.told("reset", a, now)
	default:
		v := l.run.o.Call.Judge(a.message)
		if v == Broken {
			l.told("not an answer", a, now)
			return
		}
		l.judged(v, a.number, a.start, now)
	}
}

// told counts a failure.
func (l *line) told(reason string, a answer, now time.Time) {
	l.result.fail(reason, 1)
	l.result.Told.Add(now.Sub(a.start))
}

// judged counts what was allowed or refused.
func (l *line) judged(v Verdict, number uint64, start, now time.Time) {
	l.result.Latency.Add(now.Sub(start))
	if v == Allowed {
		l.result.Allowed++
	} else {
		l.result.Refused++
	}
	if l.run.o.Answered != nil {
		l.run.o.Answered(number, v, start, now)
	}
}

// claim takes the number of the next call; false when there are enough.
func (r *Run) claim() (number uint64, ok bool) {
	number = r.number.Add(1) - 1
	return number, r.o.Calls == 0 || number < r.o.Calls
}
