package callout

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"testing"

	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Maps, nested messages, and bytes that are no strings.
func TestAnyTextReadsEverything(t *testing.T) {
	codec := AnyText()
	q := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{"legation.rule": "edge/a"},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Host: "a.test", Path: "/?1", Headers: map[string]string{"x-a": "?2", "authorization": "Bearer x"}, RawBody: []byte("\xff?"),
		}},
	}}
	b, err := proto.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte("?1"), []byte("\xff1"), 1)
	b = bytes.Replace(b, []byte("?2"), []byte("\xc02"), 1)
	got := new(authv3.CheckRequest)
	if err := codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, got); err != nil {
		t.Fatal(err)
	}
	h := got.GetAttributes().GetRequest().GetHttp()
	want := map[string]string{"x-a": digest("\xc02"), "authorization": "Bearer x"}
	if h.GetPath() != digest("/\xff1") || !maps.Equal(h.GetHeaders(), want) || string(h.GetRawBody()) != "\xff?" || h.GetHost() != "a.test" {
		t.Errorf("got %v", got)
	}
	for _, bad := range [][]byte{{0x0a, 5, 1}, {0xff}, bytes.Repeat([]byte{0x0a}, 1000)} {
		if err := codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(bad)}, new(authv3.CheckRequest)); err == nil {
			t.Errorf("%x: read, though it is no message", bad)
		}
	}
}

// digest is what stands for a string that is no UTF-8.
func digest(s string) string { return fmt.Sprintf("\ufffd%x", sha256.Sum256([]byte(s))) }

func TestMendLeavesTheRestAlone(t *testing.T) {
	q := twoDescriptors("ok?")
	b, err := proto.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	same, changed := mend(nil, b, q.ProtoReflect().Descriptor(), MaxMended)
	if changed || !bytes.Equal(same, b) {
		t.Error("a message in order was changed")
	}
	b = bytes.Replace(b, []byte("ok?"), []byte("ok\xff"), 1)
	if b, changed = mend(nil, b, q.ProtoReflect().Descriptor(), MaxMended); !changed {
		t.Fatal("nothing was mended")
	}
	got := new(rls.RateLimitRequest)
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatal(err)
	}
	q.Descriptors[0].Entries[1].Value = digest("ok\xff")
	if !proto.Equal(got, q) {
		t.Errorf("got %v, want %v", got, q)
	}
}

func FuzzMend(f *testing.F) {
	b, err := proto.Marshal(twoDescriptors("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Replace(b, []byte("x"), []byte("\xff"), 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(rls.RateLimitRequest)
		of := m.ProtoReflect().Descriptor()
		out, changed := mend(nil, b, of, MaxMended)
		if !changed && !bytes.Equal(out, b) {
			t.Error("not changed, yet not the same")
		}
		if again, changed := mend(nil, out, of, MaxMended); changed {
			t.Errorf("mended twice: %q, %q", out, again)
		}
		if err := proto.Unmarshal(out, m); err != nil && proto.Unmarshal(b, m) == nil {
			t.Errorf("could be read before: %v", err)
		}
	})
}

// twoDescriptors is a request with this value of a header, and numbers of each kind.
func twoDescriptors(value string) *rls.RateLimitRequest {
	return &rls.RateLimitRequest{
		Domain: "legation", HitsAddend: 7,
		Descriptors: []*rlcommon.RateLimitDescriptor{
			{
				HitsAddend: wrapperspb.UInt64(9),
				Entries:    []*rlcommon.RateLimitDescriptor_Entry{{Key: "limit", Value: "a"}, {Key: "header:x", Value: value}},
			},
			{Entries: []*rlcommon.RateLimitDescriptor_Entry{{Key: "é", Value: "ü"}}},
		},
	}
}
