package callout

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// settings handles what the client wants of us. Only the size of streams' windows matters: frames that we send are no
// larger than every peer takes, and our header blocks leave its table alone.
func (c *conn) settings(f frame) error {
	ack := f.flags.Has(http2.FlagSettingsAck)
	switch {
	case f.stream != 0:
		return violate(http2.ErrCodeProtocol, "SETTINGS on a stream")
	case len(f.payload)%6 != 0, ack && len(f.payload) != 0:
		return violate(http2.ErrCodeFrameSize, "SETTINGS of an odd length")
	case ack:
		return c.spend(costOfFrame, "settings")
	}
	initial := c.initial
	for p := f.payload; len(p) > 0; p = p[6:] {
		value := binary.BigEndian.Uint32(p[2:])
		switch http2.SettingID(binary.BigEndian.Uint16(p)) {
		case http2.SettingEnablePush:
			if value > 1 {
				return violate(http2.ErrCodeProtocol, "ENABLE_PUSH is neither 0 nor 1")
			}
		case http2.SettingMaxFrameSize:
			if value < maxFrame || value > 1<<24-1 {
				return violate(http2.ErrCodeProtocol, "MAX_FRAME_SIZE is out of bounds")
			}
		case http2.SettingInitialWindowSize:
			if value > maxWindow {
				return violate(http2.ErrCodeFlowControl, "INITIAL_WINDOW_SIZE is out of bounds")
			}
			initial = int(value)
		}
	}
	if err := c.resize(initial); err != nil {
		return err
	}
	c.out = appendFrame(c.out, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	return c.spend(costOfSettings, "settings")
}

// resize gives streams, those that are open too, another window. It may leave them less than nothing.
func (c *conn) resize(initial int) error {
	more := initial - c.initial
	if more == 0 {
		return nil
	}
	c.initial = initial
	c.reopened = true
	for _, s := range c.table.open {
		if s.window += more; s.window > maxWindow {
			return violate(http2.ErrCodeFlowControl, "a stream's window is too large")
		}
	}
	return nil
}

func (c *conn) windowUpdate(f frame) error {
	switch {
	case len(f.payload) != 4:
		return violate(http2.ErrCodeFrameSize, "WINDOW_UPDATE has not 4 bytes")
	case f.stream > c.table.last && c.goingOff != leaving:
		return violate(http2.ErrCodeProtocol, "WINDOW_UPDATE on no stream")
	}
	if err := c.spend(costOfFrame, "window update"); err != nil {
		return err
	}
	c.reopened = true
	n := int(binary.BigEndian.Uint32(f.payload) &^ (1 << 31))
	if f.stream == 0 {
		if n == 0 {
			return violate(http2.ErrCodeProtocol, "WINDOW_UPDATE of nothing")
		}
		if c.window += n; c.window > maxWindow {
			return violate(http2.ErrCodeFlowControl, "the connection's window is too large")
		}
		return nil
	}
	s := c.table.find(f.stream)
	switch {
	case n == 0:
		return c.odd(f.stream, http2.ErrCodeProtocol)
	case s == nil:
	case s.window+n > maxWindow:
		return c.odd(f.stream, http2.ErrCodeFlowControl)
	default:
		s.window += n
	}
	return nil
}
