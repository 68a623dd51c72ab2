package callout

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"
)

const (
	frameHeader = 9     // bytes before a frame's payload
	maxFrame    = 16384 // largest payload that we take, and the least that every peer takes
	initWindow  = 65535 // what each flow-control window starts with, in bytes
	maxWindow   = 1<<31 - 1
	anyStream   = 1<<31 - 1 // as the last stream of a GOAWAY that only warns
)

// A frame is one frame of HTTP/2, in the buffer that it was read into.
type frame struct {
	kind    http2.FrameType
	flags   http2.Flags
	stream  uint32
	payload []byte
}

// A violation ends the connection: the client is told with GOAWAY.
type violation struct {
	code   http2.ErrCode
	reason string
}

func (v *violation) Error() string { return fmt.Sprintf("%v: %s", v.code, v.reason) }

func violate(code http2.ErrCode, reason string) error { return &violation{code, reason} }

// cut takes the first frame off b; n is its length, 0 as long as b doesn't hold all of it.
func cut(b []byte) (f frame, n int, err error) {
	if len(b) < frameHeader {
		return frame{}, 0, nil
	}
	length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if length > maxFrame {
		return frame{}, 0, violate(http2.ErrCodeFrameSize, "frame is too large")
	}
	n = frameHeader + length
	if len(b) < n {
		return frame{}, 0, nil
	}
	return frame{
		kind:    http2.FrameType(b[3]),
		flags:   http2.Flags(b[4]),
		stream:  binary.BigEndian.Uint32(b[5:]) &^ (1 << 31),
		payload: b[frameHeader:n],
	}, n, nil
}

// unpad takes padding off a DATA or HEADERS frame's payload.
func (f frame) unpad() ([]byte, error) {
	if !f.flags.Has(http2.FlagDataPadded) {
		return f.payload, nil
	}
	if len(f.payload) == 0 {
		return nil, violate(http2.ErrCodeFrameSize, "frame is too short for its padding")
	}
	pad := int(f.payload[0])
	if pad >= len(f.payload) {
		return nil, violate(http2.ErrCodeProtocol, "padding is as long as the frame")
	}
	return f.payload[1 : len(f.payload)-pad], nil
}

func appendFrame(b []byte, length int, kind http2.FrameType, flags http2.Flags, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendGoAway(b []byte, last uint32, code http2.ErrCode, reason string) []byte {
	b = appendFrame(b, 8+len(reason), http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, reason...)
}

func appendPing(b []byte, flags http2.Flags, data []byte) []byte {
	return append(appendFrame(b, len(data), http2.FramePing, flags, 0), data...)
}

func appendReset(b []byte, stream uint32, code http2.ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, http2.FrameRSTStream, 0, stream), uint32(code))
}

func appendWindowUpdate(b []byte, stream uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, http2.FrameWindowUpdate, 0, stream), uint32(n))
}

func appendSettings(b []byte, settings ...http2.Setting) []byte {
	b = appendFrame(b, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

// appendHeaders appends a header block, in CONTINUATION frames too where it is larger than a frame may be.
func appendHeaders(b []byte, stream uint32, block []byte, end bool) []byte {
	kind, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for len(block) > maxFrame {
		b = append(appendFrame(b, maxFrame, kind, flags, stream), block[:maxFrame]...)
		block = block[maxFrame:]
		kind, flags = http2.FrameContinuation, 0
	}
	return append(appendFrame(b, len(block), kind, flags|http2.FlagHeadersEndHeaders, stream), block...)
}
