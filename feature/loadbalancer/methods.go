package loadbalancer

import (
	"math/big"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	weightedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// RoundRobin asks the endpoints in turn, each as often as its weight says.
type RoundRobin struct{}

func (*RoundRobin) key() string         { return "roundRobin" }
func (*RoundRobin) check(*policy.Check) {}

func (*RoundRobin) message(o shared) proto.Message {
	return &roundrobinv3.RoundRobin{SlowStartConfig: o.slowStart.config(), LocalityLbConfig: o.zoneAware.config()}
}

// LeastRequest asks the endpoint with the fewest requests open, of some at random or of all.
type LeastRequest struct {
	Choices           *uint32  `policy:"choices" doc:"how many endpoints are looked at, 2 to 100; default: 2"`
	FullScan          bool     `policy:"fullScan" doc:"looks at all endpoints"`
	ActiveRequestBias *float64 `policy:"activeRequestBias" doc:"where weights differ: how much open requests count against an endpoint, from 0, not at all; default: 1"`
}

// maxChoices keeps a choice from costing more than a look at most services' every endpoint.
const maxChoices = 100

func (*LeastRequest) key() string { return "leastRequest" }

func (l *LeastRequest) check(c *policy.Check) {
	if l.Choices != nil && (*l.Choices < 2 || *l.Choices > maxChoices) {
		c.Errorf("leastRequest.choices", "want 2 to %d", maxChoices)
	}
	if l.Choices != nil && l.FullScan {
		c.Errorf("leastRequest.choices", "fullScan looks at all endpoints").Hintf("leave out one of the two")
	}
	if l.ActiveRequestBias != nil && *l.ActiveRequestBias < 0 {
		c.Errorf("leastRequest.activeRequestBias", "want at least 0")
	}
}

func (l *LeastRequest) message(o shared) proto.Message {
	m := &leastrequestv3.LeastRequest{SlowStartConfig: o.slowStart.config(), LocalityLbConfig: o.zoneAware.config()}
	if l.Choices != nil {
		m.ChoiceCount = wrapperspb.UInt32(*l.Choices)
	}
	if l.FullScan {
		m.SelectionMethod = leastrequestv3.LeastRequest_FULL_SCAN
	}
	if l.ActiveRequestBias != nil {
		m.ActiveRequestBias = &corev3.RuntimeDouble{
			DefaultValue: *l.ActiveRequestBias,
			RuntimeKey:   "legation.active_request_bias", // Envoy wants one; nothing sets it
		}
	}
	return m
}

// Random asks any endpoint; of weights it knows nothing.
type Random struct{}

func (*Random) key() string         { return "random" }
func (*Random) check(*policy.Check) {}

func (*Random) message(o shared) proto.Message {
	return &randomv3.Random{LocalityLbConfig: o.zoneAware.config()}
}

// RingHash sends requests that are equal in something to one endpoint, by a ring.
type RingHash struct {
	By            By      `policy:"by,required" doc:"what is hashed: ip, {header: x}, {cookie: x} or {query: x}, or a list: the first that a request has"`
	BalanceFactor *factor `policy:"balanceFactor" doc:"the most that one endpoint may have of the average requests open; what is above goes to others; 100% to 1000%; default: no bound"`
	MinRingSize   *uint64 `policy:"minRingSize" doc:"points on the ring, at least; more spread the load more evenly; default: 1024"`
	MaxRingSize   *uint64 `policy:"maxRingSize" doc:"points on the ring, at most; default: 8388608"`
}

const (
	minRing = 1024    // Envoy's default of the least
	maxRing = 8 << 20 // the most that Envoy takes
)

func (*RingHash) key() string { return "ringHash" }

func (r *RingHash) check(c *policy.Check) {
	least, most := r.MinRingSize, r.MaxRingSize
	if least != nil && (*least < 1 || *least > maxRing) {
		c.Errorf("ringHash.minRingSize", "want 1 to %d", maxRing)
		return
	}
	if most == nil {
		return
	}
	if floor := policy.Or(least, minRing); *most < floor || *most > maxRing {
		c.Errorf("ringHash.maxRingSize", "want minRingSize, which is %d, to %d", floor, maxRing)
	}
}

func (r *RingHash) message(shared) proto.Message {
	m := &ringhashv3.RingHash{ConsistentHashingLbConfig: consistent(r.By, r.BalanceFactor)}
	if r.MinRingSize != nil {
		m.MinimumRingSize = wrapperspb.UInt64(*r.MinRingSize)
	}
	if r.MaxRingSize != nil {
		m.MaximumRingSize = wrapperspb.UInt64(*r.MaxRingSize)
	}
	return m
}

// Maglev does the same with a table, which is faster, but moves more keys when endpoints change.
type Maglev struct {
	By            By      `policy:"by,required" doc:"what is hashed: ip, {header: x}, {cookie: x} or {query: x}, or a list: the first that a request has"`
	BalanceFactor *factor `policy:"balanceFactor" doc:"the most that one endpoint may have of the average requests open; what is above goes to others; 100% to 1000%; default: no bound"`
	TableSize     *uint64 `policy:"tableSize" doc:"places in the table, a prime number up to 5000011; larger ones move fewer keys; default: 65537"`
}

// maxTable is the most that Envoy takes.
const maxTable = 5000011

func (*Maglev) key() string { return "maglev" }

func (m *Maglev) check(c *policy.Check) {
	if m.TableSize == nil {
		return
	}
	if size := *m.TableSize; size > maxTable || !prime(size) {
		c.Errorf("maglev.tableSize", "want a prime number up to %d", maxTable).Hintf("such as 1021, 65537 or 655373")
	}
}

func prime(n uint64) bool { return new(big.Int).SetUint64(n).ProbablyPrime(0) } // exact below 2^64

func (m *Maglev) message(shared) proto.Message {
	message := &maglevv3.Maglev{ConsistentHashingLbConfig: consistent(m.By, m.BalanceFactor)}
	if m.TableSize != nil {
		message.TableSize = wrapperspb.UInt64(*m.TableSize)
	}
	return message
}

func consistent(by By, balance *factor) *commonv3.ConsistentHashingLbConfig {
	config := &commonv3.ConsistentHashingLbConfig{HashPolicy: by.hashPolicies()}
	if balance != nil {
		config.HashBalanceFactor = wrapperspb.UInt32(uint32(*balance))
	}
	return config
}

// ClientSideWeightedRoundRobin asks the endpoints in turn, the more often the less loaded they say they are: each answer
// tells, in the header endpoint-load-metrics (ORCA).
type ClientSideWeightedRoundRobin struct {
	Metrics                 []string         `policy:"metrics" doc:"what tells how much of an endpoint is in use, such as named_metrics.queue; the largest counts; default: application_utilization, else cpu_utilization"`
	BlackoutPeriod          *policy.Duration `policy:"blackoutPeriod" doc:"how long an endpoint must have reported before it counts; default: 10s"`
	WeightExpirationPeriod  *policy.Duration `policy:"weightExpirationPeriod" doc:"how long a report counts; default: 3m"`
	WeightUpdatePeriod      *policy.Duration `policy:"weightUpdatePeriod" doc:"from one calculation of the weights to the next, at least 100ms; default: 1s"`
	ErrorUtilizationPenalty *float64         `policy:"errorUtilizationPenalty" doc:"how much the share of errors counts as load, from 0; default: 1"`
}

func (*ClientSideWeightedRoundRobin) key() string { return "clientSideWeightedRoundRobin" }

func (w *ClientSideWeightedRoundRobin) check(c *policy.Check) {
	at := func(field string) string { return w.key() + "." + field }
	for i, name := range w.Metrics {
		if strings.TrimSpace(name) != name || name == "" {
			c.Errorf(policy.Item(at("metrics"), i), "%q is not the name of a metric", name).Hintf("write named_metrics.NAME or cpu_utilization")
		}
	}
	if d := w.WeightUpdatePeriod; d != nil && time.Duration(*d) < 100*time.Millisecond {
		c.Errorf(at("weightUpdatePeriod"), "want at least 100ms")
	}
	if d := w.WeightExpirationPeriod; d != nil && time.Duration(*d) < time.Second {
		c.Errorf(at("weightExpirationPeriod"), "want at least 1s")
	}
	if p := w.ErrorUtilizationPenalty; p != nil && *p < 0 {
		c.Errorf(at("errorUtilizationPenalty"), "want at least 0")
	}
}

func (w *ClientSideWeightedRoundRobin) message(o shared) proto.Message {
	m := &weightedv3.ClientSideWeightedRoundRobin{
		BlackoutPeriod:                     envoy.Duration(w.BlackoutPeriod),
		WeightExpirationPeriod:             envoy.Duration(w.WeightExpirationPeriod),
		WeightUpdatePeriod:                 envoy.Duration(w.WeightUpdatePeriod),
		MetricNamesForComputingUtilization: w.Metrics,
		SlowStartConfig:                    o.slowStart.config(),
	}
	if w.ErrorUtilizationPenalty != nil {
		m.ErrorUtilizationPenalty = wrapperspb.Float(float32(*w.ErrorUtilizationPenalty))
	}
	return m
}
