package callout

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

// A script is a connection whose client's bytes are known from the start, and come in these pieces.
type script struct {
	in  [][]byte
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.in[0])
	if s.in[0] = s.in[0][n:]; len(s.in[0]) == 0 {
		s.in = s.in[1:]
	}
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// scripted is a server that has no grpc-go to forward calls to.
func scripted() *Server {
	s := New(Options{Methods: map[string]Method{echo: echoMethod, failed: failMethod, late: lateMethod}, MaxMessage: 3000})
	_ = s.handoff.Close()
	return s
}

// play has the loop serve a script. It returns what was written.
func (s *Server) play(pieces ...[]byte) ([]byte, *conn) {
	client := &script{in: slices.DeleteFunc(pieces, func(p []byte) bool { return len(p) == 0 })}
	c := newConn(s, client, client, nil, nil)
	c.serve()
	s.all.Wait()
	return client.out.Bytes(), c
}

// Whatever a client sends, the loop neither panics nor hangs, and answers no more than in proportion.
func FuzzFrames(f *testing.F) {
	w := newWire(f, nil)
	block := w.encode(fieldsFor(echo))
	call := append(appendHeaders(appendSettings(nil), 1, block, false), appendFrame(nil, 6, http2.FrameData, http2.FlagDataEndStream, 1)...)
	f.Add(append(call, framed("x")...))
	f.Add(appendPing(appendSettings(call, window(0)), 0, make([]byte, 8)))
	f.Add(appendWindowUpdate(appendReset(call, 1, http2.ErrCodeCancel), 0, maxWindow))
	f.Add(appendHeaders(appendSettings(nil), 1, bytes.Repeat(block, 100), true))
	f.Add(appendHeaders(appendGoAway(appendSettings(nil), 1, 0, "x"), 1, w.encode(fieldsFor("/other/Method")), false))
	s := scripted()
	f.Fuzz(func(t *testing.T, in []byte) {
		half := len(in) / 2
		out, c := s.play(in[:half], in[half:])
		if len(out) > 4096+64*len(in) {
			t.Errorf("%d bytes answered to %d", len(out), len(in))
		}
		if c.held != 0 || c.unsent != 0 || c.table.live != 0 {
			t.Errorf("at the end %d bytes of bodies and %d of answers are accounted for, and %d streams", c.held, c.unsent, c.table.live)
		}
		for len(out) > 0 {
			f, n, err := cut(out)
			if n == 0 || err != nil {
				t.Fatalf("%d bytes are no frame: %v", len(out), err)
			}
			out = out[n:]
			if f.stream == 0 && (f.kind == http2.FrameHeaders || f.kind == http2.FrameData || f.kind == http2.FrameRSTStream) {
				t.Errorf("%v on stream 0", f.kind)
			}
		}
		s.judge(append([]byte(http2.ClientPreface), in...))
	})
}

// However a client's bytes are cut into pieces, its calls get the same answers.
func FuzzPieces(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed)
	}
	s := scripted()
	f.Fuzz(func(t *testing.T, calls, cuts uint64) {
		stream := randomCalls(t, rand.New(rand.NewPCG(calls, 1)))
		whole, _ := s.play(stream)
		var pieces [][]byte
		random := rand.New(rand.NewPCG(cuts, 2))
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(1<<random.IntN(14)))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		cut, _ := s.play(pieces...)
		for id, a := range answers(t, whole) {
			if !a.over && id != 0 {
				t.Errorf("stream %d was answered in part: %v", id, a)
			}
		}
		if diff := cmp.Diff(answers(t, whole), answers(t, cut), cmp.AllowUnexported(answered{})); diff != "" {
			t.Errorf("whole against %d pieces: %s", len(pieces), diff)
		}
	})
}

// answers is what a client makes of the bytes that it got, by stream; all but how they were cut into frames.
func answers(t *testing.T, out []byte) map[uint32]*answered {
	w := newWire(t, &script{in: [][]byte{out}})
	for w.read() {
	}
	for id, s := range w.seen {
		if id == 0 {
			s.frames = slices.DeleteFunc(s.frames, func(f string) bool { return f == "WINDOW_UPDATE" })
			continue
		}
		s.frames = nil
	}
	return w.seen
}

// randomCalls is a client's calls, good and bad, which it cuts into frames as it likes.
func randomCalls(t *testing.T, random *rand.Rand) []byte {
	var b bytes.Buffer
	w := newWire(t, &script{})
	w.Framer = http2.NewFramer(&b, nil)
	w.AllowIllegalWrites = true
	w.do(w.WriteSettings(window(1 << 20)))
	w.do(w.WriteWindowUpdate(0, 1<<28))
	id := uint32(1)
	for range random.IntN(100) {
		var fields []string
		switch random.IntN(8) {
		case 0:
			fields = []string{"grpc-timeout", []string{"1H", "0n", "x"}[random.IntN(3)]}
		case 1:
			fields = []string{"content-type", []string{"", "application/grpc+proto", "text/plain"}[random.IntN(3)]}
		case 2:
			fields = []string{"x", strings.Repeat("y", random.IntN(20000)), "te", []string{"trailers", "gzip"}[random.IntN(2)]}
		}
		block := w.encode(fieldsFor([]string{echo, echo, failed}[random.IntN(3)], fields...))
		n := min(random.IntN(2*len(block)), len(block), maxFrame)
		w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndHeaders: n == len(block)}))
		for rest := block[n:]; len(rest) > 0; {
			n := min(1+random.IntN(2*len(rest)), len(rest), maxFrame)
			w.do(w.WriteContinuation(id, n == len(rest), rest[:n]))
			rest = rest[n:]
		}
		body := framed(strings.Repeat("5 text ", random.IntN(500)))
		switch random.IntN(10) {
		case 0:
			body = body[:random.IntN(len(body))]
		case 1:
			body = append(body, 0)
		case 2:
			body[0] = byte(random.IntN(3))
		}
		for len(body) > 0 && random.IntN(4) == 0 {
			n := random.IntN(len(body))
			w.do(w.WriteDataPadded(id, false, body[:n], make([]byte, random.IntN(9))))
			body = body[n:]
		}
		switch random.IntN(20) {
		case 0: // its answer may have been sent by then, or not: it has none
			if len(fields) == 0 && len(body) > prefix {
				w.do(w.WriteRSTStream(id, http2.ErrCodeCancel))
			}
		default:
			w.do(w.WriteData(id, true, body))
		}
		if random.IntN(10) == 0 {
			w.do(w.WritePing(false, [8]byte{byte(id)}))
			w.do(w.WritePriority(id, http2.PriorityParam{Weight: 1}))
		}
		id += 2
	}
	return b.Bytes()
}

// What is known of a block is what decoding it would tell.
func FuzzKnownBlocks(f *testing.F) {
	w := newWire(f, nil)
	var in []byte
	add := func(block []byte) { in = append(append(in, byte(len(block))), block...) }
	for i := range 6 {
		block := w.encode(fieldsFor([]string{echo, failed}[i/3], "grpc-timeout", "20m"))
		add(block)
		add(appendField(slices.Clone(block), "x", strings.Repeat("y", i)))
		add([]byte{0x20})
	}
	f.Add(in)
	in = nil
	for _, b := range []string{"\x40\x01a\x01b", "\xbe", "\x04\x81\xff", "\x1f\x20\x01a", "\x0f\x80\x01", "\x00\x7f\x01", "\x3f\x01\xbe", "\xff\x00"} {
		add([]byte(b))
		add([]byte{0x83, 0x86, 0xbe})
	}
	f.Add(in)
	methods := map[string]*method{echo: {path: echo}, failed: {path: failed}}
	f.Fuzz(func(t *testing.T, in []byte) {
		knowing, plain := newHeaders(methods), newHeaders(methods)
		for len(in) > 0 {
			n := min(int(in[0]), len(in)-1)
			block := in[1 : n+1]
			in = in[n+1:]
			for range 2 {
				plain.used = 0
				got, err1 := knowing.request(block)
				want, err2 := plain.request(block)
				if (err1 == nil) != (err2 == nil) {
					t.Fatalf("got %v, want %v", err1, err2)
				}
				if err1 != nil {
					return
				}
				a, b := *got, *want
				a.fields, b.fields = nil, nil
				if !reflect.DeepEqual(a, b) {
					t.Fatalf("%x: got %+v, want %+v", block, a, b)
				}
			}
		}
	})
}
