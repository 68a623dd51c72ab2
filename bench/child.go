package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

// The names by which the program starts itself for what all others are measured beside.
const (
	emptyVerb  = "serve-empty-grpc-handlers"
	staticVerb = "serve-static-http"
)

// child runs as one of them; ok is false when the arguments ask for something else.
func child(args []string) (err error, ok bool) {
	if len(args) != 1 || args[0] != emptyVerb && args[0] != staticVerb {
		return nil, false
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err, true
	}
	fmt.Fprintf(os.Stdout, "listening on %s\n", l.Addr())
	if args[0] == staticVerb {
		return serveStatic(l), true
	}
	s := grpc.NewServer()
	rls.RegisterRateLimitServiceServer(s, emptyLimits{})
	authv3.RegisterAuthorizationServer(s, emptyAuth{})
	return s.Serve(l), true
}

// emptyLimits says OK to everything, over grpc-go with its default options: what a service costs that does nothing.
type emptyLimits struct {
	rls.UnimplementedRateLimitServiceServer
}

func (emptyLimits) ShouldRateLimit(context.Context, *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	return &rls.RateLimitResponse{OverallCode: rls.RateLimitResponse_OK}, nil
}

// emptyAuth says OK to everything.
type emptyAuth struct {
	authv3.UnimplementedAuthorizationServer
}

func (emptyAuth) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &status.Status{}}, nil
}

// serveStatic is the cheapest of backends: it answers each request of HTTP/1.1 that has no body with the same few bytes.
func serveStatic(l net.Listener) error {
	answer := []byte("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			for in := bufio.NewReader(c); ; {
				line, err := in.ReadSlice('\n')
				if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
					return
				}
				if len(line) > len("\r\n") {
					continue
				}
				if _, err := c.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}
