package golden

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Collector is a receiver of OTLP over gRPC.
type Collector struct {
	Address string
	spans   chan Span
	records chan Record
}

// Span is one span of a trace, with the attributes of its resource. Numbers are written as texts.
type Span struct {
	Trace, ID, Parent    string // bytes, as on the wire
	Name                 string
	Kind                 uint64 // 2 for a server, 3 for a client
	Resource, Attributes map[string]string
}

// Record is one record of a log, with the attributes of its resource. Numbers are written as texts.
type Record struct {
	Body                 string
	Resource, Attributes map[string]string
}

// Collect runs a collector until the test ends.
func Collect(t *testing.T) *Collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{Address: l.Addr().String(), spans: make(chan Span, 100), records: make(chan Record, 100)}
	server := grpc.NewServer(grpc.UnknownServiceHandler(c.receive), grpc.ForceServerCodecV2(rawCodec{}))
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return c
}

// Span waits for the next one.
func (c *Collector) Span(t *testing.T) Span { return await(t, c.spans) }

// Record waits for the next one.
func (c *Collector) Record(t *testing.T) Record { return await(t, c.records) }

func await[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case v := <-from:
		return v
	case <-ctx.Done():
		t.Fatal("nothing came to the collector")
		panic("unreachable")
	}
}

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (rawCodec) Name() string { return "proto" }

var _ encoding.CodecV2 = rawCodec{}

// receive takes one export of any kind; the numbers are those of OTLP's messages. The answer to all is empty.
func (c *Collector) receive(_ any, stream grpc.ServerStream) error {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	method, _ := grpc.Method(stream.Context())
	for _, ofResource := range fields(message)[1] {
		resource := map[string]string{}
		for _, r := range fields(ofResource)[1] {
			resource = attributes(fields(r)[1])
		}
		for _, scope := range fields(ofResource)[2] {
			for _, item := range fields(scope)[2] {
				f := fields(item)
				if method == "/opentelemetry.proto.collector.trace.v1.TraceService/Export" {
					c.spans <- Span{
						Trace: last(f[1]), ID: last(f[2]), Parent: last(f[4]), Name: last(f[5]), Kind: number(f[6]),
						Resource: resource, Attributes: attributes(f[9]),
					}
				} else {
					c.records <- Record{Body: text(f[5]), Resource: resource, Attributes: attributes(f[6])}
				}
			}
		}
	}
	return stream.SendMsg(new([]byte))
}

// fields is a message's fields by number: the bytes of texts and messages, numbers as varints.
func fields(message []byte) map[protowire.Number][][]byte {
	all := map[protowire.Number][][]byte{}
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		size := protowire.ConsumeFieldValue(number, kind, message[max(n, 0):])
		if n < 0 || size < 0 {
			return all
		}
		value := message[n : n+size]
		if kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(value)
		}
		all[number] = append(all[number], value)
		message = message[n+size:]
	}
	return all
}

// attributes reads OpenTelemetry's key and value pairs.
func attributes(pairs [][]byte) map[string]string {
	all := map[string]string{}
	for _, pair := range pairs {
		f := fields(pair)
		value := fields([]byte(last(f[2])))
		if n := value[3]; n != nil {
			all[last(f[1])] = strconv.FormatUint(number(n), 10)
		} else if value[1] != nil {
			all[last(f[1])] = last(value[1])
		}
	}
	return all
}

// text is that of an AnyValue.
func text(values [][]byte) string { return last(fields([]byte(last(values)))[1]) }

func last(values [][]byte) string {
	if len(values) == 0 {
		return ""
	}
	return string(values[len(values)-1])
}

func number(values [][]byte) uint64 {
	n, _ := protowire.ConsumeVarint([]byte(last(values)))
	return n
}
