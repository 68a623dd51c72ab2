package callout

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

func window(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n}
}

// An answer goes out as far as the stream's window lets it, whichever way that is opened.
func TestAnswersKeepToTheWindows(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr, window(10))
	w.ask(1, echo, "0123456789") // 15 bytes with their prefix
	w.until(func() bool { return len(w.at(1).body) == 10 })
	w.do(w.WriteWindowUpdate(1, 3))
	w.until(func() bool { return len(w.at(1).body) == 13 })
	w.do(w.WriteSettings(window(0))) // 13 are sent: 10 less leave -10
	w.do(w.WriteWindowUpdate(1, 10)) // 0
	w.do(w.WritePing(false, [8]byte{}))
	w.until(func() bool {
		return len(w.at(0).frames) > 0 && strings.HasPrefix(w.at(0).frames[len(w.at(0).frames)-1], "PING")
	})
	if got := len(w.at(1).body); got != 13 {
		t.Fatalf("%d bytes through a window of nothing", got)
	}
	w.do(w.WriteSettings(window(1))) // 1 again
	w.until(func() bool { return len(w.at(1).body) == 14 })
	w.do(w.WriteWindowUpdate(1, 1))
	w.wantMessage(1, "0123456789")
	if diff := cmp.Diff([]string{"HEADERS", "DATA 10", "DATA 3", "DATA 1", "DATA 1", "HEADERS"}, w.answer(1).frames); diff != "" {
		t.Error(diff)
	}
}

// The connection's window is shared: answers wait for it in order, those that need none pass them.
func TestAnswersShareTheConnectionsWindow(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr, window(1<<20))
	w.ask(1, large, "100000")
	w.ask(3, large, "10")
	w.ask(5, failed, "5 fast")
	if got := w.answer(5).fields["grpc-status"]; got != "5" {
		t.Fatalf("got %v", got)
	}
	w.until(func() bool { return len(w.at(1).body) == initWindow })
	if len(w.at(3).body) != 0 {
		t.Error("an answer overtook another in the window")
	}
	w.do(w.WriteWindowUpdate(0, 1<<20))
	w.wantMessage(3, strings.Repeat("\x00", 10))
	w.wantMessage(1, strings.Repeat("\x00", 100000))
	for _, f := range w.answer(1).frames {
		if strings.HasPrefix(f, "DATA") && len(f) > len("DATA 16384") {
			t.Errorf("frame of %s", f)
		}
	}
}

// A client that doesn't open its windows has answers kept for it, up to a bound; beyond it gets errors, which need none.
func TestUnsentAnswersAreBounded(t *testing.T) {
	r := start(t, Options{})
	w := dialWire(t, r.addr, window(0))
	size := fmt.Sprint(1<<20 - prefix)
	for id := uint32(1); id <= 9; id += 2 {
		w.ask(id, large, size)
	}
	if got := w.answer(9).fields["grpc-status"]; got != "8" {
		t.Errorf("the fifth: got %v", w.answer(9).fields)
	}
	w.do(w.WriteRSTStream(3, http2.ErrCodeCancel)) // makes room for one
	w.ask(11, large, size)
	w.do(w.WriteWindowUpdate(0, 1<<30))
	w.do(w.WriteSettings(window(1 << 24)))
	w.answer(11)
	for _, id := range []uint32{1, 5, 7, 11} {
		if got := len(w.answer(id).body); got != 1<<20 || w.answer(id).fields["grpc-status"] != "0" {
			t.Errorf("stream %d: %d bytes, %v", id, got, w.answer(id).fields)
		}
	}
}

// Messages that come in part are kept up to a bound for the connection.
func TestPartsAreBounded(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr)
	id, sent := uint32(1), 0
	for sent <= maxHeld {
		w.open(id, echo)
		first := append([]byte{0, 0, 0x0f, 0xff, 0xff}, make([]byte, maxFrame-prefix)...)
		w.do(w.WriteData(id, false, first))
		w.do(w.WriteData(id, false, make([]byte, maxFrame)))
		sent += 2 * maxFrame
		id += 2
	}
	if got := w.answer(id - 2).fields["grpc-status"]; got != "8" {
		t.Errorf("got %v", w.answer(id-2).fields)
	}
	w.ask(id, echo, "x") // its message comes in one piece
	w.wantMessage(id, "x")
	w.do(w.WriteRSTStream(1, http2.ErrCodeCancel))
	w.open(id+2, echo) // and there is room again
	w.do(w.WriteData(id+2, false, framed("part")[:prefix]))
	w.do(w.WriteData(id+2, true, []byte("part")))
	w.wantMessage(id+2, "part")
}

// A client that goes on with a call that is answered is stopped.
func TestSurplusIsStopped(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr)
	w.open(1, echo)
	w.do(w.WriteData(1, false, []byte{0, 0xff, 0xff, 0xff, 0xff}))
	if got := w.answer(1).fields["grpc-status"]; got != "8" {
		t.Fatalf("got %v", w.answer(1).fields)
	}
	w.at(1).over = false
	for range 3 {
		w.do(w.WriteData(1, false, make([]byte, maxFrame)))
	}
	if got := w.answer(1); !got.over || got.reset != http2.ErrCodeNo {
		t.Errorf("got %v", got)
	}
	w.do(w.WriteData(1, false, make([]byte, maxFrame))) // it hadn't seen that yet
	w.open(3, failed, "content-type", "text/plain")     // answered, and then ended as it should be
	w.answer(3)
	w.do(w.WriteData(3, true, framed("x")))
	w.ask(5, echo, "x")
	w.wantMessage(5, "x")
	if got := w.at(3); got.reset != 0 || len(got.frames) != 1 {
		t.Errorf("got %v", got)
	}
}

// The windows that we give are given back as they are used, for streams and for the connection.
func TestClientsWindowsAreGivenBack(t *testing.T) {
	w := dialWire(t, start(t, Options{MaxMessage: 8 << 20}).addr, window(1<<24))
	w.do(w.WriteWindowUpdate(0, 1<<24))
	body := framed(strings.Repeat("0123456789abcdef", 3<<16)) // 3 MiB
	w.open(1, echo)
	connection, stream := initWindow, initWindow
	taken := map[uint32]int{}
	for at := 0; at < len(body); {
		n := min(len(body)-at, maxFrame, connection, stream)
		if n > 0 {
			w.do(w.WriteData(1, at+n == len(body), body[at:at+n]))
			at, connection, stream = at+n, connection-n, stream-n
			continue
		}
		f, err := w.ReadFrame()
		w.do(err)
		if u, ok := f.(*http2.WindowUpdateFrame); ok {
			taken[u.StreamID] += int(u.Increment)
			if u.StreamID == 0 {
				connection += int(u.Increment)
			} else {
				stream += int(u.Increment)
			}
		}
	}
	w.wantMessage(1, string(body[prefix:]))
	if taken[1] > len(body) || taken[0] > len(body)+connWindow {
		t.Errorf("more given back than used: %v", taken)
	}
}

// What takes too long is ended, at the next look.
func TestLapse(t *testing.T) {
	w := newWire(t, nil)
	calls := appendSettings(nil, window(10))
	calls = appendHeaders(calls, 1, w.encode(fieldsFor(echo)), false)                               // its message doesn't come
	calls = appendHeaders(calls, 3, w.encode(fieldsFor(echo, "content-type", "text/plain")), false) // answered, but not ended
	client := &script{in: [][]byte{calls}}
	c := newConn(scripted(), client, client, nil, nil)
	step := func() {
		t.Helper()
		if err := c.fill(); err != nil {
			t.Fatal(err)
		}
		if err := c.turn(); err != nil {
			t.Fatal(err)
		}
	}
	step()
	late := c.now.Add(patience)
	if err := c.lapse(late.Add(-1)); err != nil || len(answers(t, client.out.Bytes())) != 2 { // of stream 3, and the acknowledgement
		t.Errorf("got %v, %v", answers(t, client.out.Bytes()), err)
	}
	if err := c.lapse(late); err != nil {
		t.Error(err)
	}
	got := answers(t, client.out.Bytes())
	if got[1].fields["grpc-status"] != "4" || got[3].reset != http2.ErrCodeNo || !strings.Contains(strings.Join(got[0].frames, " "), "ack") {
		t.Errorf("got %v %v %v", got[0], got[1], got[3])
	}

	unread := appendHeaders(nil, 5, w.encode(fieldsFor(echo)), false)
	unread = appendFrame(unread, prefix+10, http2.FrameData, http2.FlagDataEndStream, 5)
	client.in = [][]byte{append(unread, framed("0123456789")...)}
	step()
	if err := c.lapse(c.now); err != nil {
		t.Error(err)
	}
	if v, ok := errors.AsType[*violation](c.lapse(c.now.Add(patience))); !ok || v.code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("got %v", v)
	}
}

// A call that is given up while its answer waits for a window is forgotten: its stream serves another call.
func TestWaitingAnswerIsGivenUp(t *testing.T) {
	w := newWire(t, nil)
	call := func(id uint32) []byte {
		b := appendHeaders(nil, id, w.encode(fieldsFor(echo)), false)
		b = appendFrame(b, prefix+10, http2.FrameData, http2.FlagDataEndStream, id)
		return append(b, framed("0123456789")...)
	}
	pieces := [][]byte{appendSettings(nil, window(1))}
	for id := uint32(1); id < 100; id += 2 {
		pieces = append(pieces, call(id), appendReset(nil, id, http2.ErrCodeCancel), appendWindowUpdate(nil, 0, 1))
	}
	client := &script{in: append(pieces, call(101), appendWindowUpdate(nil, 101, 100))}
	c := newConn(scripted(), client, client, nil, nil)
	for len(client.in) > 0 {
		if err := c.fill(); err != nil {
			t.Fatal(err)
		}
		if err := c.turn(); err != nil {
			t.Fatal(err)
		}
		if len(c.waiting) > 1 {
			t.Fatalf("%d answers wait", len(c.waiting))
		}
	}
	got := answers(t, client.out.Bytes())
	if a := got[101]; !a.over || string(a.body) != string(framed("0123456789")) {
		t.Errorf("got %v", a)
	}
	if a := got[0]; len(a.fields) != 0 {
		t.Errorf("headers of no stream: %v", a)
	}
	if c.unsent != 0 {
		t.Errorf("%d bytes unsent", c.unsent)
	}
}

// What many connections together send in part is bounded, and each may still send as much as nearly all calls need.
func TestMessagesInPartOfAllConnections(t *testing.T) {
	const piece = 16 << 10
	message := strings.Repeat("x", 7*piece-prefix)
	r := start(t, Options{MaxHeld: 100 << 10})
	first, second := dialWire(t, r.addr, window(1<<20)), dialWire(t, r.addr, window(1<<20))
	send := func(w *wire, id uint32, from, to int) {
		for ; from < to; from++ {
			w.do(w.WriteData(id, from == 6, framed(message)[from*piece:(from+1)*piece]))
		}
	}
	begin := func(w *wire, pieces int) {
		w.do(w.WriteWindowUpdate(0, 1<<20))
		w.open(1, echo)
		send(w, 1, 0, pieces)
		w.ask(3, echo, "taken")
		w.wantMessage(3, "taken")
	}
	begin(first, 6)
	begin(second, 4)
	send(second, 1, 4, 5)
	if got := second.answer(1).fields["grpc-status"]; got != "8" {
		t.Errorf("got %v", second.answer(1).fields)
	}
	send(first, 1, 6, 7)
	first.wantMessage(1, message)
	second.open(5, echo)
	send(second, 5, 0, 7)
	second.wantMessage(5, message)
	if n := r.held.Load(); n != 0 {
		t.Errorf("%d bytes are held at the end", n)
	}
}

// So are the calls that grpc-go answers on connections of the loop.
func TestForwardedCallsOfAllConnections(t *testing.T) {
	r := start(t, Options{MaxForwarded: 2})
	first, second := dialWire(t, r.addr), dialWire(t, r.addr)
	for _, w := range []*wire{first, second} {
		w.ask(1, echo, "of the loop")
		w.wantMessage(1, "of the loop")
	}
	first.open(3, duplex)
	first.open(5, duplex)
	first.ask(7, echo, "taken")
	first.wantMessage(7, "taken")
	second.open(3, duplex)
	if got := second.answer(3).reset; got != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", got)
	}
	first.do(first.WriteData(3, true, nil))
	first.answer(3)
	for id := uint32(5); ; id += 2 { // the place is free a moment later
		second.open(id, duplex)
		second.do(second.WriteData(id, true, nil))
		if a := second.answer(id); a.reset == http2.ErrCodeNo {
			break
		}
	}
}
