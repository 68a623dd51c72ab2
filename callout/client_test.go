package callout

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestCallsOfAClient(t *testing.T) {
	c := start(t, Options{}).dial(t)
	mustCall(t, c, echo, "hello", "hello")
	mustCall(t, c, echo, "", "")
	_, err := call(t.Context(), c, failed, "7 nicht größer als 100 %\n")
	wantCode(t, err, codes.PermissionDenied, "nicht größer als 100 %\n")
	_, err = call(t.Context(), c, panics, "secret")
	wantCode(t, err, codes.Internal, "internal error")
	_, err = call(t.Context(), c, "/callout.Test/Missing", "")
	wantCode(t, err, codes.Unimplemented, "unknown service callout.Test")
	h, err := grpc_health_v1.NewHealthClient(c).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || h.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: got %v, %v", h, err)
	}
	mustCall(t, c, echo, "again", "again")
}
