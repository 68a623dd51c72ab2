package envoy

import (
	"cmp"
	"time"

	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// maxConnections is how many clients one Envoy takes; Envoy warns of a bootstrap without a bound.
	maxConnections = 50000
	// maxHeap is what one Envoy takes of memory by default, in bytes: with our buffers of 32 KiB that is room for many
	// thousands of busy connections beside the routes.
	maxHeap = 1 << 30

	heapMonitor        = "envoy.resource_monitors.fixed_heap"
	connectionsMonitor = "envoy.resource_monitors.global_downstream_max_connections"
)

// overloadManager bounds connections and memory. Step by step, as memory runs out: idle clients are let go sooner, then
// kept connections are closed after their answer and memory is given back, then requests are answered 503. An Envoy that
// the kernel kills would drop them all.
func overloadManager(o BootstrapOptions) *overloadv3.OverloadManager {
	return &overloadv3.OverloadManager{
		RefreshInterval: durationpb.New(250 * time.Millisecond), // Envoy's second is long when requests pile up
		ResourceMonitors: []*overloadv3.ResourceMonitor{
			monitor(connectionsMonitor, &connectionsv3.DownstreamConnectionsConfig{
				MaxActiveDownstreamConnections: maxConnections,
			}),
			monitor(heapMonitor, &heapv3.FixedHeapConfig{MaxHeapSizeBytes: cmp.Or(o.MaxHeap, maxHeap)}),
		},
		Actions: []*overloadv3.OverloadAction{
			reduceTimeouts(0.85, 0.95),
			whenHeapAbove(0.90, "envoy.overload_actions.shrink_heap"),
			whenHeapAbove(0.92, "envoy.overload_actions.disable_http_keepalive"),
			whenHeapAbove(0.95, "envoy.overload_actions.stop_accepting_requests"),
		},
	}
}

func monitor(name string, config proto.Message) *overloadv3.ResourceMonitor {
	return &overloadv3.ResourceMonitor{
		Name:       name,
		ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: Pack(config)},
	}
}

// whenHeapAbove takes an action when more than a share of the memory is taken.
func whenHeapAbove(share float64, action string) *overloadv3.OverloadAction {
	return &overloadv3.OverloadAction{Name: action, Triggers: []*overloadv3.Trigger{{
		Name: heapMonitor,
		TriggerOneof: &overloadv3.Trigger_Threshold{
			Threshold: &overloadv3.ThresholdTrigger{Value: share},
		},
	}}}
}

// reduceTimeouts shortens the time that clients may be idle, down to a tenth, as memory goes from one share to another.
func reduceTimeouts(from, to float64) *overloadv3.OverloadAction {
	tenth := &overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer_MinScale{MinScale: &typev3.Percent{Value: 10}}
	return &overloadv3.OverloadAction{
		Name: "envoy.overload_actions.reduce_timeouts",
		Triggers: []*overloadv3.Trigger{{
			Name: heapMonitor,
			TriggerOneof: &overloadv3.Trigger_Scaled{
				Scaled: &overloadv3.ScaledTrigger{ScalingThreshold: from, SaturationThreshold: to},
			},
		}},
		TypedConfig: Pack(&overloadv3.ScaleTimersOverloadActionConfig{
			TimerScaleFactors: []*overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer{
				{Timer: overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_CONNECTION_IDLE, OverloadAdjust: tenth},
				{Timer: overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_STREAM_IDLE, OverloadAdjust: tenth},
				{Timer: overloadv3.ScaleTimersOverloadActionConfig_TRANSPORT_SOCKET_CONNECT, OverloadAdjust: tenth},
			},
		}),
	}
}
