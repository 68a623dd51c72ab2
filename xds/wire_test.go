package xds

import (
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	"github.com/google/go-cmp/cmp"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
)

// read decodes a message in pieces of that size, as it comes in frames.
func read(t *testing.T, p Protocol, m proto.Message, size int) *request {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var data mem.BufferSlice
	for piece := range slices.Chunk(b, size) {
		data = append(data, mem.SliceBuffer(piece))
	}
	r := &request{protocol: p}
	if err := (codec{encoding.GetCodecV2("proto")}).Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRequestsAreReadWhereTheyLie(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 300) // whose length takes two bytes
	node := &corev3.Node{Id: "e", Cluster: "edge", UserAgentName: "envoy", Extensions: []*corev3.Extension{{Name: "x"}}}
	problem := &statuspb.Status{Code: 13, Message: "no good"}
	for p, m := range map[Protocol]proto.Message{
		Delta: &discoveryv3.DeltaDiscoveryRequest{
			Node: node, TypeUrl: cds, ResourceNamesSubscribe: []string{"a", long}, ResourceNamesUnsubscribe: []string{"b"},
			InitialResourceVersions: map[string]string{"a": "1"}, ResponseNonce: "7", ErrorDetail: problem,
		},
		SotW: &discoveryv3.DiscoveryRequest{
			VersionInfo: "1", Node: node, TypeUrl: cds, ResourceNames: []string{"a", long}, ResponseNonce: "7", ErrorDetail: problem,
		},
	} {
		r := read(t, p, m, 100)
		names, err := r.names.texts()
		if err != nil || !slices.Equal(names, []string{"a", long}) {
			t.Errorf("%s: names %q, error %v", p, names, err)
		}
		if string(r.url) != cds || string(r.nonce) != "7" {
			t.Errorf("%s: type %s, nonce %s", p, r.url, r.nonce)
		}
		if got, err := r.status(); err != nil || got.GetMessage() != "no good" {
			t.Errorf("%s: status %v, error %v", p, got, err)
		}
		got, err := r.readNode(true)
		want := &corev3.Node{Id: "e", Cluster: "edge", UserAgentName: "envoy"}
		if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%s: node: %v %s", p, err, diff)
		}
		if p == Delta && (r.dropped.count != 1 || r.known.count != 1) {
			t.Errorf("%d dropped, %d known, want one of each", r.dropped.count, r.known.count)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, m := range []proto.Message{
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesSubscribe: []string{"a"}, InitialResourceVersions: map[string]string{"a": "1"}},
		&discoveryv3.DiscoveryRequest{TypeUrl: cds, ResourceNames: []string{"a"}, Node: nodeOf("e", "edge")},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range []Protocol{Delta, SotW} {
			r := &request{protocol: p}
			ours := r.decode(b)
			var theirs proto.Message = &discoveryv3.DeltaDiscoveryRequest{}
			if p == SotW {
				theirs = &discoveryv3.DiscoveryRequest{}
			}
			if err := proto.Unmarshal(b, theirs); err != nil {
				continue // what is wrong within a field is found when it is looked at
			}
			if ours != nil {
				t.Fatalf("%s: %v, which is well formed", p, ours)
			}
			asked := theirs.(interface{ GetTypeUrl() string }).GetTypeUrl()
			if string(r.url) != asked {
				t.Errorf("%s: type %q, want %q", p, r.url, asked)
			}
			if _, err := r.names.texts(); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			if _, err := newPool().state(cds, r.known, nothing); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
	})
}

// What is sent is put together by hand: proto reads it as it would its own.
func TestResponsesAreWhatProtoWouldSend(t *testing.T) {
	t.Parallel()
	c := cluster("a", "1")
	s := snapshot(t, "1", c)["edge"]
	for p, want := range map[Protocol]proto.Message{
		Delta: &discoveryv3.DeltaDiscoveryResponse{
			SystemVersionInfo: s.Version(cds), TypeUrl: cds, Nonce: "n", RemovedResources: []string{"gone"},
			Resources: []*discoveryv3.Resource{{Name: "a", Version: c.Version, Resource: c.Body}},
		},
		SotW: &discoveryv3.DiscoveryResponse{VersionInfo: s.Version(cds), TypeUrl: cds, Nonce: "n", Resources: []*anypb.Any{c.Body}},
	} {
		for _, full := range []bool{false, true} {
			s := snapshot(t, "1", c)["edge"]
			if full {
				s.passages.size = maxRoom // no more answers in one piece
			}
			way := way{url: cds, protocol: p, to: s.set(cds), wildcard: true, asked: newPool().of([]string{"gone"})}
			sent, _ := s.passage(way).answer(false)
			if pieces := len(sent.pieces); (pieces > 1) != full {
				t.Errorf("%s: %d pieces, with no room left: %t", p, pieces, full)
			}
			out, err := (codec{encoding.GetCodecV2("proto")}).Marshal(withNonce(sent.pieces, "n"))
			if err != nil {
				t.Fatal(err)
			}
			got := want.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(out.Materialize(), got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s", p, diff)
			}
		}
	}
}

// The codec is for the whole gRPC server: health and reflection live beside us.
func TestCodecIsProtosForOthers(t *testing.T) {
	t.Parallel()
	c := codec{encoding.GetCodecV2("proto")}
	b, err := c.Marshal(&grpc_health_v1.HealthCheckRequest{Service: "x"})
	if err != nil {
		t.Fatal(err)
	}
	got := &grpc_health_v1.HealthCheckRequest{}
	if err := c.Unmarshal(b, got); err != nil || got.GetService() != "x" {
		t.Errorf("got %v, error %v", got, err)
	}
}

func TestServicesForOneType(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		conn := p.conn(t)
		routes, err := routeservice.NewRouteDiscoveryServiceClient(conn).DeltaRoutes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := routes.Send(&discoveryv3.DeltaDiscoveryRequest{Node: nodeOf("e", "edge"), ResourceNamesSubscribe: []string{"r"}}); err != nil {
			t.Fatal(err)
		}
		if r, err := routes.Recv(); err != nil || r.GetTypeUrl() != rds || len(r.GetResources()) != 1 {
			t.Errorf("routes: %v, error %v", r, err)
		}
		clusters, err := clusterservice.NewClusterDiscoveryServiceClient(conn).StreamClusters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := clusters.Send(&discoveryv3.DiscoveryRequest{Node: nodeOf("e", "edge")}); err != nil {
			t.Fatal(err)
		}
		r, err := clusters.Recv()
		if err != nil || r.GetTypeUrl() != cds || len(r.GetResources()) != 1 {
			t.Errorf("clusters: %v, error %v", r, err)
		}
		if err := clusters.Send(&discoveryv3.DiscoveryRequest{TypeUrl: lds}); err != nil {
			t.Fatal(err)
		}
		if _, err := clusters.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("listeners from the service for clusters: %v, want InvalidArgument", err)
		}
	})
}
