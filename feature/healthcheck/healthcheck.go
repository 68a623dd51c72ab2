// Package healthcheck asks the endpoints of a service whether they are well: the key healthCheck. [envoy.Translate]
// calls it.
package healthcheck

import (
	"cmp"
	_ "embed"
	"regexp"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key healthCheck.
var Kind = policy.Define[Setting]("healthCheck", policy.InService, doc)

// Setting is what stands under healthCheck.
type Setting struct {
	Path               string           `policy:"path,required" doc:"the path that is asked, with GET"`
	Host               string           `policy:"host" doc:"the host that is asked for; default: the service's dns name, else its name"`
	Interval           *policy.Duration `policy:"interval" doc:"from one check to the next; default: 10s"`
	Timeout            *policy.Duration `policy:"timeout" doc:"how long an answer may take, not more than interval; default: 2s"`
	HealthyThreshold   *uint32          `policy:"healthyThreshold" doc:"good answers in a row that bring an endpoint back; default: 2"`
	UnhealthyThreshold *uint32          `policy:"unhealthyThreshold" doc:"failures in a row that take an endpoint out; default: 3"`
	ExpectedStatuses   []Statuses       `policy:"expectedStatuses" doc:"the good answers: codes and ranges such as 200-299; default: 200"`
}

const (
	defaultInterval  = 10 * time.Second
	defaultTimeout   = 2 * time.Second
	defaultHealthy   = 2
	defaultUnhealthy = 3
)

var (
	cleanPath = regexp.MustCompile(`^/[\x21-\x7e]*$`)
	cleanHost = regexp.MustCompile(`^[A-Za-z0-9_.-]+(:[0-9]+)?$`)
)

// Check bounds the numbers.
func (s *Setting) Check(c *policy.Check) {
	if s.Path != "" && (!cleanPath.MatchString(s.Path) || strings.Contains(s.Path, "#")) {
		c.Errorf("path", "%q is not a path", s.Path).Hintf("write path: /healthz")
	}
	if s.Host != "" && !cleanHost.MatchString(s.Host) {
		c.Errorf("host", "%q is not a host name", s.Host)
	}
	if s.interval() < 100*time.Millisecond {
		c.Errorf("interval", "want at least 100ms: every Envoy asks every endpoint")
	}
	switch timeout := s.timeout(); {
	case timeout < time.Millisecond:
		c.Errorf("timeout", "want at least 1ms")
	case s.Timeout != nil && timeout > s.interval():
		c.Errorf("timeout", "want at most the interval, which is %s", s.interval())
	}
	if s.HealthyThreshold != nil && *s.HealthyThreshold == 0 {
		c.Errorf("healthyThreshold", "want at least 1")
	}
	if s.UnhealthyThreshold != nil && *s.UnhealthyThreshold == 0 {
		c.Errorf("unhealthyThreshold", "want at least 1")
	}
}

func (s *Setting) interval() time.Duration { return span(s.Interval, defaultInterval) }

// timeout stays below a short interval by itself.
func (s *Setting) timeout() time.Duration {
	return span(s.Timeout, min(defaultTimeout, s.interval()))
}

func span(d *policy.Duration, absent time.Duration) time.Duration {
	if d == nil {
		return absent
	}
	return time.Duration(*d)
}

// Statuses is one good status or a range of them, both ends included.
type Statuses struct{ First, Last int64 }

// DecodePolicy reads 200 or 200-299.
func (r *Statuses) DecodePolicy(d *policy.Decode, n *policy.Node) {
	first, last, isRange := strings.Cut(n.Text, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	switch {
	case n.Kind != policy.Scalar || err1 != nil || err2 != nil:
		d.Errorf(n, "want a status code or a range such as 200-299")
	case from < 100 || to > 599:
		d.Errorf(n, "status codes are 100 to 599")
	case from > to:
		d.Errorf(n, "the range is empty").Hintf("write %d-%d", to, from)
	default:
		*r = Statuses{from, to}
	}
}

// PolicySchema describes a code or a range.
func (*Statuses) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "integer", "minimum": 100, "maximum": 599},
		map[string]any{"type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$"},
	}}
}

// Cluster adds the check to the service's cluster.
func (s *Setting) Cluster(c envoy.ServiceContext) *clusterv3.Cluster {
	return &clusterv3.Cluster{HealthChecks: []*corev3.HealthCheck{s.healthCheck(c.Service)}}
}

func (s *Setting) healthCheck(service *policy.Service) *corev3.HealthCheck {
	interval := durationpb.New(s.interval())
	return &corev3.HealthCheck{
		Interval: interval,
		// Clusters without traffic are asked as often as others; Envoy's default is once a minute, so that a fresh
		// service with one endpoint down would stay wrong for as long.
		NoTrafficInterval:     interval,
		IntervalJitterPercent: 10, // keeps many Envoys from asking at the same moment
		Timeout:               durationpb.New(s.timeout()),
		HealthyThreshold:      count(s.HealthyThreshold, defaultHealthy),
		UnhealthyThreshold:    count(s.UnhealthyThreshold, defaultUnhealthy),
		HealthChecker:         &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: s.httpHealthCheck(service)},
	}
}

func count(n *uint32, absent uint32) *wrapperspb.UInt32Value {
	if n == nil {
		return wrapperspb.UInt32(absent)
	}
	return wrapperspb.UInt32(*n)
}

func (s *Setting) httpHealthCheck(service *policy.Service) *corev3.HealthCheck_HttpHealthCheck {
	host := cmp.Or(s.Host, service.Name)
	if s.Host == "" && service.DNS != nil {
		host = service.DNS.Host
	}
	return &corev3.HealthCheck_HttpHealthCheck{
		Path:             s.Path,
		Host:             host,
		ExpectedStatuses: s.expected(),
		// Without this one wrong status takes the endpoint out at once, whatever unhealthyThreshold says.
		RetriableStatuses: []*typev3.Int64Range{{Start: 100, End: 600}},
	}
}

// expected is half-open, as Envoy's ranges are.
func (s *Setting) expected() []*typev3.Int64Range {
	if len(s.ExpectedStatuses) == 0 {
		return []*typev3.Int64Range{{Start: 200, End: 201}}
	}
	var all []*typev3.Int64Range
	for _, r := range s.ExpectedStatuses {
		all = append(all, &typev3.Int64Range{Start: r.First, End: r.Last + 1})
	}
	return all
}
