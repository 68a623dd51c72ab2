package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// serveHTTP serves until ctx ends, then lets what is being answered finish.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	return serveAll(ctx, l, newHTTP(h))
}

// serveTools is serveHTTP for clients that speak HTTP/2 without TLS too, as gRPC's tools do.
func serveTools(ctx context.Context, l net.Listener, h http.Handler) error {
	s := newHTTP(h)
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return serveAll(ctx, l, s)
}

func newHTTP(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
}

func serveAll(ctx context.Context, l net.Listener, s *http.Server) error {
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		err := s.Shutdown(grace)
		if errors.Is(err, context.DeadlineExceeded) {
			err = s.Close()
		}
		stopped <- err
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return <-stopped
}
