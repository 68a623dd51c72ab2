package xds

import (
	"errors"
	"fmt"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of all other messages
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// ServerOptions are what a gRPC server has to be made with for [Server.Register]: a codec, which sends responses that are
// encoded already and leaves requests as they are, and is proto's for every other service; and windows and buffers that
// are right for thousands of connections on which little happens.
//
// The windows are fixed, which spares the ping that grpc-go sends with every message to find out how large they should be.
func ServerOptions() []grpc.ServerOption {
	const window, most, streams = 64 << 10, 16 << 20, 32
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(2 * window),
		grpc.ReadBufferSize(4 << 10),
		grpc.WriteBufferSize(32 << 10),
		grpc.MaxRecvMsgSize(most), // a reconnecting Envoy names all that it has
		grpc.MaxConcurrentStreams(streams),
	}
}

// codec is proto's, but for our own messages.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*response); ok {
		return r.pieces, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*request); ok {
		r.buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
		return r.decode(r.buffer.ReadOnlyData())
	}
	return c.CodecV2.Unmarshal(data, v)
}

// response is a response with its nonce.
type response struct{ pieces mem.BufferSlice }

// The fields of DiscoveryResponse and DeltaDiscoveryResponse that are used. Those that both have have the same number.
const (
	fieldSystemVersion = 1
	fieldResponseType  = 4
	fieldNonce         = 5
	fieldRemoved       = 6 // delta
)

// withNonce is the response in those pieces, which stay as they are.
func withNonce(pieces mem.BufferSlice, nonce string) *response {
	own := make(mem.BufferSlice, len(pieces), len(pieces)+1)
	copy(own, pieces)
	last := appendText(make([]byte, 0, sizeText(len(nonce))), fieldNonce, nonce)
	return &response{append(own, mem.SliceBuffer(last))}
}

// request is a request of either protocol as it lies in its buffer. What most requests are, an acknowledgement of which
// only type and nonce count, costs next to nothing to read.
type request struct {
	protocol Protocol
	buffer   mem.Buffer

	node, url, nonce, problem []byte
	hasNode, hasProblem       bool
	hasVersion                bool   // state of the world: the Envoy has resources of the type
	names                     fields // resource_names, or those to subscribe to
	dropped                   fields // delta: those to unsubscribe from
	known                     fields // delta: initial_resource_versions
}

// free gives the buffer back. What was read of the request must not be used after it.
func (r *request) free() {
	if r.buffer != nil {
		r.buffer.Free()
	}
	*r = request{protocol: r.protocol}
}

var errMalformed = errors.New("malformed message")

func (r *request) decode(b []byte) error {
	for at := 0; at < len(b); {
		number, value, end := consume(b, at)
		if end < 0 {
			return errMalformed
		}
		if list := r.list(number); list != nil {
			list.extend(b, number, at, end)
		} else {
			r.note(number, value)
		}
		at = end
	}
	return nil
}

// consume reads the field that begins at, and tells where it ends; -1 if it is malformed. The number of one that is no
// string, bytes or message is 0. Nearly all are short ones with a low number.
func consume(b []byte, at int) (number protowire.Number, value []byte, end int) {
	if rest := len(b) - at; rest >= 2 && b[at] < 0x80 && b[at]&7 == byte(protowire.BytesType) && b[at+1] < 0x80 {
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

// list is where a repeated field belongs.
func (r *request) list(number protowire.Number) *fields {
	switch {
	case number == 3:
		return &r.names
	case number == 4 && r.protocol == Delta:
		return &r.dropped
	case number == 5 && r.protocol == Delta:
		return &r.known
	}
	return nil
}

func (r *request) note(number protowire.Number, value []byte) {
	if r.protocol == SotW {
		switch number {
		case 1:
			r.hasVersion = len(value) > 0
		case 2:
			r.node, r.hasNode = value, true
		case 4:
			r.url = value
		case 5:
			r.nonce = value
		case 6:
			r.problem, r.hasProblem = value, true
		}
		return
	}
	switch number {
	case 1:
		r.node, r.hasNode = value, true
	case 2:
		r.url = value
	case 6:
		r.nonce = value
	case 7:
		r.problem, r.hasProblem = value, true
	}
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

// fields is a repeated field of strings or messages, as it lies in the request.
type fields struct {
	raw    []byte // from the first one to the last
	number protowire.Number
	count  int
	from   int
}

func (f *fields) extend(b []byte, number protowire.Number, from, to int) {
	if f.count == 0 {
		f.number, f.from = number, from
	}
	f.raw = b[f.from:to]
	f.count++
}

// each calls visit with each of them. The fields are known to be well formed.
func (f *fields) each(visit func([]byte)) {
	for at := 0; at < len(f.raw); {
		number, value, end := consume(f.raw, at)
		if number == f.number {
			visit(value)
		}
		at = end
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
