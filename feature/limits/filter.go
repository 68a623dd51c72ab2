package limits

import (
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/local_ratelimit/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// perSecond closes those that come faster, when they have been accepted.
func perSecond(listener string, n uint32) *listenerv3.ListenerFilter {
	config := &localratelimitv3.LocalRateLimit{
		StatPrefix: listener,
		TokenBucket: &typev3.TokenBucket{
			MaxTokens:     n,
			TokensPerFill: wrapperspb.UInt32(n),
			FillInterval:  durationpb.New(time.Second),
		},
	}
	return &listenerv3.ListenerFilter{
		Name:       "envoy.filters.listener.local_ratelimit",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: envoy.Pack(config)},
	}
}

// atATime closes those that come on top, at once. Envoy counts by filter chain.
func atATime(listener string, n uint32) *listenerv3.Filter {
	config := &connectionlimitv3.ConnectionLimit{
		StatPrefix:     listener,
		MaxConnections: wrapperspb.UInt64(uint64(n)),
	}
	return &listenerv3.Filter{
		Name:       "envoy.filters.network.connection_limit",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Pack(config)},
	}
}
