package envoy

import (
	"cmp"
	"regexp"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Collector is a receiver of OTLP over gRPC, for the features that report to one.
type Collector struct {
	Service     string            `policy:"service,required" doc:"the collector: a service whose protocol is grpc"`
	ServiceName string            `policy:"serviceName" doc:"the attribute service.name of the resource; default: the gateway's name"`
	Resource    map[string]string `policy:"resource" doc:"further attributes of the resource"`
}

// nameAttribute is OpenTelemetry's name for the program that reports.
const nameAttribute = "service.name"

// reportTimeout is how long one message to a collector may take.
const reportTimeout = 10 * time.Second

// Check reports a service that is not there, or that does not speak HTTP/2 as gRPC wants it. The collector stands at path.
func (o *Collector) Check(c *policy.Check, path string) {
	if _, ok := o.Resource[nameAttribute]; ok {
		c.Errorf(path+".resource."+nameAttribute, "%s has a key of its own", nameAttribute).Hintf("write serviceName beside resource")
	}
	at := path + ".service"
	if !c.Ref(at, "services", o.Service) {
		return
	}
	i := slices.IndexFunc(c.Model().Services, func(s *policy.Service) bool { return s.Name == o.Service })
	if i < 0 {
		return // it is there, but broken: told already
	}
	s := c.Model().Services[i]
	if always, _ := SpeaksHTTP2(s.Settings); always {
		return
	}
	p := c.Errorf(at, "the service %q does not speak gRPC", o.Service).Hintf("write protocol: grpc in the service")
	p.Also = append(p.Also, s.Pos)
}

// Name is what the gateway reports as.
func (o *Collector) Name(gateway *policy.Gateway) string { return cmp.Or(o.ServiceName, gateway.Name) }

// GRPC is the collector as Envoy calls it.
func (o *Collector) GRPC() *corev3.GrpcService {
	return &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: o.Service}},
		Timeout:         durationpb.New(reportTimeout),
	}
}

var (
	secretHeaders = []string{"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"}
	queryHeaders  = []string{":path", "x-envoy-original-path", "referer", "location"}
	secretNames   = regexp.MustCompile(`token|secret|passw|credential|api-?key|session|signature`)
)

// SecretHeader tells the headers, in lower case, that let whoever reads them act for the user: they are not reported.
func SecretHeader(name string) bool { return slices.Contains(secretHeaders, name) }

// SecretName tells the names of headers and parameters, in lower case, that hold secrets more often than not.
func SecretName(name string) bool { return secretNames.MatchString(name) }

// QueryHeader tells the headers, in lower case, that hold an address with its query, and so what clients put there.
func QueryHeader(name string) bool { return slices.Contains(queryHeaders, name) }
