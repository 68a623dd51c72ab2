package golden

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Start runs a real Envoy on the gateway edge of a model until the test ends, and returns once it serves; companion is
// where the auth and rate limit services answer. The test is skipped where there is no Envoy.
func Start(t *testing.T, m *policy.Model, kinds []*policy.Kind, companion string) {
	t.Helper()
	binary := Binary(t)
	resources, err := envoy.Translate(m, kinds)
	if err != nil {
		t.Fatal(err)
	}
	labelled := append(resources["edge"], envoy.Labels(m.Revision)...)
	b, err := envoy.Static(labelled, envoy.BootstrapOptions{Group: "edge", Companion: companion, Admin: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := envoy.Start(t.Context(), envoy.ProcessOptions{
		Binary: binary, Dir: t.TempDir(), Bootstrap: b, Concurrency: 1, Drain: time.Millisecond, Log: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// nextPort is where the search for a free port goes on; it begins somewhere else in each process.
var nextPort atomic.Int32

// FreePort is a port for a process that can't be handed an open listener. It lies below those that the kernel gives to
// outgoing connections: one of these, closed again, may be taken before the process gets to it.
func FreePort(t *testing.T) int {
	t.Helper()
	const first, last = 16000, 20000
	nextPort.CompareAndSwap(0, int32(os.Getpid()*37%(last-first)))
	for range last - first {
		port := first + int(nextPort.Add(1))%(last-first)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatalf("no port is free from %d to %d", first, last)
	return 0
}
