package envoy_test

import (
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestListenersServeTheirRoutes asks each listener for the routes that name it, and the others, in both kinds of tables.
func TestListenersServeTheirRoutes(t *testing.T) {
	a, b, c := httpListener("a"), httpListener("b"), httpListener("c")
	b.PerHost, c.PerHost = true, true
	on := func(names ...string) func(*policy.BoundRoute) {
		return func(r *policy.BoundRoute) { r.Listeners = names }
	}
	routes := []*policy.BoundRoute{
		named("only-a", "app.test", "/only", on("a")),
		named("only-b", "app.test", "/only", on("b")),
		named("b-host", "b.test", "/", on("b")),
		named("below", "*.below.test", "/", on("c", "a")),
		named("all", "app.test", "/"),
		named("any", "*", "/", on("a")),
	}
	addresses := live(t, modelOf([]*policy.Listener{a, b, c}, routes...))
	rows := []struct{ listener, host, path, want string }{
		{"a", "app.test", "/only", "only-a"},
		{"b", "app.test", "/only", "only-b"},
		{"c", "app.test", "/only", "all"},
		{"a", "app.test:8080", "/", "all"},
		{"b", "app.test:8080", "/", "all"},
		{"c", "app.test:8080", "/", "all"},
		{"a", "b.test", "/", "any"},
		{"b", "b.test", "/", "b-host"},
		{"c", "b.test", "/", ""},
		{"a", "x.below.test", "/", "below"},
		{"b", "x.below.test", "/", ""},
		{"c", "x.below.test", "/", "below"},
	}
	for _, r := range rows {
		got := get(t, addresses[r.listener], r.host, r.path, "x-legation-scope: c/app.test")
		if r.want == "" && got.code != 404 || r.want != "" && got.body != r.want {
			t.Errorf("%s: %s%s: %d %q, want %q", r.listener, r.host, r.path, got.code, got.body, r.want)
		}
	}
}

func TestMatches(t *testing.T) {
	template := func(r *policy.BoundRoute) {
		r.Match.Path = policy.PathMatch{Kind: policy.PathTemplate, Value: "/users/{id}/files/{rest=**}"}
	}
	ignoreCase := func(r *policy.BoundRoute) { r.Match.Path.IgnoreCase = true }
	exactly := func(r *policy.BoundRoute) { r.Match.Path.Kind = policy.PathExact }
	address := live(t, modelOf([]*policy.Listener{httpListener("http")},
		named("template", "app.test", "", template),
		named("prefix", "app.test", "/Any/Case", ignoreCase),
		named("exact", "app.test", "/Exact", exactly, ignoreCase),
		named("strict", "app.test", "/strict"),
	))["http"]
	for path, want := range map[string]string{
		"/users/7/files/a/b.txt": "template", "/users/7/files/a?x=/b": "template", "/users/7/8/files/a": "", "/users/7": "",
		"/any/CASE": "prefix", "/ANY/case/x": "prefix", "/any/cases": "", "/EXACT": "exact", "/exact/x": "",
		"/strict": "strict", "/STRICT": "",
	} {
		if got := get(t, address, "app.test", path); want == "" && got.code != 404 || want != "" && got.body != want {
			t.Errorf("%s: %d %q, want %q", path, got.code, got.body, want)
		}
	}
}

// TestGRPCDeadline holds that a call of gRPC is bounded by what the client says, and by nothing else.
func TestGRPCDeadline(t *testing.T) {
	grpc := func(r *policy.BoundRoute) { r.Match.GRPC = true }
	a := to(service("a", policy.Endpoint{Host: "10.0.0.1", Port: 80}))
	calls := route("calls", "app.test", "/pkg.Service", a)
	grpc(calls)
	bounded := route("bounded", "app.test", "/pkg.Other", a)
	grpc(bounded)
	bounded.Settings = policy.Settings{set(toyKind, &toy{route: envoy.RouteParts{Route: sends(func(r *routev3.RouteAction) {
		r.Timeout = durationpb.New(time.Minute)
	})}})}
	routes := routesOf(t, translate(t, modelOf([]*policy.Listener{httpListener("http")}, calls, bounded)))
	want := &routev3.RouteAction{Timeout: durationpb.New(0), MaxStreamDuration: &routev3.RouteAction_MaxStreamDuration{GrpcTimeoutHeaderMax: durationpb.New(0)}}
	got := routes[0].GetRoute()
	if !proto.Equal(got.Timeout, want.Timeout) || !proto.Equal(got.MaxStreamDuration, want.MaxStreamDuration) {
		t.Errorf("calls %v, want %v", got, want)
	}
	if got := routes[1].GetRoute(); got.Timeout.AsDuration() != time.Minute || got.MaxStreamDuration != nil {
		t.Errorf("bounded by a setting: %v", got)
	}
}
