package loadbalancer

import (
	"regexp"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// shared is the options that more than one method has; each may be nil.
type shared struct {
	slowStart *SlowStart
	zoneAware *ZoneAware
}

// SlowStart gives an endpoint that is new, or well again, a part of its weight that grows over the window.
type SlowStart struct {
	Window     policy.Duration `policy:"window,required" doc:"how long it takes until an endpoint has its whole weight, at least 1s"`
	Aggression *float64        `policy:"aggression" doc:"above 1 the weight grows faster at first, below 1 slower; default: 1, evenly"`
	MinWeight  *policy.Percent `policy:"minWeight" doc:"the part of its weight that an endpoint begins with; default: 10%"`
}

func (s *SlowStart) check(c *policy.Check, m method) {
	switch m.(type) {
	case *RoundRobin, *LeastRequest, *ClientSideWeightedRoundRobin:
	default:
		c.Errorf("slowStart", "%s knows no slow start", m.key()).Hintf("take roundRobin or leastRequest, or leave out slowStart")
		return
	}
	if time.Duration(s.Window) < time.Second {
		c.Errorf("slowStart.window", "want at least 1s: Envoy counts whole seconds")
	}
	if s.Aggression != nil && *s.Aggression <= 0 {
		c.Errorf("slowStart.aggression", "want more than 0")
	}
	if s.MinWeight != nil && *s.MinWeight == 0 {
		c.Errorf("slowStart.minWeight", "want more than 0%%: with no weight an endpoint may never be asked")
	}
}

func (s *SlowStart) config() *commonv3.SlowStartConfig {
	if s == nil {
		return nil
	}
	config := &commonv3.SlowStartConfig{SlowStartWindow: durationpb.New(time.Duration(s.Window))}
	if s.Aggression != nil {
		config.Aggression = &corev3.RuntimeDouble{
			DefaultValue: *s.Aggression,
			RuntimeKey:   "legation.slow_start_aggression", // Envoy wants one; nothing sets it
		}
	}
	if s.MinWeight != nil {
		config.MinWeightPercent = &typev3.Percent{Value: float64(*s.MinWeight)}
	}
	return config
}

// ZoneAware keeps requests in the zone of the Envoy that got them, while enough endpoints there are healthy.
type ZoneAware struct {
	MinEndpoints *uint32         `policy:"minEndpoints" doc:"with fewer healthy endpoints in the zone all zones are asked; default: 1"`
	Percent      *policy.Percent `policy:"percent" doc:"the part of the requests that stays in the zone, others go anywhere; default: 100%"`
}

// DecodePolicy reads true or a map.
func (z *ZoneAware) DecodePolicy(d *policy.Decode, n *policy.Node) {
	d.TrueOr(n, z, "write zoneAware: true, or leave it out to ask all zones")
}

// PolicySchema describes both forms.
func (z *ZoneAware) PolicySchema(s *policy.Schemas) map[string]any {
	return policy.TrueOr(s.Of(z))
}

func (z *ZoneAware) check(c *policy.Check, m method) {
	switch m.(type) {
	case *RoundRobin, *LeastRequest, *Random:
	default:
		c.Errorf("zoneAware", "%s knows no zones", m.key()).Hintf("take roundRobin, leastRequest or random, or leave out zoneAware")
		return
	}
	if z.MinEndpoints != nil && *z.MinEndpoints == 0 {
		c.Errorf("zoneAware.minEndpoints", "want at least 1")
	}
	if z.Percent != nil && *z.Percent == 0 {
		c.Errorf("zoneAware.percent", "want more than 0%%").Hintf("leave out zoneAware")
	}
	s := c.Service()
	if s.DNS != nil && s.DNS.Zone == "" {
		c.Errorf("zoneAware", "a service of dns has no zones").Hintf("list the endpoints with their zones")
		return
	}
	for _, e := range s.Endpoints {
		if e.Zone != "" {
			return
		}
	}
	c.Warnf("zoneAware", "no endpoint of the service has a zone, so requests go to all of them")
}

// config asks for the Envoy's own zone outright. Without force_local_zone Envoy would leave that much of the zone to
// others as the cluster that stands for the Envoys says, and that cluster has one place only.
func (z *ZoneAware) config() *commonv3.LocalityLbConfig {
	if z == nil {
		return nil
	}
	zones := &commonv3.LocalityLbConfig_ZoneAwareLbConfig{
		MinClusterSize: wrapperspb.UInt64(1), // Envoy's 6 is about the share of a zone, which is not asked here
		ForceLocalZone: &commonv3.LocalityLbConfig_ZoneAwareLbConfig_ForceLocalZone{MinSize: wrapperspb.UInt32(1)},
	}
	if z.MinEndpoints != nil {
		zones.ForceLocalZone.MinSize.Value = *z.MinEndpoints
	}
	if z.Percent != nil {
		zones.RoutingEnabled = &typev3.Percent{Value: float64(*z.Percent)}
	}
	return &commonv3.LocalityLbConfig{
		LocalityConfigSpecifier: &commonv3.LocalityLbConfig_ZoneAwareLbConfig_{ZoneAwareLbConfig: zones},
	}
}

// factor is a share of a whole or more, in whole percents: 140%.
type factor uint32

var wholePercent = regexp.MustCompile(`^[0-9]{1,4}%$`)

// DecodePolicy reads 100% to 1000%.
func (f *factor) DecodePolicy(d *policy.Decode, n *policy.Node) {
	percent, err := strconv.ParseUint(n.Text[:max(len(n.Text)-1, 0)], 10, 32)
	if n.Kind != policy.Scalar || err != nil || !wholePercent.MatchString(n.Text) || percent < 100 || percent > 1000 {
		d.Errorf(n, "want whole percents from 100%% to 1000%%, such as 140%%")
		return
	}
	*f = factor(percent)
}

// PolicySchema describes a factor.
func (*factor) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": "^(1000|[1-9][0-9]{2})%$", "description": "100% to 1000%"}
}
