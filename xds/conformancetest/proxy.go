package main

import (
	"context"
	"errors"
	"io"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// proxy stands between the suite and the server.
type proxy struct {
	server *grpc.ClientConn
	a      *adapter
}

func (p proxy) handle(_ any, suite grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(suite)
	if !ok {
		return status.Error(codes.Internal, "no method")
	}
	ctx, cancel := context.WithCancel(suite.Context())
	defer cancel()
	server, err := p.server.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	request, response := p.sotw()
	if strings.Contains(method, "/Delta") {
		request, response = p.delta()
	}
	go func() {
		if err := forward(suite.RecvMsg, server.SendMsg, request); err == nil {
			_ = server.CloseSend() // of no use where the stream has ended
			return
		}
		cancel()
	}()
	return forward(server.RecvMsg, suite.SendMsg, response)
}

// forward hands on messages until there are no more.
func forward(receive, send func(any) error, next func() (proto.Message, func())) error {
	for {
		m, mend := next()
		err := receive(m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		mend()
		if err := send(m); err != nil {
			return err
		}
	}
}

func (p proxy) sotw() (request, response func() (proto.Message, func())) {
	request = func() (proto.Message, func()) {
		r := &discoveryv3.DiscoveryRequest{}
		return r, func() { join(r.GetNode()) }
	}
	response = func() (proto.Message, func()) {
		r := &discoveryv3.DiscoveryResponse{}
		return r, func() { r.VersionInfo = p.a.version(r.GetTypeUrl()) }
	}
	return request, response
}

func (p proxy) delta() (request, response func() (proto.Message, func())) {
	request = func() (proto.Message, func()) {
		r := &discoveryv3.DeltaDiscoveryRequest{}
		return r, func() { join(r.GetNode()) }
	}
	response = func() (proto.Message, func()) {
		r := &discoveryv3.DeltaDiscoveryResponse{}
		return r, func() { r.SystemVersionInfo = p.a.version(r.GetTypeUrl()) }
	}
	return request, response
}

// join puts the node into the group.
func join(n *corev3.Node) {
	if n != nil {
		n.Cluster = group
	}
}
