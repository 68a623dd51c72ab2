// Package overload sheds load from a service that fails: the key overload. [envoy.Translate] calls it.
package overload

import (
	_ "embed"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	admissionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/admission_control/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

//go:embed doc.md
var doc string

// Kind is the key overload.
var Kind = policy.Define[Setting]("overload", policy.InService, doc)

// Setting is what stands under overload: true for all defaults, or a map. Each thread of Envoy counts for itself.
type Setting struct {
	SuccessRate          *policy.Percent  `policy:"successRate" doc:"the share of good answers below which requests are turned away; default: 95%"`
	Window               *policy.Duration `policy:"window" doc:"how far back answers count, in whole seconds; default: 30s"`
	Aggression           *float64         `policy:"aggression" doc:"1 turns away in proportion to the failures, more turns away sooner; 1 to 100; default: 1"`
	MinRequestsPerSecond *uint32          `policy:"minRequestsPerSecond" doc:"requests a second, over the window, below which none is turned away; default: 5"`
	MaxRejection         *policy.Percent  `policy:"maxRejection" doc:"the share of the requests that may be turned away; default: 80%"`
}

const (
	defaultSuccessRate  = 95 // the defaults are Envoy's, but for minRequestsPerSecond
	defaultWindow       = 30 * time.Second
	defaultAggression   = 1
	defaultMinRequests  = 5 // Envoy's 0 turns away after the first failure of a quiet service
	defaultMaxRejection = 80
	maxWindow           = time.Hour
	maxAggression       = 100
)

// DecodePolicy reads true or a map.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	d.TrueOr(n, s, "write overload: true, or leave it out to shed no load")
}

// PolicySchema describes both forms.
func (s *Setting) PolicySchema(schemas *policy.Schemas) map[string]any {
	return policy.TrueOr(schemas.Of(s))
}

// Check bounds the numbers.
func (s *Setting) Check(c *policy.Check) {
	if s.SuccessRate != nil && *s.SuccessRate < 1 {
		c.Errorf("successRate", "want 1%% to 100%%")
	}
	if s.Window != nil {
		if w := time.Duration(*s.Window); w < time.Second || w > maxWindow || w%time.Second != 0 {
			c.Errorf("window", "want whole seconds, 1s to 1h")
		}
	}
	if s.Aggression != nil && (*s.Aggression < 1 || *s.Aggression > maxAggression) {
		c.Errorf("aggression", "want 1 to %d", maxAggression)
	}
	if s.MaxRejection != nil && (*s.MaxRejection == 0 || *s.MaxRejection == 100) {
		c.Errorf("maxRejection", "want more than 0%% and less than 100%%: what is let through tells when the service is well again")
	}
}

// Upstream puts Envoy's admission control into the chain of filters of the service's cluster. There it counts the
// answers of this service alone; in a listener's chain it would count those of all services together.
func (s *Setting) Upstream(envoy.ServiceContext) *httpv3.HttpProtocolOptions {
	return &httpv3.HttpProtocolOptions{HttpFilters: []*hcmv3.HttpFilter{{
		Name:       "legation.overload",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: envoy.Pack(s.admissionControl())},
	}}}
}

func (s *Setting) admissionControl() *admissionv3.AdmissionControl {
	return &admissionv3.AdmissionControl{
		// Empty: answers below 500 are good, and the gRPC statuses that less load would not change.
		EvaluationCriteria: &admissionv3.AdmissionControl_SuccessCriteria_{
			SuccessCriteria: &admissionv3.AdmissionControl_SuccessCriteria{},
		},
		SamplingWindow:          durationpb.New(time.Duration(policy.Or(s.Window, policy.Duration(defaultWindow)))),
		SrThreshold:             percent(policy.Or(s.SuccessRate, defaultSuccessRate)),
		Aggression:              &corev3.RuntimeDouble{DefaultValue: policy.Or(s.Aggression, defaultAggression)},
		RpsThreshold:            &corev3.RuntimeUInt32{DefaultValue: policy.Or(s.MinRequestsPerSecond, defaultMinRequests)},
		MaxRejectionProbability: percent(policy.Or(s.MaxRejection, defaultMaxRejection)),
	}
}

func percent(p policy.Percent) *corev3.RuntimePercent {
	return &corev3.RuntimePercent{DefaultValue: &typev3.Percent{Value: float64(p)}}
}
