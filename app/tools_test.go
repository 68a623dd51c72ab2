package app

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// What gRPC's tools ask for stands behind the same token as the rest, and shows no secret.
func TestClientStatusOnTheAdminPort(t *testing.T) {
	t.Parallel()
	file := write(t, filepath.Join(t.TempDir(), "token"), "a token of enough characters")
	p, _ := running(t, Options{Dir: policyDir(t, quickstart), AdminTokenFile: file})
	until(t, "the policy", func() bool { return p.control.Outcome().Revision != "" })
	xdsPort, err := grpc.NewClient(p.address("xDS"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { xdsPort.Close() })
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(xdsPort).DeltaAggregatedResources(t.Context())
	must(t, err)
	must(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: "e", Cluster: "edge"}, TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
	}))
	_, err = stream.Recv()
	must(t, err)

	adminPort, err := grpc.NewClient(p.address("admin"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { adminPort.Close() })
	tool := statusv3.NewClientStatusDiscoveryServiceClient(adminPort)
	ctx := t.Context()
	for _, wrong := range []context.Context{ctx, metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer another token")} {
		if _, err := tool.FetchClientStatus(wrong, &statusv3.ClientStatusRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("without the token: %v", err)
		}
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer a token of enough characters")
	got, err := tool.FetchClientStatus(ctx, &statusv3.ClientStatusRequest{})
	must(t, err)
	if len(got.GetConfig()) != 1 || got.GetConfig()[0].GetNode().GetId() != "e" || len(got.GetConfig()[0].GetGenericXdsConfigs()) == 0 {
		t.Errorf("got %v", got)
	}
	held, err := tool.StreamClientStatus(ctx)
	must(t, err)
	must(t, held.Send(&statusv3.ClientStatusRequest{}))
	_, err = held.Recv()
	must(t, err) // it stays open until the process ends
	if _, err := statusv3.NewClientStatusDiscoveryServiceClient(xdsPort).FetchClientStatus(ctx, &statusv3.ClientStatusRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("on the port of Envoys: %v, want Unimplemented", err)
	}

	h := adminOf(t, p)
	if code, _, body := call(h, "POST", "/"+statusv3.ClientStatusDiscoveryService_ServiceDesc.ServiceName+"/FetchClientStatus", "Authorization", "Bearer a token of enough characters"); code != http.StatusUnsupportedMediaType {
		t.Errorf("by HTTP/1.1: %d %s", code, body)
	}
	for query, want := range map[string]bool{"": false, "?resources": true, "?resources&node=e": true, "?resources&node=other": false} {
		if _, _, body := call(h, "GET", "/status"+query, "Authorization", "Bearer a token of enough characters"); strings.Contains(body, `"resources": [`) != want {
			t.Errorf("%s: resources listed %t, want %t", query, !want, want)
		}
	}
}
