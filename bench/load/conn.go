package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// conn is one HTTP/2 connection that makes unary gRPC calls of one method. send and flush may be called beside read, each
// by one goroutine.
type conn struct {
	net     net.Conn
	header  []hpack.HeaderField
	decoded map[string]meaning // header blocks that say the same each time
	decoder *hpack.Decoder
	current meaning // of the block that is being decoded
	block   []byte  // a header block that CONTINUATION goes on
	in      []byte  // what was read and not yet parsed
	read    uint64  // bytes of DATA since the last WINDOW_UPDATE

	mu      sync.Mutex // guards what follows
	out     []byte     // what is to be written
	encoder *hpack.Encoder
	encoded bytes.Buffer
	indexed bool   // encoded is the block of every further request
	next    uint32 // ID of the next stream
	oldest  uint32 // no stream below this one waits for an answer
	window  int64  // bytes of DATA that the server takes
	streams int    // that the server takes at once
	calls   []call // by stream, a power of two of them
	waiting int    // calls without an answer
	gone    bool   // the server wants no more calls
}

// call is one call in flight.
type call struct {
	id      uint32 // 0: none
	number  uint64
	start   time.Time
	meaning meaning
	body    []byte
}

// meaning is what a header block says.
type meaning struct {
	http int // 0: not said
	grpc int // -1: not said
}

// answer is how a call ended.
type answer struct {
	number  uint64
	start   time.Time
	code    int    // of gRPC; -1: the stream was reset or the answer had no status
	http    int    // status
	message []byte // until the next call of read
}

const (
	preface      = http2.ClientPreface
	frameHeader  = 9
	prefix       = 5       // of a gRPC message: its compression and length
	streamWindow = 1 << 20 // bytes of an answer
	connWindow   = 1 << 30 // bytes of answers between two WINDOW_UPDATEs
	maxBody      = 16 << 10
	patience     = 5 * time.Second
)

// dial connects to a server of HTTP/2 without TLS and waits for its settings. A timeout above 0 is told with each call.
func dial(address, method string, timeout time.Duration) (*conn, error) {
	nc, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	c := &conn{
		net: nc, in: make([]byte, 0, 64<<10), next: 1, oldest: 1, window: 65535, streams: 1 << 30,
		calls: make([]call, 256), decoded: map[string]meaning{},
	}
	c.header = []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: method},
		{Name: ":authority", Value: address},
		{Name: "te", Value: "trailers"},
		{Name: "content-type", Value: "application/grpc"},
	}
	if timeout > 0 {
		c.header = append(c.header, hpack.HeaderField{Name: "grpc-timeout", Value: strconv.FormatInt(timeout.Microseconds(), 10) + "u"})
	}
	c.encoder = hpack.NewEncoder(&c.encoded)
	c.decoder = hpack.NewDecoder(4096, c.field)
	c.out = append(c.out, preface...)
	c.out = appendFrame(c.out, http2.FrameSettings, 0, 0, 12)
	c.out = appendSetting(c.out, http2.SettingEnablePush, 0)
	c.out = appendSetting(c.out, http2.SettingInitialWindowSize, streamWindow)
	c.out = appendFrame(c.out, http2.FrameWindowUpdate, 0, 0, 4)
	c.out = binary.BigEndian.AppendUint32(c.out, connWindow)
	if err := c.greet(); err != nil {
		nc.Close()
		return nil, fmt.Errorf("%s: no HTTP/2: %w", address, err)
	}
	return c, nil
}

// greet exchanges settings.
func (c *conn) greet() error {
	if err := c.net.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	for len(c.in) < frameHeader || len(c.in) < frameHeader+length(c.in) {
		if err := c.fill(); err != nil {
			return err
		}
	}
	if kind := http2.FrameType(c.in[3]); kind != http2.FrameSettings {
		return fmt.Errorf("the first frame is %s", kind)
	}
	if err := c.parse(func(answer) {}); err != nil {
		return err
	}
	return c.net.SetDeadline(time.Time{})
}

func length(frame []byte) int { return int(frame[0])<<16 | int(frame[1])<<8 | int(frame[2]) }

func appendFrame(b []byte, kind http2.FrameType, flags http2.Flags, stream uint32, length int) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendSetting(b []byte, id http2.SettingID, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, uint16(id)), value)
}

// send queues a call, to go out with the next flush; false when the server takes no more now.
func (c *conn) send(number uint64, start time.Time, body func(dst []byte, number uint64) []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting >= c.streams || c.window < maxBody || c.gone {
		return false
	}
	id := c.next
	c.next += 2
	c.out = append(c.appendHeader(c.out, id), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // the frame's header and the message's prefix
	at := len(c.out)
	c.out = body(c.out, number)
	n := len(c.out) - at
	if n+prefix > maxBody {
		panic(fmt.Sprintf("a message of %d bytes, at most %d", n, maxBody-prefix))
	}
	appendFrame(c.out[:at-prefix-frameHeader], http2.FrameData, http2.FlagDataEndStream, id, n+prefix)
	binary.BigEndian.PutUint32(c.out[at-4:], uint32(n))
	c.window -= int64(n + prefix)
	s := c.place(id)
	s.id, s.number, s.start, s.meaning, s.body = id, number, start, meaning{0, -1}, s.body[:0]
	c.waiting++
	return true
}

// appendHeader appends the HEADERS frame. The first puts all fields into the server's table, the next ones point there.
func (c *conn) appendHeader(b []byte, id uint32) []byte {
	if !c.indexed {
		c.encoded.Reset()
		for _, f := range c.header {
			_ = c.encoder.WriteField(f) // to a buffer
		}
		c.indexed = onlyIndexed(c.encoded.Bytes())
	}
	b = appendFrame(b, http2.FrameHeaders, http2.FlagHeadersEndHeaders, id, c.encoded.Len())
	return append(b, c.encoded.Bytes()...)
}

// onlyIndexed tells of a header block that changes no table: fields of one byte each.
func onlyIndexed(block []byte) bool {
	for _, b := range block {
		if b < 0x81 || b == 0xff {
			return false
		}
	}
	return true
}

// place is a free place for the call of a stream.
func (c *conn) place(id uint32) *call {
	for {
		s := &c.calls[int(id>>1)&(len(c.calls)-1)]
		if s.id == 0 {
			return s
		}
		more := make([]call, 2*len(c.calls))
		for _, old := range c.calls {
			if old.id != 0 {
				more[int(old.id>>1)&(len(more)-1)] = old
			}
		}
		c.calls = more
	}
}

// find is the call of a stream; nil when it has ended.
func (c *conn) find(id uint32) *call {
	if s := &c.calls[int(id>>1)&(len(c.calls)-1)]; s.id == id && id != 0 {
		return s
	}
	return nil
}

// flush writes what is queued.
func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.net.Write(c.out)
	c.out = c.out[:0]
	return err
}

// cancel resets the calls that began before a time and aren't answered, and tells how many.
func (c *conn) cancel(before time.Time) (n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; c.oldest < c.next; c.oldest += 2 {
		s := c.find(c.oldest)
		if s == nil {
			continue
		}
		if !s.start.Before(before) {
			return n
		}
		c.out = appendFrame(c.out, http2.FrameRSTStream, 0, s.id, 4)
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(http2.ErrCodeCancel))
		c.end(s)
		n++
	}
	return n
}

func (c *conn) end(s *call) {
	s.id = 0
	c.waiting--
}

// unanswered is how many calls wait for their answer.
func (c *conn) unanswered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting
}

var errGone = errors.New("the server goes away")
