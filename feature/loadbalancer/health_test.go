package loadbalancer_test

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/loadbalancer"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// behind is a key for tests: one trusted proxy stands before the listener.
var behind = policy.Define[hop]("behind", policy.InListener, "")

type hop bool

func (*hop) Check(*policy.Check) {}

func (*hop) HTTP(envoy.ListenerContext) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{XffNumTrustedHops: 1}
}

// checked is a key for tests, as much of healthCheck as they write.
var checked = policy.Define[check]("healthCheck", policy.InService, "")

type check struct {
	Path               string          `policy:"path"`
	Interval           policy.Duration `policy:"interval"`
	UnhealthyThreshold uint32          `policy:"unhealthyThreshold"`
	HealthyThreshold   uint32          `policy:"healthyThreshold"`
}

func (*check) Check(*policy.Check) {}

func (k *check) Cluster(c envoy.ServiceContext) *clusterv3.Cluster {
	return &clusterv3.Cluster{HealthChecks: []*corev3.HealthCheck{{
		Interval:           durationpb.New(time.Duration(k.Interval)),
		NoTrafficInterval:  durationpb.New(time.Duration(k.Interval)),
		Timeout:            durationpb.New(time.Duration(k.Interval)),
		UnhealthyThreshold: wrapperspb.UInt32(cmp.Or(k.UnhealthyThreshold, 1)),
		HealthyThreshold:   wrapperspb.UInt32(cmp.Or(k.HealthyThreshold, 1)),
		HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{
			HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{Path: k.Path, Host: c.Service.Name},
		},
	}}}
}

const sick = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  default: {endpoints: [%[1]q, %[2]q, %[3]q], healthCheck: {path: /healthz, interval: 100ms, unhealthyThreshold: 1}}
  never:
    endpoints: [%[1]q, %[2]q, %[3]q]
    healthCheck: {path: /healthz, interval: 100ms, unhealthyThreshold: 1}
    loadBalancer: {panicThreshold: 0%%}
routes:
  default: {hostnames: [default.test], backends: {default: 1}}
  never: {hostnames: [never.test], backends: {never: 1}}
`

func TestSickEndpointsAreAskedBelowThePanicThreshold(t *testing.T) {
	var allSick atomic.Bool
	var addresses []any
	for _, name := range []string{"well", "sick", "sick"} {
		addresses = append(addresses, golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" && (name == "sick" || allSick.Load()) {
				w.WriteHeader(500)
			}
			io.WriteString(w, name)
		}))
	}
	envoy := golden.Serve(t, fmt.Sprintf(sick, addresses...), loadbalancer.Kind, checked)
	golden.Eventually(t, "only the well one is asked", func() bool { return asked(t, envoy, 30, "never.test")["well"] == 30 })
	if seen := asked(t, envoy, 30, "default.test"); seen["sick"] == 0 {
		t.Errorf("one of three endpoints is well, below the default threshold, and requests went to %v", seen)
	}
	allSick.Store(true)
	golden.Eventually(t, "nobody is asked", func() bool { return envoy.Ask(t, "GET", "never.test", "/").Status == 503 })
}

const recovering = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  orders:
    endpoints: [%q, %q]
    healthCheck: {path: /healthz, interval: 100ms, healthyThreshold: 1}
    loadBalancer: {slowStart: {window: 3s, aggression: 0.1}, panicThreshold: 0%%}
routes:
  orders: {hostnames: [a.test], backends: {orders: 1}}
`

// The old endpoint is well for longer than the window when the new one passes its first check. An aggression of 0.1
// keeps the new one at its least weight, 10%, for most of the window.
func TestNewEndpointGetsLessAtFirst(t *testing.T) {
	var checks atomic.Int32
	fresh := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && checks.Add(1) < 40 {
			w.WriteHeader(500)
		}
		io.WriteString(w, "new")
	})
	old := named(t, "old")[0]
	envoy := golden.Serve(t, fmt.Sprintf(recovering, old, fresh), loadbalancer.Kind, checked)
	golden.Eventually(t, "the new endpoint is asked", func() bool { return asked(t, envoy, 20, "a.test")["new"] > 0 })
	if seen := asked(t, envoy, 100, "a.test"); seen["new"] == 0 || seen["new"] > 30 {
		t.Errorf("of 100 requests %d went to the new endpoint, want some 9", seen["new"])
	}
}

const zones = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  off: {endpoints: [%[1]q, {address: %[2]q, zone: a}, {address: %[3]q, zone: b}]}
  on: {endpoints: [%[1]q, {address: %[2]q, zone: a}, {address: %[3]q, zone: b}], loadBalancer: {leastRequest: {}, zoneAware: true}}
  share: {endpoints: [%[1]q, {address: %[2]q, zone: a}, {address: %[3]q, zone: b}], loadBalancer: {zoneAware: {percent: 50%%}}}
  few: {endpoints: [%[1]q, {address: %[2]q, zone: a}, {address: %[3]q, zone: b}], loadBalancer: {random: {}, zoneAware: {minEndpoints: 2}}}
  dead: {endpoints: [%[1]q, {address: %[2]q, zone: a}, {address: %[4]q, zone: b}], loadBalancer: {zoneAware: true}, healthCheck: {path: /, interval: 100ms}}
routes:
  off: {hostnames: [off.test], backends: {off: 1}}
  on: {hostnames: [on.test], backends: {on: 1}}
  share: {hostnames: [share.test], backends: {share: 1}}
  few: {hostnames: [few.test], backends: {few: 1}}
  dead: {hostnames: [dead.test], backends: {dead: 1}}
`

func TestZoneOfTheEnvoyIsAskedFirst(t *testing.T) {
	addresses := append(named(t, "far", "far", "near"), golden.Dead(t))
	policies := fmt.Sprintf(zones, addresses...)
	here := golden.ServeIn(t, "b", policies, loadbalancer.Kind, checked)
	for host, bounds := range map[string][2]int{
		"off.test": {20, 60}, "on.test": {120, 120}, "share.test": {61, 99}, "few.test": {20, 60},
	} {
		if near := asked(t, here, 120, host)["near"]; near < bounds[0] || near > bounds[1] {
			t.Errorf("%s: of 120 requests %d stayed in the zone, want %d to %d", host, near, bounds[0], bounds[1])
		}
	}
	golden.Eventually(t, "other zones are asked for one that is dead", func() bool {
		return here.Ask(t, "GET", "dead.test", "/").Status == 200
	})
	for _, zone := range []string{"", "c"} {
		elsewhere := golden.ServeIn(t, zone, policies, loadbalancer.Kind, checked)
		if near := asked(t, elsewhere, 120, "on.test")["near"]; near < 20 || near > 60 {
			t.Errorf("an Envoy of zone %q sent %d of 120 requests to zone b, want a third", zone, near)
		}
	}
}

const shifting = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  default:
    endpoints: [%[1]q, %[2]q, {address: %[3]q, priority: 1}]
    healthCheck: {path: /, interval: 100ms, unhealthyThreshold: 1}
    loadBalancer: {panicThreshold: 0%%}
  plenty:
    endpoints: [%[1]q, %[2]q, {address: %[3]q, priority: 1}]
    healthCheck: {path: /, interval: 100ms, unhealthyThreshold: 1}
    loadBalancer: {panicThreshold: 0%%, overprovisioning: 200%%}
routes:
  default: {hostnames: [default.test], backends: {default: 1}}
  plenty: {hostnames: [plenty.test], backends: {plenty: 1}}
`

// Half of the first priority is well: 50% × 140% leaves 30% to the second one, 50% × 200% nothing.
func TestLoadShiftsToTheNextPriority(t *testing.T) {
	addresses := []any{named(t, "first")[0], golden.Dead(t), named(t, "second")[0]}
	envoy := golden.Serve(t, fmt.Sprintf(shifting, addresses...), loadbalancer.Kind, checked)
	for host, bounds := range map[string][2]int{"default.test": {30, 90}, "plenty.test": {0, 0}} {
		golden.Eventually(t, "the dead endpoint is left out, and the others are known to be well", func() bool {
			seen := asked(t, envoy, 20, host)
			return seen["first"]+seen["second"] == 20 && seen["first"] > 0 && (seen["second"] > 0 || bounds[0] == 0)
		})
		if second := asked(t, envoy, 200, host)["second"]; second < bounds[0] || second > bounds[1] {
			t.Errorf("%s: %d of 200 requests went to the second priority, want %d to %d", host, second, bounds[0], bounds[1])
		}
	}
}
