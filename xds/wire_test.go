package xds

import (
	"testing"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
)

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
