package xds

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// request is a request of either protocol as it lies in the frames that it came in. It is read once, without copies: what
// most requests are, an acknowledgement of which only type and nonce count, costs next to nothing, and the names and
// versions with which an Envoy reconnects, some 150 kB, cost their hashes.
type request struct {
	protocol Protocol
	message  mem.BufferSlice

	node, url, nonce, problem []byte
	hasNode, hasProblem       bool
	hasVersion                bool   // state of the world: the Envoy has resources of the type
	names                     fields // resource_names, or those to subscribe to
	dropped                   fields // delta: those to unsubscribe from
	known                     fields // delta: initial_resource_versions
}

// role is what a field of a request says.
type role int

const (
	saysNothing role = iota // to us
	saysVersion
	saysNode
	saysType
	saysNames
	saysDropped
	saysKnown
	saysNonce
	saysProblem
)

// roles are those of the fields of DiscoveryRequest and DeltaDiscoveryRequest, by number.
var roles = map[Protocol][]role{
	SotW:  {1: saysVersion, 2: saysNode, 3: saysNames, 4: saysType, 5: saysNonce, 6: saysProblem},
	Delta: {1: saysNode, 2: saysType, 3: saysNames, 4: saysDropped, 5: saysKnown, 6: saysNonce, 7: saysProblem},
}

// resumes tells, of the first request of a type, whether the Envoy has resources of it.
func (r *request) resumes() bool { return r.hasVersion || r.known.count > 0 }

// free gives the frames back. What was read of the request must not be used after it.
func (r *request) free() {
	r.message.Free()
	*r = request{protocol: r.protocol}
}

var errMalformed = errors.New("malformed message")

// decode reads the message, which must stay as it is until free.
func (r *request) decode(message mem.BufferSlice) error {
	r.message = message
	roles := roles[r.protocol]
	for c := newCursor(message); c.more(); {
		number, value, err := c.next()
		if err != nil {
			return err
		}
		if int(number) >= len(roles) {
			continue
		}
		switch roles[number] {
		case saysVersion:
			r.hasVersion = len(value) > 0
		case saysNode:
			r.node, r.hasNode = value, true
		case saysType:
			r.url = value
		case saysNames:
			r.names.take(number, value, &c)
		case saysDropped:
			r.dropped.take(number, value, &c)
		case saysKnown:
			r.known.take(number, value, &c)
		case saysNonce:
			r.nonce = value
		case saysProblem:
			r.problem, r.hasProblem = value, true
		}
	}
	r.names.message, r.dropped.message, r.known.message = message, message, message
	return nil
}

// status reads why the Envoy rejects; nil if it does not.
func (r *request) status() (*statuspb.Status, error) {
	if !r.hasProblem {
		return nil, nil
	}
	s := &statuspb.Status{}
	if err := proto.Unmarshal(r.problem, s); err != nil {
		return nil, fmt.Errorf("error_detail: %w", err)
	}
	return s, nil
}

// The fields of Node that are looked at.
const (
	fieldNodeID         = 1
	fieldNodeCluster    = 2
	fieldNodeExtensions = 9 // 60 kB of an Envoy's node
)

// readNode reads the node, all but its extensions; later ones are read for who they say they are only.
func (r *request) readNode(first bool) (*corev3.Node, error) {
	if !r.hasNode {
		return nil, nil
	}
	var slim []byte
	for b := r.node; len(b) > 0; {
		number, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return nil, fmt.Errorf("node: %w", errMalformed)
		}
		if number == fieldNodeID || number == fieldNodeCluster || first && number != fieldNodeExtensions {
			slim = append(slim, b[:n]...)
		}
		b = b[n:]
	}
	node := &corev3.Node{}
	if err := proto.Unmarshal(slim, node); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	return node, nil
}

// fields is a repeated field of strings or messages. What they say is read where somebody has to know: see each.
type fields struct {
	message mem.BufferSlice // that they are in, among others
	number  protowire.Number
	count   int
	key     key  // of all but "*"
	star    bool // one is "*"
}

// take notes the field that was read last, and those of its kind that come next, which may be a thousand: it goes through
// short ones as fast as their hashes can be had.
func (f *fields) take(number protowire.Number, value []byte, c *cursor) {
	f.number = number
	f.add(value)
	tag := byte(number)<<3 | byte(protowire.BytesType)
	for b := c.b; c.at+2 <= len(b) && b[c.at] == tag && b[c.at+1] < 0x80; {
		from := c.at + 2
		end := from + int(b[c.at+1])
		if end > len(b) {
			return // in the next piece
		}
		f.add(b[from:end])
		c.at = end
	}
}

func (f *fields) add(value []byte) {
	f.count++
	if len(value) == 1 && value[0] == '*' {
		f.star = true
		return
	}
	f.key = f.key.plus(maphash.Bytes(seed, value))
}

// each calls visit with each of them. The message is known to be well formed.
func (f *fields) each(visit func([]byte)) {
	for c := newCursor(f.message); c.more(); {
		if number, value, _ := c.next(); number == f.number {
			visit(value)
		}
	}
}

// texts are the strings.
func (f *fields) texts() ([]string, error) {
	list := make([]string, 0, f.count)
	valid := true
	f.each(func(b []byte) {
		valid = valid && utf8.Valid(b)
		list = append(list, string(b))
	})
	if !valid {
		return nil, notText()
	}
	return list, nil
}

// cursor goes through the fields of a message that lies in pieces.
type cursor struct {
	b      []byte // the piece
	at     int
	rest   mem.BufferSlice // the pieces behind it
	behind int             // bytes in them
}

func newCursor(message mem.BufferSlice) cursor { return cursor{rest: message, behind: message.Len()} }

// more tells whether there is more to read.
func (c *cursor) more() bool {
	for c.at == len(c.b) {
		if len(c.rest) == 0 {
			return false
		}
		c.b, c.at, c.rest = c.rest[0].ReadOnlyData(), 0, c.rest[1:]
		c.behind -= len(c.b)
	}
	return true
}

// next reads a field. The number of one that is no string, bytes or message is 0.
func (c *cursor) next() (protowire.Number, []byte, error) {
	number, value, end := consume(c.b, c.at)
	if end < 0 {
		return c.join()
	}
	c.at = end
	return number, value, nil
}

// join reads a field that begins in one piece and ends in another, and puts it together.
func (c *cursor) join() (protowire.Number, []byte, error) {
	whole := slices.Clone(c.b[c.at:])
	c.at = len(c.b)
	for c.more() {
		left := len(c.b) - c.at + c.behind
		whole = c.take(whole, min(lacks(whole), left))
		number, value, end := consume(whole, 0)
		if end < 0 {
			continue
		}
		if end < len(whole) { // then that was all, and the fields behind it are there, too
			c.b, c.at = whole, end
		}
		return number, value, nil
	}
	return 0, nil, errMalformed
}

// take adds the next n bytes. So many are left.
func (c *cursor) take(to []byte, n int) []byte {
	to = slices.Grow(to, n)
	for n > 0 && c.more() {
		piece := c.b[c.at:min(c.at+n, len(c.b))]
		to, c.at, n = append(to, piece...), c.at+len(piece), n-len(piece)
	}
	return to
}

// mostHead is how long the number and the length of a field can be.
const mostHead = 20

// lacks is how many bytes of a field are missing at the end, at least. It is as many as there can be for one without a
// length, of which no request that we know has any, and for one that is malformed.
func lacks(b []byte) int {
	_, kind, n := protowire.ConsumeTag(b)
	if n > 0 && kind != protowire.BytesType {
		return math.MaxInt
	}
	length, m := protowire.ConsumeVarint(b[max(n, 0):])
	switch {
	case (n < 0 || m < 0) && len(b) < mostHead:
		return 1
	case n < 0 || m < 0 || length > math.MaxInt32:
		return math.MaxInt
	}
	return max(n+m+int(length)-len(b), 1)
}

// consume reads the field that begins at, and tells where it ends; -1 if it is malformed, or ends later. The number of one
// that is no string, bytes or message is 0. Nearly all are short ones with a low number.
func consume(b []byte, at int) (number protowire.Number, value []byte, end int) {
	if rest := len(b) - at; rest >= 2 && b[at] < 0x80 && b[at]&7 == byte(protowire.BytesType) && b[at+1] < 0x80 && b[at] >= 8 {
		from, size := at+2, int(b[at+1])
		if size > rest-2 {
			return 0, nil, -1
		}
		return protowire.Number(b[at] >> 3), b[from : from+size], from + size
	}
	number, kind, n := protowire.ConsumeTag(b[at:])
	if n < 0 {
		return 0, nil, -1
	}
	size := protowire.ConsumeFieldValue(number, kind, b[at+n:])
	switch {
	case size < 0:
		return 0, nil, -1
	case kind != protowire.BytesType:
		return 0, nil, at + n + size
	}
	value, _ = protowire.ConsumeBytes(b[at+n:])
	return number, value, at + n + size
}
