// Package loadbalancer chooses the endpoint that a request goes to: the key loadBalancer. [envoy.Translate] calls it.
package loadbalancer

import (
	_ "embed"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key loadBalancer.
var Kind = policy.Define[Setting]("loadBalancer", policy.InService, doc)

// Setting is what stands under loadBalancer: a name, or a map with ringHash or maglev.
type Setting struct {
	Name     string // of a method that needs no more; else one of the others holds
	RingHash *RingHash
	Maglev   *Maglev
}

// RingHash sends requests that are equal in something to one endpoint, by a ring.
type RingHash struct {
	By              By      `policy:"by,required" doc:"what is hashed: ip, {header: x} or {cookie: x}"`
	MinimumRingSize *uint64 `policy:"minimumRingSize" doc:"points on the ring, at least; more spread the load more evenly; default: 1024"`
}

// Maglev does the same with a table, which is faster, but moves more keys when endpoints change.
type Maglev struct {
	By By `policy:"by,required" doc:"what is hashed: ip, {header: x} or {cookie: x}"`
}

// The methods that are written as a name.
var names = []string{"roundRobin", "leastRequest", "random"}

// forms is the map form.
type forms struct {
	RingHash *RingHash `policy:"ringHash" doc:"consistent hashing by a ring"`
	Maglev   *Maglev   `policy:"maglev" doc:"consistent hashing by a table"`
}

// DecodePolicy reads a name or a map with one method.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind != policy.Map {
		s.decodeName(d, n)
		return
	}
	var f forms
	d.Decode(n, &f)
	if len(n.Keys) != 1 {
		d.Errorf(n, "want one method: ringHash or maglev")
		return
	}
	s.RingHash, s.Maglev = f.RingHash, f.Maglev
}

func (s *Setting) decodeName(d *policy.Decode, n *policy.Node) {
	switch {
	case n.Kind == policy.Scalar && slices.Contains(names, n.Text):
		s.Name = n.Text
	case n.Text == "ringHash" || n.Text == "maglev":
		d.Errorf(n, "%s needs to know what it hashes", n.Text).Hintf("write loadBalancer: {%s: {by: ip}}", n.Text)
	default:
		d.Errorf(n, "want %s, or {ringHash: …} or {maglev: …}", strings.Join(names, ", "))
	}
}

// PolicySchema describes both forms.
func (*Setting) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"enum": names}, s.Of(new(forms))}}
}

// maxRing is the most points that Envoy takes.
const maxRing = 8 << 20

// Check bounds the ring.
func (s *Setting) Check(c *policy.Check) {
	if s.RingHash == nil || s.RingHash.MinimumRingSize == nil {
		return
	}
	if size := *s.RingHash.MinimumRingSize; size < 1 || size > maxRing {
		c.Errorf("ringHash.minimumRingSize", "want 1 to %d", maxRing)
	}
}

// Cluster writes the load balancing policy of the service's cluster. What is hashed stands there too, not in the
// routes, so that the services of one route may hash different things.
func (s *Setting) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	switch {
	case s.RingHash != nil:
		return cluster("ring_hash", s.RingHash.ringHash())
	case s.Maglev != nil:
		return cluster("maglev", &maglevv3.Maglev{ConsistentHashingLbConfig: s.Maglev.By.consistent()})
	case s.Name == "leastRequest":
		return cluster("least_request", &leastrequestv3.LeastRequest{})
	case s.Name == "random":
		return cluster("random", &randomv3.Random{})
	default:
		return cluster("round_robin", &roundrobinv3.RoundRobin{})
	}
}

func (r *RingHash) ringHash() *ringhashv3.RingHash {
	hash := &ringhashv3.RingHash{ConsistentHashingLbConfig: r.By.consistent()}
	if r.MinimumRingSize != nil {
		hash.MinimumRingSize = wrapperspb.UInt64(*r.MinimumRingSize)
	}
	return hash
}

func (b *By) consistent() *commonv3.ConsistentHashingLbConfig {
	return &commonv3.ConsistentHashingLbConfig{HashPolicy: b.hashPolicies()}
}

func cluster(name string, config proto.Message) *clusterv3.Cluster {
	packed, _ := anypb.New(config) // generated messages always pack
	return &clusterv3.Cluster{
		LoadBalancingPolicy: &clusterv3.LoadBalancingPolicy{
			Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
				TypedExtensionConfig: &corev3.TypedExtensionConfig{
					Name:        "envoy.load_balancing_policies." + name,
					TypedConfig: packed,
				},
			}},
		},
	}
}
