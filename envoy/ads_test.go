package envoy_test

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/grpc"
)

// serveADS serves a gateway's resources to the node edge, by a control plane that is not ours.
func serveADS(t *testing.T, list []envoy.Resource, o ...grpc.ServerOption) string {
	t.Helper()
	address, publish := newADS(t, o...)
	publish(list)
	return address
}

// newADS is serveADS for resources that change: those that are published last are served.
func newADS(t *testing.T, o ...grpc.ServerOption) (address string, publish func([]envoy.Resource)) {
	t.Helper()
	snapshots := cache.NewSnapshotCache(false, cache.IDHash{}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(o...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, serverv3.NewServer(t.Context(), snapshots, nil))
	go server.Serve(l)
	t.Cleanup(server.Stop)
	version := 0
	return l.Addr().String(), func(list []envoy.Resource) {
		t.Helper()
		version++
		byType := make(map[string][]types.Resource)
		for _, r := range list {
			byType[r.Type] = append(byType[r.Type], r.Message)
		}
		snapshot, err := cache.NewSnapshot(strconv.Itoa(version), byType)
		if err != nil {
			t.Fatal(err)
		}
		if err := snapshots.SetSnapshot(t.Context(), "edge", snapshot); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServedForm lets the real Envoy fetch everything over the bootstrap's delta ADS: both kinds of route tables.
func TestServedForm(t *testing.T) {
	shared, perHost := httpListener("http"), httpListener("scoped")
	perHost.PerHost = true
	s := service("web", upstream(t))
	list := translate(t, modelOf([]*policy.Listener{shared, perHost},
		route("app", "app.test", "/", to(s)), named("below", "*.test.test", "/")))

	addresses := connected(t, envoy.BootstrapOptions{Group: "edge", XDS: serveADS(t, list)})
	for _, name := range []string{"http", "scoped"} {
		if got := get(t, addresses[name], "app.test", "/x"); got.code != 200 || got.got(t).Path != "/x" {
			t.Errorf("%s: %d %s", name, got.code, got.body)
		}
		expectNamed(t, addresses[name], "a.test.test", "below")
		expectNamed(t, addresses[name], "other.test", "")
	}
}

// TestMutualTLS has both sides show a certificate, and check the other's.
func TestMutualTLS(t *testing.T) {
	list := translate(t, modelOf([]*policy.Listener{httpListener("http")}, named("app", "app.test", "/")))
	o := withTLS(t, envoy.BootstrapOptions{Group: "edge"})
	o.XDS = serveADS(t, list, grpc.Creds(serverTLS(t, o)))
	expectNamed(t, connected(t, o)["http"], "app.test", "app")
}

// connected starts an Envoy that connects, and returns its listeners' addresses.
func connected(t *testing.T, o envoy.BootstrapOptions) map[string]string {
	t.Helper()
	return listenersAt(connect(t, o).Admin())
}

// connect starts an Envoy that connects, and returns once it serves.
func connect(t *testing.T, o envoy.BootstrapOptions) *envoy.Process {
	t.Helper()
	p := start(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// start is connect that does not wait.
func start(t *testing.T, o envoy.BootstrapOptions) *envoy.Process {
	t.Helper()
	o.Admin = "127.0.0.1:0"
	p, err := envoy.Start(t.Context(), envoy.ProcessOptions{
		Binary: realEnvoy(t), Dir: t.TempDir(), Bootstrap: envoy.Bootstrap(o), Concurrency: 1, Log: testLog{t},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(context.Background()) })
	return p
}

// testLog writes what Envoy prints into the test's log.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("envoy: %s", b)
	return len(b), nil
}
