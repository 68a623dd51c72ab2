package patch

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// beside stands for the keys that some fields are details of.
type beside struct{}

func (*beside) Check(*policy.Check) {}

// speaks stands for the key that says which protocol a service speaks.
type speaks string

func (*speaks) Check(*policy.Check) {}

func (s *speaks) Upstream(envoy.ServiceContext) *httpv3.HttpProtocolOptions {
	if *s != "http2" {
		return nil
	}
	return &httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
				Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
			},
		},
	}}
}

// protocol is what a service has to speak for the field to be there.
func (p place) protocol() string {
	if within(p.path, "explicit_http_config.http2_protocol_options") {
		return "http2"
	}
	return "http1"
}

var kinds = []*policy.Kind{
	RouteKind, ServiceKind, ListenerKind,
	policy.Define[beside]("retry", policy.InRoute, ""),
	policy.Define[beside]("outlierDetection", policy.InService, ""),
	policy.Define[speaks]("speaks", policy.InService, ""),
}

// TestEnvoyTakesEveryField writes every field that may be written, each with the most that is taken: a patch that only the
// serving Envoy refuses would keep all other changes from it.
func TestEnvoyTakesEveryField(t *testing.T) {
	golden.Binary(t)
	lines := map[string]*strings.Builder{"listeners": {}, "services": {}, "routes": {}}
	var proxies []string
	for i, at := range everyField(t) {
		name := fmt.Sprintf("x%d", i)
		switch in := at.in(); {
		case in == "routes":
			fmt.Fprintf(lines[in], "  %s: {hostnames: [%[1]s.test], backends: {orders: 1}, retry: {}, envoy: %s}\n", name, at.taken(t))
		case in == "services":
			fmt.Fprintf(lines[in], "  %s: {dns: 'localhost:80', outlierDetection: {}, speaks: %s, envoy: %s}\n", name, at.protocol(), at.taken(t))
			fmt.Fprintf(lines["routes"], "  %s: {hostnames: [%[1]s.test], backends: {%[1]s: 1}}\n", name)
		case at.of == ofProxies:
			proxies = append(proxies, name)
			fmt.Fprintf(lines[in], "      %s: {port: %d, protocol: TCP, envoy: %s}\n", name, 10000+i, at.taken(t))
		default:
			fmt.Fprintf(lines[in], "      %s: {port: %d, envoy: %s}\n", name, 10000+i, at.taken(t))
		}
	}
	golden.Serve(t, fmt.Sprintf(wholePolicy, lines["listeners"], lines["services"], strings.Join(proxies, ", "), lines["routes"]), kinds...)
}

const wholePolicy = `
gateways:
  edge:
    listeners:
      first: {port: 9999}
%sservices:
  orders: {dns: 'localhost:80'}
%sroutes:
  orders: {hostnames: [a.test], backends: {orders: 1}}
  proxied: {listeners: [%s], backends: {orders: 1}}
%s`

// place is one field that may be written.
type place struct {
	of   *message
	path string
}

// in is the section of the policy that the field is written in.
func (p place) in() string {
	switch p.of {
	case ofRoutes[0]:
		return "routes"
	case ofClusters, ofUpstreams, ofNames:
		return "services"
	}
	return "listeners"
}

func everyField(t *testing.T) []place {
	t.Helper()
	var all []place
	for _, list := range [][]*message{ofRoutes, ofServices, ofListeners} {
		for _, m := range list {
			for _, f := range m.allowed {
				if within(f.path, "auto_config") {
					continue // has the fields of explicit_http_config, for services with TLS
				}
				all = append(all, place{m, f.path})
			}
		}
	}
	return all
}

// taken is the largest of some values that the policy takes for the field.
func (p place) taken(t *testing.T) string {
	t.Helper()
	var problems policy.Problems
	for size := range sizes {
		text := fmt.Sprintf("{%s: %s}", p.of.name, p.text(p.of.descriptor(), "", strings.Split(p.path, "."), size))
		around := map[string]string{
			"routes":    "gateways: {edge: {listeners: {a: {port: 1}}}}\nservices: {a: {dns: 'a:1'}}\nroutes: {r: {hostnames: [a.test], backends: {a: 1}, retry: {}, envoy: %s}}",
			"services":  "services: {a: {dns: 'a:1', outlierDetection: {}, envoy: %s}}",
			"listeners": "gateways: {edge: {listeners: {a: {port: 1, envoy: %s}}}}",
		}[p.in()]
		if p.of == ofProxies {
			around = strings.Replace(around, "port: 1", "port: 1, protocol: TCP", 1)
		}
		if _, problems = policy.New(kinds...).Load(policy.Files{"p.yaml": fmt.Appendf(nil, around, text)}); !problems.HasErrors() {
			return text
		}
	}
	t.Fatalf("%s: no value is taken for %s: %v", p.of.name, p.path, problems.Err())
	return ""
}

// sizes is what is tried for numbers, and for time spans in seconds.
var sizes = []uint64{1<<32 - 1, 1<<31 - 1, 100_000, 1000, 100, 50, 3, 1}

// text writes the field at the end of steps, or all fields of a message where there are no more.
func (p place) text(d protoreflect.MessageDescriptor, path string, steps []string, size int) string {
	var fields []string
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		one := f.ContainingOneof()
		if len(steps) > 0 && string(f.Name()) != steps[0] || len(steps) == 0 && one != nil && one.Fields().Get(0) != f {
			continue
		}
		at := join(path, string(f.Name()))
		value := ""
		switch {
		case f.Message() == nil:
			value = p.scalar(f, at, size)
		case f.Message().FullName() == "google.protobuf.Duration":
			value = p.span(at, size)
		case harmless(f.Message()):
			value = p.scalar(f.Message().Fields().ByName("value"), at, size)
		default:
			value = p.text(f.Message(), at, steps[min(1, len(steps)):], size)
		}
		if f.IsList() {
			value = "[" + value + "]"
		}
		fields = append(fields, f.JSONName()+": "+value)
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

func (p place) span(path string, size int) string {
	longest := cmp.Or(p.of.allowedAt(path).longest, year)
	return fmt.Sprint(min(longest, time.Duration(min(sizes[size], uint64(year/time.Second)))*time.Second))
}

func (p place) scalar(f protoreflect.FieldDescriptor, path string, size int) string {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return "true"
	case protoreflect.StringKind:
		return "x"
	case protoreflect.EnumKind:
		return string(f.Enum().Values().Get(f.Enum().Values().Len() - 1).Name())
	}
	most := cmp.Or(p.of.allowedAt(path).most, 1<<32-1)
	return fmt.Sprint(min(most, sizes[size]))
}
