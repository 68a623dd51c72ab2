package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/legation/legation/bench/envoys"
	"github.com/legation/legation/xds"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
)

// serveVerb starts this program as a server. It does what the lines on its standard input say: "change" changes a route,
// "usage" tells the processor time and memory that it has used, "live" what is in use. It ends with its standard input.
const serveVerb = "serve-a-fleet"

// engine is a control plane: it publishes the nth change.
type engine interface {
	publish(change int) error
	register(*grpc.Server)
}

func serve(args []string) error {
	var s settings
	f := s.flags(serveVerb)
	f.StringVar(&s.engine, "engine", "", "")
	f.StringVar(&s.layout, "layout", "", "")
	f.StringVar(&s.tls, "tls", "", "")
	f.BoolVar(&s.labels, "labels", false, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	// The codec is proto's for what is not our own. The timeout is also TCP's for a client that reads nothing, as when this
	// machine is busy with all of them.
	options := append(xds.ServerOptions(), grpc.KeepaliveParams(keepalive.ServerParameters{Timeout: patience}))
	if s.tls != "" {
		c, err := serverCredentials(s.tls)
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(c))
	}
	var e engine
	switch s.engine {
	case legation:
		e = newOurs(s)
	case bare:
		e = nobody{asks: len(asksOf(s))}
		options = append(options, grpc.ForceServerCodecV2(unreadCodec{encoding.GetCodecV2("proto")}))
	default:
		e = newTheirs(s)
	}
	if err := e.publish(0); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	e.register(server)
	go func() { _ = server.Serve(l) }()
	fmt.Println(l.Addr())
	change := 0
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "change":
			change++
			if err := e.publish(change); err != nil {
				return err
			}
		case "usage":
			u, err := ownUsage()
			if err != nil {
				return err
			}
			fmt.Println(int64(u.cpu), u.rss, u.most)
		case "live":
			fmt.Println(live())
		}
	}
	return nil
}

// live is what is in use when everything else is collected: bytes of the heap, and goroutines.
func live() (heap uint64, goroutines int) {
	runtime.GC()
	runtime.GC() // what is pooled lives until the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, runtime.NumGoroutine()
}

// usage is what a process has used.
type usage struct {
	cpu  time.Duration
	rss  int64 // bytes
	most int64 // of rss
}

func ownUsage() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	status, err := os.ReadFile(filepath.Join("/proc/self", "status"))
	if err != nil {
		return usage{}, err
	}
	var rss, most int64 // KiB
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &rss)
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &most)
	}
	return usage{time.Duration(r.Utime.Nano() + r.Stime.Nano()), rss << 10, most << 10}, nil
}

// ours is legation's xds room.
type ours struct {
	settings
	server    *xds.Server
	resources []xds.Resource // the label first
	tables    int            // where they begin
	last      *xds.Snapshot
}

func newOurs(s settings) *ours {
	o := &ours{settings: s, server: xds.New(xds.Options{})}
	o.add(labelName, label(0))
	for _, name := range clusterNames(s) {
		o.add(name, cluster(name))
	}
	for _, name := range clusterNames(s) {
		o.add(name, endpoints(name))
	}
	o.add("http", listener())
	o.add(envoys.Marker, secret())
	o.tables = len(o.resources)
	for i, name := range tableNames(s) {
		o.add(name, table(s, i, 0))
	}
	go func() { _ = o.server.Run(context.Background()) }()
	return o
}

func (o *ours) add(name string, m proto.Message) {
	r, err := xds.NewResource(name, m, "", "")
	if err != nil {
		panic(err)
	}
	o.resources = append(o.resources, r)
}

func (o *ours) publish(change int) error {
	n := change % len(tableNames(o.settings))
	r, err := xds.NewResource(tableNames(o.settings)[n], table(o.settings, n, change), "", "")
	if err != nil {
		return err
	}
	o.resources[o.tables+n] = r
	if s := o.settings; s.labels {
		if o.resources[0], err = xds.NewResource(labelName, label(change), "", ""); err != nil {
			return err
		}
	}
	if o.last, err = o.last.Next(fmt.Sprint(change), o.resources); err != nil {
		return err
	}
	o.server.Publish(map[string]*xds.Snapshot{group: o.last})
	return nil
}

func (o *ours) register(g *grpc.Server) { o.server.Register(g) }

// theirs is a SnapshotCache with one key. It is not in ADS mode, in which it loses watches.
type theirs struct {
	settings
	cache  cachev3.SnapshotCache
	fixed  [types.UnknownType]cachev3.Resources
	tables []types.Resource
}

type oneKey struct{}

func (oneKey) ID(*corev3.Node) string { return group }

func newTheirs(s settings) *theirs {
	t := &theirs{settings: s, cache: cachev3.NewSnapshotCache(false, oneKey{}, nil)}
	var clusters, assignments []types.Resource
	for _, name := range clusterNames(s) {
		clusters, assignments = append(clusters, cluster(name)), append(assignments, endpoints(name))
	}
	for i := range tableNames(s) {
		t.tables = append(t.tables, table(s, i, 0))
	}
	t.fixed[types.Cluster] = cachev3.NewResources("0", clusters)
	t.fixed[types.Endpoint] = cachev3.NewResources("0", assignments)
	t.fixed[types.Listener] = cachev3.NewResources("0", []types.Resource{listener()})
	t.fixed[types.Secret] = cachev3.NewResources("0", []types.Resource{secret()})
	return t
}

// publish makes a new index of the routes only.
func (t *theirs) publish(change int) error {
	n := change % len(t.tables)
	t.tables[n] = table(t.settings, n, change)
	s := &cachev3.Snapshot{Resources: t.fixed}
	s.Resources[types.Route] = cachev3.NewResources(fmt.Sprint(change), t.tables)
	return t.cache.SetSnapshot(context.Background(), group, s)
}

func (t *theirs) register(g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(context.Background(), t.cache, nil))
}

// group is the node group of all clients.
const group = "edge"
