// Package requestbody bounds the bodies of requests and collects them before the backend gets them: the key
// requestBody. [envoy.Translate] calls it.
package requestbody

import (
	_ "embed"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/body_size_limit/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	chainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key requestBody.
var Kind = policy.Define[Setting]("requestBody", policy.Layers, doc)

// Setting is what stands under requestBody.
type Setting struct {
	Max    *policy.Bytes `policy:"max,required" doc:"the longest body that is taken, such as 1MiB; 413 for longer ones"`
	Buffer bool          `policy:"buffer" doc:"whether the backend is asked only once the whole body has come; default: false"`
}

// Bounds of what is collected: each request may take as much of Envoy's memory.
const (
	mostBuffered = 64 << 20
	muchBuffered = 8 << 20
)

// Check bounds what is collected, and keeps the limit off connections that are upgraded.
func (s *Setting) Check(c *policy.Check) {
	switch {
	case s.Max == nil:
	case *s.Max == 0:
		c.Errorf("max", "want at least 1B").Hintf("match.methods keeps out the methods that have a body")
	case s.Buffer && *s.Max > mostBuffered:
		c.Errorf("max", "want at most 64MiB with buffer: each request may take as much of Envoy's memory").
			Hintf("leave buffer out: the limit holds without it")
	case s.Buffer && *s.Max > muchBuffered:
		c.Warnf("max", "with buffer each request may take as much of Envoy's memory: 100 of them at a time are many").
			Hintf("leave buffer out: the limit holds without it")
	}
	if r := c.Route(); r != nil && r.Settings.Has("upgrades") {
		c.Errorf("", "an upgraded connection has no body to bound: all that the client ever sends would count").
			Hintf("write requestBody: off or upgrades: off for the route, or make two routes of it")
	}
}

const filter = "legation.request_body"

// Filters puts a filter behind auth and limits, so that nobody's body is collected who may not come. By itself it does
// nothing; a route gives it filters of its own, as the one that limits has no configuration per route.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Transform, Config: &chainv3.FilterChainConfig{}}}
}

// Route gives the filter the limit and, behind it, what collects.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	list := []*corev3.TypedExtensionConfig{
		envoy.Extension(filter+".limit", &limitv3.BodySizeLimit{MaxRequestBytes: wrapperspb.UInt64(uint64(*s.Max))}),
	}
	if s.Buffer {
		list = append(list, envoy.Extension(filter+".buffer", &bufferv3.Buffer{MaxRequestBytes: wrapperspb.UInt32(uint32(*s.Max))}))
	}
	config := &chainv3.FilterChainConfigPerRoute{FilterChain: &chainv3.FilterChain{Filters: list}}
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: config}}
}
