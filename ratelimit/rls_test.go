package ratelimit

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/legation/legation/store"
)

type rlsRequest = rls.RateLimitRequest

func wrap(n int64) *wrapperspb.UInt64Value { return wrapperspb.UInt64(uint64(n)) }

func TestHostileRequestsAreInvalid(t *testing.T) {
	v := &server{s: newService(t, Options{}, daily("a", 10, By{Kind: Consumer}))}
	many := make([]*rlcommon.RateLimitDescriptor, 1000)
	for i := range many {
		many[i] = descriptor("limit", "a")
	}
	beyond := descriptor("limit", "a")
	beyond.HitsAddend = wrapperspb.UInt64(1<<64 - 1)
	for name, q := range map[string]*rlsRequest{
		"1,000 descriptors": request(many...),
		"1,000 entries":     request(descriptor(strings.Split(strings.Repeat("limit,a,", 500), ",")[:1000]...)),
		"1 MiB key":         request(descriptor(strings.Repeat("x", 1<<20), "a")),
		"NUL in a key":      request(descriptor("limit", "a", "consumer\x00", "a")),
		"1 MiB domain":      {Domain: strings.Repeat("x", 1<<20)},
		"2^64-1 hits":       request(beyond),
	} {
		if _, err := v.ShouldRateLimit(context.Background(), q); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
	if r, err := v.ShouldRateLimit(context.Background(), &rlsRequest{Domain: OwnDomain}); err != nil || !allowed(r) {
		t.Errorf("no descriptors: %v, %v", r, err)
	}
}

// TestAnyValueIsCounted has values that clients choose: whatever they are, the limit by ip beside them holds.
func TestAnyValueIsCounted(t *testing.T) {
	byIP, byHeader := daily("ip", 2, By{Kind: IP}), daily("header", 100, By{Kind: Header, Name: "x-t"}, By{Kind: Consumer})
	c := connect(t, newService(t, Options{}, byIP, byHeader))
	for i, value := range []string{
		strings.Repeat("x", 4097), strings.Repeat("x", 30<<10), "\xff\xfe", "a\x00b", strings.Repeat("\xff", 30<<10), "\xed\xa0\x80",
	} {
		ip := fmt.Sprint("192.0.2.", i)
		for j, want := range []bool{true, true, false, false} {
			q := request(descriptor("limit", "ip", "ip", ip), descriptor("limit", "header", "header:x-t", value, "consumer", value))
			b := marshalAnyway(t, q)
			r := new(rls.RateLimitResponse)
			if err := c.Invoke(t.Context(), rls.RateLimitService_ShouldRateLimit_FullMethodName, b, r, grpc.ForceCodecV2(asIs{encoding.GetCodecV2("proto")})); err != nil {
				t.Fatalf("%.10q: %v", value, err)
			}
			if allowed(r) != want || r.Statuses[1].LimitRemaining != uint32(99-min(j, 1)) {
				t.Errorf("%.10q: request %d: %v", value, j, r)
			}
		}
	}
}

// asIs sends bytes as they are.
type asIs struct{ encoding.CodecV2 }

func (c asIs) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

// marshalAnyway writes strings that aren't UTF-8 too, as Envoy does: through a place holder of the same length.
func marshalAnyway(t *testing.T, q *rlsRequest) []byte {
	t.Helper()
	q = proto.Clone(q).(*rlsRequest)
	var values []string
	for _, d := range q.GetDescriptors() {
		for _, e := range d.GetEntries() {
			if !utf8.ValidString(e.Value) {
				values = append(values, e.Value)
				e.Value = strings.Repeat("?", len(e.Value))
			}
		}
	}
	b, err := proto.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		b = bytes.Replace(b, bytes.Repeat([]byte("?"), len(v)), []byte(v), 1)
	}
	return b
}

func TestValuesAreNotConfused(t *testing.T) {
	c := serve(t, newService(t, Options{}, daily("a", 10, By{Kind: Consumer}, By{Kind: Claim, Name: "t"})))
	for _, d := range [][]string{{"a|b", "c"}, {"a", "b|c"}, {"a|b|c", ""}, {"a%7Cb", "c"}, {"{a}", "c"}, {"A", "b|c"}} {
		r := ask1(t, c, request(descriptor("limit", "a", "consumer", d[0], "claim:t", d[1])))
		if got := r.Statuses[0].LimitRemaining; got != 9 {
			t.Errorf("%q shares a bucket: %d left", d, got)
		}
	}
}

func FuzzShouldRateLimit(f *testing.F) {
	l := daily("a", 3, By{Kind: IP}, By{Kind: Header, Name: "h"})
	for _, q := range []*rlsRequest{
		request(descriptor("limit", l.ID(), "ip", "192.0.2.1", "header:h", "x")),
		request(descriptor("limit", "a"), descriptor("limit", "a")),
		request(descriptor("limit", "a@x")),
		{Domain: "x", HitsAddend: 1<<32 - 1, Descriptors: []*rlcommon.RateLimitDescriptor{{HitsAddend: wrap(5)}}},
	} {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	st, err := store.Open(store.Options{MaxKeys: 1000})
	if err != nil {
		f.Fatal(err)
	}
	defer st.Close()
	v := &server{s: newService(f, Options{Store: st}, l)}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := &rlsRequest{}
		if proto.Unmarshal(b, q) != nil {
			return
		}
		r, err := v.ShouldRateLimit(context.Background(), q)
		switch code := status.Code(err); {
		case code != codes.OK && code != codes.InvalidArgument && code != codes.Unavailable:
			t.Errorf("code %s", code)
		case err == nil && len(r.GetStatuses()) != len(q.GetDescriptors()):
			t.Errorf("%d statuses for %d descriptors", len(r.GetStatuses()), len(q.GetDescriptors()))
		case err == nil:
			if _, err := proto.Marshal(r); err != nil {
				t.Error(err)
			}
		}
	})
}
