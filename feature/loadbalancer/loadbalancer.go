// Package loadbalancer chooses the endpoint that a request goes to: the key loadBalancer. [envoy.Translate] calls it.
package loadbalancer

import (
	_ "embed"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key loadBalancer.
var Kind = policy.Define[Setting]("loadBalancer", policy.InService, doc)

// Setting is what stands under loadBalancer: at most one method, without any roundRobin, and what all methods share. A
// method may also be written as its name alone.
type Setting struct {
	RoundRobin                   *RoundRobin                   `policy:"roundRobin" doc:"in turn; the default"`
	LeastRequest                 *LeastRequest                 `policy:"leastRequest" doc:"the one of some at random that has the fewest requests open"`
	Random                       *Random                       `policy:"random" doc:"at random"`
	RingHash                     *RingHash                     `policy:"ringHash" doc:"consistent hashing by a ring"`
	Maglev                       *Maglev                       `policy:"maglev" doc:"consistent hashing by a table"`
	ClientSideWeightedRoundRobin *ClientSideWeightedRoundRobin `policy:"clientSideWeightedRoundRobin" doc:"by the load that the endpoints report"`

	SlowStart        *SlowStart      `policy:"slowStart" doc:"gives endpoints that are new or well again less at first"`
	ZoneAware        *ZoneAware      `policy:"zoneAware" doc:"keeps requests in the Envoy's own zone: true, or how far"`
	PanicThreshold   *policy.Percent `policy:"panicThreshold" doc:"with a smaller share of healthy endpoints all of them are asked, the sick ones too; whole percents, 0% for never; default: 50%"`
	Overprovisioning *factor         `policy:"overprovisioning" doc:"how much more than its load a priority can carry: the next one is asked once the share of healthy endpoints times this is below 100%; default: 140%"`
}

// The methods that can be written as a name, and those that need to know more.
var (
	names   = []string{"roundRobin", "leastRequest", "random", "clientSideWeightedRoundRobin"}
	hashing = []string{"ringHash", "maglev"}
)

// DecodePolicy reads a name or a map.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Map {
		d.Decode(n, s)
		return
	}
	switch {
	case n.Kind == policy.Scalar && slices.Contains(hashing, n.Text):
		d.Errorf(n, "%s needs to know what it hashes", n.Text).Hintf("write loadBalancer: {%s: {by: ip}}", n.Text)
	case n.Kind != policy.Scalar || !slices.Contains(names, n.Text):
		d.Errorf(n, "want %s, or a map such as {ringHash: {by: ip}}", strings.Join(names, ", "))
	default:
		s.byName(n.Text)
	}
}

func (s *Setting) byName(name string) {
	switch name {
	case "leastRequest":
		s.LeastRequest = new(LeastRequest)
	case "random":
		s.Random = new(Random)
	case "clientSideWeightedRoundRobin":
		s.ClientSideWeightedRoundRobin = new(ClientSideWeightedRoundRobin)
	default:
		s.RoundRobin = new(RoundRobin)
	}
}

// PolicySchema describes both forms.
func (s *Setting) PolicySchema(schemas *policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"enum": names}, schemas.Of(s)}}
}

// method is one way to choose: it knows its key, what is wrong with it, and Envoy's message. Of the options that it
// shares with others it takes those that it can do.
type method interface {
	key() string
	check(c *policy.Check)
	message(shared shared) proto.Message
}

// methods is those that are written.
func (s *Setting) methods() []method {
	var all []method
	if s.RoundRobin != nil {
		all = append(all, s.RoundRobin)
	}
	if s.LeastRequest != nil {
		all = append(all, s.LeastRequest)
	}
	if s.Random != nil {
		all = append(all, s.Random)
	}
	if s.RingHash != nil {
		all = append(all, s.RingHash)
	}
	if s.Maglev != nil {
		all = append(all, s.Maglev)
	}
	if s.ClientSideWeightedRoundRobin != nil {
		all = append(all, s.ClientSideWeightedRoundRobin)
	}
	return all
}

func (s *Setting) method() method {
	if all := s.methods(); len(all) > 0 {
		return all[0]
	}
	return new(RoundRobin)
}

// Check holds the options against the method and the service's endpoints.
func (s *Setting) Check(c *policy.Check) {
	all := s.methods()
	if len(all) > 1 {
		c.Errorf(all[1].key(), "want one method, but %s stands here, too", all[0].key())
		return
	}
	m := s.method()
	m.check(c)
	if s.SlowStart != nil {
		s.SlowStart.check(c, m)
	}
	if s.ZoneAware != nil {
		s.ZoneAware.check(c, m)
	}
	if s.PanicThreshold != nil && *s.PanicThreshold != policy.Percent(int(*s.PanicThreshold)) {
		c.Errorf("panicThreshold", "want whole percents, such as 50%%")
	}
	if s.Overprovisioning != nil && priorities(c.Service()) < 2 {
		c.Warnf("overprovisioning", "the endpoints all have one priority, so no load can shift")
	}
}

func priorities(s *policy.Service) int {
	seen := make(map[uint32]bool)
	for _, e := range s.Endpoints {
		seen[e.Priority] = true
	}
	return len(seen)
}

// Cluster writes the load balancing policy of the service's cluster. What is hashed stands there too, not in the
// routes, so that the services of one route may hash different things. The panic threshold has no place in the policy.
func (s *Setting) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	m := s.method()
	c := &clusterv3.Cluster{
		LoadBalancingPolicy: &clusterv3.LoadBalancingPolicy{
			Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
				TypedExtensionConfig: envoy.Extension("envoy.load_balancing_policies."+snake(m.key()),
					m.message(shared{slowStart: s.SlowStart, zoneAware: s.ZoneAware})),
			}},
		},
	}
	if s.PanicThreshold != nil {
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{
			HealthyPanicThreshold: &typev3.Percent{Value: float64(*s.PanicThreshold)},
		}
	}
	return c
}

// Endpoints says how soon load shifts to the next priority.
func (s *Setting) Endpoints(envoy.ServiceContext) *endpointv3.ClusterLoadAssignment {
	if s.Overprovisioning == nil {
		return nil
	}
	return &endpointv3.ClusterLoadAssignment{
		Policy: &endpointv3.ClusterLoadAssignment_Policy{
			OverprovisioningFactor: wrapperspb.UInt32(uint32(*s.Overprovisioning)),
		},
	}
}

// Route keeps the endpoints' reports of their load from clients, whom they would tell how the service is doing.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	if s.ClientSideWeightedRoundRobin == nil {
		return envoy.RouteParts{}
	}
	return envoy.RouteParts{Route: &routev3.Route{
		ResponseHeadersToRemove: []string{"endpoint-load-metrics", "endpoint-load-metrics-bin"},
	}}
}

// snake is a key as Envoy's extensions are named.
func snake(key string) string {
	var b strings.Builder
	for _, r := range key {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
