// Package fault delays and fails requests on purpose, to see what callers make of it: the key fault. [envoy.Translate]
// calls it.
package fault

import (
	_ "embed"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

//go:embed doc.md
var doc string

// Kind is the key fault.
var Kind = policy.Define[Setting]("fault", policy.Layers, doc)

// Setting is what stands under fault. Envoy's HTTPFault.
type Setting struct {
	Delay *Delay `policy:"delay" doc:"lets requests wait before they go on"`
	Abort *Abort `policy:"abort" doc:"answers requests with a failure"`
}

// Delay lets requests wait.
type Delay struct {
	Fixed   policy.Duration `policy:"fixed,required" doc:"how long, 1ms to 1m"`
	Percent policy.Percent  `policy:"percent,required" doc:"the share of the requests, 0% to 100%"`
}

// Abort answers requests with a failure: Status or GRPCStatus.
type Abort struct {
	Status     *uint32        `policy:"status" doc:"the HTTP status of the answer, 200 to 599"`
	GRPCStatus *uint32        `policy:"grpcStatus" doc:"the gRPC status of the answer, 1 to 16, in place of status; for clients of gRPC only"`
	Percent    policy.Percent `policy:"percent,required" doc:"the share of the requests, 0% to 100%"`
}

// Whole keeps the status of one layer from meeting the gRPC status of another.
func (*Abort) Whole() {}

// maxDelay bounds how long a request may be held: all that time it takes memory and a place among those in flight.
const maxDelay = time.Minute

// Check bounds the faults.
func (s *Setting) Check(c *policy.Check) {
	if c.Route() == nil && len(c.Set().Node.Keys) == 0 {
		c.Errorf("", "says nothing: want delay or abort").Hintf("write `fault: off` for none")
	}
	if s.Delay != nil {
		s.Delay.check(c)
	}
	if s.Abort != nil {
		s.Abort.check(c)
	}
}

func (d *Delay) check(c *policy.Check) {
	span := time.Duration(d.Fixed)
	written := c.Set().Node.Get("delay").Get("fixed") != nil // a layer may leave it to another
	switch {
	case written && span < time.Millisecond:
		c.Errorf("delay.fixed", "want at least 1ms").Hintf("write `delay: off` for none")
	case span > maxDelay:
		c.Errorf("delay.fixed", "want at most %s: all that time the request takes memory", policy.Duration(maxDelay))
	}
}

func (a *Abort) check(c *policy.Check) {
	switch {
	case a.Status == nil && a.GRPCStatus == nil:
		c.Errorf("abort", "want status or grpcStatus")
	case a.Status != nil && a.GRPCStatus != nil:
		c.Errorf("abort.grpcStatus", "the answer has one status: status or grpcStatus").
			Hintf("status reaches clients of gRPC too: Envoy translates it")
	case a.Status != nil && (*a.Status < 200 || *a.Status > 599):
		c.Errorf("abort.status", "want a status from 200 to 599, got %d", *a.Status)
	case a.GRPCStatus != nil && (*a.GRPCStatus < 1 || *a.GRPCStatus > 16):
		c.Errorf("abort.grpcStatus", "want the status of a failure, 1 to 16, got %d", *a.GRPCStatus)
	}
}

const filter = "legation.fault"

// Filters puts the filter into every chain, switched off, after auth and limits: faults shall not hide what these say,
// nor let in those who may not come.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Transform, Config: &faultv3.HTTPFault{}}}
}

// Route switches the filter on where there is something for it to do.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	if s.Delay == nil && s.Abort == nil {
		return envoy.RouteParts{}
	}
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: s.fault()}}
}

func (s *Setting) fault() *faultv3.HTTPFault {
	f := &faultv3.HTTPFault{
		DisableDownstreamClusterStats: true, // named by a header of the client
	}
	if s.Delay != nil {
		f.Delay = &commonv3.FaultDelay{
			FaultDelaySecifier: &commonv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(time.Duration(s.Delay.Fixed))},
			Percentage:         envoy.Fraction(s.Delay.Percent),
		}
	}
	if s.Abort != nil {
		f.Abort = s.Abort.abort()
	}
	return f
}

func (a *Abort) abort() *faultv3.FaultAbort {
	abort := &faultv3.FaultAbort{Percentage: envoy.Fraction(a.Percent)}
	if a.GRPCStatus != nil {
		abort.ErrorType = &faultv3.FaultAbort_GrpcStatus{GrpcStatus: *a.GRPCStatus}
	} else {
		abort.ErrorType = &faultv3.FaultAbort_HttpStatus{HttpStatus: *a.Status}
	}
	return abort
}
