package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/legation/legation/store"
)

// OwnDomain is what our Envoys ask with.
const OwnDomain = "legation"

// Bounds of what those who configure an Envoy choose; ours stay far below. Values, which clients choose, have none: a
// request that is refused as invalid passes through a filter that fails open.
const (
	maxDescriptors = 64
	maxEntries     = 32
	maxName        = 4 << 10 // bytes of the domain or an entry's key
)

// server is the gRPC door.
type server struct {
	rls.UnimplementedRateLimitServiceServer
	s *Service
}

// Register serves envoy.service.ratelimit.v3 on r.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	rls.RegisterRateLimitServiceServer(r, &server{s: s})
}

// ShouldRateLimit answers one request.
func (v *server) ShouldRateLimit(ctx context.Context, q *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	start := time.Now()
	defer func() { v.s.metrics.seconds.Observe(time.Since(start).Seconds()) }()
	if err := check(q); err != nil {
		v.s.metrics.invalid.Inc()
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	d, places, err := v.s.read(q)
	if err != nil {
		return nil, err
	}
	switch err := v.s.decide(ctx, d); {
	case errors.Is(err, store.ErrInvalid):
		v.s.metrics.invalid.Inc()
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return response(q, d, places), nil
}

// read finds the limits that q asks for; places tells for each of them which descriptor asked.
func (s *Service) read(q *rls.RateLimitRequest) (d *decision, places []int, err error) {
	n := len(q.GetDescriptors())
	d = &decision{asks: make([]ask, 0, n), hits: make([]store.Hit, 0, n)}
	if q.GetDomain() != OwnDomain {
		s.metrics.foreign.Inc()
		return d, nil, nil
	}
	t := s.table.Load()
	places = make([]int, 0, n)
	for i, descriptor := range q.GetDescriptors() {
		entries := descriptor.GetEntries()
		id, ok := limitOf(entries)
		if !ok {
			s.metrics.foreign.Inc()
			continue
		}
		l := t.limits[id]
		if l == nil {
			s.metrics.unknown.Inc()
			return nil, nil, status.Errorf(codes.Unavailable, "limit %.100q isn't loaded here", id)
		}
		d.add(l, l.descriptorKey(entries), addend(q, descriptor))
		places = append(places, i)
	}
	return d, places, nil
}

// limitOf is the ID or name of the limit that a descriptor asks for.
func limitOf(entries []*rlcommon.RateLimitDescriptor_Entry) (id string, ok bool) {
	for _, e := range entries {
		if e.GetKey() == "limit" {
			return e.GetValue(), true
		}
	}
	return "", false
}

// descriptorKey is the bucket's key for the values that the entries carry.
func (l *limit) descriptorKey(entries []*rlcommon.RateLimitDescriptor_Entry) string {
	var room [8]string
	parts := append(room[:0], l.Name)
	for i, b := range l.By {
		value, ok := entryValue(entries, l.entries[i])
		if b.Kind == IP && !ok {
			value = envoyAddress(entries)
		}
		parts = append(parts, b.keyPart(value))
	}
	return store.Key(parts...)
}

func entryValue(entries []*rlcommon.RateLimitDescriptor_Entry, key string) (value string, ok bool) {
	for _, e := range entries {
		if e.GetKey() == key {
			return e.GetValue(), true
		}
	}
	return "", false
}

// envoyAddress is the address by the names that Envoy's own actions have for it.
func envoyAddress(entries []*rlcommon.RateLimitDescriptor_Entry) string {
	if value, ok := entryValue(entries, "remote_address"); ok {
		return value
	}
	value, _ := entryValue(entries, "masked_remote_address")
	address, _, _ := strings.Cut(value, "/") // "10.0.0.1/32"
	return address
}

func addend(q *rls.RateLimitRequest, d *rlcommon.RateLimitDescriptor) int64 {
	if d.GetHitsAddend() != nil {
		return int64(d.GetHitsAddend().GetValue()) // check refuses what is beyond 2^53
	}
	return int64(max(1, q.GetHitsAddend()))
}

// check holds a request against the bounds.
func check(q *rls.RateLimitRequest) error {
	if len(q.GetDescriptors()) > maxDescriptors {
		return fmt.Errorf("%d descriptors, at most %d", len(q.GetDescriptors()), maxDescriptors)
	}
	if err := checkName("domain", q.GetDomain()); err != nil {
		return err
	}
	for i, d := range q.GetDescriptors() {
		if len(d.GetEntries()) > maxEntries {
			return fmt.Errorf("descriptor %d: %d entries, at most %d", i, len(d.GetEntries()), maxEntries)
		}
		if d.GetHitsAddend().GetValue() > uint64(store.MaxCount) {
			return fmt.Errorf("descriptor %d: hits_addend is beyond 2^53", i)
		}
		if d.GetIsNegativeHits() {
			return fmt.Errorf("descriptor %d: negative hits aren't counted here", i)
		}
		for _, e := range d.GetEntries() {
			if err := checkName("key", e.GetKey()); err != nil {
				return fmt.Errorf("descriptor %d: %w", i, err)
			}
		}
	}
	return nil
}

func checkName(what, s string) error {
	switch {
	case len(s) > maxName:
		return fmt.Errorf("%s of %d bytes, at most %d", what, len(s), maxName)
	case strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("%s holds a NUL", what)
	}
	return nil
}

// response tells the decision; descriptors without a limit of ours are OK.
func response(q *rls.RateLimitRequest, d *decision, places []int) *rls.RateLimitResponse {
	r := &rls.RateLimitResponse{OverallCode: rls.RateLimitResponse_OK}
	if d.refused != nil {
		r.OverallCode = rls.RateLimitResponse_OVER_LIMIT
	}
	statuses := make([]rls.RateLimitResponse_DescriptorStatus, len(q.GetDescriptors()))
	r.Statuses = make([]*rls.RateLimitResponse_DescriptorStatus, len(statuses))
	for i := range statuses {
		statuses[i].Code = rls.RateLimitResponse_OK
		r.Statuses[i] = &statuses[i]
	}
	for i := range d.asks {
		a, st := &d.asks[i], &statuses[places[i]]
		st.CurrentLimit = a.limit.proto
		if !a.counted {
			continue
		}
		if !a.outcome.Allowed {
			st.Code = rls.RateLimitResponse_OVER_LIMIT
		}
		st.LimitRemaining = clamp(a.outcome.Remaining)
		st.DurationUntilReset = durationpb.New(a.outcome.Reset)
	}
	headers := d.headers()
	values := make([]corev3.HeaderValue, len(headers))
	r.ResponseHeadersToAdd = make([]*corev3.HeaderValue, len(headers))
	for i, h := range headers {
		values[i].Key, values[i].Value = h.Name, h.Value
		r.ResponseHeadersToAdd[i] = &values[i]
	}
	return r
}
