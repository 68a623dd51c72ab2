package callout

import (
	"math"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// clockwork has connections take turns with a gate until a time is over, side by side: each ends a while after the one
// before. A turn takes less time where calls are shed.
type clockwork struct {
	*gate
	now time.Time
}

func newClockwork() *clockwork {
	now := time.Unix(1_000_000, 0)
	return &clockwork{newGate(now), now}
}

func (c *clockwork) turns(conns, calls int, took, pause, lasts time.Duration) {
	for range conns {
		c.enter(c.now, calls)
	}
	for end := c.now.Add(lasts); ; {
		last := !c.now.Add(took + pause).Before(end)
		for range conns {
			few := min(calls, int(c.most.Load()))
			c.now = c.now.Add(took * time.Duration(few) / time.Duration(calls*conns))
			c.leave(c.now, few, calls-few, true)
			if !last && pause == 0 {
				c.enter(c.now, calls)
			}
		}
		if last {
			return
		}
		c.now = c.now.Add(pause)
		for range conns {
			if pause > 0 {
				c.enter(c.now, calls)
			}
		}
	}
}

func TestGateStaysOpen(t *testing.T) {
	for name, load := range map[string]func(c *clockwork){
		"a call now and then": func(c *clockwork) { c.turns(1, 1, 300*time.Microsecond, time.Second, 10*time.Second) },
		"a closed loop":       func(c *clockwork) { c.turns(4, 256, 3*time.Millisecond, 0, 10*time.Second) },
		"a slow closed loop":  func(c *clockwork) { c.turns(16, 64, 40*time.Millisecond, 0, 10*time.Second) },
		"a fast server":       func(c *clockwork) { c.turns(64, 64, 1200*time.Microsecond, 0, 10*time.Second) },
		"a burst":             func(c *clockwork) { c.turns(4, 1000, 12*time.Millisecond, time.Second, time.Second) },
		"bursts":              func(c *clockwork) { c.turns(4, 1000, 12*time.Millisecond, 60*time.Millisecond, 10*time.Second) },
		"a slow turn": func(c *clockwork) {
			c.turns(4, 100, time.Millisecond, 0, time.Second)
			c.turns(4, 1000, 14*time.Millisecond, 0, 14*time.Millisecond) // the store's bound
			c.turns(4, 100, time.Millisecond, 0, time.Second)
		},
		"a turn that hangs": func(c *clockwork) {
			c.turns(4, 250, time.Second, 0, time.Second)
			c.turns(4, 1000, 12*time.Millisecond, 0, 12*time.Millisecond)
			c.turns(4, 100, time.Millisecond, 0, time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClockwork()
			load(c)
			if got := c.most.Load(); got != math.MaxInt64 {
				t.Errorf("got %d calls at most", got)
			}
		})
	}
}

func TestGateClosesWhileTooManyCallsCome(t *testing.T) {
	c := newClockwork()
	c.turns(4, 1000, 12*time.Millisecond, 0, slot)
	if got := c.most.Load(); got != math.MaxInt64 {
		t.Fatalf("closed at once, to %d calls", got)
	}
	c.turns(4, 1000, 12*time.Millisecond, 0, 5*slot)
	if got := c.most.Load(); got < 180 || got > 240 { // a fourth of what 333,000 a second are in 2.5 ms
		t.Fatalf("got %d calls at most", got)
	}
	c.turns(4, 1000, 12*time.Millisecond, 0, 2*time.Second)
	if got := c.most.Load(); got < 180 || got > 240 {
		t.Errorf("got %d calls at most when it had lasted", got)
	}
	c.turns(4, 100, time.Millisecond, 0, reopens-4*slot)
	if got := c.most.Load(); got == math.MaxInt64 {
		t.Errorf("open again already")
	}
	c.turns(4, 100, time.Millisecond, 0, 8*slot)
	if got := c.most.Load(); got != math.MaxInt64 {
		t.Errorf("got %d calls at most when it was over", got)
	}
}

// Many connections may have some calls each, however slow the server is.
func TestClosedGateLetsSomeIn(t *testing.T) {
	c := newClockwork()
	c.turns(100, 200, 50*time.Millisecond, 0, time.Second)
	if got := c.most.Load(); got != leastFew {
		t.Errorf("got %d calls at most, want %d", got, leastFew)
	}
}

// Calls that are too many are told before any is served; the first to have come are served, of each method its share.
func TestShedding(t *testing.T) {
	w := newWire(t, nil)
	var in []byte
	id := uint32(1)
	calls := func(path, message string, n int) {
		for range n {
			in = appendHeaders(in, id, w.encode(fieldsFor(path)), false) // the first changes HPACK's table, the next lean on it
			in = appendFrame(in, prefix+len(message), http2.FrameData, http2.FlagDataEndStream, id)
			in = append(in, framed(message)...)
			id += 2
		}
	}
	calls(echo, "x", 4)
	calls(failed, "5 five", 2)
	client := &script{in: [][]byte{append(appendSettings(nil), in...)}}
	served := 0
	c := newConn(New(Options{Methods: map[string]Method{
		echo: func(calls []*Call) {
			served += len(calls)
			if got := answers(t, client.out.Bytes()); len(got) != 4 { // those of the three, and the settings
				t.Errorf("%d streams told before", len(got))
			}
		},
		failed: failMethod,
	}}), client, client, nil, nil)
	c.server.gate.most.Store(3)
	for len(client.in) > 0 {
		if err := c.fill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.turn(); err != nil {
		t.Fatal(err)
	}
	got := answers(t, client.out.Bytes())
	var codes []string
	for id := uint32(1); id < 12; id += 2 {
		codes = append(codes, got[id].fields["grpc-status"])
	}
	if want := []string{"0", "0", "14", "14", "5", "14"}; served != 2 || !slices.Equal(codes, want) {
		t.Errorf("%d served, got %v, want %v", served, codes, want)
	}
	if text := got[5].fields["grpc-message"]; text != "overloaded" || got[5].fields[":status"] != "200" {
		t.Errorf("got %v", got[5].fields)
	}
	if c.table.live != 0 {
		t.Errorf("%d streams left", c.table.live)
	}
}

func TestShedCallsAreCounted(t *testing.T) {
	r := start(t, Options{})
	r.gate.most.Store(0)
	w := dialWire(t, r.addr)
	w.ask(1, echo, "x")
	if got := w.answer(1).fields["grpc-status"]; got != "14" {
		t.Errorf("got %v", w.answer(1).fields)
	}
	if n := r.counted(t, "legation_callout_shed_total", echo); n != 1 {
		t.Errorf("%v calls shed", n)
	}
	if n := r.counted(t, "legation_callout_calls_total", "Unavailable", echo); n != 1 {
		t.Errorf("%v calls answered", n)
	}
}

// All that was read is one turn, of which a method is handed some at a time.
func TestTurnsAreServedInParts(t *testing.T) {
	w := newWire(t, nil)
	in := appendSettings(nil)
	for id := uint32(1); id < 1200; id += 2 {
		in = appendHeaders(in, id, w.encode(fieldsFor(echo)), false)
		in = append(appendFrame(in, prefix, http2.FrameData, http2.FlagDataEndStream, id), framed("")...)
	}
	client := &script{}
	var parts, told []int
	c := newConn(New(Options{Methods: map[string]Method{echo: func(calls []*Call) {
		parts, told = append(parts, len(calls)), append(told, len(answers(t, client.out.Bytes()))-1)
	}}}), client, client, nil, in)
	if err := c.turn(); err != nil {
		t.Fatal(err)
	}
	if want := []int{256, 256, 88}; !slices.Equal(parts, want) {
		t.Errorf("got %v calls at once, want %v", parts, want)
	}
	if want := []int{-1, 256, 512}; !slices.Equal(told, want) {
		t.Errorf("%v were told before, want %v", told, want)
	}
}
