package xds

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

// These are the cases of the public conformance suite for xDS servers (its features for subscribing, unsubscribing and
// delta), told anew as tables. The suite itself can be run against ./conformancetest.

// A conformance case is what a client does and what the server does, step by step, and after each step all responses that
// have come: no fewer, and no more. In responses, A=2 is the resource A as it is in version 2, and -A is one that is gone.
// The client acknowledges everything.
//
//	ask A B     the client asks for these names as well; in the state of the world, it goes on asking for the others
//	only A      in the state of the world: from now on it asks for these alone
//	drop A      delta: it unsubscribes
//	set A=2     the server changes or adds a resource
//	remove A    the server removes one, and what that leaves over has time to go
type conformance struct {
	name      string
	types     string // cds lds rds eds; with a plus, those of one aggregated stream
	protocols []Protocol
	has       string // that the server has in version 1
	steps     []conformanceStep
}

type conformanceStep struct{ do, want string }

var bothProtocols = []Protocol{SotW, Delta}

var conformances = []conformance{
	{"all resources come at once on a wildcard", "cds lds", bothProtocols, "A B C", []conformanceStep{{"ask", "A=1 B=1 C=1"}}},
	{"a wildcard is told of changes, whole", "cds lds", []Protocol{SotW}, "A B C", []conformanceStep{
		{"ask", "A=1 B=1 C=1"}, {"set A=2", "A=2 B=1 C=1"},
	}},
	{"a wildcard is told of what is new, whole", "cds lds", []Protocol{SotW}, "A B C", []conformanceStep{
		{"ask", "A=1 B=1 C=1"}, {"set D=2", "A=1 B=1 C=1 D=2"},
	}},
	{"a wildcard is told of what is new, alone", "cds lds", []Protocol{Delta}, "A B C", []conformanceStep{
		{"ask", "A=1 B=1 C=1"}, {"set D=2", "D=2"}, {"set A=2", "A=2"},
	}},
	{"only what is asked for comes", "cds lds rds eds", bothProtocols, "A B C D", []conformanceStep{{"ask D B", "B=1 D=1"}}},
	{"what is asked for comes whole when one changes", "cds lds", []Protocol{SotW}, "A B C D", []conformanceStep{
		{"ask B D", "B=1 D=1"}, {"set B=2", "B=2 D=1"}, {"set A=2", ""},
	}},
	{"what is asked for comes alone when it changes", "rds eds", []Protocol{SotW}, "A B C D", []conformanceStep{
		{"ask B D", "B=1 D=1"}, {"set B=2", "B=2"}, {"set A=2", ""},
	}},
	{"what is not there comes when it is, whole", "cds lds", []Protocol{SotW}, "A B C", []conformanceStep{
		{"ask A Z", "A=1"}, {"set Z=2", "A=1 Z=2"},
	}},
	{"what is not there comes when it is, alone", "rds", []Protocol{SotW}, "A B C", []conformanceStep{
		{"ask A Z", "A=1"}, {"set Z=2", "Z=2"},
	}},
	{"endpoints that are not there come empty, and then alone", "eds", []Protocol{SotW}, "A B C", []conformanceStep{
		{"ask A Z", "A=1 Z="}, {"set Z=2", "Z=2"},
	}},
	{"several types share a stream", "cds+lds rds+eds", []Protocol{SotW}, "A B C", []conformanceStep{
		{"ask B", "B=1"}, {"next ask B", "B=1"}, {"set B=2", "%"},
	}},
	{"some are no longer asked for, of what comes whole", "cds lds", []Protocol{SotW}, "A B C D F", []conformanceStep{
		{"ask C A B", "A=1 B=1 C=1"}, {"only A", ""}, {"set A=2", "A=2"},
	}},
	{"some are no longer asked for, of what comes alone", "rds eds", []Protocol{SotW}, "A B C D", []conformanceStep{
		{"ask B D", "B=1 D=1"}, {"only B", ""}, {"set B=2", "B=2"}, {"set D=2", ""},
	}},
	{"nothing is asked for any more", "cds lds rds eds", []Protocol{SotW}, "A B C D", []conformanceStep{
		{"ask A B", "A=1 B=1"}, {"only", ""}, {"set B=2", ""},
	}},
	{"one after the other", "cds lds rds eds", []Protocol{Delta}, "A B C", []conformanceStep{{"ask A", "A=1"}, {"ask B", "B=1"}}},
	{"only what changed comes", "cds lds rds eds", []Protocol{Delta}, "A B C", []conformanceStep{
		{"ask A B C", "A=1 B=1 C=1"}, {"set A=2", "A=2"},
	}},
	{"what is not there is told, and comes when it is", "cds lds rds eds", []Protocol{Delta}, "A", []conformanceStep{
		{"ask A B", "A=1 -B"}, {"set B=1", "B=1"},
	}},
	{"what is gone is told, and comes again", "cds lds rds eds", []Protocol{Delta}, "A B", []conformanceStep{
		{"ask A B", "A=1 B=1"}, {"remove B", "-B"}, {"set B=2", "B=2"},
	}},
	{"what is no longer asked for does not come", "cds lds rds eds", []Protocol{Delta}, "A B", []conformanceStep{
		{"ask A B", "A=1 B=1"}, {"drop B", ""}, {"set B=2", ""}, {"drop A", ""}, {"set A=2", ""},
	}},
}

// conformanceTypes are the types of the cases, and how a resource of that name and version is made.
var conformanceTypes = map[string]struct {
	url, service, stream string
	make                 func(name, version string) Resource
}{
	"cds": {cds, "envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", cluster},
	"lds": {lds, "envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", listener},
	"rds": {rds, "envoy.service.route.v3.RouteDiscoveryService", "Routes", route},
	"eds": {eds, "envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", endpoint},
}

func TestConformance(t *testing.T) {
	for _, c := range conformances {
		for of := range strings.FieldsSeq(c.types) {
			types := strings.Split(of, "+")
			for _, protocol := range c.protocols {
				for _, aggregated := range []bool{true, false} {
					if !aggregated && len(types) > 1 {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s %s aggregated=%t", c.name, of, protocol, aggregated), func(t *testing.T) {
						bubble(t, func(t *testing.T) { c.run(t, types, protocol, aggregated) })
					})
				}
			}
		}
	}
}

func (c conformance) run(t *testing.T, types []string, protocol Protocol, aggregated bool) {
	p := start(t, Options{})
	state := map[string]string{}
	for name := range strings.FieldsSeq(c.has) {
		state[name] = "1"
	}
	publish := func(revision string) {
		var all []Resource
		for _, of := range types {
			for _, name := range slices.Sorted(maps.Keys(state)) {
				all = append(all, conformanceTypes[of].make(name, state[name]))
			}
		}
		p.Publish(snapshot(t, revision, all...))
	}
	publish("first")
	client := newConformant(t, p, protocol, types[0], aggregated)
	for i, step := range c.steps {
		of := types[0]
		do, names, _ := strings.Cut(step.do, " ")
		if do == "next" {
			of = types[1]
			do, names, _ = strings.Cut(names, " ")
		}
		switch do {
		case "set":
			name, version, _ := strings.Cut(names, "=")
			state[name] = version
			publish(step.do)
		case "remove":
			delete(state, names)
			publish(step.do)
			time.Sleep(time.Minute)
		default:
			client.request(do, conformanceTypes[of].url, strings.Fields(names))
		}
		want := step.want
		if want == "%" { // both types have changed
			want = "B=2 | B=2"
		}
		if got := client.got(); got != want {
			t.Errorf("step %d, %s: got %q, want %q", i+1, step.do, got, want)
		}
	}
}

// conformant is a client of either protocol that acknowledges everything, and sends its node once.
type conformant struct {
	t        *testing.T
	protocol Protocol
	stream   grpc.ClientStream

	mu     sync.Mutex // guards what follows, and sending
	node   *corev3.Node
	names  map[string][]string
	nonces map[string]string
	log    []string
}

func newConformant(t *testing.T, p *plane, protocol Protocol, of string, aggregated bool) *conformant {
	t.Helper()
	service, method := "envoy.service.discovery.v3.AggregatedDiscoveryService", "AggregatedResources"
	if !aggregated {
		service, method = conformanceTypes[of].service, conformanceTypes[of].stream
	}
	prefix := "Stream"
	if protocol == Delta {
		prefix = "Delta"
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	str, err := p.conn(t).NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+service+"/"+prefix+method)
	if err != nil {
		t.Fatal(err)
	}
	c := &conformant{t: t, protocol: protocol, stream: str, node: nodeOf("client", "edge"), names: map[string][]string{}, nonces: map[string]string{}}
	go c.read()
	return c
}

// request asks for names, or for no more of them.
func (c *conformant) request(do, url string, names []string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &discoveryv3.DeltaDiscoveryRequest{Node: c.node, TypeUrl: url}
	switch do {
	case "ask":
		c.names[url] = append(c.names[url], names...)
		d.ResourceNamesSubscribe = names
	case "only":
		c.names[url] = names
	case "drop":
		d.ResourceNamesUnsubscribe = names
	default:
		c.t.Fatalf("a step that nobody knows: %s", do)
	}
	var err error
	if c.protocol == Delta {
		err = c.stream.SendMsg(d)
	} else {
		err = c.stream.SendMsg(&discoveryv3.DiscoveryRequest{Node: c.node, TypeUrl: url, ResourceNames: c.names[url], ResponseNonce: c.nonces[url]})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.node = nil
}

func (c *conformant) read() {
	for {
		var err error
		if c.protocol == Delta {
			err = c.readDelta()
		} else {
			err = c.readSotW()
		}
		if err != nil {
			return // the end of the test; what is missing is missed by its steps
		}
	}
}

func (c *conformant) readSotW() error {
	var r discoveryv3.DiscoveryResponse
	if err := c.stream.RecvMsg(&r); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(r.GetResources(), nil)
	c.nonces[r.GetTypeUrl()] = r.GetNonce()
	return c.stream.SendMsg(&discoveryv3.DiscoveryRequest{
		TypeUrl: r.GetTypeUrl(), ResourceNames: c.names[r.GetTypeUrl()], ResponseNonce: r.GetNonce(), VersionInfo: r.GetVersionInfo(),
	})
}

func (c *conformant) readDelta() error {
	var r discoveryv3.DeltaDiscoveryResponse
	if err := c.stream.RecvMsg(&r); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var bodies []*anypb.Any
	for _, one := range r.GetResources() {
		bodies = append(bodies, one.GetResource())
	}
	c.note(bodies, r.GetRemovedResources())
	return c.stream.SendMsg(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
}

// note writes a response down, by name.
func (c *conformant) note(bodies []*anypb.Any, removed []string) {
	var parts []string
	for _, b := range bodies {
		m, err := b.UnmarshalNew()
		if err != nil {
			c.t.Error(err)
			return
		}
		version := ""
		switch m := m.(type) {
		case *clusterv3.Cluster:
			version = m.GetAltStatName()
		case *listenerv3.Listener:
			version = m.GetStatPrefix()
		case *routev3.RouteConfiguration:
			version = m.GetVirtualHosts()[0].GetName()
		case *endpointv3.ClusterLoadAssignment:
			version = strings.Join(slices.Collect(maps.Keys(m.GetNamedEndpoints())), "")
		}
		parts = append(parts, nameOf(c.t, b)+"="+version)
	}
	slices.Sort(parts)
	for _, name := range removed {
		parts = append(parts, "-"+name)
	}
	c.log = append(c.log, strings.Join(parts, " "))
}

// got is the responses since the last call, once nothing moves.
func (c *conformant) got() string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.log) // of several types any may be first
	lines := strings.Join(c.log, " | ")
	c.log = nil
	return lines
}
