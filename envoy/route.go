package envoy

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Metadata is the key of a route's metadata that says which route it is: {route, revision}, for access logs. The
// revision is 12 hex digits of the hash of the generated route.
const Metadata = "legation"

// routeTimeout holds where no setting says otherwise; it is Envoy's own, written out.
const routeTimeout = 15 * time.Second

// route makes one route of a gateway, after those that its features put just before it.
func (t *translation) route(r *policy.BoundRoute) []*routev3.Route {
	parts := t.parts(r)
	main := baseRoute(r)
	for _, p := range parts {
		if p.Route != nil {
			overlay(main, withActionFor(main, p.Route))
		}
	}
	if main.Action == nil {
		t.problem(r.Pos, "routes."+r.Name, "the route has no backends and does not answer by itself",
			"add backends: {SERVICE: 1}")
		return nil
	}
	if a := main.GetRoute(); a != nil {
		fillTimeout(a, r.Match.GRPC || toApp(r))
		if toApp(r) && a.IdleTimeout == nil {
			a.IdleTimeout = durationpb.New(0)
		}
	}
	t.patch(main, r.Settings)
	filters := t.filterConfigs(r, parts)
	main.Name = r.Name
	main.TypedPerFilterConfig = withFilters(main.TypedPerFilterConfig, filters)
	markRoute(main)

	var all []*routev3.Route
	for _, p := range parts {
		for _, b := range p.Before {
			all = append(all, before(b, main, filters))
		}
	}
	all = append(all, main)
	for _, one := range all {
		if err := one.ValidateAll(); err != nil {
			t.problem(r.Pos, "routes."+r.Name, "Envoy would refuse this: "+err.Error(), "")
		}
	}
	return all
}

// toApp tells whether a route leads from a sidecar to its app: how long a request may take is settled by the peer who sends
// it, which ends it.
func toApp(r *policy.BoundRoute) bool {
	return len(r.Backends) == 1 && r.Backends[0].Service.AppOf != nil
}

// fillTimeout bounds a request where no setting does. Calls of gRPC have the deadline that the client sends, if any: they
// may be streams without an end.
func fillTimeout(a *routev3.RouteAction, unbounded bool) {
	switch {
	case a.Timeout != nil:
	case unbounded:
		a.Timeout = durationpb.New(0)
		if a.MaxStreamDuration == nil {
			a.MaxStreamDuration = new(routev3.RouteAction_MaxStreamDuration)
		}
		if a.MaxStreamDuration.GrpcTimeoutHeaderMax == nil {
			a.MaxStreamDuration.GrpcTimeoutHeaderMax = durationpb.New(0) // as the client says, whatever that is
		}
	default:
		a.Timeout = durationpb.New(routeTimeout)
	}
}

// parts is what the settings have to say about a route: its own merged ones, those of its services that are no layer
// of it, and the kinds that it has no setting of.
func (t *translation) parts(r *policy.BoundRoute) []RouteParts {
	c := RouteContext{Model: t.model, Route: r}
	var parts []RouteParts
	for _, s := range policy.Each[RouteContributor](r.Settings) {
		parts = append(parts, s.Route(c))
	}
	for _, b := range r.Backends {
		for set, s := range policy.Each[RouteContributor](b.Service.Settings) {
			if set.Kind.Places&policy.InRoute == 0 {
				parts = append(parts, s.Route(c))
			}
		}
	}
	for _, z := range t.absents {
		if !r.Settings.Has(z.key) {
			parts = append(parts, z.setting.RouteWithout(c))
		}
	}
	return parts
}

// baseRoute sends to the backends. Without any it has no action yet: a feature answers.
func baseRoute(r *policy.BoundRoute) *routev3.Route {
	route := &routev3.Route{Match: routeMatch(r.Match)}
	if len(r.Backends) > 0 {
		route.Action = &routev3.Route_Route{Route: backends(r.Backends)}
	}
	return route
}

func backends(list []policy.Backend) *routev3.RouteAction {
	if len(list) == 1 {
		return &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: list[0].Service.Name},
		}
	}
	weighted := new(routev3.WeightedCluster)
	for _, b := range list {
		weighted.Clusters = append(weighted.Clusters, &routev3.WeightedCluster_ClusterWeight{
			Name:   b.Service.Name,
			Weight: wrapperspb.UInt32(b.Weight),
		})
	}
	return &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted},
	}
}

// withActionFor is a contribution without its action where that is of another kind than the route's: the first that
// answers by itself has the word, and only where there are no backends.
func withActionFor(route, part *routev3.Route) *routev3.Route {
	_, sends := part.Action.(*routev3.Route_Route)
	switch {
	case part.Action == nil,
		route.Action == nil && !sends,
		route.Action != nil && reflect.TypeOf(route.Action) == reflect.TypeOf(part.Action):
		return part
	}
	bare := proto.Clone(part).(*routev3.Route)
	bare.Action = nil
	return bare
}

// filterConfigs joins what the settings say to each filter: two messages of one type are merged, as stacked limits
// want it; two of different types are a fault of the features.
func (t *translation) filterConfigs(r *policy.BoundRoute, parts []RouteParts) map[string]*anypb.Any {
	configs := make(map[string]proto.Message)
	for _, p := range parts {
		for _, name := range slices.Sorted(maps.Keys(p.Filters)) {
			config, have := p.Filters[name], configs[name]
			switch {
			case have == nil:
				configs[name] = config
			case have == config:
			case have.ProtoReflect().Descriptor() != config.ProtoReflect().Descriptor():
				t.problem(r.Pos, "routes."+r.Name, "two features configure the filter "+name, "")
			default:
				both := proto.Clone(have)
				overlay(both, config)
				configs[name] = both
			}
		}
	}
	packed := make(map[string]*anypb.Any, len(configs))
	for name, config := range configs {
		packed[name] = packFilter(config)
	}
	return packed
}

var packedOn, packedOff = Pack(On), Pack(Off)

// packFilter packs On and Off, which nearly every route has, only once.
func packFilter(m proto.Message) *anypb.Any {
	switch m {
	case On:
		return packedOn
	case Off:
		return packedOff
	}
	return Pack(m)
}

// withFilters adds the filters' configurations to those that a route has already.
func withFilters(own, filters map[string]*anypb.Any) map[string]*anypb.Any {
	if len(own) == 0 {
		return filters
	}
	all := maps.Clone(filters)
	maps.Copy(all, own)
	return all
}

// before completes a route that stands just before another: the same path, its own further conditions, the same
// filters, and the other's backends where it sends to none of its own.
func before(b, main *routev3.Route, filters map[string]*anypb.Any) *routev3.Route {
	route := proto.Clone(b).(*routev3.Route)
	if route.Match == nil {
		route.Match = new(routev3.RouteMatch)
	}
	route.Match.PathSpecifier, route.Match.CaseSensitive = main.Match.PathSpecifier, main.Match.CaseSensitive
	if route.Name == "" {
		route.Name = main.Name
	}
	if route.Action == nil {
		route.Action = main.Action
	}
	if a := route.GetRoute(); a != nil && a.ClusterSpecifier == nil {
		a.ClusterSpecifier = main.GetRoute().GetClusterSpecifier()
		a.Timeout = cmp.Or(a.Timeout, main.GetRoute().GetTimeout())
		a.MaxStreamDuration = cmp.Or(a.MaxStreamDuration, main.GetRoute().GetMaxStreamDuration())
	}
	route.TypedPerFilterConfig = withFilters(route.TypedPerFilterConfig, filters)
	markRoute(route)
	return route
}

// markRoute writes into a route's metadata which one it is.
func markRoute(route *routev3.Route) {
	if route.Metadata == nil {
		route.Metadata = new(corev3.Metadata)
	}
	if route.Metadata.FilterMetadata == nil {
		route.Metadata.FilterMetadata = make(map[string]*structpb.Struct, 1)
	}
	version := fmt.Sprintf("%016x", xxhash.Sum64(stableBytes(route)))[:12]
	mark := route.Metadata.FilterMetadata[Metadata]
	if mark == nil {
		mark = &structpb.Struct{Fields: make(map[string]*structpb.Value, 2)}
		route.Metadata.FilterMetadata[Metadata] = mark
	}
	mark.Fields["route"] = structpb.NewStringValue(route.Name)
	mark.Fields["version"] = structpb.NewStringValue(version)
}
