package ratelimit

import (
	"net/http"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rlfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What becomes of a request when the companion can't be reached is Envoy's per filter, not per limit: so there are two.
// All limits of a route go through one of them, since they are one decision.
const (
	open   = "legation.limit.open"
	closed = "legation.limit.closed" // where a limit has onError: deny
)

// timeout lies above the companion's slowest answer, 1.4 times --redis-timeout (14 ms, 140 at most), and what a busy
// machine adds. Envoy's default is 20 ms.
const timeout = 200 * time.Millisecond

// Filters puts both filters into every chain; routes with limits switch them on.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{
		{Name: closed, Phase: envoy.Limit, Config: callout("closed", true)},
		{Name: open, Phase: envoy.Limit, Config: callout("open", false)},
	}
}

// Route sends the descriptors of the limits of all layers. Where the callers are known it sends none: auth's callout
// counts these limits too. A backend's own RateLimit-* headers would stand beside ours, which the filter only adds.
func (s *Setting) Route(c envoy.RouteContext) envoy.RouteParts {
	if knowsCaller(c.Route) {
		return envoy.RouteParts{}
	}
	if first, ok := policy.Find[*Setting](c.Route.Settings); ok && first != s {
		return envoy.RouteParts{} // the outermost layer speaks for all
	}
	var limits []*routev3.RateLimit
	name := open
	for set, each := range policy.Each[*Setting](c.Route.Settings) {
		for i := range each.Limits {
			l := each.limit(set.Layer, i)
			if l.OnError == ratelimit.Deny {
				name = closed
			}
			limits = append(limits, descriptor(l))
		}
	}
	return envoy.RouteParts{
		Route:   &routev3.Route{ResponseHeadersToRemove: []string{"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}},
		Filters: map[string]proto.Message{name: &rlfilterv3.RateLimitPerRoute{RateLimits: limits}},
	}
}

func callout(name string, deny bool) *rlfilterv3.RateLimit {
	return &rlfilterv3.RateLimit{
		Domain:           ratelimit.OwnDomain,
		StatPrefix:       name,
		Timeout:          durationpb.New(timeout),
		FailureModeDeny:  deny,
		RateLimitService: service(),
		// Tells an outage from a bug, which by default are both 500.
		StatusOnError: &typev3.HttpStatus{Code: typev3.StatusCode(http.StatusServiceUnavailable)},
		// gRPC clients retry UNAVAILABLE at once.
		RateLimitedAsResourceExhausted: true,
		DisableXEnvoyRatelimitedHeader: true,
	}
}

func service() *rlconfigv3.RateLimitServiceConfig {
	return &rlconfigv3.RateLimitServiceConfig{
		TransportApiVersion: corev3.ApiVersion_V3,
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: envoy.Companion},
			},
			Timeout: durationpb.New(timeout),
		},
	}
}

// descriptor is the entries that the companion reads: the limit's ID, then one for each part of the value.
func descriptor(l ratelimit.Limit) *routev3.RateLimit {
	d := &routev3.RateLimit{Actions: []*routev3.RateLimit_Action{limitID(l.ID())}}
	for _, by := range l.By {
		switch by.Kind {
		case ratelimit.IP:
			d.Actions = append(d.Actions, clientIP(by.Entry()))
		case ratelimit.Header:
			d.Actions = append(d.Actions, header(by.Entry(), by.Name))
		}
	}
	return d
}

func limitID(id string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
		GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: "limit", DescriptorValue: id},
	}}
}

// clientIP is the client's address, behind trusted proxies the one that they name. The matcher's input is taken
// because its name is the entry's key: remote_address and masked_remote_address have fixed keys, and the masked value
// ("10.0.0.1/32") is not what a limit that auth counts has. The companion masks IPv6 addresses to /64.
func clientIP(key string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_Extension{
		Extension: envoy.Extension(key, &networkv3.SourceIPInput{}),
	}}
}

// header counts requests without the header in one bucket of their own: by default Envoy would not count them at all.
func header(key, name string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{
		RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: name, DescriptorKey: key, SkipIfAbsent: true},
	}}
}
