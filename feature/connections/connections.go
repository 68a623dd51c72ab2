// Package connections shapes the connections to a service: the key connections. [envoy.Translate] calls it, and fills
// in what is not written.
package connections

import (
	_ "embed"
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key connections.
var Kind = policy.Define[Setting]("connections", policy.InService, doc).ForApp()

// Setting is what stands under connections.
type Setting struct {
	ConnectTimeout        *policy.Duration `policy:"connectTimeout" doc:"how long it may take to connect; default: 5s"`
	IdleTimeout           *policy.Duration `policy:"idleTimeout" doc:"how long a connection without requests is kept; 0s for ever; default: 50s"`
	MaxLifetime           *policy.Duration `policy:"maxLifetime" doc:"how long a connection is given new requests; default: no bound"`
	RequestsPerConnection *uint32          `policy:"requestsPerConnection" doc:"how many requests a connection is given; default: no bound"`
	ConcurrentStreams     *uint32          `policy:"concurrentStreams" doc:"requests at a time on one connection of HTTP/2; default: 100"`
	MaxResponseHeaders    *policy.Bytes    `policy:"maxResponseHeaders" doc:"the headers of an answer together, in whole KiB up to 8192KiB; default: 60KiB, 80KiB on HTTP/1.1"`
	BufferLimit           *policy.Bytes    `policy:"bufferLimit" doc:"what Envoy keeps of a connection in memory, in each direction; default: 32KiB"`
	KeepAlive             KeepAlive        `policy:"keepAlive" doc:"TCP's probes of silent connections"`
}

// KeepAlive is TCP's own probing.
type KeepAlive struct {
	Idle     *policy.Duration `policy:"idle" doc:"silence before the first probe, in whole seconds; default: 60s"`
	Interval *policy.Duration `policy:"interval" doc:"from one probe to the next, in whole seconds; default: the system's, 75s on Linux"`
	Probes   *uint32          `policy:"probes" doc:"probes without an answer that end the connection, 1 to 127; default: the system's, 9 on Linux"`
}

const (
	maxHeaders   = 8192 << 10 // Envoy's bound, in bytes
	leastBuffer  = 1 << 10
	mostBuffer   = 1 << 30
	maxKeepAlive = 32767 * time.Second // Linux's bounds
	maxProbes    = 127
)

// MaxStreamsPerConnection is the bound on one connection's requests, for the protocol to tell Envoy; 0 for the default.
func (s *Setting) MaxStreamsPerConnection() uint32 {
	return policy.Or(s.ConcurrentStreams, 0)
}

// Check bounds the numbers.
func (s *Setting) Check(c *policy.Check) {
	checkSpan(c, "connectTimeout", s.ConnectTimeout, "want at least 1ms")
	checkSpan(c, "maxLifetime", s.MaxLifetime, "want at least 1ms")
	if s.IdleTimeout != nil && *s.IdleTimeout > 0 {
		checkSpan(c, "idleTimeout", s.IdleTimeout, "want at least 1ms, or 0s for ever")
	}
	if s.RequestsPerConnection != nil && *s.RequestsPerConnection == 0 {
		c.Errorf("requestsPerConnection", "want at least 1").Hintf("leave it out for no bound")
	}
	if h := s.MaxResponseHeaders; h != nil && (*h == 0 || *h > maxHeaders || *h%1024 != 0) {
		c.Errorf("maxResponseHeaders", "want whole KiB, 1KiB to 8192KiB")
	}
	if b := s.BufferLimit; b != nil && (*b < leastBuffer || *b > mostBuffer) {
		c.Errorf("bufferLimit", "want 1KiB to 1GiB")
	}
	s.checkStreams(c)
	s.KeepAlive.check(c)
}

func checkSpan(c *policy.Check, field string, d *policy.Duration, want string) {
	if d != nil && time.Duration(*d) < time.Millisecond {
		c.Errorf(field, "%s", want)
	}
}

func (s *Setting) checkStreams(c *policy.Check) {
	if s.ConcurrentStreams == nil {
		return
	}
	if *s.ConcurrentStreams == 0 || *s.ConcurrentStreams > math.MaxInt32 {
		c.Errorf("concurrentStreams", "want 1 to %d", math.MaxInt32)
	}
	if _, maybe := envoy.SpeaksHTTP2(c.Entry().Settings); !maybe && !c.Broken("protocol") {
		c.Errorf("concurrentStreams", "only HTTP/2 has several requests on a connection, and the service speaks HTTP/1.1").
			Hintf("write protocol: http2, or leave concurrentStreams out")
	}
}

func (k *KeepAlive) check(c *policy.Check) {
	for _, f := range []struct {
		name  string
		value *policy.Duration
	}{{"keepAlive.idle", k.Idle}, {"keepAlive.interval", k.Interval}} {
		if f.value == nil {
			continue
		}
		if d := time.Duration(*f.value); d < time.Second || d > maxKeepAlive || d%time.Second != 0 {
			c.Errorf(f.name, "want whole seconds, 1s to 32767s")
		}
	}
	if k.Probes != nil && (*k.Probes == 0 || *k.Probes > maxProbes) {
		c.Errorf("keepAlive.probes", "want 1 to %d", maxProbes)
	}
}

// Cluster writes what holds for any connection, of HTTP or not.
func (s *Setting) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	m := &clusterv3.Cluster{
		ConnectTimeout: envoy.Duration(s.ConnectTimeout),
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveTime:     seconds(s.KeepAlive.Idle),
			KeepaliveInterval: seconds(s.KeepAlive.Interval),
			KeepaliveProbes:   envoy.UInt32(s.KeepAlive.Probes),
		}},
	}
	if s.BufferLimit != nil {
		m.PerConnectionBufferLimitBytes = wrapperspb.UInt32(uint32(*s.BufferLimit))
	}
	return m
}

// Upstream writes what only connections of HTTP have. How many requests one of HTTP/2 may hold is written by the
// protocol, which asks.
func (s *Setting) Upstream(envoy.ServiceContext) *httpv3.HttpProtocolOptions {
	common := &corev3.HttpProtocolOptions{
		IdleTimeout:              envoy.Duration(s.IdleTimeout),
		MaxConnectionDuration:    envoy.Duration(s.MaxLifetime),
		MaxRequestsPerConnection: envoy.UInt32(s.RequestsPerConnection),
	}
	if s.MaxResponseHeaders != nil {
		common.MaxResponseHeadersKb = wrapperspb.UInt32(uint32(*s.MaxResponseHeaders >> 10))
	}
	return &httpv3.HttpProtocolOptions{CommonHttpProtocolOptions: common}
}

// seconds keeps nil, which leaves the default, apart from 0.
func seconds(d *policy.Duration) *wrapperspb.UInt32Value {
	if d == nil {
		return nil
	}
	return wrapperspb.UInt32(uint32(time.Duration(*d) / time.Second))
}
