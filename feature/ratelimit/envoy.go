package ratelimit

import (
	"net/http"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headertometadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	rlfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What becomes of a request when the companion can't be reached is Envoy's per filter, not per limit: so there are two.
// All limits of a route go through one of them, since they are one decision. What each Envoy counts by itself goes before,
// through a third: it costs least, and what it refuses is not counted elsewhere.
const (
	open   = envoy.LimitFilter
	closed = "legation.limit.closed" // where a limit has onError: deny
	local  = "legation.limit.local"
)

// Orders of the filters within their phase.
const (
	orderValues = iota - 2
	orderLocal
	orderCallout
)

// timeout lies above the companion's slowest answer, 1.4 times --redis-timeout (14 ms, 140 at most), and what a busy
// machine adds. Envoy's default is 20 ms.
const timeout = 200 * time.Millisecond

// Filters puts the filters into every chain; routes with limits switch them on.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{
		{Name: values, Phase: envoy.Limit, Order: orderValues, Config: &headertometadatav3.Config{}},
		{Name: local, Phase: envoy.Limit, Order: orderLocal, Config: &localv3.LocalRateLimit{StatPrefix: "local"}},
		{Name: closed, Phase: envoy.Limit, Order: orderCallout, Config: callout("closed", true)},
		{Name: open, Phase: envoy.Limit, Order: orderCallout, Config: callout("open", false)},
	}
}

// counted is a limit with how it was written.
type counted struct {
	ratelimit.Limit
	written *Limit
}

// Route configures the filters for the limits of all layers. Where the callers are known the companion is not asked for
// them: auth's callout counts them too. It is still told what is given back.
func (s *Setting) Route(c envoy.RouteContext) envoy.RouteParts {
	if first, ok := policy.Find[*Setting](c.Route.Settings); ok && first != s {
		return envoy.RouteParts{} // the outermost layer speaks for all
	}
	var limits []counted
	for set, each := range policy.Each[*Setting](c.Route.Settings) {
		for i := range each.Limits {
			limits = append(limits, counted{each.limit(set.Layer, i), &each.Limits[i]})
		}
	}
	name := c.Route.Gateway.Name + "/" + c.Route.Name
	asked := !knowsCaller(c.Route)
	filters := map[string]proto.Message{}
	if config := keep(limits, asked); config != nil {
		filters[values] = config
	}
	if config := perRoute(limits, c, name); config != nil {
		filters[local] = config
	}
	if filter, config := asks(limits, c, name, asked); config != nil {
		filters[filter] = config
	}
	return envoy.RouteParts{Route: hideBackends(limits, asked), Filters: filters}
}

// asks is what the companion is sent, and by which filter: what to count, and after the answer what to give back.
func asks(limits []counted, c envoy.RouteContext, route string, asked bool) (filter string, config *rlfilterv3.RateLimitPerRoute) {
	filter = open
	var all []*routev3.RateLimit
	for _, l := range limits {
		if asked && !l.written.perEnvoy() {
			if l.OnError == ratelimit.Deny {
				filter = closed
			}
			all = append(all, descriptor(l, route))
		}
	}
	for _, l := range limits {
		if l.written.Refund != nil {
			all = append(all, refund(l, c, route, asked))
		}
	}
	if len(all) == 0 {
		return "", nil
	}
	return filter, &rlfilterv3.RateLimitPerRoute{RateLimits: all}
}

// headersOf is the names of each set of response headers.
var headersOf = []struct {
	set   ratelimit.Headers
	names []string
}{
	{ratelimit.Draft03, []string{"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}},
	{ratelimit.Structured, []string{"ratelimit-policy", "ratelimit"}},
	{ratelimit.Legacy, []string{"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}},
}

// hideBackends takes away a backend's own headers of the names that ours have, beside which they would stand: filters only
// add. What auth's callout adds replaces them.
func hideBackends(limits []counted, asked bool) *routev3.Route {
	var sets ratelimit.Headers
	for _, l := range limits {
		switch set := l.Headers; {
		case set == ratelimit.NoHeaders || l.Shadow && !l.written.perEnvoy():
		case l.written.perEnvoy():
			sets |= ratelimit.Legacy
		case asked && set == 0:
			sets |= ratelimit.Draft03
		case asked:
			sets |= set
		}
	}
	route := new(routev3.Route)
	for _, h := range headersOf {
		if sets&h.set != 0 {
			route.ResponseHeadersToRemove = append(route.ResponseHeadersToRemove, h.names...)
		}
	}
	return route
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
func descriptor(l counted, route string) *routev3.RateLimit {
	return &routev3.RateLimit{Actions: append([]*action{constant(envoy.LimitKey, l.ID())}, entries(l, route)...)}
}
