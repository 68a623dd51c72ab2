package xds

import (
	"fmt"
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
)

// startStatus serves what a plane knows of its Envoys.
func startStatus(t *testing.T, c ClientStatus) statusv3.ClientStatusDiscoveryServiceClient {
	t.Helper()
	listener, g := bufconn.Listen(1<<16), grpc.NewServer()
	c.Register(g)
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	return statusv3.NewClientStatusDiscoveryServiceClient(connTo(t, listener))
}

// generic is the configurations as "node: ClusterType a@ ACKED SYNCED contents: words".
func generic(r *statusv3.ClientStatusResponse) (lines []string) {
	for _, c := range r.GetConfig() {
		for _, g := range c.GetGenericXdsConfigs() {
			line := fmt.Sprintf("%s/%s %s %s %s %s", c.GetNode().GetCluster(), c.GetNode().GetId(), kindOf(g.GetTypeUrl()).short, g.GetName(), g.GetClientStatus(), g.GetConfigStatus())
			if m, err := g.GetXdsConfig().UnmarshalNew(); err == nil {
				line += " " + string(m.ProtoReflect().Descriptor().Name())
				if c, ok := m.(*clusterv3.Cluster); ok {
					line += " " + c.GetAltStatName()
				}
			}
			if e := g.GetErrorState(); e != nil {
				line += ": " + e.GetDetails()
				if e.GetVersionInfo() == "" || e.GetLastUpdateAttempt() == nil || e.GetFailedConfiguration() == nil {
					line += " but not what"
				}
			}
			if (g.GetVersionInfo() != "") != (g.GetClientStatus() == adminv3.ClientResourceStatus_ACKED && g.GetTypeUrl() != sds) {
				line += " at version " + g.GetVersionInfo()
			}
			lines = append(lines, line)
		}
	}
	return lines
}

func TestClientStatusTellsTheVersionThatIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(snapshot(t, "1", cluster("a", "1")))
		d := p.envoy(t, Delta, "d")
		d.ask(cds)
		d.got()
		d.set(func() { d.reject = rejecting(cds, "a") })
		p.Publish(snapshot(t, "2", cluster("a", "2")))
		d.got()
		got, err := startStatus(t, ClientStatus{Server: p.Server}).FetchClientStatus(t.Context(), &statusv3.ClientStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		one := got.GetConfig()[0].GetGenericXdsConfigs()[0]
		if kept, rejected := one.GetVersionInfo(), one.GetErrorState().GetVersionInfo(); kept != cluster("a", "1").Version || rejected != cluster("a", "2").Version {
			t.Errorf("it keeps %q and rejects %q: %v", kept, rejected, one)
		}
	})
}

func TestClientStatus(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		secret := must(NewResource("key", &tlsv3.Secret{Name: "key"}, "policy.yaml:5:1", ""))
		p.Publish(snapshot(t, "1", cluster("a", "word"), cluster("b", "1"), secret))
		d, s := p.envoy(t, Delta, "d"), p.envoy(t, SotW, "s")
		d.set(func() { d.reject = rejecting(cds, "b") })
		d.ask(cds)
		d.ask(sds, "key", "missing")
		s.ask(cds)
		d.got()
		s.got()
		c := startStatus(t, ClientStatus{Server: p.Server, Show: func(m proto.Message) proto.Message {
			shown := proto.Clone(m).(*clusterv3.Cluster)
			shown.AltStatName = strings.ReplaceAll(shown.AltStatName, "word", "[redacted]")
			return shown
		}})
		got, err := c.FetchClientStatus(t.Context(), &statusv3.ClientStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		want(t, generic(got),
			"edge/d cluster a ACKED SYNCED Cluster [redacted]",
			"edge/d cluster b NACKED ERROR: Error adding/updating cluster(s) b: no good (policy.yaml:1:1)",
			"edge/d secret key ACKED SYNCED",
			"edge/d secret missing DOES_NOT_EXIST SYNCED",
			"edge/s cluster a ACKED SYNCED Cluster [redacted]",
			"edge/s cluster b ACKED SYNCED Cluster 1")

		str, err := c.StreamClientStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		only := &statusv3.ClientStatusRequest{ExcludeResourceContents: true, NodeMatchers: []*matcherv3.NodeMatcher{{
			NodeId: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "s"}},
		}}}
		for range 2 {
			if err := str.Send(only); err != nil {
				t.Fatal(err)
			}
			if got, err = str.Recv(); err != nil {
				t.Fatal(err)
			}
			want(t, generic(got), "edge/s cluster a ACKED SYNCED", "edge/s cluster b ACKED SYNCED")
		}
		if err := str.CloseSend(); err != nil {
			t.Fatal(err)
		}

		unseen, err := startStatus(t, ClientStatus{Server: p.Server}).FetchClientStatus(t.Context(), only)
		if err != nil || unseen.GetConfig()[0].GetGenericXdsConfigs()[0].GetXdsConfig() != nil {
			t.Errorf("without Show: %v, %v", unseen, err)
		}
	})
}

func TestClientStatusIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		var names []string
		for i := range maxListed + 1 {
			names = append(names, fmt.Sprint(i))
		}
		d := p.envoy(t, Delta, "d")
		d.ask(rds, names...) // each of them is absent
		d.got()
		_, err := ClientStatus{Server: p.Server}.FetchClientStatus(t.Context(), &statusv3.ClientStatusRequest{})
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("got %v, want ResourceExhausted", err)
		}

		p = start(t, Options{})
		p.Publish(snapshot(t, "1", cluster("+huge", strings.Repeat("x", maxContents)), cluster("a", "1"), cluster("b", "1")))
		d = p.envoy(t, Delta, "d")
		d.ask(cds)
		d.got()
		got, err := ClientStatus{Server: p.Server, Show: func(m proto.Message) proto.Message { return m }}.FetchClientStatus(t.Context(), &statusv3.ClientStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range got.GetConfig()[0].GetGenericXdsConfigs() {
			if (g.GetXdsConfig() != nil) != (g.GetName() == "+huge") {
				t.Errorf("%s: %d bytes of contents", g.GetName(), proto.Size(g.GetXdsConfig()))
			}
		}
	})
}

func TestNodeMatchers(t *testing.T) {
	text := func(m *matcherv3.StringMatcher) *matcherv3.NodeMatcher { return &matcherv3.NodeMatcher{NodeId: m} }
	regex := func(s string) *matcherv3.NodeMatcher {
		return text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: s}}})
	}
	exact := func(s string) *matcherv3.NodeMatcher {
		return text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}})
	}
	for name, test := range map[string]struct {
		list  []*matcherv3.NodeMatcher
		match bool
		bad   bool
	}{
		"none":       {match: true},
		"empty":      {list: []*matcherv3.NodeMatcher{{}}, match: true},
		"exact":      {list: []*matcherv3.NodeMatcher{exact("edge-1")}, match: true},
		"case":       {list: []*matcherv3.NodeMatcher{exact("Edge-1")}},
		"one of two": {list: []*matcherv3.NodeMatcher{exact("edge-2"), exact("edge-1")}, match: true},
		"ignored case": {list: []*matcherv3.NodeMatcher{text(&matcherv3.StringMatcher{
			IgnoreCase: true, MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "EDGE-1"},
		})}, match: true},
		"prefix":   {list: []*matcherv3.NodeMatcher{text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "edge"}})}, match: true},
		"suffix":   {list: []*matcherv3.NodeMatcher{text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: "edge"}})}},
		"contains": {list: []*matcherv3.NodeMatcher{text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: "e-"}})}, match: true},
		"regex":    {list: []*matcherv3.NodeMatcher{regex("edge-.")}, match: true},
		"part":     {list: []*matcherv3.NodeMatcher{regex("edge")}},
		"bad":      {list: []*matcherv3.NodeMatcher{regex("(")}, bad: true},
		"long":     {list: []*matcherv3.NodeMatcher{exact(strings.Repeat("x", maxMatcher))}, bad: true},
		"no text":  {list: []*matcherv3.NodeMatcher{text(&matcherv3.StringMatcher{})}, bad: true},
		"metadata": {list: []*matcherv3.NodeMatcher{{NodeMetadatas: []*matcherv3.StructMatcher{{
			Path: []*matcherv3.StructMatcher_PathSegment{{Segment: &matcherv3.StructMatcher_PathSegment_Key{Key: "x"}}},
		}}}}, bad: true},
	} {
		match, err := nodeMatcher(test.list)
		if (err != nil) != test.bad || err == nil && match("edge-1") != test.match {
			t.Errorf("%s: got %v, want a match %t, an error %t", name, err, test.match, test.bad)
		}
	}
}
