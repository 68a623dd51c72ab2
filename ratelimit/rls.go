package ratelimit

import (
	"context"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/legation/legation/callout"
)

// Answer answers calls of envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit, all with one trip to the store. It
// is a [callout.Method].
func (s *Service) Answer(calls []*callout.Call) {
	t := s.begin()
	defer s.end(t)
	for _, c := range calls {
		d := t.next()
		if err := t.request.decode(c.Message); err != nil {
			s.metrics.invalid.Inc()
			d.fail(codes.InvalidArgument, err.Error())
			continue
		}
		s.read(t, d)
	}
	s.decide(t)
	for i, c := range calls {
		if d := t.decisions[i]; d.code != codes.OK {
			c.Code, c.Text = d.code, d.text
		} else {
			c.Reply = t.reply(c.Reply, d)
		}
	}
}

// server is the gRPC door.
type server struct {
	rls.UnimplementedRateLimitServiceServer
	s *Service
}

// Register serves envoy.service.ratelimit.v3 on r.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	rls.RegisterRateLimitServiceServer(r, &server{s: s})
}

// ShouldRateLimit answers one request, through the codec that the fast path has: what is decided is the same.
func (v *server) ShouldRateLimit(_ context.Context, q *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	message, err := proto.Marshal(q)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	c := callout.Call{Message: message}
	v.s.Answer([]*callout.Call{&c})
	if c.Code != codes.OK {
		return nil, status.Error(c.Code, c.Text)
	}
	r := new(rls.RateLimitResponse)
	if err := proto.Unmarshal(c.Reply, r); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return r, nil
}
