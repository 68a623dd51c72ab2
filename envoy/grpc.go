package envoy

import (
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

// reportTimeout is how long one message to a collector may take.
const reportTimeout = 10 * time.Second

// Reports is a service as the receiver of what Envoy reports by gRPC, such as spans. [CheckReports] goes with it.
func Reports(service string) *corev3.GrpcService {
	return &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: service}},
		Timeout:         durationpb.New(reportTimeout),
	}
}

// http2Speaker is the setting of a service that tells whether all its connections speak HTTP/2.
type http2Speaker interface{ AlwaysHTTP2() bool }

// CheckReports reports a service that is not there, or that does not speak HTTP/2 as gRPC wants it: its key protocol
// has to say so.
func CheckReports(c *policy.Check, path, service string) {
	if !c.Ref(path, "services", service) {
		return
	}
	i := slices.IndexFunc(c.Model().Services, func(s *policy.Service) bool { return s.Name == service })
	if i < 0 {
		return // it is there, but broken: told already
	}
	s := c.Model().Services[i]
	if p, ok := policy.Find[http2Speaker](s.Settings); ok && p.AlwaysHTTP2() {
		return
	}
	p := c.Errorf(path, "the service %q does not speak gRPC", service).Hintf("write protocol: grpc in the service")
	p.Also = append(p.Also, s.Pos)
}
