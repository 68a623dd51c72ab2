package callout

import (
	"crypto/sha256"
	"encoding/hex"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that it builds on
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// AnyText is the codec with which a grpc-go server reads messages whose strings aren't UTF-8, as [Text] has them:
// grpc.ForceServerCodecV2 takes it. Envoy hands on the bytes that a client sent in a header, where grpc-go answers INTERNAL
// before any service is asked: and a filter that fails open lets the request pass without its limits. Messages that are in
// order cost nothing more. Methods of this package read messages by themselves, and mean the same.
func AnyText() encoding.CodecV2 { return anyText{encoding.GetCodecV2("proto")} }

// Text is the string that lies in b, for as long as b stays as it is. One that isn't UTF-8 is U+FFFD and its digest, so that
// different values stay different and long ones cost no more than a look at them.
func Text(b []byte) string {
	if utf8.Valid(b) {
		return unsafe.String(unsafe.SliceData(b), len(b))
	}
	sum := sha256.Sum256(b)
	return "\uFFFD" + hex.EncodeToString(sum[:])
}

// anyText is the proto codec, but for such strings.
type anyText struct{ encoding.CodecV2 }

// Unmarshal reads again, with the strings mended, what can't be read as it is.
func (c anyText) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	m, ok := v.(proto.Message)
	if err == nil || !ok {
		return err
	}
	mended, changed := mend(nil, data.Materialize(), m.ProtoReflect().Descriptor(), MaxMended)
	if !changed {
		return err
	}
	proto.Reset(m)
	return proto.Unmarshal(mended, m)
}

// MaxMended is how deep messages within each other are mended; no request nests so deep.
const MaxMended = 32

// mend appends the message in b to out with the strings made UTF-8, and tells whether any had to be. What isn't a
// message of the type is copied as it is, for the decoder to refuse.
func mend(out, b []byte, d protoreflect.MessageDescriptor, depth int) (_ []byte, changed bool) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return append(out, b...), changed
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return append(out, b...), changed
		}
		field, value := b[:n+size], b[n:n+size]
		b = b[n+size:]
		inner, mended := mendField(value, kind, d.Fields().ByNumber(number), depth)
		if !mended {
			out = append(out, field...)
			continue
		}
		changed = true
		out = protowire.AppendBytes(protowire.AppendTag(out, number, kind), inner)
	}
	return out, changed
}

// mendField gives what stands in value instead, when that has to change.
func mendField(value []byte, kind protowire.Type, f protoreflect.FieldDescriptor, depth int) ([]byte, bool) {
	if kind != protowire.BytesType || f == nil {
		return nil, false
	}
	content, _ := protowire.ConsumeBytes(value)
	switch {
	case f.Kind() == protoreflect.StringKind && !utf8.Valid(content):
		return []byte(Text(content)), true
	case f.Kind() == protoreflect.MessageKind && depth > 0:
		return mend(nil, content, f.Message(), depth-1)
	}
	return nil, false
}
