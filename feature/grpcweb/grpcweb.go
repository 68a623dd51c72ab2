// Package grpcweb lets web pages call gRPC services: the key grpcWeb. [envoy.Translate] calls it.
package grpcweb

import (
	_ "embed"

	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

//go:embed doc.md
var doc string

// Kind is the key grpcWeb.
var Kind = policy.Define[Setting]("grpcWeb", policy.Layers, doc)

// Setting is what stands under grpcWeb: whether pages may call.
type Setting bool

// Check wants backends that can speak gRPC. Routes that have the setting from the gateway's defaults may lead
// elsewhere: only gRPC-Web is translated.
func (s *Setting) Check(c *policy.Check) {
	r := c.Route()
	if r == nil || !bool(*s) || c.Set().Layer.Place == policy.InDefaults {
		return
	}
	if len(r.Backends) == 0 {
		c.Warnf("", "grpcWeb does nothing here: the route has no backend")
	}
	for _, b := range r.Backends {
		if _, maybe := envoy.SpeaksHTTP2(b.Service.Settings); !maybe {
			c.Errorf("", "gRPC needs HTTP/2, and the service %s speaks HTTP/1.1", b.Service.Name).
				Hintf("write protocol: grpc for the service")
		}
	}
}

const filter = "legation.grpc_web"

// Filters puts the translation behind CORS, auth and limits, and before what collects and compresses bodies.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Transform, Config: &grpcwebv3.GrpcWeb{}}}
}

// Route switches the translation on.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	if !*s {
		return envoy.RouteParts{}
	}
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: envoy.On}}
}
