package ratelimit

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/legation/legation/callout"
	"github.com/legation/legation/store"
)

// Bounds of what those who configure an Envoy choose; ours stay far below. Values, which clients choose, have none: a
// request that is refused as invalid passes through a filter that fails open.
const (
	maxDescriptors = 64
	maxEntries     = 32
	maxName        = 4 << 10 // bytes of the domain or an entry's key
)

// wireRequest is a RateLimitRequest, read as proto.Unmarshal reads it; [callout.Text] tells what becomes of strings that
// aren't UTF-8. The strings lie in the message: nothing keeps one when the turn ends.
type wireRequest struct {
	domain      string
	descriptors []wireDescriptor
	hits        uint32 // hits_addend
}

// wireDescriptor is a RateLimitDescriptor.
type wireDescriptor struct {
	entries  []wireEntry
	limit    wireLimit // the override
	limited  bool      // has an override
	hits     uint64    // hits_addend
	counted  bool      // has hits_addend
	negative bool      // is_negative_hits
}

type wireEntry struct{ key, value string }

// wireLimit is a RateLimitOverride.
type wireLimit struct {
	requests   uint32
	unit       int32
	multiplier uint32 // 0: not set, which is 1
}

var errMessage = errors.New("the request is no RateLimitRequest")

// decode reads message in the place of what q held.
func (q *wireRequest) decode(message []byte) error {
	q.domain, q.descriptors, q.hits = "", q.descriptors[:0], 0
	r := reader{rest: message}
	for r.next() {
		switch {
		case r.is(1, protowire.BytesType):
			q.domain = callout.Text(r.bytes)
		case r.is(2, protowire.BytesType):
			if len(q.descriptors) == maxDescriptors {
				return fmt.Errorf("more than %d descriptors", maxDescriptors)
			}
			if err := q.add().decode(r.bytes); err != nil {
				return fmt.Errorf("descriptor %d: %w", len(q.descriptors)-1, err)
			}
		case r.is(3, protowire.VarintType):
			q.hits = uint32(r.varint)
		}
	}
	if r.bad {
		return errMessage
	}
	return checkName("domain", q.domain)
}

// add makes room for one descriptor more; the room of former requests is used again.
func (q *wireRequest) add() *wireDescriptor {
	n := len(q.descriptors)
	if n == cap(q.descriptors) {
		q.descriptors = append(q.descriptors, wireDescriptor{})
		return &q.descriptors[n]
	}
	q.descriptors = q.descriptors[:n+1]
	d := &q.descriptors[n]
	*d = wireDescriptor{entries: d.entries[:0]}
	return d
}

func (d *wireDescriptor) decode(message []byte) error {
	r := reader{rest: message}
	for r.next() {
		switch {
		case r.is(1, protowire.BytesType):
			if len(d.entries) == maxEntries {
				return fmt.Errorf("more than %d entries", maxEntries)
			}
			var e wireEntry
			if err := e.decode(r.bytes); err != nil {
				return err
			}
			d.entries = append(d.entries, e)
		case r.is(2, protowire.BytesType): // a second one adds to the first, as for all messages that aren't repeated
			d.limited = true
			if !d.limit.decode(r.bytes) {
				return errMessage
			}
		case r.is(3, protowire.BytesType):
			d.counted = true
			if !number(r.bytes, &d.hits) {
				return errMessage
			}
		case r.is(4, protowire.VarintType):
			d.negative = protowire.DecodeBool(r.varint)
		}
	}
	switch {
	case r.bad:
		return errMessage
	case d.hits > uint64(store.MaxCount):
		return errors.New("hits_addend is beyond 2^53")
	}
	return nil
}

func (e *wireEntry) decode(message []byte) error {
	r := reader{rest: message}
	for r.next() {
		switch {
		case r.is(1, protowire.BytesType):
			e.key = callout.Text(r.bytes)
		case r.is(2, protowire.BytesType):
			e.value = callout.Text(r.bytes)
		}
	}
	if r.bad {
		return errMessage
	}
	return checkName("key", e.key)
}

func (l *wireLimit) decode(message []byte) bool {
	r := reader{rest: message}
	for r.next() {
		switch {
		case r.is(1, protowire.VarintType):
			l.requests = uint32(r.varint)
		case r.is(2, protowire.VarintType):
			l.unit = int32(r.varint)
		case r.is(3, protowire.BytesType):
			n := uint64(l.multiplier)
			if !number(r.bytes, &n) {
				return false
			}
			l.multiplier = uint32(n)
		}
	}
	return !r.bad
}

// number reads a wrapped integer into n.
func number(message []byte, n *uint64) bool {
	r := reader{rest: message}
	for r.next() {
		if r.is(1, protowire.VarintType) {
			*n = r.varint
		}
	}
	return !r.bad
}

// entry gives the value of the first entry with the key.
func (d *wireDescriptor) entry(key string) (value string, ok bool) {
	for i := range d.entries {
		if d.entries[i].key == key {
			return d.entries[i].value, true
		}
	}
	return "", false
}

// addend is what the descriptor asks for: its own hits_addend goes before the request's; 0 asks without counting in the
// descriptor, and is 1 in the request.
func (q *wireRequest) addend(d *wireDescriptor) int64 {
	n := int64(max(1, q.hits))
	if d.counted {
		n = int64(d.hits)
	}
	if d.negative {
		return -n
	}
	return n
}

func checkName(what, s string) error {
	switch {
	case len(s) > maxName:
		return fmt.Errorf("%s of %d bytes, at most %d", what, len(s), maxName)
	case strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("%s holds a NUL", what)
	}
	return nil
}

// reader goes through the fields of a message.
type reader struct {
	rest   []byte
	number protowire.Number
	kind   protowire.Type
	varint uint64 // of a VarintType
	bytes  []byte // of a BytesType
	bad    bool   // the message is broken here
}

// next reads a field; false at the end, or where the message is broken.
func (r *reader) next() bool {
	if len(r.rest) == 0 {
		return false
	}
	var n int
	if r.number, r.kind, n = protowire.ConsumeTag(r.rest); n < 0 || r.number > protowire.MaxValidNumber {
		r.bad = true
		return false
	}
	r.rest = r.rest[n:]
	switch r.kind {
	case protowire.VarintType:
		r.varint, n = protowire.ConsumeVarint(r.rest)
	case protowire.BytesType:
		r.bytes, n = protowire.ConsumeBytes(r.rest)
	default:
		n = protowire.ConsumeFieldValue(r.number, r.kind, r.rest)
	}
	if n < 0 {
		r.bad = true
		return false
	}
	r.rest = r.rest[n:]
	return true
}

// is tells whether the field is the given one; with another wire type it is an unknown field.
func (r *reader) is(number protowire.Number, kind protowire.Type) bool {
	return r.number == number && r.kind == kind
}
