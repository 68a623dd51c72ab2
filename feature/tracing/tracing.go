// Package tracing is the key tracing: spans of the requests of a gateway, sent to an OpenTelemetry collector; in a
// route, the share of its requests that has them. [envoy.Translate] calls it.
package tracing

import (
	_ "embed"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	detectorsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/resource_detectors/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key tracing of a gateway.
var Kind = policy.Define[Setting]("tracing", policy.InGateway, doc)

// Setting is what stands under tracing in a gateway.
type Setting struct {
	OpenTelemetry *envoy.Collector `policy:"openTelemetry,required" doc:"the collector that gets the spans by OTLP"`
	Sampling      *policy.Percent  `policy:"sampling" doc:"the share of requests that is traced, in steps of 0.01%; default: 1%, with trustParent 100%"`
	TrustParent   bool             `policy:"trustParent" doc:"whether the traces of clients go on here, as far as they record them: only where no stranger is a client; default: false, each request begins a trace"`
	Attributes    Attributes       `policy:"attributes" doc:"attributes of the spans by name: a text, or {header: x} for a header of the request"`
}

// defaultSampling keeps an edge that has just been given a collector from flooding it: a traced request is two spans.
// Behind another proxy of ours the choice has been made.
const (
	defaultSampling policy.Percent = 1
	trustedSampling policy.Percent = 100
)

// Check looks at the collector, the share and the attributes.
func (s *Setting) Check(c *policy.Check) {
	s.OpenTelemetry.Check(c, "openTelemetry")
	checkSampling(c, s.Sampling)
	s.Attributes.check(c)
}

// checkSampling holds a share against what Envoy counts in; it would round the rest away.
func checkSampling(c *policy.Check, share *policy.Percent) {
	const step = 100 // millionths
	if share != nil && share.Millionths()%step != 0 {
		c.Errorf("sampling", "Envoy counts in steps of 0.01%%")
	}
}

// UsesServices names the collector.
func (s *Setting) UsesServices() []string { return []string{s.OpenTelemetry.Service} }

func (s *Setting) sampling() policy.Percent {
	switch {
	case s.Sampling != nil:
		return *s.Sampling
	case s.TrustParent:
		return trustedSampling
	default:
		return defaultSampling
	}
}

// HTTP adds the tracer to the connection manager.
func (s *Setting) HTTP(c envoy.ListenerContext) *hcmv3.HttpConnectionManager {
	manager := &hcmv3.HttpConnectionManager{Tracing: &hcmv3.HttpConnectionManager_Tracing{
		ClientSampling:  &typev3.Percent{Value: 0}, // x-client-trace-id would force a trace
		RandomSampling:  &typev3.Percent{Value: float64(s.sampling())},
		OverallSampling: &typev3.Percent{Value: 100},
		Provider: &tracev3.Tracing_Http{
			Name:       "legation.tracing",
			ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: envoy.Pack(s.tracer(c.Gateway))},
		},
		SpawnUpstreamSpan: wrapperspb.Bool(true), // a span for each try, which the backend's own hang below
		// Names that clients can't make up: the route's and the service's.
		Operation:         "%METADATA(ROUTE:legation:route)%",
		UpstreamOperation: "%UPSTREAM_CLUSTER%",
		CustomTags:        append(ownTags(), s.Attributes.tags()...),
	}}
	if !s.TrustParent {
		manager.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{forgetParent()}
	}
	return manager
}

func (s *Setting) tracer(gateway *policy.Gateway) *tracev3.OpenTelemetryConfig {
	tracer := &tracev3.OpenTelemetryConfig{
		GrpcService: s.OpenTelemetry.GRPC(),
		ServiceName: s.OpenTelemetry.Name(gateway),
	}
	if len(s.OpenTelemetry.Resource) > 0 {
		tracer.ResourceDetectors = []*corev3.TypedExtensionConfig{envoy.Extension(
			"envoy.tracers.opentelemetry.resource_detectors.static_config",
			&detectorsv3.StaticConfigResourceDetectorConfig{Attributes: s.OpenTelemetry.Resource},
		)}
	}
	return tracer
}

// forgetParent takes clients' traces away before Envoy looks at them: with traceparent a stranger would choose what is
// recorded, all requests or none, and under which trace.
func forgetParent() *corev3.TypedExtensionConfig {
	forget := new(earlyv3.HeaderMutation)
	for _, name := range []string{"traceparent", "tracestate"} {
		forget.Mutations = append(forget.Mutations, &mutationv3.HeaderMutation{
			Action: &mutationv3.HeaderMutation_Remove{Remove: name},
		})
	}
	return envoy.Extension("legation.tracing", forget)
}

// ownTags are the attributes of every span. Envoy's own http.url has the query, which may hold secrets; the tag of the
// same name comes after it and takes its place.
func ownTags() []*tagv3.CustomTag {
	return []*tagv3.CustomTag{
		computed(urlTag, "%REQ(:SCHEME)%://%REQ(X-ENVOY-ORIGINAL-HOST?:AUTHORITY)%%PATH(NQ:ORIG_OR_PATH):256%"),
		computed(ownPrefix+"consumer", "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:consumer)%"),
		computed(ownPrefix+"route", "%METADATA(ROUTE:legation:route)%"),
	}
}

const (
	urlTag    = "http.url"
	ownPrefix = "legation."
)

// computed is a tag that is left out where it has no value.
func computed(name, value string) *tagv3.CustomTag {
	return &tagv3.CustomTag{Tag: name, Type: &tagv3.CustomTag_Value{Value: value}}
}
