package accesslog

import (
	_ "embed"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	setmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed route.md
var routeDoc string

// RouteKind is the key accessLog of a route and the layers outside it.
var RouteKind = policy.Define[Route]("accessLog", policy.Layers, routeDoc).Switch()

// Route is what stands under accessLog in a route: off, or true for what the gateway says.
type Route struct{ Off bool }

// DecodePolicy reads off, true, or a map, which has nothing to hold.
func (r *Route) DecodePolicy(d *policy.Decode, n *policy.Node) {
	r.Off = n.Off()
	if !r.Off && !n.True() && (n.Kind != policy.Map || len(n.Keys) > 0) {
		d.Errorf(n, "a route says only whether it is logged: want off, or true for what its gateway says").
			Hintf("what is logged, and where, stands in gateways.NAME.accessLog")
	}
}

// PolicySchema describes true and the empty map; off is known of any key of a route.
func (*Route) PolicySchema(*policy.Schemas) map[string]any {
	return policy.TrueOr(map[string]any{"type": "object", "maxProperties": 0})
}

// Check has nothing to hold against it.
func (*Route) Check(*policy.Check) {}

// Requests that are not logged have this mark in their metadata, under the name of the filter that sets it.
const (
	filter = "legation.accesslog"
	mark   = "off"
)

// Filters puts the filter that marks requests into every chain. It comes first, so that what the filters at the door, auth
// or limits refuse is not logged either; it changes nothing of the request.
func (*Route) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Guard, Order: -1, Config: &setmetadatav3.Config{
		Metadata: []*setmetadatav3.Metadata{{
			MetadataNamespace: filter,
			Value:             &structpb.Struct{Fields: map[string]*structpb.Value{mark: structpb.NewBoolValue(true)}},
		}},
	}}}
}

// Route switches the filter on.
func (r *Route) Route(envoy.RouteContext) envoy.RouteParts {
	if !r.Off {
		return envoy.RouteParts{}
	}
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: envoy.On}}
}

// unlessOff holds for requests without the mark.
func unlessOff() *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{
		MetadataFilter: &accesslogv3.MetadataFilter{
			Matcher: &matcherv3.MetadataMatcher{
				Filter: filter,
				Path:   []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: mark}}},
				Value:  &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_BoolMatch{BoolMatch: false}},
			},
			MatchIfKeyNotFound: wrapperspb.Bool(true),
		},
	}}
}
