// Package healthcheck asks the endpoints of a service whether they are well: the key healthCheck. [envoy.Translate]
// calls it.
package healthcheck

import (
	_ "embed"
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key healthCheck.
var Kind = policy.Define[Setting]("healthCheck", policy.InService, doc)

// Setting is what stands under healthCheck: one of path, grpc and tcp, and how often to ask.
type Setting struct {
	Path             string     `policy:"path" doc:"asks over HTTP: the path"`
	Method           *Method    `policy:"method" doc:"the method that path is asked with; default: GET"`
	ExpectedStatuses []Statuses `policy:"expectedStatuses" doc:"the good answers to path: codes and ranges such as 200-299; default: 200"`
	GRPC             *GRPC      `policy:"grpc" doc:"asks gRPC's health service: true, or {service: x}"`
	TCP              *TCP       `policy:"tcp" doc:"connects only: true; or {send: x, receive: y}"`
	Hostname         string     `policy:"hostname" doc:"the host that path or grpc is asked for; default: the service's dns name, else its name"`

	Interval           *policy.Duration `policy:"interval" doc:"from one check to the next; default: 10s"`
	UnhealthyInterval  *policy.Duration `policy:"unhealthyInterval" doc:"the same for an endpoint that is out; default: interval"`
	Jitter             *policy.Percent  `policy:"jitter" doc:"the share of the interval that is added to it at random, at most; default: 10%"`
	InitialJitter      *policy.Duration `policy:"initialJitter" doc:"a random wait before the first check, at most; default: 0s"`
	Timeout            *policy.Duration `policy:"timeout" doc:"how long an answer may take, not more than interval; default: 2s"`
	HealthyThreshold   *uint32          `policy:"healthyThreshold" doc:"good answers in a row that bring an endpoint back; default: 2"`
	UnhealthyThreshold *uint32          `policy:"unhealthyThreshold" doc:"failures in a row that take an endpoint out; default: 3"`
}

const (
	defaultInterval  = 10 * time.Second
	leastInterval    = 100 * time.Millisecond
	defaultTimeout   = 2 * time.Second
	defaultHealthy   = 2
	defaultUnhealthy = 3
	// mostFirst bounds how long a first check may take to begin, and to end: Envoy takes a new service into use, and
	// begins to listen at its start, once each endpoint was asked. Changes of other services wait meanwhile.
	mostFirst = time.Minute
	// defaultJitter keeps many Envoys from asking at the same moment. In percent of the interval.
	defaultJitter = 10
)

// Check wants one way to ask, and bounds the numbers.
func (s *Setting) Check(c *policy.Check) {
	s.checkWay(c)
	checkInterval(c, "interval", s.Interval)
	checkInterval(c, "unhealthyInterval", s.UnhealthyInterval)
	if s.Jitter != nil && float64(*s.Jitter) != math.Trunc(float64(*s.Jitter)) {
		c.Errorf("jitter", "want whole percents, 0%% to 100%%")
	}
	if d := s.InitialJitter; d != nil && *d > 0 && time.Duration(*d) < time.Millisecond {
		c.Errorf("initialJitter", "want at least 1ms, or 0s for none")
	} else if d != nil && time.Duration(*d) > mostFirst {
		c.Errorf("initialJitter", "want at most 1m: an Envoy that starts does not listen before the first checks have ended")
	}
	switch timeout := s.timeout(); {
	case timeout < time.Millisecond:
		c.Errorf("timeout", "want at least 1ms")
	case timeout > mostFirst:
		c.Errorf("timeout", "want at most 1m: an Envoy that starts does not listen before the first checks have ended")
	case s.Timeout != nil && timeout > s.interval():
		c.Errorf("timeout", "want at most the interval, which is %s", policy.Duration(s.interval()))
	}
	if s.HealthyThreshold != nil && *s.HealthyThreshold == 0 {
		c.Errorf("healthyThreshold", "want at least 1")
	}
	if s.UnhealthyThreshold != nil && *s.UnhealthyThreshold == 0 {
		c.Errorf("unhealthyThreshold", "want at least 1")
	}
}

func checkInterval(c *policy.Check, field string, d *policy.Duration) {
	if d != nil && time.Duration(*d) < leastInterval {
		c.Errorf(field, "want at least 100ms: every Envoy asks every endpoint")
	}
}

func (s *Setting) interval() time.Duration { return span(s.Interval, defaultInterval) }

// timeout stays below a short interval by itself.
func (s *Setting) timeout() time.Duration {
	return span(s.Timeout, min(defaultTimeout, s.interval()))
}

func span(d *policy.Duration, absent time.Duration) time.Duration {
	return time.Duration(policy.Or(d, policy.Duration(absent)))
}

// Cluster adds the check to the service's cluster.
func (s *Setting) Cluster(c envoy.ServiceContext) *clusterv3.Cluster {
	return &clusterv3.Cluster{HealthChecks: []*corev3.HealthCheck{s.healthCheck(c.Service)}}
}

func (s *Setting) healthCheck(service *policy.Service) *corev3.HealthCheck {
	interval := durationpb.New(s.interval())
	check := &corev3.HealthCheck{
		Interval: interval,
		// Clusters without traffic are asked as often as others; Envoy's default is once a minute, so that a fresh
		// service with one endpoint down would stay wrong for as long.
		NoTrafficInterval:     interval,
		IntervalJitterPercent: uint32(policy.Or(s.Jitter, defaultJitter)),
		InitialJitter:         envoy.Duration(s.InitialJitter),
		Timeout:               durationpb.New(s.timeout()),
		HealthyThreshold:      wrapperspb.UInt32(policy.Or(s.HealthyThreshold, defaultHealthy)),
		UnhealthyThreshold:    wrapperspb.UInt32(policy.Or(s.UnhealthyThreshold, defaultUnhealthy)),
	}
	if s.UnhealthyInterval != nil {
		check.UnhealthyInterval = envoy.Duration(s.UnhealthyInterval)
		check.NoTrafficInterval, check.NoTrafficHealthyInterval = check.UnhealthyInterval, interval
	}
	s.ask(check, service)
	return check
}
