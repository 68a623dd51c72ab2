// Package outlierdetection takes out the endpoints of a service that fail requests: the key outlierDetection.
// [envoy.Translate] calls it.
package outlierdetection

import (
	_ "embed"
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key outlierDetection.
var Kind = policy.Define[Setting]("outlierDetection", policy.InService, doc)

// Setting is what stands under outlierDetection: true for all defaults, or a map.
type Setting struct {
	Consecutive5xx                 *uint32            `policy:"consecutive5xx" doc:"5xx answers in a row, and failures to get one; 0 for off; default: 5"`
	ConsecutiveGatewayErrors       *uint32            `policy:"consecutiveGatewayErrors" doc:"502, 503 and 504 in a row; 0 and default: off"`
	ConsecutiveLocalOriginFailures *uint32            `policy:"consecutiveLocalOriginFailures" doc:"failures in a row to connect or to get an answer, counted apart from 5xx; 0: they count nowhere; default: they count as 5xx"`
	SuccessRate                    *SuccessRate       `policy:"successRate" doc:"takes out endpoints that succeed less often than the others; default: off"`
	FailurePercentage              *FailurePercentage `policy:"failurePercentage" doc:"takes out endpoints that fail a share of their requests; default: off"`
	Interval                       *policy.Duration   `policy:"interval" doc:"how often shares are reckoned and endpoints let back in; default: 10s"`
	BaseEjectionTime               *policy.Duration   `policy:"baseEjectionTime" doc:"how long an endpoint stays out the first time; as much longer each further time; default: 30s"`
	MaxEjectionTime                *policy.Duration   `policy:"maxEjectionTime" doc:"the longest time out; default: 5m, or baseEjectionTime when that is longer"`
	MaxEjectionPercent             *policy.Percent    `policy:"maxEjectionPercent" doc:"the share of the endpoints that may be out, rounded down; default: 50%"`
}

// SuccessRate compares the endpoints with each other.
type SuccessRate struct {
	MinEndpoints  *uint32  `policy:"minEndpoints" doc:"endpoints with requestVolume that it takes to compare; default: 5"`
	RequestVolume *uint32  `policy:"requestVolume" doc:"requests in one interval that it takes for an endpoint to count; default: 100"`
	StdevFactor   *float64 `policy:"stdevFactor" doc:"standard deviations below the mean that are too many; default: 1.9"`
}

// FailurePercentage looks at each endpoint by itself.
type FailurePercentage struct {
	Threshold     *policy.Percent `policy:"threshold" doc:"the share of failures that is too much; default: 85%"`
	MinEndpoints  *uint32         `policy:"minEndpoints" doc:"endpoints that the service must have; default: 5"`
	RequestVolume *uint32         `policy:"requestVolume" doc:"requests in one interval that it takes for an endpoint to count; default: 50"`
}

const (
	defaultInterval           = 10 * time.Second // the defaults are Envoy's
	defaultBaseEjectionTime   = 30 * time.Second
	defaultMaxEjectionTime    = 5 * time.Minute
	defaultConsecutive        = 5
	defaultMinEndpoints       = 5
	defaultSuccessVolume      = 100
	defaultStdevFactor        = 1.9
	defaultFailureThreshold   = 85
	defaultFailureVolume      = 50
	defaultMaxEjectionPercent = 50 // Envoy's 10% takes nobody out of less than ten endpoints
)

// DecodePolicy reads true or a map.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	d.TrueOr(n, s, "write outlierDetection: true, or leave it out to take nobody out")
}

// PolicySchema describes both forms.
func (s *Setting) PolicySchema(schemas *policy.Schemas) map[string]any {
	return policy.TrueOr(schemas.Of(s))
}

// DecodePolicy reads true or a map.
func (r *SuccessRate) DecodePolicy(d *policy.Decode, n *policy.Node) {
	d.TrueOr(n, r, "write successRate: true, or leave it out for off")
}

// PolicySchema describes both forms.
func (r *SuccessRate) PolicySchema(s *policy.Schemas) map[string]any { return policy.TrueOr(s.Of(r)) }

// DecodePolicy reads true or a map.
func (f *FailurePercentage) DecodePolicy(d *policy.Decode, n *policy.Node) {
	d.TrueOr(n, f, "write failurePercentage: true, or leave it out for off")
}

// PolicySchema describes both forms.
func (f *FailurePercentage) PolicySchema(s *policy.Schemas) map[string]any {
	return policy.TrueOr(s.Of(f))
}

// Check bounds the numbers, and tells what never takes anybody out.
func (s *Setting) Check(c *policy.Check) {
	if policy.Or(s.Consecutive5xx, defaultConsecutive) == 0 && policy.Or(s.ConsecutiveGatewayErrors, 0) == 0 &&
		policy.Or(s.ConsecutiveLocalOriginFailures, 0) == 0 && s.SuccessRate == nil && s.FailurePercentage == nil {
		c.Errorf("", "nothing takes an endpoint out").Hintf("leave outlierDetection out")
	}
	s.checkTimes(c)
	s.checkShares(c)
	s.checkEndpoints(c)
}

func (s *Setting) checkTimes(c *policy.Check) {
	for _, f := range []struct {
		name  string
		value *policy.Duration
	}{{"interval", s.Interval}, {"baseEjectionTime", s.BaseEjectionTime}, {"maxEjectionTime", s.MaxEjectionTime}} {
		if f.value != nil && time.Duration(*f.value) < time.Millisecond {
			c.Errorf(f.name, "want at least 1ms")
		}
	}
	base := s.baseEjectionTime()
	if longest := s.MaxEjectionTime; longest != nil && time.Duration(*longest) >= time.Millisecond && time.Duration(*longest) < base {
		c.Errorf("maxEjectionTime", "want at least baseEjectionTime, which is %s", policy.Duration(base))
	}
}

func (s *Setting) checkShares(c *policy.Check) {
	checkWhole(c, "maxEjectionPercent", s.MaxEjectionPercent)
	if f := s.FailurePercentage; f != nil {
		checkWhole(c, "failurePercentage.threshold", f.Threshold)
		checkCount(c, "failurePercentage.minEndpoints", f.MinEndpoints)
		checkCount(c, "failurePercentage.requestVolume", f.RequestVolume)
	}
	if r := s.SuccessRate; r != nil {
		checkCount(c, "successRate.minEndpoints", r.MinEndpoints)
		checkCount(c, "successRate.requestVolume", r.RequestVolume)
		if r.StdevFactor != nil && (*r.StdevFactor < 0.001 || *r.StdevFactor > 1000) {
			c.Errorf("successRate.stdevFactor", "want 0.001 to 1000")
		}
	}
}

// checkWhole holds a share to what Envoy counts: whole percents. None at all would take nobody out, or everybody.
func checkWhole(c *policy.Check, field string, p *policy.Percent) {
	if p != nil && (*p < 1 || float64(*p) != math.Trunc(float64(*p))) {
		c.Errorf(field, "want whole percents, 1%% to 100%%")
	}
}

func checkCount(c *policy.Check, field string, n *uint32) {
	if n != nil && *n == 0 {
		c.Errorf(field, "want at least 1")
	}
}

// checkEndpoints warns of what has no effect on as few endpoints as the service has. DNS, which lists none, may give any number.
func (s *Setting) checkEndpoints(c *policy.Check) {
	n := uint32(len(c.Service().Endpoints))
	if n == 0 {
		return
	}
	if p := s.MaxEjectionPercent; p != nil && *p >= 1 && math.Floor(float64(n)*float64(*p)/100) == 0 {
		c.Warnf("maxEjectionPercent", "no endpoint is ever taken out: %g%% of %d, rounded down, is none", float64(*p), n).
			Hintf("write at least %d%%", (100+n-1)/n)
	}
	if r := s.SuccessRate; r != nil && policy.Or(r.MinEndpoints, defaultMinEndpoints) > n {
		c.Warnf("successRate", "no endpoint is ever taken out by it: it takes %d to compare them, and the service has %d",
			policy.Or(r.MinEndpoints, defaultMinEndpoints), n).Hintf("lower minEndpoints, or use failurePercentage")
	}
	if f := s.FailurePercentage; f != nil && policy.Or(f.MinEndpoints, defaultMinEndpoints) > n {
		c.Warnf("failurePercentage", "no endpoint is ever taken out by it: it takes %d, and the service has %d",
			policy.Or(f.MinEndpoints, defaultMinEndpoints), n).Hintf("lower minEndpoints")
	}
}

func (s *Setting) baseEjectionTime() time.Duration {
	return time.Duration(policy.Or(s.BaseEjectionTime, policy.Duration(defaultBaseEjectionTime)))
}

// Cluster adds the detection to the service's cluster. Whatever is written acts for certain, and what is not, not at
// all: of itself Envoy enforces some ways always and others never.
func (s *Setting) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	base := s.baseEjectionTime()
	longest := policy.Or(s.MaxEjectionTime, policy.Duration(max(defaultMaxEjectionTime, base)))
	split := s.ConsecutiveLocalOriginFailures != nil
	gateway := policy.Or(s.ConsecutiveGatewayErrors, 0)
	o := &clusterv3.OutlierDetection{
		Consecutive_5Xx:                    wrapperspb.UInt32(policy.Or(s.Consecutive5xx, defaultConsecutive)),
		ConsecutiveGatewayFailure:          wrapperspb.UInt32(gateway),
		EnforcingConsecutiveGatewayFailure: certain(gateway > 0),
		SplitExternalLocalOriginErrors:     split,
		Interval:                           durationpb.New(time.Duration(policy.Or(s.Interval, policy.Duration(defaultInterval)))),
		BaseEjectionTime:                   durationpb.New(base),
		MaxEjectionTime:                    durationpb.New(time.Duration(longest)),
		MaxEjectionPercent:                 wrapperspb.UInt32(uint32(policy.Or(s.MaxEjectionPercent, defaultMaxEjectionPercent))),
		// An endpoint whose health check is fine while it fails requests would come back with the next check.
		SuccessfulActiveHealthCheckUnejectHost: wrapperspb.Bool(false),
	}
	if split {
		o.ConsecutiveLocalOriginFailure = wrapperspb.UInt32(*s.ConsecutiveLocalOriginFailures)
	}
	s.SuccessRate.write(o)
	s.FailurePercentage.write(o)
	return &clusterv3.Cluster{OutlierDetection: o}
}

// certain is the chance, in percent, that a finding takes the endpoint out.
func certain(acts bool) *wrapperspb.UInt32Value {
	if acts {
		return wrapperspb.UInt32(100)
	}
	return wrapperspb.UInt32(0)
}

func (r *SuccessRate) write(o *clusterv3.OutlierDetection) {
	o.EnforcingSuccessRate = certain(r != nil)
	o.EnforcingLocalOriginSuccessRate = certain(r != nil)
	if r == nil {
		return
	}
	o.SuccessRateMinimumHosts = wrapperspb.UInt32(policy.Or(r.MinEndpoints, defaultMinEndpoints))
	o.SuccessRateRequestVolume = wrapperspb.UInt32(policy.Or(r.RequestVolume, defaultSuccessVolume))
	o.SuccessRateStdevFactor = wrapperspb.UInt32(uint32(math.Round(policy.Or(r.StdevFactor, defaultStdevFactor) * 1000)))
}

func (f *FailurePercentage) write(o *clusterv3.OutlierDetection) {
	o.EnforcingFailurePercentage = certain(f != nil)
	o.EnforcingFailurePercentageLocalOrigin = certain(f != nil)
	if f == nil {
		return
	}
	o.FailurePercentageThreshold = wrapperspb.UInt32(uint32(policy.Or(f.Threshold, defaultFailureThreshold)))
	o.FailurePercentageMinimumHosts = wrapperspb.UInt32(policy.Or(f.MinEndpoints, defaultMinEndpoints))
	o.FailurePercentageRequestVolume = wrapperspb.UInt32(policy.Or(f.RequestVolume, defaultFailureVolume))
}
