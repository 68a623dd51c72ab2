package callout

import (
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// A client that asks for nothing, again and again, is cut off.
func TestFloods(t *testing.T) {
	for name, row := range map[string]struct {
		frame func(w *wire, i int) error
		kind  string
	}{
		"reset": {func(w *wire, i int) error {
			id := uint32(2*i + 3)
			block := w.encode(fieldsFor(echo))
			if err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}); err != nil {
				return err
			}
			return w.WriteRSTStream(id, http2.ErrCodeCancel)
		}, "rst_stream"},
		"ping":              {func(w *wire, _ int) error { return w.WritePing(false, [8]byte{}) }, "ping"},
		"ping ack":          {func(w *wire, _ int) error { return w.WritePing(true, [8]byte{}) }, "ping"},
		"settings":          {func(w *wire, _ int) error { return w.WriteSettings() }, "settings"},
		"settings ack":      {func(w *wire, _ int) error { return w.WriteSettingsAck() }, "settings"},
		"empty data":        {func(w *wire, _ int) error { return w.WriteData(3, false, nil) }, "empty data"},
		"continuation":      {func(w *wire, _ int) error { return w.WriteContinuation(5, false, nil) }, "continuation"},
		"long continuation": {func(w *wire, _ int) error { return w.WriteContinuation(5, false, make([]byte, 1000)) }, "continuation"},
		"window update":     {func(w *wire, _ int) error { return w.WriteWindowUpdate(3, 1) }, "window update"},
		"priority":          {func(w *wire, _ int) error { return w.WritePriority(3, http2.PriorityParam{}) }, "priority"},
		"unknown":           {func(w *wire, _ int) error { return w.WriteRawFrame(99, 0, 0, nil) }, "unknown"},
		"late data":         {func(w *wire, _ int) error { return w.WriteData(1, false, []byte("x")) }, "malformed"},
		"refused": {func(w *wire, i int) error {
			block := w.encode(fieldsFor(echo, "content-type", strings.Repeat("\xff", 3900))) // a byte from the second time on
			return w.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 3), BlockFragment: block, EndStream: true, EndHeaders: true})
		}, "refused"},
		"malformed": {func(w *wire, i int) error {
			return w.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 3), BlockFragment: []byte{0x83}, EndHeaders: true})
		}, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, Options{})
			w := dialWire(t, r.addr)
			w.ask(1, echo, "first")
			w.wantMessage(1, "first")
			switch row.kind {
			case "empty data", "window update", "priority":
				w.open(3, echo)
			case "continuation":
				w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: []byte{0x83}}))
			}
			go func() {
				for i := range 1 << 20 {
					if row.frame(w, i) != nil {
						return
					}
				}
			}()
			w.ReadMetaHeaders = nil
			got := http2.ErrCodeNo
			for {
				f, err := w.ReadFrame()
				if err != nil {
					break
				}
				if f, ok := f.(*http2.GoAwayFrame); ok {
					got = f.ErrCode
					_ = w.net.Close()
				}
			}
			if got != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("got %v", got)
			}
			if n := r.counted(t, "legation_callout_floods_total", row.kind); n != 1 {
				t.Errorf("%v floods of %s counted", n, row.kind)
			}
		})
	}
}

// An answer repeats little of what a client has sent, which HPACK may have made much larger than it was.
func TestRefusalsAreShort(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr)
	long := strings.Repeat("\xff", 3900)
	for i, header := range []string{"content-type", ":method", ":path"} {
		id := uint32(2*i + 1)
		w.ask(id, echo, "x", header, long)
		if got := w.answer(id).fields["grpc-message"]; got == "" || len(got) > 500 {
			t.Errorf("%s: told in %d bytes", header, len(got))
		}
	}
}

// The same frames are welcome when there are calls to go with them.
func TestFramesBesideCallsAreNoFlood(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr)
	id := uint32(1)
	for range 3 * budgetMax {
		w.ask(id, echo, "x")
		w.do(w.WritePing(false, [8]byte{}))
		w.do(w.WriteWindowUpdate(0, 6))
		w.do(w.WriteWindowUpdate(id, 6))
		w.wantMessage(id, "x")
		delete(w.seen, id)
		id += 2
	}
}

// Nor are calls that were waited for in vain: a client that gives all of them up is late, not hostile.
func TestGivingUpCallsIsNoFlood(t *testing.T) {
	w := newWire(t, nil)
	client := &script{in: [][]byte{appendSettings(nil)}}
	for id := uint32(1); id < 4*budgetMax; id += 2 {
		call := appendHeaders(nil, id, w.encode(fieldsFor(echo)), false)
		call = append(appendFrame(call, prefix, http2.FrameData, http2.FlagDataEndStream, id), framed("")...)
		client.in = append(client.in, appendReset(call, id, http2.ErrCodeCancel))
	}
	c := newConn(scripted(), client, client, nil, nil)
	for len(client.in) > 0 {
		if err := c.fill(); err != nil {
			t.Fatal(err)
		}
		if err := c.turn(); err != nil {
			t.Fatal(err)
		}
	}
}

// A client that takes an answer byte by byte pays for it.
func TestDribblingWindow(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr, window(0))
	w.ask(1, large, "100000")
	go func() {
		for w.WriteWindowUpdate(1, 1) == nil {
		}
	}()
	for {
		f, err := w.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := f.(*http2.GoAwayFrame); ok {
			if f.ErrCode != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("got %v", f)
			}
			break
		}
	}
	_ = w.net.Close()
}

// Nobody who is slow at the start is waited for long, and when there are many of them the oldest goes.
func TestSlowStarters(t *testing.T) {
	r := start(t, Options{Starting: 2, Handshake: 300e6})
	first := rawWire(t, r.addr)
	first.must(io.WriteString(first.net, http2.ClientPreface[:5]))
	first.must(first.net.Read(make([]byte, frameHeader))) // the server has begun with it
	second, third := rawWire(t, r.addr), rawWire(t, r.addr)
	third.must(third.net.Read(make([]byte, frameHeader)))
	if _, err := io.ReadAll(first.net); err != nil {
		t.Logf("the first: %v", err)
	}
	if n := r.counted(t, "legation_callout_refused_total", "crowded"); n != 1 {
		t.Errorf("%v connections made room", n)
	}
	for _, w := range []*wire{second, third} {
		_, _ = io.ReadAll(w.net) // ends: 20 s later the test would fail here
	}
	if n := r.counted(t, "legation_callout_refused_total", "timeout"); n != 2 {
		t.Errorf("%v connections were too slow", n)
	}
}

// A client without a word is asked whether it is there, and stays as long as it answers.
func TestKeepalive(t *testing.T) {
	r := start(t, Options{Keepalive: 20e6, KeepaliveTimeout: 50e6})
	w := dialWire(t, r.addr)
	w.ask(1, echo, "x")
	pings := func() (n int) {
		for _, f := range w.at(0).frames {
			if f == "PING" {
				n++
			}
		}
		return n
	}
	w.until(func() bool { return pings() == 5 }) // each is answered
	w.ask(3, echo, "there")
	w.wantMessage(3, "there")
	n := 0
	for { // none of these
		f, err := w.ReadFrame()
		if err != nil {
			break
		}
		if f.Header().Type == http2.FramePing {
			n++
		}
	}
	if n != 1 {
		t.Errorf("asked %d times before the end", n)
	}
}
