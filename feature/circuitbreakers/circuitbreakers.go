// Package circuitbreakers bounds what a service may be sent at a time: the key circuitBreakers. [envoy.Translate] calls
// it, and fills in the bounds that are not written.
package circuitbreakers

import (
	_ "embed"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key circuitBreakers.
var Kind = policy.Define[Setting]("circuitBreakers", policy.InService, doc).ForApp()

// Setting is what stands under circuitBreakers. Each Envoy counts for itself.
type Setting struct {
	MaxConnections     *uint32      `policy:"maxConnections" doc:"connections to all endpoints together; default: 4096"`
	MaxPendingRequests *uint32      `policy:"maxPendingRequests" doc:"requests that wait for a connection; default: 4096"`
	MaxRequests        *uint32      `policy:"maxRequests" doc:"requests under way; default: 4096"`
	MaxRetries         *uint32      `policy:"maxRetries" doc:"retries under way, in place of retryBudget; 0 for none"`
	RetryBudget        *RetryBudget `policy:"retryBudget" doc:"retries under way, as a share of the requests"`
	PerEndpoint        *PerEndpoint `policy:"perEndpoint" doc:"what each endpoint may be sent"`
}

// RetryBudget bounds the retries by the requests that are under way or wait.
type RetryBudget struct {
	Percent    *policy.Percent `policy:"percent" doc:"retries under way, as a share of the requests under way; default: 20%"`
	MinRetries *uint32         `policy:"minRetries" doc:"retries that may be under way however few requests there are; default: 3"`
}

// PerEndpoint bounds what one endpoint is sent.
type PerEndpoint struct {
	MaxConnections *uint32 `policy:"maxConnections,required" doc:"connections to each endpoint"`
}

const (
	defaultPercent    = 20 // the defaults are Envoy's
	defaultMinRetries = 3
)

// Check refuses bounds that would let nothing through.
func (s *Setting) Check(c *policy.Check) {
	var perEndpoint *uint32
	if s.PerEndpoint != nil {
		perEndpoint = s.PerEndpoint.MaxConnections
	}
	for _, f := range []struct {
		name  string
		value *uint32
	}{
		{"maxConnections", s.MaxConnections},
		{"maxPendingRequests", s.MaxPendingRequests},
		{"maxRequests", s.MaxRequests},
		{"perEndpoint.maxConnections", perEndpoint},
	} {
		if f.value != nil && *f.value == 0 {
			c.Errorf(f.name, "want at least 1: with 0 the service would get no requests")
		}
	}
	if s.MaxRetries != nil && s.RetryBudget != nil {
		c.Errorf("retryBudget", "maxRetries and retryBudget bound the same").Hintf("remove one of the two")
	}
}

// Cluster writes the bounds into the service's cluster. Envoy reads the first thresholds of a priority only, and all of
// our routes have the default one.
func (s *Setting) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	b := &clusterv3.CircuitBreakers{
		Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections:     envoy.UInt32(s.MaxConnections),
			MaxPendingRequests: envoy.UInt32(s.MaxPendingRequests),
			MaxRequests:        envoy.UInt32(s.MaxRequests),
			MaxRetries:         envoy.UInt32(s.MaxRetries),
			RetryBudget:        s.RetryBudget.retryBudget(),
		}},
	}
	if s.PerEndpoint != nil {
		b.PerHostThresholds = []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: envoy.UInt32(s.PerEndpoint.MaxConnections),
		}}
	}
	return &clusterv3.Cluster{CircuitBreakers: b}
}

func (b *RetryBudget) retryBudget() *clusterv3.CircuitBreakers_Thresholds_RetryBudget {
	if b == nil {
		return nil
	}
	return &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
		BudgetPercent:       &typev3.Percent{Value: float64(policy.Or(b.Percent, defaultPercent))},
		MinRetryConcurrency: wrapperspb.UInt32(policy.Or(b.MinRetries, defaultMinRetries)),
	}
}
