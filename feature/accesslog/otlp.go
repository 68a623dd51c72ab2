package accesslog

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"github.com/legation/legation/envoy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Collector is a receiver of OTLP over gRPC.
type Collector struct {
	Service  string            `policy:"service,required" doc:"the collector: a service whose protocol is grpc"`
	Resource map[string]string `policy:"resource" doc:"attributes of the resource, beside service.name, which is the gateway's name"`
}

// otlpLogger is Envoy's logger for OTLP.
const otlpLogger = "type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig"

// logger writes fields as attributes and a line as the body. The message is written as JSON for Envoy to read: its Go
// form would need OpenTelemetry's own module.
func (o *Collector) logger(gateway string, l *Log, d *defaults) proto.Message {
	resource := map[string]string{"service.name": gateway}
	maps.Copy(resource, o.Resource)
	config := map[string]any{
		"grpc_service":        asJSON(envoy.Reports(o.Service)),
		"resource_attributes": keyValues(resource),
		"log_name":            gateway,
		"custom_tags":         tags(l.Format.fields(gateway, l.Query, d)),
	}
	if body := l.Format.body(l.Query, d); body != "" {
		config["body"] = map[string]any{"string_value": body}
	}
	value, _ := structpb.NewStruct(config) // JSON always fits
	return &xdsv3.TypedStruct{TypeUrl: otlpLogger, Value: value}
}

// tags is the fields as Envoy's custom tags: unlike its attributes they are left out where they have no value, and
// numbers stay numbers.
func tags(fields map[string]string) []any {
	list := []any{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		tag := map[string]any{"tag": name, "value": fields[name]}
		if m := command.FindStringSubmatch(fields[name]); m != nil && m[0] == fields[name] && numeric(m[1]) {
			tag["value_type"] = "INT"
		}
		list = append(list, tag)
	}
	return list
}

// numeric tells the commands that give whole numbers.
func numeric(command string) bool {
	return command == "RESPONSE_CODE" || command == "UPSTREAM_REQUEST_ATTEMPT_COUNT" ||
		strings.Contains(command, "BYTES") || strings.Contains(command, "DURATION")
}

// keyValues is OpenTelemetry's form of a map, in the order of the names.
func keyValues(m map[string]string) map[string]any {
	values := []any{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		values = append(values, map[string]any{"key": name, "value": map[string]any{"string_value": m[name]}})
	}
	return map[string]any{"values": values}
}

func asJSON(m proto.Message) (v any) {
	text, _ := envoy.JSON(m) // of texts and numbers only
	_ = json.Unmarshal(text, &v)
	return v
}
