package load

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// fill reads once.
func (c *conn) fill() error {
	if len(c.in) == cap(c.in) {
		c.in = append(c.in, make([]byte, cap(c.in))...)[:len(c.in)]
	}
	n, err := c.net.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	return err
}

// parse takes the whole frames of what was read.
func (c *conn) parse(each func(answer)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := c.in
	for len(rest) >= frameHeader {
		n := length(rest)
		if len(rest) < frameHeader+n {
			break
		}
		stream := binary.BigEndian.Uint32(rest[5:]) &^ (1 << 31)
		err := c.frame(http2.FrameType(rest[3]), http2.Flags(rest[4]), stream, rest[frameHeader:frameHeader+n], each)
		if err != nil {
			return err
		}
		rest = rest[frameHeader+n:]
	}
	c.in = c.in[:copy(c.in, rest)]
	if c.gone && c.waiting == 0 {
		return errGone
	}
	return nil
}

func (c *conn) frame(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte, each func(answer)) error {
	switch kind {
	case http2.FrameData:
		return c.data(flags, stream, payload, each)
	case http2.FrameHeaders, http2.FrameContinuation:
		return c.headers(kind, flags, stream, payload, each)
	case http2.FrameRSTStream:
		if s := c.find(stream); s != nil {
			s.meaning.grpc = -1
			c.answer(s, each)
		}
	case http2.FrameSettings:
		c.settings(flags, payload)
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			c.out = append(appendFrame(c.out, http2.FramePing, http2.FlagPingAck, 0, len(payload)), payload...)
		}
	case http2.FrameWindowUpdate:
		if stream == 0 && len(payload) == 4 {
			c.window += int64(binary.BigEndian.Uint32(payload))
		}
	case http2.FrameGoAway:
		c.gone = true
	}
	return nil
}

func (c *conn) data(flags http2.Flags, stream uint32, payload []byte, each func(answer)) error {
	if c.read += uint64(len(payload)); c.read > connWindow/2 {
		c.out = appendFrame(c.out, http2.FrameWindowUpdate, 0, 0, 4)
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(c.read))
		c.read = 0
	}
	payload, err := unpad(flags, payload)
	if err != nil {
		return err
	}
	if s := c.find(stream); s != nil {
		s.body = append(s.body, payload...)
		if flags.Has(http2.FlagDataEndStream) {
			c.answer(s, each)
		}
	}
	return nil
}

// unpad takes the padding off a frame that has one.
func unpad(flags http2.Flags, payload []byte) ([]byte, error) {
	if !flags.Has(http2.FlagDataPadded) {
		return payload, nil
	}
	if len(payload) == 0 || len(payload) <= int(payload[0]) {
		return nil, fmt.Errorf("%d bytes with more padding than that", len(payload))
	}
	return payload[1 : len(payload)-int(payload[0])], nil
}

func (c *conn) headers(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte, each func(answer)) error {
	if kind == http2.FrameHeaders {
		var err error
		if payload, err = unpad(flags, payload); err != nil {
			return err
		}
		if flags.Has(http2.FlagHeadersPriority) {
			payload = payload[min(5, len(payload)):]
		}
	}
	ends := kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersEndStream)
	if !flags.Has(http2.FlagHeadersEndHeaders) {
		if c.block = append(c.block, payload...); ends {
			return fmt.Errorf("trailers in several frames")
		}
		return nil
	}
	if len(c.block) > 0 {
		payload = append(c.block, payload...)
		c.block = c.block[:0]
	}
	m, err := c.decode(payload)
	s := c.find(stream)
	if err != nil || s == nil {
		return err
	}
	if m.http != 0 {
		s.meaning.http = m.http
	}
	if m.grpc >= 0 {
		s.meaning.grpc = m.grpc
	}
	if ends {
		c.answer(s, each)
	}
	return nil
}

// decode reads a header block. Most blocks only point into the decoder's table: what they say is remembered until the
// table changes.
func (c *conn) decode(block []byte) (meaning, error) {
	pointing := onlyIndexed(block)
	if pointing {
		if m, ok := c.decoded[string(block)]; ok {
			return m, nil
		}
	}
	c.current = meaning{0, -1}
	if _, err := c.decoder.Write(block); err != nil {
		return meaning{}, err
	}
	if err := c.decoder.Close(); err != nil {
		return meaning{}, err
	}
	if pointing {
		c.decoded[string(block)] = c.current
	} else {
		clear(c.decoded)
	}
	return c.current, nil
}

func (c *conn) field(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		c.current.http, _ = strconv.Atoi(f.Value)
	case "grpc-status":
		if n, err := strconv.Atoi(f.Value); err == nil {
			c.current.grpc = n
		}
	}
}

func (c *conn) settings(flags http2.Flags, payload []byte) {
	if flags.Has(http2.FlagSettingsAck) {
		return
	}
	for ; len(payload) >= 6; payload = payload[6:] {
		value := binary.BigEndian.Uint32(payload[2:])
		switch http2.SettingID(binary.BigEndian.Uint16(payload)) {
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSizeLimit(value)
			c.indexed = false
		case http2.SettingMaxConcurrentStreams:
			c.streams = int(value)
		}
	}
	c.out = appendFrame(c.out, http2.FrameSettings, http2.FlagSettingsAck, 0, 0)
}

// answer ends a call.
func (c *conn) answer(s *call, each func(answer)) {
	a := answer{number: s.number, start: s.start, code: s.meaning.grpc, http: s.meaning.http}
	if len(s.body) >= prefix {
		a.message = s.body[prefix:]
	}
	c.end(s)
	each(a)
}
