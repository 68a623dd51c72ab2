package envoy_test

import (
	"context"
	"testing"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// TestMemoryIsBounded has the real Envoy refuse requests rather than take more memory than it may; by default it does not.
func TestMemoryIsBounded(t *testing.T) {
	list := translate(t, modelOf([]*policy.Listener{httpListener("http")}, named("app", "app.test", "/")))
	for maxHeap, want := range map[uint64]int{0: 200, 1 << 20: 503} {
		b, err := envoy.Static(list, envoy.BootstrapOptions{Group: "edge", Admin: "127.0.0.1:0", MaxHeap: maxHeap})
		if err != nil {
			t.Fatal(err)
		}
		p, err := envoy.Start(t.Context(), envoy.ProcessOptions{
			Binary: realEnvoy(t), Dir: t.TempDir(), Bootstrap: b, Concurrency: 1, Drain: time.Millisecond, Log: testLog{t},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Stop(context.Background()) })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := p.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		address := listenersAt(p.Admin())["http"]
		await(t, "the answer", func() bool { return get(t, address, "app.test", "/").code == want })
	}
}

func TestBootstrapTellsTheZone(t *testing.T) {
	if got := envoy.Bootstrap(envoy.BootstrapOptions{Zone: "a"}).Node.Locality.GetZone(); got != "a" {
		t.Errorf("zone %q", got)
	}
	if got := envoy.Bootstrap(envoy.BootstrapOptions{}).Node.Locality; got != nil {
		t.Errorf("without a zone: %v", got)
	}
}
