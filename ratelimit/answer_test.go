package ratelimit

import (
	"strings"
	"testing"
	"time"

	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/legation/legation/callout"
	"github.com/legation/legation/store"
)

// turnOf has s answer requests in one turn.
func turnOf(t testing.TB, s *Service, requests ...*rlsRequest) []*callout.Call {
	t.Helper()
	var calls []*callout.Call
	for _, q := range requests {
		m, err := proto.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, &callout.Call{Message: m})
	}
	s.Answer(calls)
	return calls
}

// answer has s answer one request.
func answer(t testing.TB, s *Service, q *rlsRequest) *rls.RateLimitResponse {
	t.Helper()
	return read(t, turnOf(t, s, q)[0])
}

func read(t testing.TB, c *callout.Call) *rls.RateLimitResponse {
	t.Helper()
	if c.Code != codes.OK {
		t.Fatalf("%s: %s", c.Code, c.Text)
	}
	r := new(rls.RateLimitResponse)
	if err := proto.Unmarshal(c.Reply, r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCallsOfATurnAreDecidedEachByItself(t *testing.T) {
	s := newService(t, Options{}, daily("a", 3), daily("b", 100))
	broken := &callout.Call{Message: []byte("\xff")}
	calls := append([]*callout.Call{broken}, turnOf(t, s)...)
	for range 5 {
		m, err := proto.Marshal(request(descriptor("limit", "a"), descriptor("limit", "b")))
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, &callout.Call{Message: m})
	}
	unknown, err := proto.Marshal(request(descriptor("limit", "b"), descriptor("limit", "gone")))
	if err != nil {
		t.Fatal(err)
	}
	calls = append(calls, &callout.Call{Message: unknown})
	s.Answer(calls)
	var got []string
	for _, c := range calls {
		if c.Code != codes.OK {
			got = append(got, c.Code.String())
			continue
		}
		got = append(got, read(t, c).GetOverallCode().String())
	}
	want := []string{"InvalidArgument", "OK", "OK", "OK", "OVER_LIMIT", "OVER_LIMIT", "Unavailable"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := answer(t, s, request(descriptor("limit", "b"))).Statuses[0].LimitRemaining; got != 96 {
		t.Errorf("%d of b are left, want 96: refused requests count nowhere", got)
	}
}

func TestHostileCalls(t *testing.T) {
	s := newService(t, Options{}, daily("a", 10, By{Kind: Consumer}), daily("b", 1<<52))
	many := make([]*rlcommon.RateLimitDescriptor, 1000)
	for i := range many {
		many[i] = descriptor("limit", "a")
	}
	big := strings.Repeat("x", 1<<20)
	addend := request(descriptor("limit", "b"))
	addend.HitsAddend = 1<<32 - 1
	beyond := descriptor("limit", "b")
	beyond.HitsAddend = wrapperspb.UInt64(1<<64 - 1)
	for name, test := range map[string]struct {
		q    *rlsRequest
		want codes.Code
	}{
		"1,000 descriptors": {request(many...), codes.InvalidArgument},
		"1,000 entries":     {request(descriptor(strings.Split(strings.Repeat("limit,a,", 500), ",")[:1000]...)), codes.InvalidArgument},
		"1 MiB key":         {request(descriptor(big, "a")), codes.InvalidArgument},
		"NUL in a key":      {request(descriptor("limit", "a", "consumer\x00", "a")), codes.InvalidArgument},
		"1 MiB domain":      {&rlsRequest{Domain: big}, codes.InvalidArgument},
		"2^64-1 hits":       {request(beyond), codes.InvalidArgument},
		"1 MiB limit":       {request(descriptor("limit", big)), codes.Unavailable},
		"1 MiB value":       {request(descriptor("limit", "a", "consumer", big)), codes.OK},
		"NUL in a value":    {request(descriptor("limit", "a", "consumer", "a\x00b")), codes.OK},
		"2^32-1 hits":       {addend, codes.OK},
		"nothing":           {&rlsRequest{}, codes.OK},
		"other domain":      {&rlsRequest{Domain: "x", Descriptors: []*rlcommon.RateLimitDescriptor{descriptor("limit", "a")}}, codes.OK},
	} {
		c := turnOf(t, s, test.q)[0]
		if c.Code != test.want || len(c.Text) > 300 {
			t.Errorf("%s: %s %.300q, want %s", name, c.Code, c.Text, test.want)
		}
	}
	c := &callout.Call{Message: marshalAnyway(t, request(descriptor("limit", "a", "consumer", "\xff\xfe")))}
	s.Answer([]*callout.Call{c})
	if got := read(t, c).Statuses[0].LimitRemaining; got != 9 {
		t.Errorf("a value that isn't UTF-8: %d left, want 9", got)
	}
}

func TestHitsAreAskedForCountedAndGivenBack(t *testing.T) {
	s := newService(t, Options{}, daily("a", 10))
	ask := func(all uint32, own int64, negative bool) (left uint32, ok bool) {
		t.Helper()
		d := descriptor("limit", "a")
		d.IsNegativeHits = negative
		if own >= 0 {
			d.HitsAddend = wrap(own)
		}
		q := request(d)
		q.HitsAddend = all
		r := answer(t, s, q)
		return r.Statuses[0].LimitRemaining, allowed(r)
	}
	for i, test := range []struct {
		all      uint32
		own      int64
		negative bool
		left     uint32
		ok       bool
	}{
		{0, -1, false, 9, true},  // 0 in the request is 1
		{4, -1, false, 5, true},  // the request's
		{4, 2, false, 3, true},   // the descriptor's goes first
		{4, 0, false, 3, true},   // asks only
		{4, -1, false, 3, false}, // more than there is
		{3, -1, false, 0, true},  // all that is left
		{3, 0, false, 0, false},  // asks: one more would not pass
		{3, -1, true, 3, true},   // gives back
		{3, 100, true, 10, true}, // never more than there were
		{3, 0, true, 10, true},   // gives nothing back: asks
		{0, -1, false, 9, true},  // and counts on
		{0, 1 << 53, true, 10, true},
	} {
		if left, ok := ask(test.all, test.own, test.negative); left != test.left || ok != test.ok {
			t.Errorf("%d: %d left, %t; want %d, %t", i, left, ok, test.left, test.ok)
		}
	}
}

// override asks for a limit with another number in its place.
func override(limit string, n uint32, unit int32, multiplier uint32) *rlsRequest {
	d := descriptor("limit", limit)
	d.Limit = &rlcommon.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: n, Unit: typev3.RateLimitUnit(unit)}
	if multiplier > 0 {
		d.Limit.UnitMultiplier = wrapperspb.UInt32(multiplier)
	}
	return request(d)
}

func TestOverridesOfDescriptors(t *testing.T) {
	limits := []Limit{daily("a", 10), {Name: "gcra", Rate: Rate{Requests: 5, Window: time.Hour, Burst: 5, Algorithm: store.GCRA}}}
	type seen struct {
		Left, Limit, Multiplier uint32
		Unit                    string
		OK                      bool
	}
	for name, test := range map[string]struct {
		q    *rlsRequest
		want seen
	}{
		"none":               {request(descriptor("limit", "a")), seen{9, 10, 0, "DAY", true}},
		"the number":         {override("a", 100, unitDay, 0), seen{99, 100, 0, "DAY", true}},
		"second":             {override("a", 100, unitSecond, 0), seen{99, 100, 0, "SECOND", true}},
		"7 minutes":          {override("a", 100, unitMinute, 7), seen{99, 100, 7, "MINUTE", true}},
		"2 hours":            {override("a", 100, unitHour, 2), seen{99, 100, 2, "HOUR", true}},
		"week":               {override("a", 100, unitWeek, 0), seen{99, 100, 0, "WEEK", true}},
		"month":              {override("a", 100, unitMonth, 1), seen{99, 100, 0, "MONTH", true}},
		"year":               {override("a", 100, unitYear, 0), seen{99, 100, 0, "YEAR", true}},
		"2 months":           {override("a", 100, unitMonth, 2), seen{99, 100, 60, "DAY", true}},
		"nothing passes":     {override("a", 0, unitHour, 0), seen{0, 0, 0, "HOUR", false}},
		"unknown unit":       {override("a", 100, 0, 0), seen{9, 10, 0, "DAY", true}},
		"later unit":         {override("a", 100, 99, 0), seen{9, 10, 0, "DAY", true}},
		"in place of a gcra": {override("gcra", 100, unitHour, 0), seen{99, 100, 0, "HOUR", true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := answer(t, newService(t, Options{}, limits...), test.q)
			st := r.Statuses[0]
			got := seen{st.LimitRemaining, st.CurrentLimit.RequestsPerUnit, st.CurrentLimit.UnitMultiplier.GetValue(), st.CurrentLimit.Unit.String(), allowed(r)}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestBucketsOfOverrides(t *testing.T) {
	s := newService(t, Options{}, daily("a", 10))
	for i, test := range []struct {
		q    *rlsRequest
		left uint32
	}{
		{override("a", 100, unitDay, 0), 99},
		{request(descriptor("limit", "a")), 8}, // where the number alone differs, both count in one bucket
		{override("a", 100, unitDay, 0), 97},
		{override("a", 0, unitDay, 0), 0},     // and what is refused counts nowhere
		{override("a", 100, unitHour, 0), 99}, // another span has its own
		{override("a", 100, unitMonth, 0), 99},
		{override("a", 100, unitHour, 0), 98},
		{request(descriptor("limit", "a")), 6},
	} {
		if got := answer(t, s, test.q).Statuses[0].LimitRemaining; got != test.left {
			t.Errorf("%d: %d left, want %d", i, got, test.left)
		}
	}
	if c := turnOf(t, s, override("a", 1, unitYear, 3))[0]; c.Code != codes.InvalidArgument {
		t.Errorf("three years: %s", c.Code)
	}
	for n := range uint32(2 * maxOverrides) {
		answer(t, s, override("a", n, unitMinute, 0))
	}
	if n := s.table.Load().limits["a"].brought; n.kept.Load() < maxOverrides || n.held() > maxOverrides {
		t.Errorf("%d overrides are held, want %d at most", n.held(), maxOverrides)
	}
}

// held is how many rates are kept.
func (o *overrides) held() (n int) {
	o.rates.Range(func(any, any) bool { n++; return true })
	return n
}

func TestDecisionsThatBlockCountNothing(t *testing.T) {
	s := newService(t, Options{}, daily("a", 10), daily("b", 10), daily("c", 1))
	blocked := descriptor("limit", "a")
	blocked.Limit = &rlcommon.RateLimitDescriptor_RateLimitOverride{Unit: typev3.RateLimitUnit_DAY}
	answer(t, s, request(descriptor("limit", "c")))
	if r := answer(t, s, request(descriptor("limit", "c", "quota", "5"), blocked)); allowed(r) || r.Statuses[0].LimitRemaining != 0 || r.Statuses[0].Quota != nil {
		t.Errorf("%v", r)
	}
	r := answer(t, s, request(descriptor("limit", "b"), blocked))
	if allowed(r) || r.Statuses[0].Code != rls.RateLimitResponse_OK || r.Statuses[0].LimitRemaining != 10 || r.Statuses[1].Code != rls.RateLimitResponse_OVER_LIMIT {
		t.Errorf("%v", r)
	}
}

func TestQuotaIsGrantedOfWhatWasCounted(t *testing.T) {
	s := newService(t, Options{}, daily("a", 10), daily("b", 100))
	ask := func(n string) (granted, left uint32, ok bool) {
		r := answer(t, s, request(descriptor("limit", "a", "quota", n), descriptor("limit", "b")))
		st := r.Statuses[0]
		if q := st.Quota; q != nil {
			if until := q.GetValidUntil().AsTime(); !strings.HasPrefix(q.Id, "a#") || until.After(time.Now().Add(st.DurationUntilReset.AsDuration())) || until.Before(time.Now()) {
				t.Errorf("%v, %s until the reset", q, st.DurationUntilReset.AsDuration())
			}
		}
		if r.Statuses[1].Quota != nil || r.Quota != nil {
			t.Errorf("nobody asked for these: %v", r)
		}
		return st.Quota.GetRequests(), st.LimitRemaining, allowed(r)
	}
	for i, test := range []struct {
		n             string
		granted, left uint32
		ok            bool
	}{
		{"", 0, 9, true},
		{"x", 0, 8, true},
		{"0", 0, 7, true},
		{"-1", 0, 6, true},
		{"3", 3, 2, true},
		{"2", 0, 1, true}, // not as many are left
		{"99999999999999999999", 0, 0, true},
		{"1", 0, 0, false},
	} {
		if granted, left, ok := ask(test.n); granted != test.granted || left != test.left || ok != test.ok {
			t.Errorf("%d: %d granted, %d left, %t; want %+v", i, granted, left, ok, test)
		}
	}
	if got := answer(t, s, request(descriptor("limit", "b"))).Statuses[0].LimitRemaining; got != 92 {
		t.Errorf("%d of b are left, want 92", got)
	}
}

func TestMetadataTellsAccessLogs(t *testing.T) {
	shadow := daily("shadow", 1)
	shadow.Shadow = true
	silent := daily("silent", 2)
	silent.Headers = NoHeaders
	s := newService(t, Options{}, daily("a", 10), silent, shadow)
	q := request(descriptor("limit", "a"), descriptor("limit", "silent"), descriptor("limit", "shadow"))
	for i, want := range []map[string]any{
		nil,
		{"limit": "a", "remaining": 8., "shadow": "shadow"},
		{"limit": "silent", "remaining": 0., "refused": true, "refusedBy": "silent", "shadow": "shadow"},
	} {
		m := answer(t, s, q).DynamicMetadata
		if want == nil {
			if m != nil {
				t.Errorf("%d: got %v, want none: nothing is to be told", i, m)
			}
			continue
		}
		got := m.AsMap()
		if reset, ok := got["reset"].(float64); !ok || reset < 0 || reset > 86400 {
			t.Errorf("%d: reset %v", i, got["reset"])
		}
		delete(got, "reset")
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%d: %s", i, d)
		}
	}
	if r := answer(t, s, request(descriptor("x", "y"))); r.DynamicMetadata != nil {
		t.Errorf("no limit: %v", r.DynamicMetadata)
	}
}
