package auth

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/legation/legation/callout"
)

// generatedRequest gives what the generated types make of a message when grpc-go reads it as app has it do: texts that
// aren't UTF-8 are mended where the message can't be read else. It is nil when they refuse it.
func generatedRequest(message []byte) *authv3.CheckRequest {
	m := new(authv3.CheckRequest)
	if callout.AnyText().Unmarshal(mem.BufferSlice{mem.SliceBuffer(message)}, m) != nil {
		return nil
	}
	return m
}

// sameRequest holds what decode makes of a message against what the generated types make of it.
func sameRequest(t testing.TB, message []byte) (read bool) {
	t.Helper()
	var got, want request
	err := got.decode(message)
	m := generatedRequest(message)
	if (m == nil) != (err != nil) {
		t.Fatalf("%x: decode gives %v, the generated types %v", message[:min(len(message), 1<<10)], err, m)
	}
	if m == nil {
		return false
	}
	want.read(m)
	for _, q := range []*request{&got, &want} {
		q.extensions, q.headers = inOrder(q.extensions), inOrder(q.headers)
	}
	if d := gocmp.Diff(want, got, gocmp.AllowUnexported(request{}, pair{})); d != "" {
		t.Fatalf("%x: %s", message, d)
	}
	return true
}

// inOrder sorts by name, and keeps the last of each.
func inOrder(list []pair) []pair {
	list = append([]pair{}, list...)
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b pair) int { return cmp.Compare(a.name, b.name) })
	return slices.CompactFunc(list, func(a, b pair) bool { return a.name == b.name })
}

// in is the message that has the contents in a field.
func in(number protowire.Number, contents ...string) string {
	return string(protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), strings.Join(contents, "")))
}

// The paths of what is needed, from the outside in.
func inHTTP(contents ...string) string    { return in(1, in(4, in(2, contents...))) }
func inAddress(contents ...string) string { return in(1, in(1, in(1, contents...))) }

// oddMessages are those that readers could take differently.
func oddMessages(t testing.TB) map[string]string {
	full := envoyLike("edge/orders", "Bearer x")
	full.Attributes.Request.Time = timestamppb.Now()
	full.Attributes.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"a": must(structpb.NewStruct(
		map[string]any{"text": "t", "number": 1, "null": nil, "list": []any{true, map[string]any{"deep": "x"}}},
	))}}
	full.Attributes.Request.Http.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "a", Value: "1"}, {Key: "a", RawValue: []byte("\xff")}, {Key: "A", Value: "2", RawValue: []byte("3")},
	}}
	whole := string(must(proto.Marshal(full)))
	group := func(number protowire.Number, contents string) string {
		return string(protowire.AppendTag(nil, number, protowire.StartGroupType)) + contents +
			string(protowire.AppendTag(nil, number, protowire.EndGroupType))
	}
	varint := func(number protowire.Number) string {
		return string(protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), 7))
	}
	// nested is a text in a metadata value that lies within n lists.
	nested := func(n int, text string) string {
		value := in(3, text)
		for range n {
			value = in(6, in(1, value))
		}
		return in(1, in(11, in(1, in(1, "filter"), in(2, in(1, in(1, "k"), in(2, value))))))
	}
	m := map[string]string{
		"nothing": "", "whole": whole, "whole, twice": whole + whole,
		"attributes twice":     in(1, in(10, in(1, RuleExtension), in(2, "a"))) + in(1, in(10, in(1, RuleExtension), in(2, "b"))),
		"header twice":         inHTTP(in(3, in(1, "a"), in(2, "1")), in(3, in(1, "b")), in(3, in(1, "a"), in(2, "2"))),
		"header then empty":    inHTTP(in(3, in(1, "a"), in(2, "1")), in(3, in(1, "a"))),
		"key twice":            inHTTP(in(3, in(1, "a"), in(1, "b"), in(2, "1"), in(2, "2"))),
		"value first":          inHTTP(in(3, in(2, "1"), in(1, "a"))),
		"no key":               inHTTP(in(3, in(2, "1")), in(3)),
		"http in two parts":    inHTTP(in(2, "GET"), in(5, "a")) + inHTTP(in(5, "b"), in(4, "/")),
		"host twice":           inHTTP(in(5, "a"), in(5, "")),
		"empty header map":     inHTTP(in(13)),
		"header map in parts":  inHTTP(in(13, in(1, in(1, "a"))), in(13, in(1, in(2, "b"), in(3, "c")))),
		"socket twice":         inAddress(in(1, in(2, "1.1.1.1"))) + inAddress(in(1, varint(3))),
		"socket, pipe":         inAddress(in(1, in(2, "1.1.1.1")), in(2, in(1, "p"))),
		"socket, pipe, socket": inAddress(in(1, in(2, "1.1.1.1")), in(2), in(1, varint(3))),
		"pipe, socket":         inAddress(in(2, in(1, "p")), in(1, in(2, "1.1.1.1"))),
		"socket, internal":     inAddress(in(1, in(2, "1.1.1.1")), in(3, in(1, "l"))),
		"socket, pipe number":  inAddress(in(1, in(2, "1.1.1.1")), varint(2)),
		"socket, pipe group":   inAddress(in(1, in(2, "1.1.1.1")), group(2, "")),
		"socket, bad pipe":     inAddress(in(1, in(2, "1.1.1.1")), in(2, "\x0a\x05")),
		"address of another":   in(1, in(2, in(1, in(1, in(2, "1.1.1.1"))))),
		"certificate twice":    in(1, in(1, in(5, "a"))) + in(1, in(1, in(5, "b"))), "certificate not UTF-8": in(1, in(1, in(5, "\xff"))),
		"certificate of another": in(1, in(2, in(5, "a"))), "certificate is a number": in(1, in(1, in(5, "a"), varint(5))),
		"host is a number":   inHTTP(in(5, "a"), varint(5)),
		"host is a group":    inHTTP(in(5, "a"), group(5, in(1, "b"))),
		"headers is a group": inHTTP(group(3, in(1, "a")+in(2, "b"))),
		"key is a number":    inHTTP(in(3, varint(1), in(2, "b"))),
		"attributes number":  varint(1),
		"attributes group":   group(1, in(10, in(1, RuleExtension))),
		"unknown":            in(99, "x") + varint(100) + group(101, group(102, in(1, "\xff"))) + whole,
		"unknown inside":     inHTTP(in(99, "\xff"), varint(1000), in(5, "a")),
		"number 0":           whole + "\x02\x00", "largest number": in(1<<29-1, "x"), "number too large": "\x82\x80\x80\x80\x10\x00",
		"number too large in an entry": inHTTP(in(3, "\x82\x80\x80\x80\x10\x00")),
		"end of a group":               whole + "\x0c", "wire type 6": whole + "\x0e", "wire type 7": whole + "\x0f", "open group": "\x0b",
		"wrong end of a group": "\x0b\x14", "end of a group in an entry": inHTTP(in(3, "\x0c")),
		"long tag": "\x8a\x80\x00\x00", "longest tag": "\x8a\x80\x80\x80\x80\x80\x80\x80\x80\x00\x00", "tag without end": strings.Repeat("\x8a", 11),
		"long length": "\x0a\x80\x00", "length too large": "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"cut off": whole[:len(whole)-1], "cut in a number": "\x08\x80", "cut in 4 bytes": "\x0d\x00", "cut in 8 bytes": "\x09\x00",
		"bad time": in(1, in(4, in(1, "\x08"))), "time as a text": in(1, in(4, in(1, in(1, "x")))),
		"bad destination": in(1, in(2, in(1, in(9, "x"), "\xff"))), "bad TLS session": in(1, in(12, "\x0a")),
		"bad raw body": inHTTP(in(12, "\xff\xfe")), "raw header": inHTTP(in(13, in(1, in(1, "a"), in(3, "\xff\x00")))),
		"host not UTF-8": inHTTP(in(5, "a\xff")), "other text not UTF-8": inHTTP(in(1, "\xff"), in(5, "a")),
		"header not UTF-8": inHTTP(in(3, in(1, "authorization"), in(2, "Bearer \xc0\x80")), in(3, in(1, "x\xff"), in(2, "a"))),
		"listed not UTF-8": inHTTP(in(13, in(1, in(1, "a\xed\xa0\x80"), in(2, "\xf5")))),
		"rule not UTF-8":   in(1, in(10, in(1, RuleExtension), in(2, "\xff"))), "extension not UTF-8": in(1, in(10, in(1, "\xff"), in(2, "a"))),
		"principal not UTF-8": in(1, in(1, in(4, "\xff"))), "peer not UTF-8": inAddress(in(1, in(2, "\xff"))),
		"not UTF-8, then bad": inHTTP(in(5, "\xff")) + "\x0a\x05", "not UTF-8, twice": inHTTP(in(5, "\xff"), in(5, "\xfe")),
		"surrogate": inHTTP(in(5, "\xed\xa0\x80")), "replacement": inHTTP(in(5, "\uFFFD")), "NUL": inHTTP(in(5, "\x00")),
		"type URL not UTF-8":  in(1, in(11, in(2, in(1, "a"), in(2, in(1, "\xff"), in(2, "\xff"))))),
		"value not a message": in(1, in(11, in(1, in(1, "a"), in(2, "\xff")))), "value is a number": in(1, in(11, in(1, in(1, "a"), varint(2)))),
		"nested 4,996": nested(4996, "x"), "nested 4,997": nested(4997, "x"), "nested 4,998": nested(4998, "x"),
		"nested groups":   strings.Repeat("\x9b\x06", 9_999) + strings.Repeat("\x9c\x06", 9_999),
		"too many groups": strings.Repeat("\x9b\x06", 10_003) + strings.Repeat("\x9c\x06", 10_003),
	}
	for n := range 20 {
		m["nested, not UTF-8, "+strings.Repeat("i", n)] = nested(n, "\xff")
	}
	return m
}

func TestDecodeMeansWhatTheGeneratedTypesMean(t *testing.T) {
	read, refused := 0, 0
	for name, message := range oddMessages(t) {
		t.Run(name, func(t *testing.T) {
			if sameRequest(t, []byte(message)) {
				read++
			} else {
				refused++
			}
		})
	}
	if read < 40 || refused < 20 {
		t.Errorf("%d read, %d refused: not enough of both", read, refused)
	}
}

func FuzzDecode(f *testing.F) {
	for _, message := range oddMessages(f) {
		if len(message) < 4<<10 {
			f.Add([]byte(message))
		}
	}
	f.Fuzz(func(t *testing.T, message []byte) { sameRequest(t, message) })
}

func FuzzRequest(f *testing.F) {
	f.Add("GET", "/", "a.test", "https", "authorization", "Bearer x", "edge/a", "1.1.1.1", []byte("raw"))
	f.Fuzz(func(t *testing.T, method, path, host, scheme, name, value, rule, peer string, raw []byte) {
		q := ask(rule, value, name, value, path, host)
		q.Attributes.Source.GetAddress().GetSocketAddress().Address = peer
		h := q.Attributes.Request.Http
		h.Method, h.Path, h.Host, h.Scheme = method, path, host, scheme
		if len(raw) > 0 {
			h.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: name, Value: value}, {Key: name, RawValue: raw}}}
		}
		message, err := proto.Marshal(q)
		if err != nil {
			return // a text isn't UTF-8
		}
		var got, want request
		if err := got.decode(message); err != nil {
			t.Fatal(err)
		}
		want.read(q)
		for _, q := range []*request{&got, &want} {
			q.extensions, q.headers = inOrder(q.extensions), inOrder(q.headers)
		}
		if d := gocmp.Diff(want, got, gocmp.AllowUnexported(request{}, pair{})); d != "" {
			t.Fatal(d)
		}
	})
}

// TestShapesKnowAllThatCanBeRefused holds the types against what shapes can say.
func TestShapesKnowAllThatCanBeRefused(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	var walk func(protoreflect.MessageDescriptor)
	walk = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] {
			return
		}
		seen[d.FullName()] = true
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			if f.IsPacked() || f.Kind() == protoreflect.GroupKind || f.Cardinality() == protoreflect.Required || f.Number() > 100 ||
				d.ExtensionRanges().Len() > 0 || f.ParentFile().Syntax() != protoreflect.Proto3 {
				t.Errorf("%s is read in a way that shapes don't know", f.FullName())
			}
			if f.Kind() == protoreflect.MessageKind {
				walk(f.Message())
			}
		}
	}
	walk((*authv3.CheckRequest)(nil).ProtoReflect().Descriptor())
	if len(seen) < 15 {
		t.Errorf("only %d types", len(seen))
	}
}

func TestTextsAreViews(t *testing.T) {
	message := must(proto.Marshal(envoyLike("edge/a", "Bearer x")))
	var q request
	if err := q.decode(message); err != nil {
		t.Fatal(err)
	}
	copy(message[bytes.Index(message, []byte("Bearer x")):], "Bearer y")
	if got := q.header("authorization"); got != "Bearer y" {
		t.Errorf("%q is a copy", got)
	}
	allocated := testing.AllocsPerRun(100, func() {
		q.reset()
		if q.decode(message) != nil {
			t.Error("not read again")
		}
	})
	if allocated > 0 {
		t.Errorf("%v allocations to decode", allocated)
	}
}
