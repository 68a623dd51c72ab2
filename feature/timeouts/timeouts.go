// Package timeouts bounds how long a request or a connection may take: the key timeouts. [envoy.Translate] calls it.
package timeouts

import (
	_ "embed"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

//go:embed doc.md
var doc string

// Kind is the key timeouts.
var Kind = policy.Define[Setting]("timeouts", policy.Layers, doc).Layer4()

// Setting is what stands under timeouts. A timeout of 0s is none.
type Setting struct {
	Request        *policy.Duration `policy:"request" doc:"the whole answer, all tries together; 0s for no bound; default: 15s, none beside stream"`
	BackendRequest *policy.Duration `policy:"backendRequest" doc:"one try; not more than request; 0s and default: no bound of its own"`
	Idle           *policy.Duration `policy:"idle" doc:"silence on a request or its answer; 0s for no bound; default: 5m; of a connection of TCP or TLS: 1h"`
	Stream         *policy.Duration `policy:"stream" doc:"a request and its answer from the first byte to the last, in place of request; of a connection of TCP or TLS its whole life; 0s and default: no bound"`
}

// defaultRequest is Envoy's own.
const defaultRequest = 15 * time.Second

// Check refuses what Envoy would take for no timeout, and holds the request timeouts against each other.
func (s *Setting) Check(c *policy.Check) {
	checkSpan(c, "request", s.Request)
	checkSpan(c, "backendRequest", s.BackendRequest)
	checkSpan(c, "idle", s.Idle)
	checkSpan(c, "stream", s.Stream)
	switch {
	case c.Layer4():
		s.checkLayer4(c)
	case bounds(s.Stream):
		s.checkStream(c)
	default:
		s.checkOrder(c)
	}
}

// checkLayer4 refuses what the route itself says of requests. A layer around it may mean other routes.
func (s *Setting) checkLayer4(c *policy.Check) {
	if c.Route() != nil {
		return
	}
	const hint = "write idle or stream, for the connection"
	if s.Request != nil {
		c.Errorf("request", "the route's listeners know no requests").Hintf(hint)
	}
	if s.BackendRequest != nil {
		c.Errorf("backendRequest", "the route's listeners know no requests").Hintf(hint)
	}
}

// checkStream refuses request beside stream: Envoy would pass over it.
func (s *Setting) checkStream(c *policy.Check) {
	if bounds(s.Request) {
		c.Errorf("stream", "Envoy can't bound request, which is %s, beside stream", s.Request).
			Hintf("write request: 0s beside stream, or take stream away with stream: off")
	}
	if bounds(s.BackendRequest) && *s.BackendRequest > *s.Stream {
		c.Errorf("backendRequest", "one try may take %s, but the whole stream only %s", s.BackendRequest, s.Stream).
			Hintf("lower backendRequest or raise stream")
	}
}

func bounds(d *policy.Duration) bool { return d != nil && *d > 0 }

// checkSpan bounds a timeout to what Envoy counts: whole milliseconds. It would take less than one for 0, no timeout.
func checkSpan(c *policy.Check, field string, d *policy.Duration) {
	if d != nil && *d > 0 && time.Duration(*d) < time.Millisecond {
		c.Errorf(field, "want at least 1ms, or 0s for no bound")
	}
}

func (s *Setting) checkOrder(c *policy.Check) {
	if !bounds(s.BackendRequest) {
		return
	}
	try := time.Duration(*s.BackendRequest)
	switch {
	case s.Request != nil && *s.Request > 0 && try > time.Duration(*s.Request):
		c.Errorf("backendRequest", "one try may take %s, but the whole request only %s", s.BackendRequest, s.Request).
			Hintf("lower backendRequest or raise request")
	case s.Request == nil && c.Route() != nil && try > defaultRequest:
		c.Errorf("backendRequest", "one try may take %s, but the whole request only %s, the default", s.BackendRequest, policy.Duration(defaultRequest)).
			Hintf("write request, too; 0s for no bound")
	}
}

// Route writes the timeouts into the route's action. The bound of one try stands in Envoy's retry policy, where it
// holds without retries too; the key retry adds its part to the same message.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	action := &routev3.RouteAction{Timeout: envoy.Duration(s.Request), IdleTimeout: envoy.Duration(s.Idle)}
	if bounds(s.Stream) {
		// Envoy passes over the timeout beside it, be it the default: so none is written.
		action.Timeout = durationpb.New(0)
		action.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: envoy.Duration(s.Stream)}
	}
	if bounds(s.BackendRequest) {
		action.RetryPolicy = &routev3.RetryPolicy{PerTryTimeout: envoy.Duration(s.BackendRequest)}
	}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}

// TCP writes what bounds a connection into the TCP proxy.
func (s *Setting) TCP(envoy.TCPContext) *tcpproxyv3.TcpProxy {
	proxy := &tcpproxyv3.TcpProxy{IdleTimeout: envoy.Duration(s.Idle)}
	if bounds(s.Stream) {
		proxy.MaxDownstreamConnectionDuration = envoy.Duration(s.Stream)
	}
	return proxy
}
