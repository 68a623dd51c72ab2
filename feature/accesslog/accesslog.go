// Package accesslog writes one JSON line for each request: the key accessLog. [envoy.Translate] calls it.
package accesslog

import (
	_ "embed"
	"regexp"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

//go:embed doc.md
var doc string

// Kind is the key accessLog.
var Kind = policy.Define[Setting]("accessLog", policy.InGateway, doc)

// Setting is what stands under accessLog; {} is a log on Envoy's standard output.
type Setting struct {
	Path  string `policy:"path" doc:"the file that Envoy appends to, an absolute path; default: /dev/stdout"`
	Query bool   `policy:"query" doc:"whether the path is logged with its query, which may hold secrets; default: false"`
}

const (
	stdout = "/dev/stdout"
	stderr = "/dev/stderr"
)

var absolute = regexp.MustCompile(`^/[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f/]$`)

// Check wants an absolute path: Envoy's working directory is not the operator's.
func (s *Setting) Check(c *policy.Check) {
	if s.Path != "" && !absolute.MatchString(s.Path) {
		c.Errorf("path", "%q is not the absolute path of a file", s.Path).Hintf("write path: /var/log/envoy/access.log")
	}
}

// HTTP adds the log to the connection managers of the gateway.
func (s *Setting) HTTP(c envoy.ListenerContext) *hcmv3.HttpConnectionManager {
	config, _ := anypb.New(s.logger(c.Gateway.Name)) // generated messages always pack
	return &hcmv3.HttpConnectionManager{
		AccessLog: []*accesslogv3.AccessLog{{
			Name:       "legation.access",
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config},
		}},
	}
}

// logger uses Envoy's stream loggers where it can: /dev/stdout can't be opened as a file when it is a socket.
func (s *Setting) logger(gateway string) proto.Message {
	format := s.format(gateway)
	switch s.Path {
	case "", stdout:
		return &streamv3.StdoutAccessLog{AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: format}}
	case stderr:
		return &streamv3.StderrAccessLog{AccessLogFormat: &streamv3.StderrAccessLog_LogFormat{LogFormat: format}}
	default:
		return &filev3.FileAccessLog{
			Path:            s.Path,
			AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: format},
		}
	}
}

// format is JSON rather than a text with JSON's look: Envoy escapes what clients send. It sorts the fields by name.
func (s *Setting) format(gateway string) *corev3.SubstitutionFormatString {
	fields := map[string]*structpb.Value{"gateway": structpb.NewStringValue(gateway)}
	for name, variable := range variables {
		fields[name] = structpb.NewStringValue(variable)
	}
	if s.Query {
		fields["path"] = structpb.NewStringValue("%PATH(WQ:ORIG_OR_PATH)%")
	}
	return &corev3.SubstitutionFormatString{
		Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
		OmitEmptyValues: true, // a field that has no value is left out, not null
	}
}

// variables is what Envoy puts into each field. What the client asked for is logged, not what rewrites made of it:
// those keep it in x-envoy-original- headers.
var variables = map[string]string{
	"time":      "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
	"requestId": "%REQ(X-REQUEST-ID)%",
	"method":    "%REQ(:METHOD)%",
	"host":      "%REQ(X-ENVOY-ORIGINAL-HOST?:AUTHORITY)%",
	"path":      "%PATH(NQ:ORIG_OR_PATH)%", // NQ: without the query
	"protocol":  "%PROTOCOL%",
	"client":    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
	"userAgent": "%REQ(USER-AGENT)%",

	"status":        "%RESPONSE_CODE%",
	"details":       "%RESPONSE_CODE_DETAILS%",
	"flags":         "%RESPONSE_FLAGS%",
	"bytesReceived": "%BYTES_RECEIVED%",
	"bytesSent":     "%BYTES_SENT%",
	"durationMs":    "%DURATION%",
	"backendMs":     "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)%", // of the last try

	"route":    "%METADATA(ROUTE:legation:route)%",
	"revision": "%METADATA(ROUTE:legation:revision)%",
	"service":  "%UPSTREAM_CLUSTER%",
	"endpoint": "%UPSTREAM_HOST%",
	"attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",

	"consumer": "%DYNAMIC_METADATA(" + authMetadata + ":consumer)%",
	"provider": "%DYNAMIC_METADATA(" + authMetadata + ":provider)%",
	"decision": "%DYNAMIC_METADATA(" + authMetadata + ":decision)%",
	"reason":   "%DYNAMIC_METADATA(" + authMetadata + ":reason)%",
	"limit":    "%DYNAMIC_METADATA(" + authMetadata + ":limit)%", // that refused
	"rule":     "%DYNAMIC_METADATA(" + authMetadata + ":rule)%",
}

// authMetadata is where Envoy keeps what the auth service tells of its decision.
const authMetadata = "envoy.filters.http.ext_authz"
