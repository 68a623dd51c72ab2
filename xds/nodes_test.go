package xds

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// resourceLines is what the only Envoy has, as "cluster a ACK since 3s: words @origin".
func (p *plane) resourceLines(t *testing.T, began time.Time) (lines []string) {
	t.Helper()
	synctest.Wait()
	nodes := p.Nodes(Detail{Node: "d", Resources: 100}).Connected
	if len(nodes) != 1 {
		t.Fatalf("%d Envoys, want one", len(nodes))
	}
	for _, of := range nodes[0].Types {
		for _, r := range of.Resources {
			line := fmt.Sprintf("%s %s %s", of.Type, r.Name, r.State)
			if r.Since != nil {
				line += fmt.Sprintf(" %s", r.Since.Sub(began))
			}
			if r.Error != "" {
				line += fmt.Sprintf(": %s @%s", r.Error, r.Origin)
			}
			if has := r.State == ACK && of.Type != "secret"; r.State != NACK && (has != (r.Acknowledged != "") || has && r.Sent != r.Acknowledged) {
				t.Errorf("%s: sent %q, acknowledged %q", line, r.Sent, r.Acknowledged)
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// kept is what the Envoys have still of what they reject, as "a 1".
func (p *plane) kept(named func(name, version string) Resource) (lines []string) {
	for _, n := range p.Nodes(Detail{Resources: 100}).Connected {
		for _, of := range n.Types {
			for _, r := range of.Resources {
				for _, version := range []string{"1", "2", "3"} {
					if r.State == NACK && r.Acknowledged == named(r.Name, version).Version && r.Acknowledged != r.Sent {
						lines = append(lines, r.Name+" "+version)
					}
				}
			}
		}
	}
	return lines
}

// What waits behind a rejection is answered when it is asked for by name: then that is what the Envoy has, and keeps.
func TestVersionThatAnEnvoyKeeps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(snapshot(t, "1", cluster("a", "1"), listener("l", "1"), listener("m", "1")))
		e := p.envoy(t, Delta, "e")
		e.ask(cds)
		e.ask(lds, "l")
		e.got()
		e.set(func() { e.reject = rejecting(cds, "bad") })
		p.Publish(snapshot(t, "2", cluster("a", "1"), cluster("bad", "1"), listener("l", "2"), listener("m", "2")))
		want(t, e.got(), "cluster +bad")
		e.ask(lds, "m")
		want(t, e.got(), "listener +m")
		e.set(func() { e.reject = rejecting(lds, "m") })
		p.Publish(snapshot(t, "3", cluster("a", "1"), listener("l", "2"), listener("m", "3")))
		want(t, e.got(), "listener +l +m")
		want(t, p.kept(listener), "m 2")
		p.Publish(snapshot(t, "4", cluster("a", "1"), listener("l", "2"), listener("m", "4")))
		want(t, e.got(), "listener +m")
		want(t, p.kept(listener), "m 2")
		e.set(func() { e.reject = nil })
		p.Publish(snapshot(t, "5", cluster("a", "1"), listener("l", "2"), listener("m", "5")))
		want(t, e.got(), "listener +m")
		want(t, p.kept(listener))
	})
}

func TestResourcesOfAnEnvoy(t *testing.T) {
	for _, protocol := range []Protocol{Delta, SotW} {
		t.Run(string(protocol), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				began := time.Now()
				p := start(t, Options{})
				var last *Snapshot
				publish := func(revision string, resources ...Resource) {
					var err error
					if last, err = last.Next(revision, resources); err != nil {
						t.Fatal(err)
					}
					p.Publish(map[string]*Snapshot{"edge": last})
				}
				d := p.envoy(t, protocol, "d")
				d.ask(cds)
				d.ask(rds, "r", "missing")
				want(t, p.resourceLines(t, began), "route missing waiting", "route r waiting") // held

				time.Sleep(time.Second)
				secret := must(NewResource("key", &tlsv3.Secret{Name: "key"}, "policy.yaml:5:1", ""))
				publish("1", cluster("a", "1"), cluster("b", "1"), route("r", "1"), secret)
				d.ask(sds, "key")
				want(t, p.resourceLines(t, began), "cluster a ACK 1s", "cluster b ACK 1s",
					"route missing absent", "route r ACK 1s", "secret key ACK 1s")

				time.Sleep(time.Second)
				d.set(func() { d.reject = rejecting(cds, "b") })
				publish("2", cluster("a", "1"), cluster("b", "2"), route("r", "1"), secret)
				got := p.resourceLines(t, began)
				want(t, got[:2], "cluster a ACK 1s", "cluster b NACK 2s: Error adding/updating cluster(s) b: no good @policy.yaml:1:1")
				want(t, p.kept(cluster), "b 1")

				time.Sleep(time.Second)
				d.set(func() { d.reject = nil })
				publish("3", cluster("a", "1"), cluster("b", "3"), route("r", "1"), secret)
				want(t, p.resourceLines(t, began)[:2], "cluster a ACK 1s", "cluster b ACK 3s")

				time.Sleep(time.Second)
				d.set(func() { d.mute = true })
				publish("4", cluster("a", "4"), cluster("b", "3"), route("r", "4"), secret)
				want(t, p.resourceLines(t, began), "cluster a sent", "cluster b ACK 3s",
					"route missing absent", "route r waiting", "secret key ACK 1s")
			})
		})
	}
}

func TestResourcesAreListedWhereThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		for i := range 3 {
			p.envoy(t, Delta, fmt.Sprint(i)).askUsual()
		}
		synctest.Wait()
		for room, unlisted := range map[int]int{0: 0, 3: 3, 4: 2, 11: 1, 12: 0} {
			if got := p.Nodes(Detail{Resources: room}); got.Unlisted != unlisted || len(got.Connected) != 3 {
				t.Errorf("room for %d: %d of %d Envoys are not listed, want %d", room, got.Unlisted, len(got.Connected), unlisted)
			}
		}
	})
}

func TestEnvoysThatHaveLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		began := time.Now()
		d := p.envoy(t, Delta, "d")
		d.askUsual()
		d.got()
		time.Sleep(time.Minute)
		d.ask(rds, "other")
		d.got()
		time.Sleep(time.Minute)
		d.cancel()
		synctest.Wait()
		nodes := p.Nodes(Detail{Resources: 10}).Left
		if len(nodes) != 1 || nodes[0].Left == nil || nodes[0].Left.Sub(began) != 2*time.Minute || nodes[0].Seen.Sub(began) != time.Minute ||
			nodes[0].Revision != "1" || len(nodes[0].Types) != 4 {
			t.Errorf("got %+v", nodes)
		}
		if n := len(p.Status()); n != 0 {
			t.Errorf("%d Envoys are connected, want none", n)
		}

		back := p.envoy(t, Delta, "d")
		back.askUsual()
		back.got()
		if nodes := p.Nodes(Detail{}); len(nodes.Connected) != 1 || nodes.Connected[0].Left != nil || nodes.Left != nil {
			t.Errorf("after it came back: %+v", nodes)
		}
		back.cancel()
		time.Sleep(keepLeft + time.Second)
		if nodes := p.Nodes(Detail{}); len(nodes.Connected)+len(nodes.Left) != 0 {
			t.Errorf("an hour later: %+v", nodes)
		}

		for i := range maxLeft {
			p.roster.left[envoyName{"edge", fmt.Sprint(i)}] = NodeStatus{ID: fmt.Sprint(i), Left: new(time.Now().Add(time.Duration(i)))}
		}
		last := p.envoy(t, Delta, "last")
		last.ask(cds)
		last.got()
		last.cancel()
		long := connect(t, p.dial(t), Delta, nodeOf(strings.Repeat("x", maxNodeID+1), "edge"))
		long.ask(cds)
		long.got()
		long.cancel()
		synctest.Wait()
		nodes = p.Nodes(Detail{}).Left
		if slices.ContainsFunc(nodes, func(n NodeStatus) bool { return n.ID == "0" }) || !slices.ContainsFunc(nodes, func(n NodeStatus) bool { return n.ID == "last" }) {
			t.Error("not the one that left first was forgotten for the last one")
		}
		if len(nodes) != maxLeft {
			t.Errorf("%d Envoys are remembered, want %d", len(nodes), maxLeft)
		}
	})
}

func TestEnvoyThatHasLeftIsOneHoweverManyStreamsItHad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		ctx, leave := context.WithCancel(t.Context())
		conn := p.conn(t)
		routes, err := routeservice.NewRouteDiscoveryServiceClient(conn).DeltaRoutes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		clusters, err := clusterservice.NewClusterDiscoveryServiceClient(conn).StreamClusters(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := routes.Send(&discoveryv3.DeltaDiscoveryRequest{Node: nodeOf("e", "edge"), ResourceNamesSubscribe: []string{"r"}}); err != nil {
			t.Fatal(err)
		}
		if err := clusters.Send(&discoveryv3.DiscoveryRequest{Node: nodeOf("e", "edge")}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		left := p.Nodes(Detail{}).Left
		if len(left) != 1 || len(left[0].Types) != 2 || left[0].Types[0].Type != "cluster" || left[0].Types[1].Type != "route" {
			t.Errorf("got %+v, want one Envoy with its clusters and routes", left)
		}
	})
}

// packing is a listener that uses extensions, one of them inside another.
func packing(t *testing.T, urls ...string) Resource {
	t.Helper()
	var inner *anypb.Any
	for _, url := range urls {
		next := &anypb.Any{TypeUrl: "type.googleapis.com/" + url}
		if inner != nil {
			value, err := proto.Marshal(inner)
			if err != nil {
				t.Fatal(err)
			}
			next.Value = append([]byte{0x0a, byte(len(value))}, value...) // field 1 of whatever message
		}
		inner = next
	}
	return must(NewResource("l", &listenerv3.Listener{Name: "l", ListenerFilters: []*listenerv3.ListenerFilter{{
		Name: "f", ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: inner},
	}}}, "policy.yaml:4:1", ""))
}

func TestEnvoyThatCannotDoWhatThePolicyAsks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		long := "envoy.extensions.filters.http." + strings.Repeat("long_", 20) + "name.v3.Long"
		p := start(t, Options{})
		node := func(id string, urls ...string) *corev3.Node {
			n := nodeOf(id, "edge")
			for _, url := range urls {
				n.Extensions = append(n.Extensions, &corev3.Extension{Name: url, TypeUrls: []string{url}})
			}
			return n
		}
		off := node("off", "envoy.extensions.new", long)
		off.Extensions[0].Disabled = true
		for _, n := range []*corev3.Node{
			node("able", "envoy.extensions.new", long, "more"), node("able too", "envoy.extensions.new", long, "more"),
			node("old", long), off, nodeOf("silent", "edge"),
		} {
			e := connect(t, p.dial(t), Delta, n)
			e.ask(lds)
			e.got()
		}
		p.Publish(snapshot(t, "1", packing(t, "envoy.extensions.new", "google.protobuf.Struct"), route("r", long)))
		check := func(want map[string]string) {
			t.Helper()
			for _, n := range p.Nodes(Detail{}).Connected {
				got := ""
				for _, l := range n.Lacks {
					got += l.Type + " " + l.Origin
				}
				if got != want[n.ID] {
					t.Errorf("%s lacks %q, want %q", n.ID, got, want[n.ID])
				}
			}
		}
		check(map[string]string{"old": "envoy.extensions.new policy.yaml:4:1", "off": "envoy.extensions.new policy.yaml:4:1"})
		p.Publish(snapshot(t, "2", packing(t, long)))
		check(map[string]string{})
		if n := len(p.roster.kinds); n != 2 {
			t.Errorf("%d kinds of Envoys are remembered, want 2", n)
		}
		p.Publish(nil)
		check(map[string]string{})
	})
}
