package golden

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Start runs a real Envoy on the gateway edge of a model until the test ends, and returns once it serves; companion is
// where the auth and rate limit services answer. The test is skipped where there is no Envoy.
func Start(t *testing.T, m *policy.Model, kinds []*policy.Kind, companion string) {
	t.Helper()
	binary, err := found()
	if err != nil {
		if os.Getenv("LEGATION_ENVOY") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	resources, err := envoy.Translate(m, kinds)
	if err != nil {
		t.Fatal(err)
	}
	b, err := envoy.Static(resources["edge"], envoy.BootstrapOptions{Group: "edge", Companion: companion, Admin: "127.0.0.1:0"})
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

// FreePort is a port for a policy's listener that nobody has right now.
func FreePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
