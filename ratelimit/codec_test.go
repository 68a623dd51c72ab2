package ratelimit

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// TestAnyTextHoldsForAuthToo has the other service of the server: maps, nested messages, and bytes that are no strings.
func TestAnyTextHoldsForAuthToo(t *testing.T) {
	codec := anyText{encoding.GetCodecV2("proto")}
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
