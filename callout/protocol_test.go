package callout

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestAnswerIsGRPC(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr)
	w.ask(1, echo, "hello")
	w.wantMessage(1, "hello")
	want := map[string]string{":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
	if diff := cmp.Diff(want, w.answer(1).fields); diff != "" {
		t.Error(diff)
	}
	w.ask(3, failed, "5 a\nb % ü")
	want = map[string]string{
		":status": "200", "content-type": "application/grpc", "grpc-status": "5", "grpc-message": "a%0Ab %25 %C3%BC",
	}
	if diff := cmp.Diff(want, w.answer(3).fields); diff != "" {
		t.Error(diff)
	}
	if got := w.answer(3).frames; len(got) != 1 {
		t.Errorf("an error takes more than its trailers: %v", got)
	}
}

func TestRefusedCalls(t *testing.T) {
	for name, row := range map[string]struct {
		path   string
		fields []string
		body   string
		status string
		code   string
		reset  http2.ErrCode
	}{
		"content type":        {fields: []string{"content-type", "application/json"}, status: "415", code: "3"},
		"content type of web": {fields: []string{"content-type", "application/grpc-web"}, status: "415", code: "3"},
		"no content type":     {fields: []string{"content-type", ""}, status: "415", code: "3"},
		"subtype":             {fields: []string{"content-type", "application/grpc+proto"}, body: "\x00\x00\x00\x00\x00", status: "200", code: "0"},
		"method":              {fields: []string{":method", "GET"}, status: "405", code: "13"},
		"timeout":             {fields: []string{"grpc-timeout", "20x"}, status: "400", code: "13"},
		"timeout's sign":      {fields: []string{"grpc-timeout", "-1S"}, status: "400", code: "13"},
		"no time left":        {fields: []string{"grpc-timeout", "0n"}, body: "\x00\x00\x00\x00\x00", status: "200", code: "4"},
		"no authority":        {fields: []string{":authority", ""}, status: "400", code: "13"},
		"host for authority":  {fields: []string{":authority", "", "host", "a"}, body: "\x00\x00\x00\x00\x00", status: "200", code: "0"},
		"path":                {path: "callout.Test/Echo", status: "200", code: "12"},
		"unknown path":        {path: "/callout.Test/Missing", status: "200", code: "12"},
		"unknown encoding":    {fields: []string{"grpc-encoding", "deflate"}, body: "\x01\x00\x00\x00\x01x", status: "200", code: "12"},
		"identity":            {fields: []string{"grpc-encoding", "identity"}, body: "\x00\x00\x00\x00\x00", status: "200", code: "0"},
		"compressed identity": {body: "\x01\x00\x00\x00\x01x", status: "200", code: "13"},
		"flag":                {body: "\x02\x00\x00\x00\x01x", status: "200", code: "13"},
		"no message":          {status: "200", code: "13"},
		"half a prefix":       {body: "\x00\x00", status: "200", code: "13"},
		"half a message":      {body: "\x00\x00\x00\x00\x09x", status: "200", code: "13"},
		"two messages":        {body: "\x00\x00\x00\x00\x01x\x00\x00\x00\x00\x01x", status: "200", code: "13"},
		"too large":           {body: "\x00\x00\x10\x00\x01", status: "200", code: "8"},
		"length":              {fields: []string{"content-length", "6"}, body: "\x00\x00\x00\x00\x01x", status: "200", code: "0"},
		"large headers":       {fields: []string{"x", strings.Repeat("x", 15<<10), "y", strings.Repeat("y", 15<<10)}, body: "\x00\x00\x00\x00\x00", status: "200", code: "0"},

		"wrong length":      {fields: []string{"content-length", "7"}, body: "\x00\x00\x00\x00\x01x", reset: http2.ErrCodeProtocol},
		"te":                {fields: []string{"te", "gzip"}, reset: http2.ErrCodeProtocol},
		"connection":        {fields: []string{"connection", "close"}, reset: http2.ErrCodeProtocol},
		"upper case":        {fields: []string{"Upper", "case"}, reset: http2.ErrCodeProtocol},
		"late pseudo":       {fields: []string{":late", "x"}, reset: http2.ErrCodeProtocol},
		"no path":           {fields: []string{":path", ""}, reset: http2.ErrCodeProtocol},
		"no scheme":         {fields: []string{":scheme", ""}, reset: http2.ErrCodeProtocol},
		"control character": {fields: []string{"x", "a\x00b"}, reset: http2.ErrCodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			w := dialWire(t, start(t, Options{}).addr)
			w.ask(1, echo, "first") // so that the loop serves the connection
			path := row.path
			if path == "" {
				path = echo
			}
			block := w.encode(fieldsFor(path, row.fields...))
			first := block[:min(len(block), maxFrame)]
			w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: first, EndHeaders: len(first) == len(block)}))
			if rest := block[len(first):]; len(rest) > 0 {
				w.do(w.WriteContinuation(3, true, rest))
			}
			w.do(w.WriteData(3, true, []byte(row.body)))
			a := w.answer(3)
			if a.reset != row.reset || a.fields[":status"] != row.status || a.fields["grpc-status"] != row.code {
				t.Errorf("got %v, reset %v, want status %s, code %s, reset %v", a.fields, a.reset, row.status, row.code, row.reset)
			}
			w.ask(5, echo, "the connection lives")
			w.wantMessage(5, "the connection lives")
		})
	}
}

// Frames that end the connection.
func TestViolations(t *testing.T) {
	for name, row := range map[string]struct {
		frames func(w *wire)
		code   http2.ErrCode
	}{
		"large frame":         {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, maxFrame+1))) }, http2.ErrCodeFrameSize},
		"data on stream 0":    {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameData, 0, 0, nil)) }, http2.ErrCodeProtocol},
		"data on idle stream": {func(w *wire) { w.do(w.WriteData(7, true, nil)) }, http2.ErrCodeProtocol},
		"padding":             {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{1})) }, http2.ErrCodeProtocol},
		"no padding":          {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, nil)) }, http2.ErrCodeFrameSize},
		"headers on stream 2": {func(w *wire) { w.open(2, echo) }, http2.ErrCodeProtocol},
		"older stream":        {func(w *wire) { w.open(9, echo); w.open(5, echo) }, http2.ErrCodeProtocol},
		"broken block":        {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0xfe})) }, http2.ErrCodeCompression},
		"half a block": {func(w *wire) {
			w.do(w.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0x40, 5, 'a'}))
		}, http2.ErrCodeCompression},
		"large table": {func(w *wire) {
			w.do(w.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0x3f, 0xe2, 0x1f}))
		}, http2.ErrCodeCompression},
		"short priority": {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPriority, 1, []byte{0, 0})) }, http2.ErrCodeFrameSize},
		"interrupted block": {func(w *wire) {
			w.do(w.WriteRawFrame(http2.FrameHeaders, 0, 1, nil))
			w.do(w.WritePing(false, [8]byte{}))
		}, http2.ErrCodeProtocol},
		"continuation":          {func(w *wire) { w.do(w.WriteContinuation(1, true, nil)) }, http2.ErrCodeProtocol},
		"push":                  {func(w *wire) { w.do(w.WriteRawFrame(http2.FramePushPromise, 0, 1, nil)) }, http2.ErrCodeProtocol},
		"goaway on a stream":    {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameGoAway, 0, 1, make([]byte, 8))) }, http2.ErrCodeProtocol},
		"reset of idle stream":  {func(w *wire) { w.do(w.WriteRSTStream(7, http2.ErrCodeCancel)) }, http2.ErrCodeProtocol},
		"short reset":           {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameRSTStream, 0, 1, nil)) }, http2.ErrCodeFrameSize},
		"ping on a stream":      {func(w *wire) { w.do(w.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8))) }, http2.ErrCodeProtocol},
		"short ping":            {func(w *wire) { w.do(w.WriteRawFrame(http2.FramePing, 0, 0, nil)) }, http2.ErrCodeFrameSize},
		"priority of stream 0":  {func(w *wire) { w.do(w.WriteRawFrame(http2.FramePriority, 0, 0, make([]byte, 5))) }, http2.ErrCodeProtocol},
		"settings on a stream":  {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameSettings, 0, 1, nil)) }, http2.ErrCodeProtocol},
		"odd settings":          {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5))) }, http2.ErrCodeFrameSize},
		"full acknowledgement":  {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6))) }, http2.ErrCodeFrameSize},
		"enable push":           {func(w *wire) { w.do(w.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2})) }, http2.ErrCodeProtocol},
		"initial window":        {func(w *wire) { w.do(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})) }, http2.ErrCodeFlowControl},
		"small frame size":      {func(w *wire) { w.do(w.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16383})) }, http2.ErrCodeProtocol},
		"large frame size":      {func(w *wire) { w.do(w.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 24})) }, http2.ErrCodeProtocol},
		"window by nothing":     {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4))) }, http2.ErrCodeProtocol},
		"window too large":      {func(w *wire) { w.do(w.WriteWindowUpdate(0, maxWindow)) }, http2.ErrCodeFlowControl},
		"window of idle stream": {func(w *wire) { w.do(w.WriteWindowUpdate(7, 1)) }, http2.ErrCodeProtocol},
		"short window update":   {func(w *wire) { w.do(w.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, nil)) }, http2.ErrCodeFrameSize},
		"headers after the end": {func(w *wire) { w.ask(3, echo, ""); w.answer(3); w.open(3, echo) }, http2.ErrCodeStreamClosed},
	} {
		t.Run(name, func(t *testing.T) {
			w := dialWire(t, start(t, Options{}).addr)
			w.ask(1, echo, "first")
			w.wantMessage(1, "first")
			row.frames(w)
			if got := w.ended(); got != row.code {
				t.Errorf("got %v, want %v", got, row.code)
			}
		})
	}
}

// Frames that end a stream only.
func TestStreamErrors(t *testing.T) {
	for name, row := range map[string]struct {
		frames func(w *wire)
		code   http2.ErrCode
	}{
		"own priority in headers": {func(w *wire) {
			w.do(w.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 3, BlockFragment: w.encode(fieldsFor(echo)), EndHeaders: true,
				Priority: http2.PriorityParam{StreamDep: 3, Weight: 1},
			}))
		}, http2.ErrCodeProtocol},
		"own priority":      {func(w *wire) { w.open(3, echo); w.do(w.WritePriority(3, http2.PriorityParam{StreamDep: 3})) }, http2.ErrCodeProtocol},
		"short priority":    {func(w *wire) { w.open(3, echo); w.do(w.WriteRawFrame(http2.FramePriority, 0, 3, nil)) }, http2.ErrCodeFrameSize},
		"window by nothing": {func(w *wire) { w.open(3, echo); w.do(w.WriteRawFrame(http2.FrameWindowUpdate, 0, 3, make([]byte, 4))) }, http2.ErrCodeProtocol},
		"window too large":  {func(w *wire) { w.open(3, echo); w.do(w.WriteWindowUpdate(3, maxWindow)) }, http2.ErrCodeFlowControl},
		"data after the end": {
			func(w *wire) {
				w.ask(3, echo, "")
				w.wantMessage(3, "")
				w.at(3).over = false
				w.do(w.WriteData(3, true, nil))
			},
			http2.ErrCodeStreamClosed,
		},
		"trailers that don't end": {func(w *wire) { w.open(3, echo); w.open(3, echo) }, http2.ErrCodeProtocol},
		"pseudo-header in trailers": {func(w *wire) {
			w.open(3, echo)
			block := w.encode([]hpack.HeaderField{{Name: ":path", Value: "/"}})
			w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block, EndHeaders: true, EndStream: true}))
		}, http2.ErrCodeProtocol},
		"more than the stream's window": {func(w *wire) {
			w.do(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
			w.open(3, duplex)
			w.do(w.WriteData(3, false, ask(t, 1))) // whose answer can't be sent, so that nothing more is read
			for range 64 {
				w.do(w.WriteData(3, false, make([]byte, maxFrame)))
			}
			w.answer(3)
			w.do(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: initWindow}))
		}, http2.ErrCodeFlowControl},
	} {
		t.Run(name, func(t *testing.T) {
			w := dialWire(t, start(t, Options{}).addr)
			w.ask(1, echo, "first")
			w.wantMessage(1, "first")
			row.frames(w)
			if got := w.answer(3); got.reset != row.code {
				t.Errorf("got %v, want %v", got, row.code)
			}
			w.ask(5, echo, "the connection lives")
			w.wantMessage(5, "the connection lives")
		})
	}
}

func TestFormsOfACall(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr)
	body := framed(strings.Repeat("0123456789", 1000))

	w.open(1, echo) // in pieces, the prefix too
	for i := 0; i < len(body); i += 999 {
		w.do(w.WriteData(1, false, body[i:min(i+999, len(body))]))
	}
	w.do(w.WriteData(1, true, nil))
	w.wantMessage(1, string(body[prefix:]))

	w.open(3, echo) // byte by byte at first, padded
	for i := range 7 {
		w.do(w.WriteDataPadded(3, false, body[i:i+1], make([]byte, i)))
	}
	w.do(w.WriteDataPadded(3, true, body[7:], make([]byte, 255)))
	w.wantMessage(3, string(body[prefix:]))

	w.open(5, echo) // ended by trailers
	w.do(w.WriteData(5, false, body))
	trailers := w.encode([]hpack.HeaderField{{Name: "x", Value: "y"}})
	w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: trailers, EndHeaders: true, EndStream: true}))
	w.wantMessage(5, string(body[prefix:]))

	block := w.encode(fieldsFor(echo)) // headers in pieces, with padding and priority
	w.do(w.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 7, BlockFragment: block[:2], PadLength: 9, Priority: http2.PriorityParam{StreamDep: 1, Weight: 3},
	}))
	w.do(w.WriteContinuation(7, false, nil))
	w.do(w.WriteContinuation(7, false, block[2:3]))
	w.do(w.WriteContinuation(7, true, block[3:]))
	w.do(w.WritePriority(7, http2.PriorityParam{StreamDep: 3}))
	w.do(w.WriteRawFrame(0xbe, 0xff, 7, []byte("a frame of tomorrow")))
	w.do(w.WriteData(7, true, body))
	w.wantMessage(7, string(body[prefix:]))
}

// Equal header blocks mean different calls when the table has changed between them.
func TestEqualBlocksDiffer(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr)
	paths := []string{echo, failed}
	insert := func(name, value string) []byte { return appendString(appendString([]byte{0x40}, name), value) }

	// Four insertions make a block of four bytes that means a call: 62 is the newest.
	table := func(path string) (block []byte) {
		block = append(block, insert("content-type", "application/grpc")...)
		block = append(block, insert("te", "trailers")...)
		return append(append(block, insert(":authority", "x")...), insert(":path", path)...)
	}
	same := []byte{0x83, 0x86, 0x80 | 62, 0x80 | 63, 0x80 | 65, 0x80 | 64}
	id := uint32(1)
	send := func(block []byte, message string) uint32 {
		w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}))
		w.do(w.WriteData(id, true, framed(message)))
		id += 2
		return id - 2
	}
	for round := range 6 {
		path := paths[round%2]
		filler := send(append([]byte{0x83, 0x86, 0x04, byte(len(echo))}, append([]byte(echo), table(path)...)...), "")
		if got := w.answer(filler).reset; got != http2.ErrCodeProtocol { // two paths; the table has changed all the same
			t.Fatalf("got %v", got)
		}
		for range 3 { // once to be learned, then as it is known
			stream := send(same, "9 text")
			if path == echo {
				w.wantMessage(stream, "9 text")
			} else if got := w.answer(stream).fields["grpc-status"]; got != "9" {
				t.Fatalf("round %d: got %v", round, got)
			}
		}
	}
	// An empty table: the same block means nothing.
	w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x20, 0x83}, EndHeaders: true, EndStream: true}))
	id += 2
	send(same, "9 text")
	if got := w.ended(); got != http2.ErrCodeCompression {
		t.Errorf("got %v", got)
	}
}

// A client sends the same block for every call after its first ones; Envoy's has its path as a literal.
func TestKnownBlocks(t *testing.T) {
	methods := map[string]*method{echo: {path: echo}}
	h := newHeaders(methods)
	w := newWire(t, nil)
	fields := fieldsFor(echo, "grpc-timeout", "20m")
	first, second := w.encode(fields), w.encode(fields)
	envoys := append([]byte{0x83, 0x04}, appendString(nil, echo)...)
	envoys = append(envoys, bytes.ReplaceAll(second[1:], second[2:3], nil)...) // the path's index is left out
	for i, block := range [][]byte{first, second, envoys, second, envoys} {
		r, err := h.request(block)
		if err != nil || r.method != methods[echo] || r.timeout != 20*time.Millisecond {
			t.Fatalf("block %d: got %+v, %v", i, r, err)
		}
	}
	if h.used != 2 {
		t.Errorf("%d blocks known, want 2", h.used)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = h.request(envoys) }); n != 0 {
		t.Errorf("%v allocations for a known block", n)
	}
	if _, err := h.request(first); err != nil || h.used != 0 {
		t.Errorf("%d blocks known after one that has changed the table, %v", h.used, err)
	}
}

func TestHeaderListIsBounded(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr)
	// 4,000 bytes in the table, referred to 40 times: 160 kB in a block of a few.
	block := w.encode(fieldsFor(echo))
	block = append(append(block, 0x40), appendString([]byte{1, 'x'}, strings.Repeat("x", 3000))...)
	for range 40 {
		block = append(block, 0x80|62)
	}
	w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true}))
	a := w.answer(1)
	if a.fields[":status"] != "431" || a.fields["grpc-status"] != "8" {
		t.Errorf("got %v", a.fields)
	}
	block = appendField([]byte{0x83, 0x86}, ":path", echo)
	block = appendField(appendField(block, ":authority", "x"), "content-type", "application/grpc")
	w.do(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block, EndHeaders: true}))
	w.do(w.WriteData(3, true, framed("x")))
	w.wantMessage(3, "x")
}

func TestConcurrentStreamsAreBounded(t *testing.T) {
	w := dialWire(t, start(t, Options{}).addr)
	id := uint32(1)
	for range maxStreams + 1 {
		w.open(id, echo)
		id += 2
	}
	if got := w.answer(id - 2).reset; got != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", got)
	}
	for i := uint32(1); i < id-2; i += 2 {
		w.do(w.WriteData(i, true, framed(numbered(int(i)))))
	}
	for i := uint32(1); i < id-2; i += 2 {
		w.wantMessage(i, numbered(int(i)))
	}
}

// What is no HTTP/2 is closed.
func TestOtherProtocols(t *testing.T) {
	addr := start(t, Options{}).addr
	for _, greeting := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\x02\x00", "PRI * HTTP/2.0\r\n\r\nSX"} {
		w := rawWire(t, addr)
		w.must(io.WriteString(w.net, greeting))
		got, _ := io.ReadAll(w.net)
		if want := appendSettings(nil); string(got) != string(want) {
			t.Errorf("%q: got %q", greeting, got)
		}
	}
	w := rawWire(t, addr) // no SETTINGS after the preface
	w.must(io.WriteString(w.net, http2.ClientPreface))
	w.do(w.WritePing(false, [8]byte{}))
	w.ask(1, echo, "")
	if got := w.ended(); got != http2.ErrCodeProtocol {
		t.Errorf("got %v", got)
	}
}

// A connection whose first call is grpc-go's is handed over, unless it had nothing to ask for a while.
func TestWhoServes(t *testing.T) {
	for by, wait := range map[string]bool{"grpc": false, "loop": true} {
		r := start(t, Options{})
		w := dialWire(t, r.addr)
		if wait {
			w.until(func() bool { return len(w.at(0).frames) > 1 }) // the loop's own settings
		}
		w.open(1, duplex)
		w.do(w.WriteData(1, true, ask(t, 5)))
		if got := w.answer(1).fields["grpc-status"]; got != "0" {
			t.Errorf("%s: got %v", by, w.answer(1).fields)
		}
		if got := r.counted(t, "legation_callout_connections", by); got != 1 {
			t.Errorf("%v connections served by %s", got, by)
		}
	}
}
