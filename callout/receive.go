package callout

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// maxStreams is how many calls a client may have in progress on a connection. Calls of methods are answered in the turn
// that brings them, so that a thousand of them means a million a second at a millisecond each; what is held for the
// others is small.
const maxStreams = 1000

// A block is a header block on its way, which CONTINUATION frames go on with.
type block struct {
	stream   uint32 // 0 when there is none
	end      bool   // the client sends nothing after it
	selfish  bool   // its priority depends on itself
	fragment []byte
}

// receive handles a frame. An error ends the connection.
func (c *conn) receive(f frame) error {
	if !c.greeted {
		if f.kind != http2.FrameSettings || f.flags.Has(http2.FlagSettingsAck) {
			return violate(http2.ErrCodeProtocol, "SETTINGS don't come first")
		}
		c.greeted = true
	}
	if c.block.stream != 0 && (f.kind != http2.FrameContinuation || f.stream != c.block.stream) {
		return violate(http2.ErrCodeProtocol, "header block is not continued")
	}
	switch f.kind {
	case http2.FrameData:
		return c.data(f)
	case http2.FrameHeaders:
		return c.startBlock(f)
	case http2.FrameContinuation:
		return c.continueBlock(f)
	case http2.FrameRSTStream:
		return c.resetByClient(f)
	case http2.FrameSettings:
		return c.settings(f)
	case http2.FramePing:
		return c.ping(f)
	case http2.FrameWindowUpdate:
		return c.windowUpdate(f)
	case http2.FramePriority:
		return c.priority(f)
	case http2.FramePushPromise:
		return violate(http2.ErrCodeProtocol, "clients don't push")
	case http2.FrameGoAway:
		if f.stream != 0 {
			return violate(http2.ErrCodeProtocol, "GOAWAY on a stream")
		}
		return c.spend(costOfFrame, "goaway")
	}
	return c.spend(costOfFrame, "unknown")
}

func (c *conn) startBlock(f frame) error {
	if f.stream%2 == 0 {
		return violate(http2.ErrCodeProtocol, "HEADERS on no stream of a client")
	}
	fragment, err := f.unpad()
	if err != nil {
		return err
	}
	c.block.stream, c.block.end, c.block.selfish = f.stream, f.flags.Has(http2.FlagHeadersEndStream), false
	if f.flags.Has(http2.FlagHeadersPriority) {
		if len(fragment) < 5 {
			return violate(http2.ErrCodeFrameSize, "HEADERS are too short for a priority")
		}
		c.block.selfish = dependsOn(fragment) == f.stream
		fragment = fragment[5:]
	}
	if f.flags.Has(http2.FlagHeadersEndHeaders) {
		return c.endBlock(fragment)
	}
	c.block.fragment = append(c.block.fragment[:0], fragment...)
	return nil
}

func dependsOn(priority []byte) uint32 { return binary.BigEndian.Uint32(priority) &^ (1 << 31) }

func (c *conn) continueBlock(f frame) error {
	if c.block.stream == 0 {
		return violate(http2.ErrCodeProtocol, "CONTINUATION of nothing")
	}
	if err := c.spend(costOfFrame, "continuation"); err != nil {
		return err
	}
	if len(c.block.fragment)+len(f.payload) > maxHeaderList {
		c.server.metrics.floods.WithLabelValues("continuation").Inc()
		return violate(http2.ErrCodeEnhanceYourCalm, "header block is too large")
	}
	c.block.fragment = append(c.block.fragment, f.payload...)
	if !f.flags.Has(http2.FlagContinuationEndHeaders) {
		return nil
	}
	whole := c.block.fragment
	c.block.fragment = nil
	return c.endBlock(whole)
}

// endBlock handles a whole header block: that of a new call, or trailers.
func (c *conn) endBlock(fragment []byte) error {
	b := c.block
	c.block.stream = 0
	if b.stream <= c.table.last {
		return c.trailers(b, fragment)
	}
	r, err := c.headers.request(fragment)
	if err != nil {
		return violate(http2.ErrCodeCompression, "header block is broken")
	}
	if c.goingOff == leaving {
		return c.spend(costOfFrame, "headers") // it came after the last stream that the client was told of
	}
	if r.malformed != "" || b.selfish || c.table.live >= maxStreams {
		code := http2.ErrCodeProtocol
		if r.malformed == "" && !b.selfish {
			code = http2.ErrCodeRefusedStream
		}
		c.table.add(b.stream, c.initial, c.now)
		return c.odd(b.stream, code)
	}
	s := c.table.add(b.stream, c.initial, c.now)
	s.ended, s.length, s.method = b.end, r.length, r.method
	switch {
	case r.refusal != nil:
		c.fail(s, *r.refusal)
		return c.spend(costOfRefused, "refused")
	case r.method == nil:
		return c.forward(s, r)
	}
	if r.timeout != noTimeout {
		s.call.Deadline = c.now.Add(r.timeout)
	}
	if s.ended {
		return c.complete(s, nil)
	}
	return nil
}

// trailers handles a header block on a stream that the client has used before.
func (c *conn) trailers(b block, fragment []byte) error {
	malformed, err := c.headers.trailers(fragment)
	if err != nil {
		return violate(http2.ErrCodeCompression, "header block is broken")
	}
	s := c.table.find(b.stream)
	switch {
	case s == nil:
		return c.late(b.stream)
	case s.ended:
		return c.odd(s.id, http2.ErrCodeStreamClosed)
	case malformed != "" || !b.end || b.selfish:
		return c.odd(s.id, http2.ErrCodeProtocol)
	}
	s.ended = true
	switch {
	case s.done:
		c.drop(s, false)
		return nil
	case s.relay != nil:
		return s.relay.receive(nil)
	}
	return c.complete(s, s.body)
}

// late handles HEADERS on a stream that is closed.
func (c *conn) late(id uint32) error {
	how, known := c.table.ended(id)
	switch {
	case !known:
		return violate(http2.ErrCodeProtocol, "stream is not newer than the last")
	case !how.ours:
		return violate(http2.ErrCodeStreamClosed, "HEADERS on a closed stream")
	}
	return c.spend(costOfFrame, "late")
}

func (c *conn) data(f frame) error {
	payload, err := f.unpad()
	if err != nil {
		return err
	}
	if f.stream == 0 || f.stream > c.table.last && c.goingOff != leaving {
		return violate(http2.ErrCodeProtocol, "DATA on no stream")
	}
	end := f.flags.Has(http2.FlagDataEndStream)
	if len(f.payload) == 0 && !end {
		if err := c.spend(costOfFrame, "empty data"); err != nil {
			return err
		}
	}
	c.owed += len(f.payload)
	s := c.table.find(f.stream)
	if s == nil {
		if how, known := c.table.ended(f.stream); known && how.ours || f.stream > c.table.last {
			return nil
		}
		return c.odd(f.stream, http2.ErrCodeStreamClosed)
	}
	if s.ended {
		return c.odd(s.id, http2.ErrCodeStreamClosed)
	}
	if s.credit -= len(f.payload); s.credit < 0 {
		return c.odd(s.id, http2.ErrCodeFlowControl)
	}
	s.got += len(payload)
	s.ended = end
	switch {
	case s.done:
		c.surplus(s)
		return nil
	case s.relay != nil:
		s.relay.padding(len(f.payload) - len(payload))
		return s.relay.receive(payload)
	}
	return c.body(s, payload)
}

// body handles a piece of a call's message.
func (c *conn) body(s *stream, piece []byte) error {
	if s.ended && len(s.body) == 0 {
		return c.complete(s, piece)
	}
	s.body = append(s.body, piece...)
	c.hold(len(piece))
	if s.ended {
		return c.complete(s, s.body)
	}
	r := checkPart(s.body, c.server.o.MaxMessage)
	if r == nil && c.holdsTooMuch() {
		r = refuse(200, codes.ResourceExhausted, "too many messages have come in part")
	}
	if r != nil {
		c.refuse(s, *r)
		return nil
	}
	if s.credit < initWindow/2 {
		c.out = appendWindowUpdate(c.out, s.id, initWindow-s.credit)
		s.credit = initWindow
	}
	return nil
}

// hold counts bytes of bodies that are kept, or below 0 let go.
func (c *conn) hold(n int) {
	c.held += n
	c.server.held.Add(int64(n))
}

// holdsTooMuch bounds what a connection keeps, and what all do.
func (c *conn) holdsTooMuch() bool {
	return c.held > maxHeld || c.held > fairHeld && c.server.held.Load() > int64(c.server.o.MaxHeld)
}

// surplus handles what a client sends of a call that is answered: not for long.
func (c *conn) surplus(s *stream) {
	switch {
	case s.ended && s.length != noLength && s.length != s.got:
		c.reset(s, http2.ErrCodeProtocol)
	case s.ended:
		c.drop(s, false)
	case s.credit < initWindow/2:
		c.reset(s, http2.ErrCodeNo)
	}
}

// complete puts a call that has come in full among those of this turn.
func (c *conn) complete(s *stream, body []byte) error {
	if s.length != noLength && s.length != s.got {
		return c.odd(s.id, http2.ErrCodeProtocol)
	}
	if r := checkBody(body, c.server.o.MaxMessage); r != nil {
		c.refuse(s, *r)
		return nil
	}
	s.call.Message = body[prefix:]
	b := &c.batches[s.method.index]
	b.streams = append(b.streams, s)
	return nil
}

// refuse answers a method's call without asking the method.
func (c *conn) refuse(s *stream, r refusal) {
	s.method.answered(r.code, 1)
	c.fail(s, r)
}

func (c *conn) resetByClient(f frame) error {
	switch {
	case len(f.payload) != 4:
		return violate(http2.ErrCodeFrameSize, "RST_STREAM has not 4 bytes")
	case f.stream == 0 || f.stream > c.table.last && c.goingOff != leaving:
		return violate(http2.ErrCodeProtocol, "RST_STREAM on no stream")
	}
	s := c.table.find(f.stream)
	if s != nil {
		c.drop(s, false)
		if s.ended && s.relay == nil {
			return nil // a call that was waited for too long: nothing was done for it that a call doesn't pay for
		}
	}
	return c.spend(costOfReset, "rst_stream")
}

func (c *conn) ping(f frame) error {
	switch {
	case len(f.payload) != 8:
		return violate(http2.ErrCodeFrameSize, "PING has not 8 bytes")
	case f.stream != 0:
		return violate(http2.ErrCodeProtocol, "PING on a stream")
	case !f.flags.Has(http2.FlagPingAck):
		c.out = appendPing(c.out, http2.FlagPingAck, f.payload)
	case bytes.Equal(f.payload, drainPing):
		c.lastCall()
	}
	return c.spend(costOfFrame, "ping")
}

func (c *conn) priority(f frame) error {
	switch {
	case f.stream == 0:
		return violate(http2.ErrCodeProtocol, "PRIORITY on no stream")
	case len(f.payload) == 5 && dependsOn(f.payload) != f.stream:
		return c.spend(costOfFrame, "priority")
	}
	code := http2.ErrCodeProtocol
	if len(f.payload) != 5 {
		code = http2.ErrCodeFrameSize
	}
	return c.odd(f.stream, code)
}

// odd resets a stream for a frame that must not be, whether the stream is open or not.
func (c *conn) odd(stream uint32, code http2.ErrCode) error {
	if s := c.table.find(stream); s != nil {
		c.reset(s, code)
	} else {
		c.out = appendReset(c.out, stream, code)
	}
	return c.spend(costOfMalformed, "malformed")
}
