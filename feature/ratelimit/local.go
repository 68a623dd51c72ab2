package ratelimit

import (
	"math"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/ratelimit"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// maxBuckets is how many values Envoy keeps a bucket for, of each limit of a route. Past it the bucket that was asked for the
// longest ago is dropped, and its value begins anew with a full one. A bucket takes about 500 bytes of memory.
const maxBuckets = 10_000

// perRoute is the limits that Envoy counts by itself, nil for none. The buckets are shared by its threads and connections.
func perRoute(limits []counted, c envoy.RouteContext, route string) *localv3.LocalRateLimit {
	config := &localv3.LocalRateLimit{
		StatPrefix: "local",
		// Envoy wants a bucket for what no descriptor matches; there is nothing of that kind.
		TokenBucket:                     boundless(),
		AlwaysConsumeDefaultTokenBucket: wrapperspb.Bool(false),
		FilterEnabled:                   always(),
		FilterEnforced:                  always(),
		MaxDynamicDescriptors:           wrapperspb.UInt32(maxBuckets),
		EnableRetryAfterHeader:          true,
		RateLimitedAsResourceExhausted:  true, // gRPC clients retry UNAVAILABLE at once
	}
	for _, l := range limits {
		if l.written.perEnvoy() {
			config.RateLimits = append(config.RateLimits, localEntries(l, c, route))
			config.Descriptors = append(config.Descriptors, buckets(l.Limit)...)
		}
	}
	if config.Descriptors == nil {
		return nil
	}
	return config
}

// localEntries is what Envoy looks a bucket up by. Addresses are masked here: nobody else does.
func localEntries(l counted, c envoy.RouteContext, route string) *routev3.RateLimit {
	d := &routev3.RateLimit{
		Actions:          []*action{constant(envoy.LimitKey, l.Name)},
		XRatelimitOption: routev3.RateLimit_DRAFT_VERSION_03,
	}
	if inPlaceOf(l, c) {
		d.Actions[0] = envoy.ExpressionEntry(envoy.LimitKey, unlessPlanned(strconv.Quote(l.Name), c.Model), false)
	}
	if l.Headers == ratelimit.NoHeaders {
		d.XRatelimitOption = routev3.RateLimit_OFF
	}
	for _, by := range l.By {
		if by.Kind == ratelimit.IP {
			d.Actions = append(d.Actions, maskedIP(by))
			continue
		}
		d.Actions = append(d.Actions, entry(by, route))
	}
	return d
}

// maskedKey is the only key that Envoy has for masked addresses.
const maskedKey = "masked_remote_address"

func maskedIP(by ratelimit.By) *action {
	return &action{ActionSpecifier: &routev3.RateLimit_Action_MaskedRemoteAddress_{
		MaskedRemoteAddress: &routev3.RateLimit_Action_MaskedRemoteAddress{
			V4PrefixMaskLen: wrapperspb.UInt32(32),
			V6PrefixMaskLen: wrapperspb.UInt32(uint32(prefixBits(by))),
		},
	}}
}

// buckets are those of a limit: one for each value that has a rate of its own, and one made for each other value. Entries
// without a value stand for any; what a request has no value of makes no entry, so that it needs descriptors without.
func buckets(l ratelimit.Limit) []*commonv3.LocalRateLimitDescriptor {
	var all []*commonv3.LocalRateLimitDescriptor
	bucket := func(b *typev3.TokenBucket, entries ...*commonv3.RateLimitDescriptor_Entry) {
		named := append([]*commonv3.RateLimitDescriptor_Entry{{Key: envoy.LimitKey, Value: l.Name}}, entries...)
		all = append(all, &commonv3.LocalRateLimitDescriptor{Entries: named, TokenBucket: b, ShadowMode: l.Shadow})
	}
	for _, o := range l.Overrides {
		bucket(tokens(o.Rate), &commonv3.RateLimitDescriptor_Entry{Key: l.By[0].Entry(), Value: o.Value})
	}
	for _, value := range l.Exempt {
		bucket(boundless(), &commonv3.RateLimitDescriptor_Entry{Key: l.By[0].Entry(), Value: value})
	}
	for _, entries := range present(l.By) {
		bucket(tokens(l.Rate), entries...)
	}
	return all
}

// present lists the entries that descriptors may have, from all of them down to those that none may lack.
func present(by []ratelimit.By) [][]*commonv3.RateLimitDescriptor_Entry {
	if len(by) == 0 {
		return [][]*commonv3.RateLimitDescriptor_Entry{nil}
	}
	key := by[0].Entry()
	if by[0].Kind == ratelimit.IP {
		key = maskedKey
	}
	rest := present(by[1:])
	var all [][]*commonv3.RateLimitDescriptor_Entry
	for _, entries := range rest {
		all = append(all, append([]*commonv3.RateLimitDescriptor_Entry{{Key: key}}, entries...))
	}
	if optional(by[0]) {
		all = append(all, rest...)
	}
	return all
}

// tokens is a bucket that fills evenly. Without a burst it holds the whole rate.
func tokens(r ratelimit.Rate) *typev3.TokenBucket {
	if r.Unlimited {
		return boundless()
	}
	size := r.Burst
	if size == 0 {
		size = r.Requests
	}
	return &typev3.TokenBucket{
		MaxTokens:     uint32(size),
		TokensPerFill: wrapperspb.UInt32(uint32(r.Requests)),
		FillInterval:  durationpb.New(r.Window),
	}
}

func boundless() *typev3.TokenBucket {
	return &typev3.TokenBucket{
		MaxTokens:     math.MaxUint32,
		TokensPerFill: wrapperspb.UInt32(math.MaxUint32),
		FillInterval:  durationpb.New(time.Second),
	}
}

func always() *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{
		DefaultValue: &typev3.FractionalPercent{Numerator: 100, Denominator: typev3.FractionalPercent_HUNDRED},
	}
}
