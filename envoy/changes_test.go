package envoy_test

import (
	"fmt"
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/envoy"
)

func TestChanges(t *testing.T) {
	listener := func(name, prefix string) envoy.Resource {
		return envoy.Resource{Type: resource.ListenerType, Name: name, Message: &listenerv3.Listener{Name: name, StatPrefix: prefix}}
	}
	cluster := func(name, alt string) envoy.Resource {
		return envoy.Resource{Type: resource.ClusterType, Name: name, Message: &clusterv3.Cluster{Name: name, AltStatName: alt}}
	}
	before := []envoy.Resource{cluster("a", ""), cluster("b", ""), cluster("d", ""), listener("a", ""), listener("b", ""), listener("c", "")}
	after := []envoy.Resource{cluster("b", "new"), cluster("c", ""), cluster("d", ""), listener("a", ""), listener("b", "new"), listener("d", "")}
	var got []string
	for _, c := range envoy.Changes(before, after) {
		got = append(got, fmt.Sprintf("%T %s: %t → %t, drains %t", c.Either().Message, c.Either().Name, c.Before != nil, c.After != nil, c.Drains()))
	}
	want := []string{
		"*clusterv3.Cluster a: true → false, drains false",
		"*clusterv3.Cluster b: true → true, drains false",
		"*clusterv3.Cluster c: false → true, drains false",
		"*listenerv3.Listener b: true → true, drains true",
		"*listenerv3.Listener c: true → false, drains true",
		"*listenerv3.Listener d: false → true, drains false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
