package xds

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of all other messages
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
)

// ServerOptions are what a gRPC server has to be made with for [Server.Register]: a codec, which sends responses that are
// encoded already and leaves requests as they are, and is proto's for every other service; and windows and buffers that
// are right for thousands of connections on which little happens.
//
// The windows are fixed, which spares the ping that grpc-go sends with every message to find out how large they should be,
// and take in one go what an Envoy with a thousand clusters and a thousand route tables reconnects with. A connection has
// a buffer of its own to read into only where it is encrypted, and one to write from only while it does.
func ServerOptions() []grpc.ServerOption {
	const window, most, streams = 256 << 10, 16 << 20, 32
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
		experimental.BufferPool(&buffers{}),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.ReadBufferSize(16 << 10),
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
		data.Ref()
		return r.decode(data)
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
