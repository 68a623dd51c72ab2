package main

import (
	"context"
	"net"
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// fieldsFrom is a message of the suite with these fields, by number from 1 on; what is nil is left out.
func fieldsFrom(values ...[]byte) *emptypb.Empty {
	var b []byte
	for i, value := range values {
		if value != nil {
			b = protowire.AppendBytes(protowire.AppendTag(b, protowire.Number(i+1), protowire.BytesType), value)
		}
	}
	m := &emptypb.Empty{}
	m.ProtoReflect().SetUnknown(b)
	return m
}

func dial(t *testing.T, l net.Listener) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// The suite's words get to the server, and its own versions come back.
func TestSuiteIsServed(t *testing.T) {
	adapters, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	targets, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, adapters, targets) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	suite, target := dial(t, adapters), clusterservice.NewClusterDiscoveryServiceClient(dial(t, targets))
	tell := func(method string, in *emptypb.Empty) {
		t.Helper()
		if err := suite.Invoke(t.Context(), "/adapter.Adapter/"+method, in, &emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	packed, err := anypb.New(&clusterv3.Cluster{Name: "A"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := proto.Marshal(packed)
	if err != nil {
		t.Fatal(err)
	}
	tell("SetState", fieldsFrom([]byte("id"), []byte("1"), first))

	str, err := target.StreamClusters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request := &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "id"}}
	expect := func(version string, want ...string) {
		t.Helper()
		if err := str.Send(request); err != nil {
			t.Fatal(err)
		}
		r, err := str.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, packed := range r.GetResources() {
			var c clusterv3.Cluster
			if err := packed.UnmarshalTo(&c); err != nil {
				t.Fatal(err)
			}
			got = append(got, c.GetName()+"="+c.GetAltStatName())
		}
		if r.GetVersionInfo() != version || !slices.Equal(got, want) {
			t.Errorf("got %q in version %q, want %q in %q", got, r.GetVersionInfo(), want, version)
		}
		request = &discoveryv3.DiscoveryRequest{ResponseNonce: r.GetNonce(), VersionInfo: r.GetVersionInfo()}
	}
	expect("1", "A=1")
	url := []byte(resource.ClusterType)
	tell("AddResource", fieldsFrom([]byte("id"), url, []byte("B"), []byte("2")))
	expect("2", "A=1", "B=2")
	tell("UpdateResource", fieldsFrom([]byte("id"), url, []byte("A"), []byte("3")))
	expect("3", "A=3", "B=2")
	tell("ClearState", fieldsFrom([]byte("id")))
}
