package envoys

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/protobuf/encoding/protowire"
)

// Envoy is a connection with one aggregated stream, hand-framed HTTP/2. It acknowledges all that it gets and looks at none
// of it.
type Envoy struct {
	conn  net.Conn
	out   []byte // frames to send
	queue []byte // messages to send when the server's windows allow it
	scan  scanner
	got   []string // type URLs of the responses in the last frame
	told  chan<- Arrival

	windows [2]int // bytes that may still be sent: on the connection, on the stream
	initial int    // the server's setting for the latter
}

// Arrival is a response that an Envoy has got and acknowledged, or how its stream ended.
type Arrival struct {
	URL string
	Err error
}

// HTTP/2 as far as it is needed: RFC 9113.
const (
	preface      = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHead    = 9
	mostFrame    = 16 << 10
	frameData    = 0
	frameHeaders = 1
	frameReset   = 3
	frameSetting = 4
	framePing    = 6
	frameGoAway  = 7
	frameWindow  = 8
	flagAck      = 1
	flagEnd      = 1 // of a stream
	flagHeaders  = 4

	settingWindow = 4
	initialWindow = 65535
	wideWindow    = 1<<31 - 1 // never to be asked for more
)

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// Send queues a gRPC message with its head.
func (e *Envoy) Send(message []byte) { e.queue = append(e.queue, message...) }

// Flush sends what there is, as far as the windows allow it.
func (e *Envoy) Flush() error {
	for {
		n := min(len(e.queue), mostFrame, e.windows[0], e.windows[1])
		if n <= 0 {
			break
		}
		e.out = appendFrame(e.out, frameData, 0, 1, e.queue[:n])
		e.queue = e.queue[n:]
		e.windows[0], e.windows[1] = e.windows[0]-n, e.windows[1]-n
	}
	if len(e.out) == 0 {
		return nil
	}
	_, err := e.conn.Write(e.out)
	e.out = e.out[:0]
	return err
}

// grow notes what the server says of its windows.
func (e *Envoy) grow(kind byte, stream uint32, payload []byte) {
	if kind == frameWindow && len(payload) == 4 {
		e.windows[min(stream, 1)] += int(binary.BigEndian.Uint32(payload))
	}
	for ; kind == frameSetting && len(payload) >= 6; payload = payload[6:] {
		if binary.BigEndian.Uint16(payload) == settingWindow {
			now := int(binary.BigEndian.Uint32(payload[2:]))
			e.windows[1], e.initial = e.windows[1]+now-e.initial, now
		}
	}
}

// Close ends the connection.
func (e *Envoy) Close() { e.conn.Close() }

// dial opens the connection and its stream. What it sends goes out with the first messages.
func dial(address, path string, c *tls.Config, window uint32, told chan<- Arrival) (*Envoy, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if c != nil {
		conn = tls.Client(conn, c)
	}
	e := &Envoy{conn: conn, told: told, windows: [2]int{initialWindow, initialWindow}, initial: initialWindow}
	e.out = append(e.out, preface...)
	e.out = appendFrame(e.out, frameSetting, 0, 0, binary.BigEndian.AppendUint32([]byte{0, settingWindow}, window))
	if window > initialWindow {
		e.out = appendFrame(e.out, frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, window-initialWindow))
	}
	header := []byte{0x83, 0x86} // POST, http
	for _, h := range []struct{ prefix, value string }{
		{"\x04", path},
		{"\x01", "legation"},
		{"\x0f\x10", "application/grpc"}, // content-type
		{"\x00\x02te", "trailers"},
	} {
		header = append(append(append(header, h.prefix...), byte(len(h.value))), h.value...)
	}
	e.out = appendFrame(e.out, frameHeaders, flagHeaders, 1, header)
	return e, nil
}

// follow answers what comes until the stream ends; next is called for each response and may add messages to send.
func (e *Envoy) follow(p *Script, next func(url string)) {
	r := bufio.NewReaderSize(e.conn, 2<<10)
	var left int // of the gRPC message
	var head []byte
	err := e.frames(r, func(b []byte) {
		for len(b) > 0 {
			if left == 0 {
				n := min(5-len(head), len(b))
				head, b = append(head, b[:n]...), b[n:]
				if len(head) < 5 {
					return
				}
				left, head = int(binary.BigEndian.Uint32(head[1:])), head[:0]
				e.scan = scanner{head: e.scan.head[:0], keep: e.scan.keep[:0]}
				continue
			}
			n := min(left, len(b))
			e.scan.take(b[:n])
			left, b = left-n, b[n:]
			if left == 0 {
				e.got = append(e.got, e.scan.url)
				e.acknowledge(p)
				next(e.scan.url)
			}
		}
	})
	e.told <- Arrival{Err: err}
}

// frames hands the data to take, sends what is to be sent after each frame, and tells how the stream ended.
func (e *Envoy) frames(r *bufio.Reader, take func([]byte)) error {
	payload := make([]byte, mostFrame)
	for {
		var head [frameHead]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if n > len(payload) {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		if _, err := io.ReadFull(r, payload[:n]); err != nil {
			return err
		}
		switch kind, flags := head[3], head[4]; {
		case kind == frameData:
			take(payload[:n])
		case kind == frameHeaders && flags&flagEnd != 0, kind == frameReset, kind == frameGoAway:
			return errors.New("the server has ended the stream")
		case kind == frameWindow:
			e.grow(kind, binary.BigEndian.Uint32(head[5:]), payload[:n])
		case kind == frameSetting && flags&flagAck == 0:
			e.grow(kind, 0, payload[:n])
			e.out = appendFrame(e.out, frameSetting, flagAck, 0, nil)
		case kind == framePing && flags&flagAck == 0:
			e.out = appendFrame(e.out, framePing, flagAck, 0, payload[:n])
		}
		if err := e.Flush(); err != nil {
			return err
		}
		for _, url := range e.got {
			e.told <- Arrival{URL: url}
		}
		e.got = e.got[:0]
	}
}

// acknowledge adds the ACK of the response that was read last.
func (e *Envoy) acknowledge(p *Script) {
	var b []byte
	text := func(field protowire.Number, s string) {
		b = protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
	}
	if p.SotW {
		text(1, e.scan.version)
		b = append(b, p.names[e.scan.url]...)
		text(4, e.scan.url)
		text(5, e.scan.nonce)
	} else {
		text(2, e.scan.url)
		text(6, e.scan.nonce)
	}
	e.Send(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...))
}
