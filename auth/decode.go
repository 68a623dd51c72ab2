package auth

import (
	"errors"
	"unicode/utf8"
	"unsafe"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/legation/legation/callout"
)

// errMessage is for messages that the generated types can't read either.
var errMessage = errors.New("the message is no CheckRequest")

// The bounds of messages within each other, the same as where the companion's grpc-go server reads them: deeper
// ones are refused, and so are texts that aren't UTF-8 below maxMended.
const (
	maxNesting = protowire.DefaultRecursionLimit - 1
	maxMended  = callout.MaxMended
)

// decode reads the message of an envoy.service.auth.v3.CheckRequest. It means exactly what the generated types mean: it
// refuses what they refuse, also in what isn't needed here. A text that isn't UTF-8 is read as U+FFFD and its digest, so
// that different ones stay different. All other texts are views into b.
func (q *request) decode(b []byte) error { return checkRequest.decode(q, b, 0) }

// shape is what has to be known of a type of messages to read it.
type shape struct {
	fields []shapeField // by number
}

// shapeField is a field that is a text, a message or wanted; others have the zero value. No type here has fields that are
// packed, in groups, or required.
type shapeField struct {
	text    bool
	message *shape
	take    func(q *request, value []byte) // of a message: before what is in it is read; nil where it isn't needed
}

// decode reads a message that lies depth messages deep.
func (s *shape) decode(q *request, b []byte, depth int) error {
	if depth > maxNesting {
		return errMessage
	}
	for len(b) > 0 {
		number, value, n := field(b)
		if n < 0 {
			return errMessage
		}
		b = b[n:]
		if value == nil || int(number) >= len(s.fields) {
			continue
		}
		f := &s.fields[number]
		if f.text && depth > maxMended && !utf8.Valid(value) {
			return errMessage
		}
		if f.take != nil {
			f.take(q, value)
		}
		if f.message != nil {
			if err := f.message.decode(q, value, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// field reads the field that b begins with, and tells how many bytes it takes; n is negative when it is none. Its value
// is nil unless it has a length: then it is a text, a message or bytes, else something that isn't needed here.
func field(b []byte) (number protowire.Number, value []byte, n int) {
	tag, n := protowire.ConsumeVarint(b)
	if n < 0 || tag>>3 < uint64(protowire.MinValidNumber) || tag>>3 > uint64(protowire.MaxValidNumber) {
		return 0, nil, -1
	}
	number = protowire.Number(tag >> 3)
	if kind := protowire.Type(tag & 7); kind != protowire.BytesType {
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return 0, nil, -1
		}
		return number, nil, n + size
	}
	value, size := protowire.ConsumeBytes(b[n:])
	if size < 0 {
		return 0, nil, -1
	}
	return number, value, n + size
}

// checkRequest is the shape of the whole.
var checkRequest = func() *shape {
	plain := map[protoreflect.FullName]*shape{}
	return newShape((*authv3.CheckRequest)(nil).ProtoReflect().Descriptor(), wanted, plain)
}()

// fieldWanted is a field that is needed here: what takes it, and what is needed of the message that it is.
type fieldWanted struct {
	take func(q *request, value []byte)
	of   map[protoreflect.Name]fieldWanted
}

type fieldsWanted = map[protoreflect.Name]fieldWanted

// wanted is all that is needed here.
var wanted = fieldsWanted{"attributes": {of: fieldsWanted{
	"context_extensions": entry(func(q *request) *[]pair { return &q.extensions }),
	"source": {of: fieldsWanted{
		"address":     {of: peerWanted},
		"certificate": {take: func(q *request, b []byte) { q.certificate = callout.Text(b) }},
	}},
	"request": {of: fieldsWanted{"http": {of: fieldsWanted{
		"method":     {take: func(q *request, b []byte) { q.method = callout.Text(b) }},
		"path":       {take: func(q *request, b []byte) { q.path = callout.Text(b) }},
		"host":       {take: func(q *request, b []byte) { q.host = callout.Text(b) }},
		"scheme":     {take: func(q *request, b []byte) { q.scheme = callout.Text(b) }},
		"headers":    entry(func(q *request) *[]pair { return &q.headers }),
		"header_map": {take: func(q *request, _ []byte) { q.isListed = true }, of: fieldsWanted{"headers": listedWanted}},
	}}}},
}}}

// entry is an entry of a map of texts.
func entry(list func(*request) *[]pair) fieldWanted {
	return fieldWanted{
		take: func(q *request, _ []byte) { l := list(q); *l = append(*l, pair{}) },
		of: fieldsWanted{
			"key":   {take: func(q *request, b []byte) { l := *list(q); l[len(l)-1].name = callout.Text(b) }},
			"value": {take: func(q *request, b []byte) { l := *list(q); l[len(l)-1].value = callout.Text(b) }},
		},
	}
}

var listedWanted = func() fieldWanted {
	w := entry(func(q *request) *[]pair { return &q.listed })
	w.of["raw_value"] = fieldWanted{take: func(q *request, b []byte) { q.listed[len(q.listed)-1].raw = view(b) }}
	return w
}()

// peerWanted is of an address, which is one of several kinds: the last that is read holds, and one that is read again
// without another in between is merged with what it was.
var peerWanted = fieldsWanted{
	"socket_address":         {of: fieldsWanted{"address": {take: func(q *request, b []byte) { q.peer = callout.Text(b) }}}},
	"pipe":                   {take: noSocket},
	"envoy_internal_address": {take: noSocket},
}

func noSocket(q *request, _ []byte) { q.peer = "" }

// newShape makes the shape of a type. Where nothing is wanted there is one shape of each type, because types hold each
// other in circles.
func newShape(d protoreflect.MessageDescriptor, wanted fieldsWanted, plain map[protoreflect.FullName]*shape) *shape {
	if known := plain[d.FullName()]; known != nil && wanted == nil {
		return known
	}
	s := new(shape)
	if wanted == nil {
		plain[d.FullName()] = s
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		w := wanted[f.Name()]
		s.fields = append(s.fields, make([]shapeField, max(0, int(f.Number())+1-len(s.fields)))...)
		s.fields[f.Number()] = shapeField{text: f.Kind() == protoreflect.StringKind, take: w.take}
		if f.Kind() == protoreflect.MessageKind {
			s.fields[f.Number()].message = newShape(f.Message(), w.of, plain)
		}
	}
	return s
}

// view is b as a string that lasts as long as b stays as it is.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
