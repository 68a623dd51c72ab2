package app

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/legation/legation/callout"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

// stopGrace is how long what is in flight may take once the process was told to stop.
const stopGrace = 5 * time.Second

// ageGrace is how long a connection that has reached its age may take to end by itself.
const ageGrace = 2 * time.Second

// grpcServer is one gRPC port, with health and reflection beside what it is for.
type grpcServer struct {
	*grpc.Server
	health *portHealth
	loop   *callout.Server // takes the connections, and answers some methods itself; nil: grpc-go does all
}

// newGRPC makes a server, in plain text without credentials. Keepalive finds Envoys that went away without a word, and allows them to
// ask every 5 s. A connection that has reached its age, give or take a tenth, is told to end, and ended once what it is in
// the middle of is over, which an xDS stream never is; 0 is any age.
func newGRPC(creds credentials.TransportCredentials, age time.Duration, o ...grpc.ServerOption) grpcServer {
	o = append(o,
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionAge: age, MaxConnectionAgeGrace: ageGrace,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(10*time.Second),
	)
	if creds != nil {
		o = append(o, grpc.Creds(creds))
	}
	s := grpcServer{Server: grpc.NewServer(o...), health: newPortHealth()}
	grpc_health_v1.RegisterHealthServer(s, s.health)
	return s
}

// newCalloutServer makes a server whose methods are answered without grpc-go.
func newCalloutServer(c callout.Options, o ...grpc.ServerOption) grpcServer {
	s := newGRPC(nil, c.MaxAge, append(o, grpc.Creds(callout.Credentials()))...)
	c.Fallback = s.Server
	s.loop = callout.New(c)
	return s
}

// run serves until ctx ends: then health says so at once, calls in flight are answered, and streams that have no end
// of their own (xDS) are closed after the grace.
func (s grpcServer) run(ctx context.Context, l net.Listener, grace time.Duration) error {
	reflection.Register(s)
	if s.loop != nil {
		defer context.AfterFunc(ctx, s.health.Shutdown)()
		return s.loop.Run(ctx, l, grace)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		s.health.Shutdown()
		hard := time.AfterFunc(grace, s.Stop)
		s.GracefulStop()
		hard.Stop()
	}()
	if err := s.Serve(l); err != nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	<-done
	return nil
}

// ready sets what health answers for the server as a whole.
func (s grpcServer) ready(ok bool) {
	status := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if ok {
		status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
}
