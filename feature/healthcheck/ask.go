package healthcheck

import (
	"cmp"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Method is what path is asked with.
type Method string

// Values are the methods that change nothing, and POST for those who ask for it.
func (Method) Values() []string { return []string{"GET", "HEAD", "OPTIONS", "POST"} }

// GRPC asks grpc.health.v1.Health, for the server as a whole or for one of its services.
type GRPC struct {
	Service string `policy:"service" doc:"the service that is asked for; default: the whole server"`
}

// DecodePolicy reads true or a map.
func (g *GRPC) DecodePolicy(d *policy.Decode, n *policy.Node) {
	d.TrueOr(n, g, "write grpc: true, or grpc: {service: NAME}")
}

// PolicySchema describes both forms.
func (g *GRPC) PolicySchema(s *policy.Schemas) map[string]any { return policy.TrueOr(s.Of(g)) }

// TCP connects and, where Receive is there, waits for it.
type TCP struct {
	Send    string `policy:"send" doc:"what is sent first; default: nothing"`
	Receive string `policy:"receive,required" doc:"what the answer has to hold"`
}

// DecodePolicy reads true or a map.
func (t *TCP) DecodePolicy(d *policy.Decode, n *policy.Node) {
	d.TrueOr(n, t, `write tcp: true, or tcp: {send: "PING\r\n", receive: "+PONG"}`)
	if receive := n.Get("receive"); receive != nil && receive.Kind == policy.Scalar && t.Receive == "" {
		d.Errorf(receive, "want a text: without one nothing looks at the answer")
	}
}

// PolicySchema describes both forms.
func (t *TCP) PolicySchema(s *policy.Schemas) map[string]any { return policy.TrueOr(s.Of(t)) }

// Statuses is one good status or a range of them, both ends included.
type Statuses struct{ First, Last int64 }

// DecodePolicy reads 200 or 200-299.
func (r *Statuses) DecodePolicy(d *policy.Decode, n *policy.Node) {
	first, last, isRange := strings.Cut(n.Text, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	switch {
	case n.Kind != policy.Scalar || err1 != nil || err2 != nil:
		d.Errorf(n, "want a status code or a range such as 200-299")
	case from < 100 || to > 599:
		d.Errorf(n, "status codes are 100 to 599")
	case from > to:
		d.Errorf(n, "the range is empty").Hintf("write %d-%d", to, from)
	default:
		*r = Statuses{from, to}
	}
}

// PolicySchema describes a code or a range.
func (*Statuses) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "integer", "minimum": 100, "maximum": 599},
		map[string]any{"type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$"},
	}}
}

var (
	cleanPath = regexp.MustCompile(`^/[\x21-\x7e]*$`)
	cleanHost = regexp.MustCompile(`^[A-Za-z0-9_.-]+(:[0-9]+)?$`)
)

// checkWay wants exactly one way to ask, without what only another has.
func (s *Setting) checkWay(c *policy.Check) {
	ways := 0
	for _, written := range []bool{s.Path != "", s.GRPC != nil, s.TCP != nil} {
		if written {
			ways++
		}
	}
	switch {
	case ways == 0:
		c.Errorf("", "say how to ask: path, grpc or tcp").Hintf("write healthCheck: {path: /healthz}")
		return
	case ways > 1:
		c.Errorf("", "an endpoint is asked in one way: path, grpc or tcp").Hintf("keep one of them")
		return
	}
	if s.Path == "" && s.Method != nil {
		c.Errorf("method", "only path is asked with a method")
	}
	if s.Path == "" && s.ExpectedStatuses != nil {
		c.Errorf("expectedStatuses", "only path is answered with a status")
	}
	if s.TCP != nil && s.Hostname != "" {
		c.Errorf("hostname", "tcp asks for no host")
	}
	if s.Path != "" && (!cleanPath.MatchString(s.Path) || strings.Contains(s.Path, "#")) {
		c.Errorf("path", "%q is not a path", s.Path).Hintf("write path: /healthz")
	}
	if s.Hostname != "" && !cleanHost.MatchString(s.Hostname) {
		c.Errorf("hostname", "%q is not a host name", s.Hostname)
	}
	s.checkProtocol(c)
}

// checkProtocol holds grpc to services that are spoken to in HTTP/2, as Envoy does.
func (s *Setting) checkProtocol(c *policy.Check) {
	if s.GRPC == nil || c.Broken("protocol") {
		return
	}
	if always, _ := envoy.SpeaksHTTP2(c.Entry().Settings); !always {
		c.Errorf("grpc", "gRPC wants HTTP/2 on every connection, which the service does not say that it speaks").
			Hintf("write protocol: grpc beside healthCheck, or ask a path")
	}
}

// ask writes what is asked, in the HTTP that the service is spoken to in.
func (s *Setting) ask(check *corev3.HealthCheck, service *policy.Service) {
	host := cmp.Or(s.Hostname, service.Name)
	if s.Hostname == "" && service.DNS != nil {
		host = service.DNS.Host
	}
	always, maybe := envoy.SpeaksHTTP2(service.Settings)
	switch {
	case s.TCP != nil:
		check.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: s.TCP.healthCheck()}
		return
	case s.GRPC != nil:
		check.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{
			GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{ServiceName: s.GRPC.Service, Authority: host},
		}
	default:
		check.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: s.httpHealthCheck(host, always, maybe)}
	}
	// What requests offer in ALPN by themselves, where there is TLS, checks don't.
	switch {
	case always:
		check.TlsOptions = &corev3.HealthCheck_TlsOptions{AlpnProtocols: []string{"h2"}}
	case maybe:
		check.TlsOptions = &corev3.HealthCheck_TlsOptions{AlpnProtocols: []string{"h2", "http/1.1"}}
	}
}

func (s *Setting) httpHealthCheck(host string, alwaysHTTP2, maybeHTTP2 bool) *corev3.HealthCheck_HttpHealthCheck {
	check := &corev3.HealthCheck_HttpHealthCheck{
		Path:             s.Path,
		Host:             host,
		ExpectedStatuses: s.expected(),
		// Without this one wrong status takes the endpoint out at once, whatever unhealthyThreshold says.
		RetriableStatuses: []*typev3.Int64Range{{Start: 100, End: 600}},
	}
	if s.Method != nil {
		check.Method = corev3.RequestMethod(corev3.RequestMethod_value[string(*s.Method)])
	}
	switch {
	case alwaysHTTP2:
		check.CodecClientType = typev3.CodecClientType_HTTP2
	case maybeHTTP2:
		check.UseAlpnProtocol = true
	}
	return check
}

// expected is half-open, as Envoy's ranges are.
func (s *Setting) expected() []*typev3.Int64Range {
	if len(s.ExpectedStatuses) == 0 {
		return []*typev3.Int64Range{{Start: 200, End: 201}}
	}
	var all []*typev3.Int64Range
	for _, r := range s.ExpectedStatuses {
		all = append(all, &typev3.Int64Range{Start: r.First, End: r.Last + 1})
	}
	return all
}

func (t *TCP) healthCheck() *corev3.HealthCheck_TcpHealthCheck {
	check := new(corev3.HealthCheck_TcpHealthCheck)
	if t.Send != "" {
		check.Send = payload(t.Send)
	}
	if t.Receive != "" {
		check.Receive = []*corev3.HealthCheck_Payload{payload(t.Receive)}
	}
	return check
}

// payload is the text in hexadecimal digits, as Envoy wants it.
func payload(text string) *corev3.HealthCheck_Payload {
	return &corev3.HealthCheck_Payload{Payload: &corev3.HealthCheck_Payload_Text{Text: hex.EncodeToString([]byte(text))}}
}
