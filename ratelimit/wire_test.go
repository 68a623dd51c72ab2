package ratelimit

import (
	"bytes"
	"math"
	"strings"
	"testing"

	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/legation/legation/callout"
	"github.com/legation/legation/store"
)

// generated is what q is in the generated types.
func (q *wireRequest) generated() *rlsRequest {
	g := &rlsRequest{Domain: q.domain, HitsAddend: q.hits}
	for _, d := range q.descriptors {
		o := &rlcommon.RateLimitDescriptor{IsNegativeHits: d.negative}
		if d.counted {
			o.HitsAddend = wrapperspb.UInt64(d.hits)
		}
		if d.limited {
			o.Limit = &rlcommon.RateLimitDescriptor_RateLimitOverride{
				RequestsPerUnit: d.limit.requests, Unit: typev3.RateLimitUnit(d.limit.unit),
			}
			if d.limit.multiplier > 0 {
				o.Limit.UnitMultiplier = wrapperspb.UInt32(d.limit.multiplier)
			}
		}
		for _, e := range d.entries {
			o.Entries = append(o.Entries, &rlcommon.RateLimitDescriptor_Entry{Key: e.key, Value: e.value})
		}
		g.Descriptors = append(g.Descriptors, o)
	}
	return g
}

// bounded tells whether q is within the bounds that decode holds requests against.
func bounded(q *rlsRequest) bool {
	ok := len(q.GetDescriptors()) <= maxDescriptors && checkName("", q.GetDomain()) == nil
	for _, d := range q.GetDescriptors() {
		ok = ok && len(d.GetEntries()) <= maxEntries && d.GetHitsAddend().GetValue() <= uint64(store.MaxCount)
		for _, e := range d.GetEntries() {
			ok = ok && checkName("", e.GetKey()) == nil
		}
	}
	return ok
}

// known is q as far as decode reads it: a multiplier of 0 is none, and unknown fields are dropped.
func known(q *rlsRequest) *rlsRequest {
	q.ProtoReflect().SetUnknown(nil)
	for _, d := range q.GetDescriptors() {
		d.ProtoReflect().SetUnknown(nil)
		if d.HitsAddend != nil {
			d.HitsAddend = wrap(int64(d.HitsAddend.Value))
		}
		if d.Limit != nil {
			d.Limit.ProtoReflect().SetUnknown(nil)
			if n := d.Limit.UnitMultiplier.GetValue(); n > 0 {
				d.Limit.UnitMultiplier = wrapperspb.UInt32(n)
			} else {
				d.Limit.UnitMultiplier = nil
			}
		}
		for _, e := range d.GetEntries() {
			e.ProtoReflect().SetUnknown(nil)
		}
	}
	return q
}

func FuzzDecode(f *testing.F) {
	full := request(descriptor("limit", "a", "header:x", "é", "limit", ""), descriptor())
	full.HitsAddend = math.MaxUint32
	full.Descriptors[0].HitsAddend = wrap(1 << 53)
	full.Descriptors[0].Limit = &rlcommon.RateLimitDescriptor_RateLimitOverride{
		RequestsPerUnit: 7, Unit: typev3.RateLimitUnit_MONTH, UnitMultiplier: wrapperspb.UInt32(3),
	}
	full.Descriptors[1].HitsAddend = wrap(0)
	full.Descriptors[1].IsNegativeHits = true
	b, err := proto.Marshal(full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(append(bytes.Clone(b), b...)) // all twice: what isn't repeated is merged
	f.Add(bytes.Replace(b, []byte("é"), []byte("\xff\xfe"), 1))
	f.Add([]byte("\x12\x06\x12\x02\x08\x01\x12\x00"))             // an override in two pieces
	f.Add([]byte("\x12\x09\x12\x02\x08\x01\x12\x03\x1a\x01\x08")) // cut off
	f.Add([]byte("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x0a\x01a\x0a\x00"))
	f.Add([]byte("\x08\x01\x1a\x01a\x0b\x0c\x7b\x08\x01\x7c")) // known fields of other kinds, groups
	f.Add([]byte(strings.Repeat("\x12\x00", maxDescriptors+1)))
	codec := callout.AnyText()
	f.Fuzz(func(t *testing.T, b []byte) {
		want := new(rlsRequest)
		wantErr := codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, want)
		var got wireRequest
		_ = got.decode([]byte("\x12\x04\x0a\x02\x12\x00\x12\x08\x12\x02\x10\x01\x1a\x00\x20\x01")) // nothing of it may stay
		err := got.decode(b)
		switch {
		case wantErr != nil || !bounded(want):
			if err == nil {
				t.Errorf("read %v, though it is %v, %v", got.generated(), want, wantErr)
			}
		case err != nil:
			t.Errorf("%v, want %v", err, want)
		case !proto.Equal(got.generated(), known(want)):
			t.Errorf("got %v, want %v", got.generated(), want)
		}
	})
}
