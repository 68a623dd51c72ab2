// Package limits bounds what clients may take of a listener, connections and requests alike: the key limits.
// [envoy.Translate] calls it, and has the defaults.
package limits

import (
	_ "embed"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key limits.
var Kind = policy.Define[Setting]("limits", policy.InGateway|policy.InListener, doc)

// Setting is what stands under limits.
type Setting struct {
	Connections          *uint32          `policy:"connections" doc:"connections at a time, 1 to 50000; default: no bound of its own"`
	ConnectionsPerSecond *uint32          `policy:"connectionsPerSecond" doc:"new connections in each second, 1 to 100000; default: no bound"`
	ConnectionBuffer     *policy.Bytes    `policy:"connectionBuffer" doc:"what Envoy keeps of a connection in memory, in each direction, 4KiB to 16MiB; default: 32KiB"`
	ConnectionLifetime   *policy.Duration `policy:"connectionLifetime" doc:"how long a connection may last; default: no bound"`
	IdleTimeout          *policy.Duration `policy:"idleTimeout" doc:"how long a connection without requests, or without bytes, is kept; default: 1h"`

	RequestHeaders        *policy.Bytes    `policy:"requestHeaders" doc:"the headers of a request together, in whole KiB up to 40KiB; default: 32KiB"`
	HeaderCount           *uint32          `policy:"headerCount" doc:"the headers of a request, 10 to 1000; default: 100"`
	HeadersTimeout        *policy.Duration `policy:"headersTimeout" doc:"how long the headers of a request may take to come; default: 10s"`
	RequestTimeout        *policy.Duration `policy:"requestTimeout" doc:"how long a request as a whole may take to come; 0s for no bound; default: 5m"`
	ConcurrentStreams     *uint32          `policy:"concurrentStreams" doc:"requests at a time on one connection of HTTP/2, 1 to 10000; default: 100"`
	RequestsPerConnection *uint32          `policy:"requestsPerConnection" doc:"requests that a connection is given, 1 to 1000000; default: no bound"`
}

// The bounds that are not Envoy's own.
const (
	// maxConnections is what one Envoy takes in all, by its bootstrap.
	maxConnections = 50000
	maxPerSecond   = 100000
	leastBuffer    = 4 << 10
	mostBuffer     = 16 << 20
	// maxHeaders leaves room for the headers of a request in each of the 24 limits that a route may have: the companion
	// reads 1 MiB, and a request of which it can't count the limits would pass.
	maxHeaders     = 40 << 10
	leastCount     = 10
	mostCount      = 1000
	maxStreams     = 10000
	maxRequests    = 1000000
	leastSpan      = 100 * time.Millisecond
	mostSpan       = 24 * time.Hour
	mostLifetime   = 30 * 24 * time.Hour
	mostForHeaders = time.Hour
)

// Check bounds the numbers, and holds those of requests to listeners that know requests.
func (s *Setting) Check(c *policy.Check) {
	if *s == (Setting{}) {
		c.Errorf("", "says nothing").Hintf("write limits: {connections: 10000}")
	}
	number(c, "connections", s.Connections, 1, maxConnections)
	number(c, "connectionsPerSecond", s.ConnectionsPerSecond, 1, maxPerSecond)
	number(c, "headerCount", s.HeaderCount, leastCount, mostCount)
	number(c, "concurrentStreams", s.ConcurrentStreams, 1, maxStreams)
	number(c, "requestsPerConnection", s.RequestsPerConnection, 1, maxRequests)
	if b := s.ConnectionBuffer; b != nil && (*b < leastBuffer || *b > mostBuffer) {
		c.Errorf("connectionBuffer", "want 4KiB to 16MiB")
	}
	if h := s.RequestHeaders; h != nil && (*h == 0 || *h > maxHeaders || *h%1024 != 0) {
		c.Errorf("requestHeaders", "want whole KiB, 1KiB to 40KiB")
	}
	span(c, "connectionLifetime", s.ConnectionLifetime, mostLifetime)
	span(c, "idleTimeout", s.IdleTimeout, mostSpan)
	span(c, "headersTimeout", s.HeadersTimeout, mostForHeaders)
	if s.RequestTimeout != nil && *s.RequestTimeout > 0 {
		span(c, "requestTimeout", s.RequestTimeout, mostSpan)
	}
	s.checkProtocol(c)
}

func number(c *policy.Check, field string, n *uint32, least, most uint32) {
	if n != nil && (*n < least || *n > most) {
		c.Errorf(field, "want %d to %d, got %d", least, most, *n)
	}
}

func span(c *policy.Check, field string, d *policy.Duration, most time.Duration) {
	if d != nil && (time.Duration(*d) < leastSpan || time.Duration(*d) > most) {
		c.Errorf(field, "want %s to %s, got %s", policy.Duration(leastSpan), policy.Duration(most), d)
	}
}

// checkProtocol refuses bounds on requests where there are none.
func (s *Setting) checkProtocol(c *policy.Check) {
	listeners := c.Listeners()
	if len(listeners) == 0 || slices.ContainsFunc(listeners, (*policy.Listener).HTTP) {
		return
	}
	for _, f := range []struct {
		name    string
		written bool
	}{
		{"requestHeaders", s.RequestHeaders != nil},
		{"headerCount", s.HeaderCount != nil},
		{"headersTimeout", s.HeadersTimeout != nil},
		{"requestTimeout", s.RequestTimeout != nil},
		{"concurrentStreams", s.ConcurrentStreams != nil},
		{"requestsPerConnection", s.RequestsPerConnection != nil},
	} {
		if f.written {
			c.Errorf(f.name, "bounds requests, and a listener of %s knows connections only", listeners[0].Protocol).Hintf("leave it out")
		}
	}
}

// nearest tells whether what the setting says by the field holds for the listener: a gateway's does unless the listener
// says so itself.
func (s *Setting) nearest(c envoy.ListenerContext, written func(*Setting) bool) bool {
	inner, ok := policy.Find[*Setting](c.Listener.Settings)
	return written(s) && (!ok || inner == s || !written(inner))
}

// HTTP bounds requests, and the connections that they come on.
func (s *Setting) HTTP(envoy.ListenerContext) *hcmv3.HttpConnectionManager {
	manager := &hcmv3.HttpConnectionManager{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:              envoy.Duration(s.IdleTimeout),
			MaxConnectionDuration:    envoy.Duration(s.ConnectionLifetime),
			MaxHeadersCount:          envoy.UInt32(s.HeaderCount),
			MaxRequestsPerConnection: envoy.UInt32(s.RequestsPerConnection),
		},
		Http2ProtocolOptions:  &corev3.Http2ProtocolOptions{MaxConcurrentStreams: envoy.UInt32(s.ConcurrentStreams)},
		RequestHeadersTimeout: envoy.Duration(s.HeadersTimeout),
		RequestTimeout:        envoy.Duration(s.RequestTimeout),
	}
	if s.RequestHeaders != nil {
		manager.MaxRequestHeadersKb = wrapperspb.UInt32(uint32(*s.RequestHeaders >> 10))
	}
	return manager
}

// TCP bounds the connections of a listener that knows nothing else; what a route says is none of ours.
func (s *Setting) TCP(envoy.TCPContext) *tcpproxyv3.TcpProxy {
	return &tcpproxyv3.TcpProxy{
		IdleTimeout:                     envoy.Duration(s.IdleTimeout),
		MaxDownstreamConnectionDuration: envoy.Duration(s.ConnectionLifetime),
	}
}

// Listener bounds the memory of a connection, and how fast new ones come.
func (s *Setting) Listener(c envoy.ListenerContext) *listenerv3.Listener {
	l := new(listenerv3.Listener)
	if s.ConnectionBuffer != nil {
		l.PerConnectionBufferLimitBytes = wrapperspb.UInt32(uint32(*s.ConnectionBuffer))
	}
	if s.nearest(c, func(s *Setting) bool { return s.ConnectionsPerSecond != nil }) {
		l.ListenerFilters = []*listenerv3.ListenerFilter{perSecond(c.Listener.Name, *s.ConnectionsPerSecond)}
	}
	return l
}

// Connection bounds how many connections there are. It comes before anything else is done for one, TLS too.
func (s *Setting) Connection(c envoy.ListenerContext) []*listenerv3.Filter {
	if !s.nearest(c, func(s *Setting) bool { return s.Connections != nil }) {
		return nil
	}
	return []*listenerv3.Filter{atATime(c.Listener.Name, *s.Connections)}
}
