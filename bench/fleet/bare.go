package main

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// nobody is a gRPC server that throws away what Envoys say, and answers no more than it takes to know that it has come:
// the floor under each xDS server that is made with grpc-go. It can be reconnected to only.
type nobody struct {
	asks int // of a client, before it asks for the marker
}

func (nobody) publish(int) error { return nil }

func (n nobody) register(g *grpc.Server) {
	desc := discoveryv3.AggregatedDiscoveryService_ServiceDesc
	desc.HandlerType, desc.Methods = nil, nil
	desc.Streams = []grpc.StreamDesc{{
		StreamName: "DeltaAggregatedResources", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, str grpc.ServerStream) error {
			for range n.asks {
				if err := str.RecvMsg(&unread{}); err != nil {
					return err
				}
			}
			if err := str.RecvMsg(&unread{}); err != nil { // the question for the marker
				return err
			}
			if err := str.SendMsg(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: resource.SecretType, Nonce: "1"}); err != nil {
				return err
			}
			for {
				if err := str.RecvMsg(&unread{}); err != nil {
					return err
				}
			}
		},
	}}
	g.RegisterService(&desc, nil)
}

// unread is a message that nobody looks at.
type unread struct{}

type unreadCodec struct{ encoding.CodecV2 }

func (c unreadCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if _, ok := v.(*unread); ok {
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// pretended is as much as a client has of the resources.
func pretended(s settings) map[string]map[string]string {
	known := map[string]map[string]string{}
	for _, ask := range asksOf(s) {
		names := ask.Names
		switch ask.URL {
		case resource.ClusterType:
			names = clusterNames(s)
		case resource.ListenerType:
			names = []string{"http"}
		}
		known[ask.URL] = map[string]string{}
		for _, name := range names {
			known[ask.URL][name] = "0123456789abcdef"
		}
	}
	return known
}
