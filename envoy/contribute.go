package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Phase is where in the chain a filter stands. Filters of one phase stand by their Order, then by their names.
type Phase uint8

// The phases, in the order that a request goes through them. The router comes after all.
const (
	Guard     Phase = iota // refuses what nothing may see
	Preflight              // answers CORS preflights, before auth and limits
	Identity               // ext_authz
	Limit                  // rate limits
	Transform              // what changes requests and answers
)

// Filter is an HTTP filter that stands in the chain of every listener from the start, so that its first use changes a
// route and not the listener (which would drain it).
type Filter struct {
	Name    string // unique in the chain, "legation.cors"
	Phase   Phase
	Order   int // within the phase; 0 but where it counts
	Config  proto.Message
	Enabled bool // acts on all routes that do not switch it off; else only on those that configure it
}

// ListenerContext is what a listener's contributors see. What they say has to come of the gateway and the model's other
// gateways, auth entries and plans.
type ListenerContext struct {
	Model    *policy.Model
	Gateway  *policy.Gateway
	Listener *policy.Listener
}

// RouteContext is what a route's contributors see. What they say has to come of the route, of what it leads to, and of the
// model's gateways, auth entries and plans: it is kept for as long as these are the same.
type RouteContext struct {
	Model *policy.Model
	Route *policy.BoundRoute
}

// ServiceContext is what a service's contributors see. What they say holds for all gateways that send to it, and for as
// long as the service, the gateways, the auth entries and the plans are the same.
type ServiceContext struct {
	Model   *policy.Model
	Service *policy.Service
}

// FilterContributor is a kind of setting with filters of its own. It is asked once for each listener, on the zero
// setting of the kind, whether or not any policy uses it.
type FilterContributor interface {
	Filters(c ListenerContext) []Filter
}

// HTTPContributor is a setting of a gateway or a listener that changes the connection manager; what it returns is
// merged into ours. Its early header mutations come after the removal of what clients must not send.
type HTTPContributor interface {
	HTTP(c ListenerContext) *hcmv3.HttpConnectionManager
}

// ListenerContributor is a setting of a gateway or a listener that changes the listener around its filter chains; what
// it returns is merged into ours, listener filters appended.
type ListenerContributor interface {
	Listener(c ListenerContext) *listenerv3.Listener
}

// ChainContributor is a setting of a gateway or a listener that bounds which connections are taken; what it returns is
// merged into the match of every filter chain. Those that no chain matches are closed, before any TLS.
type ChainContributor interface {
	FilterChainMatch(c ListenerContext) *listenerv3.FilterChainMatch
}

// ConnectionContributor is a setting of a gateway or a listener with network filters, which stand in every filter chain
// before the connection manager or the TCP proxy.
type ConnectionContributor interface {
	Connection(c ListenerContext) []*listenerv3.Filter
}

// TLSContributor is a setting of a gateway or a listener that changes how TLS ends there; what it returns is merged
// into the context of every certificate.
type TLSContributor interface {
	DownstreamTLS(c ListenerContext) *tlsv3.DownstreamTlsContext
}

// TCPContributor is a setting of a gateway or a listener (c.Route is nil), or of a route of such listeners, that changes
// the TCP proxy; what it returns is merged into ours.
type TCPContributor interface {
	TCP(c TCPContext) *tcpproxyv3.TcpProxy
}

// TCPContext is what the contributors of a TCP proxy see.
type TCPContext struct {
	ListenerContext
	Route *policy.BoundRoute
}

// ServiceUser is a setting of a gateway, a listener or a route that sends to services otherwise than by backends, such
// as a collector of traces: their clusters are served, too.
type ServiceUser interface {
	UsesServices() []string
}

// RouteContributor is a setting that changes how a route is served: one of the route's own merged settings, or a
// setting of a service that the route sends to.
type RouteContributor interface {
	Route(c RouteContext) RouteParts
}

// Absent is a kind of setting that also has something to say about the routes that do not have it. It is asked on the
// zero setting of the kind.
type Absent interface {
	RouteWithout(c RouteContext) RouteParts
}

// RouteParts is what one setting adds to a route.
type RouteParts struct {
	// Route is merged into the route, lists appended. No two features set the same field. An action is given as
	// Route_Route{...}; it is left out where the route has another kind of action.
	Route *routev3.Route
	// Filters switches filters by name: their configuration for this route, or [On] or [Off].
	Filters map[string]proto.Message
	// Before is routes that stand just before this one and match the same hosts and path: their Match gives further
	// conditions (headers) in place of the route's methods, headers and query. They get the same Filters.
	Before []*routev3.Route
}

// ClusterContributor is a setting of a service; what it returns is merged into the service's cluster.
type ClusterContributor interface {
	Cluster(c ServiceContext) *clusterv3.Cluster
}

// EndpointContributor is a setting of a service with something to say about how load spreads over its endpoints; what it
// returns is merged into the assignment that lists them.
type EndpointContributor interface {
	Endpoints(c ServiceContext) *endpointv3.ClusterLoadAssignment
}

// UpstreamContributor is a setting of a service that changes how Envoy speaks HTTP to it; what it returns is merged into
// ours. Without an explicit_http_config or the like it is HTTP/1.1; http_filters need no codec at their end.
type UpstreamContributor interface {
	Upstream(c ServiceContext) *httpv3.HttpProtocolOptions
}

// Verifier is a setting of an auth entry by which Envoy itself may know callers, before the companion is asked: filters
// that let every request pass, and mark those whose callers they know. A route that switches them on does not ask the
// companion about these.
type Verifier interface {
	// VerifyFilters is what switches the filters on for a route, by their names; none where the companion alone is to
	// know the entry's callers.
	VerifyFilters(entry string) map[string]proto.Message
}

// The filters of a [Verifier] mark a request by this text, under this key of the dynamic metadata.
const (
	VerifiedNamespace = "envoy.filters.http.rbac"
	VerifiedKey       = "legation_verified_shadow_engine_result"
	Verified          = "allowed"
)

// OutsideUser is a setting of an auth entry by which Envoy itself asks hosts that are no services of the policy.
type OutsideUser interface {
	Outside() []Outside
}

// Stripper is a setting that puts request headers there itself, so that clients must not: they are removed before routing.
type Stripper interface {
	StripHeaders() []string
}

// On enables a filter that has no configuration per route; Off disables one that stands enabled. The configuration of
// On is there and empty: without one Envoy refuses the message, and one of any type it would look up by the filter.
var (
	On  proto.Message = &routev3.FilterConfig{Config: &anypb.Any{}}
	Off proto.Message = &routev3.FilterConfig{Disabled: true}
)
