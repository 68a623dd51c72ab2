// Package accesslog is the key accessLog: what a gateway or a listener writes about each request and each connection,
// and where to; in a route, whether it does. [envoy.Translate] calls it.
package accesslog

import (
	_ "embed"
	"fmt"
	"regexp"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

//go:embed doc.md
var doc string

// Kind is the key accessLog of a gateway and of a listener, which then has its own in place of the gateway's.
var Kind = policy.Define[Setting]("accessLog", policy.InGateway|policy.InListener, doc)

// Setting is what stands under accessLog: one log, true for the default, a list of logs, or off for none.
type Setting struct {
	Logs   []Log
	listed bool
}

// Log is one log as written.
type Log struct {
	Path          string           `policy:"path" doc:"the file that Envoy appends to, an absolute path; default: /dev/stdout"`
	OpenTelemetry *envoy.Collector `policy:"openTelemetry" doc:"the collector that gets the log by OTLP, in place of a file"`
	Format        Format           `policy:"format" doc:"json, text, {text: a line} or a map of fields; default: json"`
	Query         bool             `policy:"query" doc:"whether the path is logged with its query, which may hold secrets; default: false"`
	Filter        Filter           `policy:"filter" doc:"which requests are logged; default: all"`
}

// DecodePolicy reads true, one log, a list, or off.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	switch {
	case n.Kind == policy.List:
		s.listed = true
		d.Decode(n, &s.Logs)
	case n.Off():
	default:
		s.Logs = make([]Log, 1)
		d.TrueOr(n, &s.Logs[0], "write accessLog: true for lines of JSON on Envoy's standard output, {path: FILE} for a file, or off for none")
	}
}

// PolicySchema describes the forms.
func (*Setting) PolicySchema(s *policy.Schemas) map[string]any {
	one := s.Of(new(Log))
	return map[string]any{"oneOf": []any{
		policy.TrueOr(one),
		map[string]any{"type": "array", "minItems": 1, "items": one},
		map[string]any{"const": "off"},
	}}
}

const (
	stdout = "/dev/stdout"
	stderr = "/dev/stderr"
)

var absolute = regexp.MustCompile(`^/[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f/]$`)

// maxLogs is how many logs a listener may have: each of its requests is written to all.
const maxLogs = 16

// Check looks at each log.
func (s *Setting) Check(c *policy.Check) {
	if s.listed && len(s.Logs) == 0 {
		c.Errorf("", "name at least one log").Hintf("write accessLog: off for none")
	}
	if len(s.Logs) > maxLogs {
		c.Errorf("", "%d logs, more than %d", len(s.Logs), maxLogs).Hintf("each request would be written to all of them")
		return
	}
	for i := range s.Logs {
		s.Logs[i].check(c, func(key string) string { return s.at(i, key) })
	}
}

// at is the path of a key of a log, relative to the setting.
func (s *Setting) at(i int, key string) string {
	if s.listed {
		return fmt.Sprintf("[%d].%s", i, key)
	}
	return key
}

// check wants an absolute path: Envoy's working directory is not the operator's.
func (l *Log) check(c *policy.Check, at func(key string) string) {
	if l.Path != "" && !absolute.MatchString(l.Path) {
		c.Errorf(at("path"), "%q is not the absolute path of a file", l.Path).Hintf("write path: /var/log/envoy/access.log")
	}
	if l.OpenTelemetry != nil {
		if l.Path != "" {
			c.Errorf(at("path"), "a log has a path or a collector, not both").Hintf("write a list of two logs")
		}
		l.OpenTelemetry.Check(c, at("openTelemetry"))
	}
	l.Format.check(c, at("format"), l.Query)
	l.Filter.check(c, at("filter"))
}

// HTTP adds the logs to the connection manager.
func (s *Setting) HTTP(c envoy.ListenerContext) *hcmv3.HttpConnectionManager {
	if s.replaced(c.Listener) {
		return nil
	}
	var all []*accesslogv3.AccessLog
	for i := range s.Logs {
		l := &s.Logs[i]
		filters := append([]*accesslogv3.AccessLogFilter{unlessOff()}, l.Filter.filters()...)
		all = append(all, accessLog(l.logger(c.Gateway, &ofRequests), filters))
	}
	return &hcmv3.HttpConnectionManager{AccessLog: all}
}

// TCP adds the logs to the proxy of connections: a line for each when it ends. Those have no status, so that a log of
// some statuses has no line of them.
func (s *Setting) TCP(c envoy.TCPContext) *tcpproxyv3.TcpProxy {
	if s.replaced(c.Listener) {
		return nil
	}
	var all []*accesslogv3.AccessLog
	for i := range s.Logs {
		if l := &s.Logs[i]; len(l.Filter.Statuses) == 0 {
			all = append(all, accessLog(l.logger(c.Gateway, &ofConnections), l.Filter.filters()))
		}
	}
	return &tcpproxyv3.TcpProxy{AccessLog: all}
}

// replaced tells whether the listener has a setting of its own in place of this one, its gateway's.
func (s *Setting) replaced(l *policy.Listener) bool {
	own, ok := policy.Find[*Setting](l.Settings)
	return ok && own != s
}

// UsesServices names the collectors.
func (s *Setting) UsesServices() []string {
	var names []string
	for _, l := range s.Logs {
		if l.OpenTelemetry != nil {
			names = append(names, l.OpenTelemetry.Service)
		}
	}
	return names
}

func accessLog(logger proto.Message, filters []*accesslogv3.AccessLogFilter) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{
		Name:       "legation.access",
		Filter:     all(filters),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: envoy.Pack(logger)},
	}
}

// logger uses Envoy's stream loggers where it can: /dev/stdout can't be opened as a file when it is a socket.
func (l *Log) logger(gateway *policy.Gateway, d *defaults) proto.Message {
	if l.OpenTelemetry != nil {
		return l.collected(gateway, d)
	}
	format := l.Format.substitution(gateway.Name, l.Query, d)
	switch l.Path {
	case "", stdout:
		return &streamv3.StdoutAccessLog{AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: format}}
	case stderr:
		return &streamv3.StderrAccessLog{AccessLogFormat: &streamv3.StderrAccessLog_LogFormat{LogFormat: format}}
	default:
		return &filev3.FileAccessLog{
			Path:            l.Path,
			AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: format},
		}
	}
}
