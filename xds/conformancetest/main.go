// Command conformancetest serves an xds.Server to the public conformance suite for control planes, github.com/ii/xds-test-harness,
// which tells it by a gRPC adapter what to serve, and asks for it as Envoys would. It is for tests only:
//
//	go run ./xds/conformancetest -adapter 127.0.0.1:17000 -target 127.0.0.1:18000
//
// and then the suite, as its documentation tells, with the ports of the adapter and the target, and any node id. All four variants
// are served: the state of the world and incremental, each aggregated and not.
//
// The suite wants some things that no Envoy needs. Its node has no cluster, which is the node group here, and it calls
// versions by names of its own, where ours are hashes: that is left to a proxy between it and the server. It unsubscribes
// and then has a resource changed over another connection, without waiting: so the adapter waits. And on aggregated streams in
// the state of the world it acknowledges all types as the first one: so the server does not wait long for an answer.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/legation/legation/xds"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

func main() {
	adapterAddress := flag.String("adapter", "127.0.0.1:17000", "where the suite tells what to serve")
	targetAddress := flag.String("target", "127.0.0.1:18000", "where the suite asks for it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *adapterAddress, *targetAddress); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, adapterAddress, targetAddress string) error {
	adapters, err := net.Listen("tcp", adapterAddress)
	if err != nil {
		return err
	}
	targets, err := net.Listen("tcp", targetAddress)
	if err != nil {
		return err
	}
	return serve(ctx, adapters, targets)
}

// serve serves until ctx ends.
func serve(ctx context.Context, adapters, targets net.Listener) error {
	inner := bufconn.Listen(64 << 10)
	conn, err := grpc.NewClient("passthrough:///inner",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return inner.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()

	a := newAdapter(xds.New(xds.Options{StageTimeout: time.Second}))
	server := grpc.NewServer(xds.ServerOptions()...)
	a.server.Register(server)
	adapter := grpc.NewServer()
	a.register(adapter)
	target := grpc.NewServer(grpc.UnknownServiceHandler(proxy{conn, a}.handle))

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.server.Run(ctx) })
	for listener, s := range map[net.Listener]*grpc.Server{inner: server, adapters: adapter, targets: target} {
		group.Go(func() error { return s.Serve(listener) })
		context.AfterFunc(ctx, s.Stop)
	}
	return group.Wait()
}
