package callout

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A wire is a client that says frame by frame what a test wants it to.
type wire struct {
	*http2.Framer
	t    testing.TB
	net  net.Conn
	enc  *hpack.Encoder
	buf  bytes.Buffer // of enc
	seen map[uint32]*answered
	gone *http2.GoAwayFrame
}

// answered is what came on a stream.
type answered struct {
	fields map[string]string // of headers and trailers
	body   []byte
	frames []string
	reset  http2.ErrCode // when it was
	over   bool
}

// rawWire connects and says nothing yet.
func rawWire(t testing.TB, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return newWire(t, c)
}

func newWire(t testing.TB, c net.Conn) *wire {
	w := &wire{Framer: http2.NewFramer(c, c), t: t, net: c, seen: map[uint32]*answered{}}
	w.AllowIllegalWrites = true
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.enc = hpack.NewEncoder(&w.buf)
	return w
}

// dialWire connects and greets, with settings.
func dialWire(t testing.TB, addr string, settings ...http2.Setting) *wire {
	t.Helper()
	w := rawWire(t, addr)
	w.must(io.WriteString(w.net, http2.ClientPreface))
	w.do(w.WriteSettings(settings...))
	return w
}

func (w *wire) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) must(_ int, err error) {
	w.t.Helper()
	w.do(err)
}

// fieldsFor is the headers of a call, with others in the place of those of the same name; an empty value leaves one out.
func fieldsFor(path string, others ...string) []hpack.HeaderField {
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: path},
		{Name: ":authority", Value: "companion"},
		{Name: "te", Value: "trailers"},
		{Name: "content-type", Value: "application/grpc"},
	}
	for i := 0; i < len(others); i += 2 {
		at := slices.IndexFunc(fields, func(f hpack.HeaderField) bool { return f.Name == others[i] })
		switch {
		case at < 0:
			fields = append(fields, hpack.HeaderField{Name: others[i], Value: others[i+1]})
		case others[i+1] == "":
			fields = slices.Delete(fields, at, at+1)
		default:
			fields[at].Value = others[i+1]
		}
	}
	return fields
}

func (w *wire) encode(fields []hpack.HeaderField) []byte {
	w.buf.Reset()
	for _, f := range fields {
		w.do(w.enc.WriteField(f))
	}
	return bytes.Clone(w.buf.Bytes())
}

// open starts a call.
func (w *wire) open(id uint32, path string, others ...string) {
	w.t.Helper()
	w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.encode(fieldsFor(path, others...)), EndHeaders: true}))
}

func framed(message string) []byte { return append(appendPrefix(nil, len(message)), message...) }

// ask makes a whole call.
func (w *wire) ask(id uint32, path, message string, others ...string) {
	w.t.Helper()
	w.open(id, path, others...)
	w.do(w.WriteData(id, true, framed(message)))
}

// read takes the next frame in; false when the connection has ended.
func (w *wire) read() bool {
	w.t.Helper()
	f, err := w.ReadFrame()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	w.do(err)
	s := w.at(f.Header().StreamID)
	note := f.Header().Type.String()
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		for _, field := range f.Fields {
			s.fields[field.Name] = field.Value
		}
		s.over = f.StreamEnded()
	case *http2.DataFrame:
		s.body = append(s.body, f.Data()...)
		s.over = f.StreamEnded()
		note = fmt.Sprintf("DATA %d", len(f.Data()))
	case *http2.RSTStreamFrame:
		s.reset, s.over = f.ErrCode, true
	case *http2.GoAwayFrame:
		w.gone = &http2.GoAwayFrame{LastStreamID: f.LastStreamID, ErrCode: f.ErrCode}
	case *http2.PingFrame:
		if !f.IsAck() {
			w.do(w.WritePing(true, f.Data))
		}
	case *http2.SettingsFrame:
		if f.IsAck() {
			note = "SETTINGS ack"
		}
	}
	s.frames = append(s.frames, note)
	return true
}

// at is what has come on a stream so far.
func (w *wire) at(id uint32) *answered {
	s := w.seen[id]
	if s == nil {
		s = &answered{fields: map[string]string{}}
		w.seen[id] = s
	}
	return s
}

// answer waits for the end of a call.
func (w *wire) answer(id uint32) *answered {
	w.t.Helper()
	for !w.at(id).over {
		if !w.read() {
			w.t.Fatalf("connection ended before stream %d: %v", id, w.gone)
		}
	}
	return w.at(id)
}

func (w *wire) wantMessage(id uint32, message string) {
	w.t.Helper()
	a := w.answer(id)
	if got := a.fields["grpc-status"]; got != "0" || !bytes.Equal(a.body, framed(message)) {
		w.t.Errorf("stream %d: got %.60q with %v, reset %v, want %.60q", id, a.body, a.fields, a.reset, message)
	}
}

// ended waits for the end of the connection, and tells the code of its GOAWAY.
func (w *wire) ended() http2.ErrCode {
	w.t.Helper()
	for w.read() {
	}
	if w.gone == nil {
		w.t.Error("no GOAWAY")
		return http2.ErrCodeNo
	}
	return w.gone.ErrCode
}

// until reads frames until the condition holds.
func (w *wire) until(cond func() bool) {
	w.t.Helper()
	for !cond() {
		if !w.read() {
			w.t.Fatalf("connection ended: %v", w.gone)
		}
	}
}
