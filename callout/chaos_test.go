package callout

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// A chaos is a client that does what it likes, and remembers what it has allowed.
type chaos struct {
	*wire
	random  *rand.Rand
	out     bytes.Buffer
	next    uint32
	initial int            // largest of a stream's window ever
	allowed map[uint32]int // bytes beyond that
}

// FuzzChaos has clients open small windows, give calls up, go on with what is over and change their minds. What the loop
// answers must be HTTP/2 all the same, within the windows, and leave nothing accounted for.
func FuzzChaos(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(seed)
	}
	s := scripted()
	f.Fuzz(func(t *testing.T, seed uint64) {
		c := &chaos{wire: newWire(t, &script{}), random: rand.New(rand.NewPCG(seed, 3)), next: 1, allowed: map[uint32]int{}}
		c.Framer = http2.NewFramer(&c.out, nil)
		c.AllowIllegalWrites = true
		c.settings()
		var pieces [][]byte
		for range c.random.IntN(300) {
			c.step()
			if c.random.IntN(3) == 0 {
				pieces = append(pieces, bytes.Clone(c.out.Bytes()))
				c.out.Reset()
			}
		}
		out, served := s.play(append(pieces, c.out.Bytes())...)
		c.check(t, out)
		if served.held != 0 || served.unsent != 0 || served.table.live != 0 || served.waits != 0 {
			t.Errorf("at the end %d bytes of bodies and %d of answers are accounted for, and %d streams",
				served.held, served.unsent, served.table.live)
		}
	})
}

func (c *chaos) settings() {
	n := c.random.IntN(200)
	c.initial = max(c.initial, n)
	c.do(c.WriteSettings(window(uint32(n))))
}

// some is a stream that was used, mostly a late one.
func (c *chaos) some() uint32 {
	ago := min(c.random.IntN(10)*c.random.IntN(10), int(c.next-3)/2)
	return c.next - 2 - 2*uint32(ago)
}

func (c *chaos) step() {
	message := framed(strings.Repeat("5 text ", c.random.IntN(30)))
	switch c.random.IntN(12) {
	case 0:
		c.settings()
	case 1, 2:
		if c.next > 1 {
			c.do(c.WriteRSTStream(c.some(), http2.ErrCodeCancel))
		}
	case 3, 4:
		if c.next > 1 {
			id, n := c.some(), 1+c.random.IntN(100)
			c.allowed[id] += n
			c.do(c.WriteWindowUpdate(id, uint32(n)))
		}
	case 5:
		c.do(c.WriteWindowUpdate(0, uint32(1+c.random.IntN(100))))
	case 6:
		if c.next > 1 {
			c.do(c.WriteData(c.some(), c.random.IntN(2) == 0, message[:c.random.IntN(len(message))]))
		}
	case 7:
		c.open(c.next, []string{echo, failed, late, "/no/Method"}[c.random.IntN(4)])
		c.next += 2
	default:
		c.open(c.next, []string{echo, failed, late}[c.random.IntN(3)])
		c.do(c.WriteData(c.next, c.random.IntN(9) > 0, message))
		c.next += 2
	}
}

// check reads what a client gets as it would.
func (c *chaos) check(t *testing.T, out []byte) {
	w := newWire(t, &script{in: [][]byte{out}})
	over, got := map[uint32]bool{}, map[uint32]int{}
	for {
		f, err := w.ReadFrame()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			return
		}
		id := f.Header().StreamID
		if over[id] && f.Header().Type != http2.FrameRSTStream {
			t.Errorf("%v after the end of stream %d", f, id)
		}
		if id >= c.next {
			t.Errorf("%v on a stream that the client didn't open", f)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			over[id] = f.StreamEnded()
		case *http2.DataFrame:
			got[id] += len(f.Data())
			if got[id] > c.initial+c.allowed[id] {
				t.Errorf("%d bytes on stream %d, which was allowed %d", got[id], id, c.initial+c.allowed[id])
			}
		case *http2.RSTStreamFrame:
			over[id] = true
		case *http2.GoAwayFrame: // it may have broken a rule of the connection's
			return
		}
	}
}
