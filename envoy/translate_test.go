package envoy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func translate(t *testing.T, m *policy.Model, kinds ...*policy.Kind) []envoy.Resource {
	t.Helper()
	resources, err := envoy.Translate(m, append(kinds, testKinds...))
	if err != nil {
		t.Fatal(err)
	}
	return resources["edge"]
}

// routesOf is the routes of the listener http but the one that refuses TRACE.
func routesOf(t *testing.T, list []envoy.Resource) []*routev3.Route {
	t.Helper()
	return find[*routev3.RouteConfiguration](t, list, "http").VirtualHosts[0].Routes[1:]
}

func sends(change func(*routev3.RouteAction)) *routev3.Route {
	a := new(routev3.RouteAction)
	change(a)
	return &routev3.Route{Action: &routev3.Route_Route{Route: a}}
}

func TestContributionsAreMerged(t *testing.T) {
	s := service("web", policy.Endpoint{Host: "10.0.0.1", Port: 80})
	s.Settings = policy.Settings{set(serviceToy, &toy{route: envoy.RouteParts{
		Route: sends(func(a *routev3.RouteAction) { a.Priority = corev3.RoutingPriority_HIGH }),
	}})}
	r := route("r", "app.test", "/", to(s))
	limits := func(key string) proto.Message {
		return &ratelimitv3.RateLimitPerRoute{RateLimits: []*routev3.RateLimit{{
			Actions: []*routev3.RateLimit_Action{{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
				GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorValue: key},
			}}},
		}}}
	}
	r.Settings = policy.Settings{
		set(toyKind, &toy{route: envoy.RouteParts{
			Route:   sends(func(a *routev3.RouteAction) { a.Timeout = durationpb.New(500 * time.Millisecond) }),
			Filters: map[string]proto.Message{"test.limit": limits("outer")},
		}}),
		set(toyKind, &toy{route: envoy.RouteParts{
			Route:   answers(503, "not this: the route has backends"),
			Filters: map[string]proto.Message{"test.limit": limits("inner")},
		}}),
	}
	got := routesOf(t, translate(t, modelOf([]*policy.Listener{httpListener("http")}, r)))[0]

	if got, want := got.GetRoute().GetTimeout().AsDuration(), 500*time.Millisecond; got != want {
		t.Errorf("timeout %v, want %v, the setting's and not a sum with the default", got, want)
	}
	if got := got.GetRoute(); got.GetCluster() != "web" || got.Priority != corev3.RoutingPriority_HIGH {
		t.Errorf("action %v, want the backend and what the service adds", got)
	}
	limit := new(ratelimitv3.RateLimitPerRoute)
	if err := got.TypedPerFilterConfig["test.limit"].UnmarshalTo(limit); err != nil || len(limit.RateLimits) != 2 {
		t.Errorf("stacked limits: %v, %v", limit, err)
	}
	mark := got.Metadata.FilterMetadata[envoy.Metadata].AsMap()
	if version, _ := mark["version"].(string); mark["route"] != "r" || len(version) != 12 {
		t.Errorf("metadata %v", mark)
	}
}

func TestServiceSettingsThatAreALayerAreAskedOnce(t *testing.T) {
	asked := &toy{route: envoy.RouteParts{Route: &routev3.Route{RequestHeadersToRemove: []string{"x"}}}}
	s := service("web", policy.Endpoint{Host: "10.0.0.1", Port: 80})
	s.Settings = policy.Settings{set(toyKind, asked)} // may stand in routes: it has been merged into the route
	r := route("r", "app.test", "/", to(s))
	r.Settings = policy.Settings{set(toyKind, asked)}
	got := routesOf(t, translate(t, modelOf([]*policy.Listener{httpListener("http")}, r)))[0]
	if len(got.RequestHeadersToRemove) != 1 {
		t.Errorf("headers to remove: %q, want one", got.RequestHeadersToRemove)
	}
}

func TestListenerSettingsWin(t *testing.T) {
	l := httpListener("http")
	l.Settings = policy.Settings{set(toyKind, &toy{http: &hcmv3.HttpConnectionManager{
		RequestTimeout:            durationpb.New(500 * time.Millisecond),
		XffNumTrustedHops:         2,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{MaxHeadersCount: wrapperspb.UInt32(50)},
	}})}
	list := translate(t, modelOf([]*policy.Listener{l}, named("r", "app.test", "/")))
	manager := new(hcmv3.HttpConnectionManager)
	filters := find[*listenerv3.Listener](t, list, "http").FilterChains[0].Filters
	if err := filters[0].GetTypedConfig().UnmarshalTo(manager); err != nil {
		t.Fatal(err)
	}
	common := manager.CommonHttpProtocolOptions
	if manager.RequestTimeout.AsDuration() != 500*time.Millisecond || manager.XffNumTrustedHops != 2 ||
		common.MaxHeadersCount.Value != 50 || common.HeadersWithUnderscoresAction == 0 {
		t.Errorf("the connection manager is %v", manager)
	}
	var names []string
	for _, f := range manager.HttpFilters {
		names = append(names, f.Name)
	}
	if got, want := strings.Join(names, " "), "legation.gate legation.guard test.door envoy.filters.http.router"; got != want {
		t.Errorf("chain %q, want %q", got, want)
	}
}

func TestClusterSettingsWin(t *testing.T) {
	s := service("web", policy.Endpoint{Host: "10.0.0.1", Port: 80})
	m := modelOf([]*policy.Listener{httpListener("http")}, route("r", "app.test", "/", to(s)))
	plain := endpointsOf(translate(t, m))
	s.Settings = policy.Settings{set(toyKind, &toy{cluster: &clusterv3.Cluster{
		ConnectTimeout: durationpb.New(250 * time.Millisecond),
		LbPolicy:       clusterv3.Cluster_LEAST_REQUEST,
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: wrapperspb.UInt32(7),
		}}},
	}})}
	list := translate(t, m)
	got := find[*clusterv3.Cluster](t, list, "web")
	if got.ConnectTimeout.AsDuration() != 250*time.Millisecond || got.LbPolicy != clusterv3.Cluster_LEAST_REQUEST {
		t.Errorf("cluster %v", got)
	}
	breakers := got.CircuitBreakers.Thresholds
	if len(breakers) != 1 || breakers[0].MaxConnections.Value != 7 || breakers[0].RetryBudget == nil {
		t.Errorf("circuit breakers %v, want one threshold: Envoy reads only the first", breakers)
	}
	if changed := endpointsOf(list); plain.Salt == changed.Salt || !proto.Equal(plain.Message, changed.Message) {
		t.Error("the cluster changed, and its endpoints would not be sent again")
	}
}

func endpointsOf(list []envoy.Resource) envoy.Resource {
	for _, r := range list {
		if _, ok := r.Message.(*endpointv3.ClusterLoadAssignment); ok {
			return r
		}
	}
	return envoy.Resource{}
}

func TestMirroredServicesAreServed(t *testing.T) {
	web := service("web", policy.Endpoint{Host: "10.0.0.1", Port: 80})
	shadow := service("shadow", policy.Endpoint{Host: "10.0.0.2", Port: 80})
	r := route("r", "app.test", "/", to(web))
	r.Settings = policy.Settings{set(toyKind, &toy{route: envoy.RouteParts{Route: sends(func(a *routev3.RouteAction) {
		a.RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{{Cluster: "shadow"}}
	})}})}
	m := modelOf([]*policy.Listener{httpListener("http")}, r)
	m.Services = []*policy.Service{shadow, web}
	find[*clusterv3.Cluster](t, translate(t, m), "shadow")
}

func TestProblemsNameTheirPlace(t *testing.T) {
	bad := named("bad", "app.test", "/")
	bad.Settings = policy.Settings{set(toyKind, &toy{route: envoy.RouteParts{Route: answers(20, "no such status")}})}
	clash := named("clash", "app.test", "/b")
	clash.Settings = append(clash.Settings,
		set(toyKind, &toy{route: envoy.RouteParts{Filters: map[string]proto.Message{"f": &routev3.RouteAction{}}}}),
		set(toyKind, &toy{route: envoy.RouteParts{Filters: map[string]proto.Message{"f": envoy.Off}}}))
	silent := route("silent", "app.test", "/s")
	_, err := envoy.Translate(modelOf([]*policy.Listener{httpListener("http")}, bad, clash, silent), testKinds)
	if p, ok := errors.AsType[*policy.Problem](err); !ok || p.Pos != bad.Pos {
		t.Fatalf("got %v, want a problem at %v", err, bad.Pos)
	}
	for _, r := range []*policy.BoundRoute{bad, clash, silent} {
		if !strings.Contains(err.Error(), "routes."+r.Name) {
			t.Errorf("%s is not told: %v", r.Name, err)
		}
	}
}

func TestTranslateIsStable(t *testing.T) {
	m := manyRoutes(200)
	first, second := translate(t, m), translate(t, m)
	for i := range first {
		a, _ := proto.MarshalOptions{Deterministic: true}.Marshal(first[i].Message)
		b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(second[i].Message)
		if string(a) != string(b) || first[i].Salt != second[i].Salt {
			t.Errorf("%s %s differs from run to run", first[i].Type, first[i].Name)
		}
	}
}

// manyRoutes is a policy of n routes over n/10 hostnames and n/100 services, each with a timeout and a filter switched.
func manyRoutes(n int) *policy.Model {
	services := make([]*policy.Service, max(1, n/100))
	for i := range services {
		services[i] = service(fmt.Sprintf("service-%d", i), policy.Endpoint{Host: "10.0.0.1", Port: uint32(8000 + i)})
	}
	parts := envoy.RouteParts{
		Route:   sends(func(a *routev3.RouteAction) { a.Timeout = durationpb.New(5 * time.Second) }),
		Filters: map[string]proto.Message{"test.door": envoy.Off},
	}
	routes := make([]*policy.BoundRoute, n)
	for i := range routes {
		routes[i] = route(fmt.Sprintf("route-%d", i), fmt.Sprintf("host-%d.test", i/10), fmt.Sprintf("/v1/path-%d", i),
			to(services[i%len(services)]))
		routes[i].Settings = policy.Settings{set(toyKind, &toy{route: parts})}
	}
	return modelOf([]*policy.Listener{httpListener("http")}, routes...)
}

func BenchmarkTranslate10k(b *testing.B) {
	m := manyRoutes(10000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := envoy.Translate(m, testKinds); err != nil {
			b.Fatal(err)
		}
	}
}
