package patch_test

import (
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/patch"
	"github.com/legation/legation/policy"
)

// other stands for the keys whose matter some fields are.
type other struct{}

func (*other) Check(*policy.Check) {}

// answer stands for the keys that answer by themselves.
type answer struct{}

func (*answer) Check(*policy.Check) {}

func (*answer) Answers() bool { return true }

func (*answer) Route(envoy.RouteContext) envoy.RouteParts {
	return envoy.RouteParts{Route: &routev3.Route{
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}},
	}}
}

// kinds is the key in all its places, and others that it has to do with.
var kinds = []*policy.Kind{
	patch.RouteKind, patch.ServiceKind, patch.ListenerKind,
	policy.Define[other]("timeouts", policy.Layers, ""),
	policy.Define[other]("retry", policy.Layers, ""),
	policy.Define[other]("circuitBreakers", policy.InService, ""),
	policy.Define[other]("outlierDetection", policy.InService, ""),
	policy.Define[answer]("answer", policy.InRoute, ""),
}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }
