package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options of [New]; where a program isn't named, the environment and PATH are asked.
type Options struct {
	Legation string   // the program; empty builds it from the module that the working directory belongs to
	Redis    string   // redis-server; default LEGATION_REDIS_SERVER
	Envoy    string   // default LEGATION_ENVOY
	Args     []string // further arguments of every legation serve
}

// Rig is a set of processes.
type Rig struct {
	Dir string // temporary
	o   Options

	mu        sync.Mutex // guards processes
	processes []*Process
}

// New makes a rig without processes.
func New(ctx context.Context, o Options) (*Rig, error) {
	dir, err := os.MkdirTemp("", "legation-rig-")
	if err != nil {
		return nil, err
	}
	r := &Rig{Dir: dir, o: o}
	r.o.Redis = cmp.Or(o.Redis, os.Getenv("LEGATION_REDIS_SERVER"), "redis-server")
	r.o.Envoy = cmp.Or(o.Envoy, os.Getenv("LEGATION_ENVOY"), "envoy")
	if r.o.Legation == "" {
		if err := r.build(ctx); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

func (r *Rig) build(ctx context.Context) error {
	r.o.Legation = filepath.Join(r.Dir, "legation")
	c := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", r.o.Legation, "github.com/legation/legation/cmd/legation")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build legation: %w\n%s", err, out)
	}
	return nil
}

// Close ends the processes, the last first, and removes the directory.
func (r *Rig) Close() error {
	r.mu.Lock()
	all := r.processes
	r.processes = nil
	r.mu.Unlock()
	for _, p := range slices.Backward(all) {
		p.Kill()
	}
	return os.RemoveAll(r.Dir)
}

// Folder makes a directory of its own.
func (r *Rig) Folder() (string, error) { return os.MkdirTemp(r.Dir, "") }

// Has tells whether the program of a name runs here: redis or envoy.
func (r *Rig) Has(name string) error {
	path := map[string]string{"redis": r.o.Redis, "envoy": r.o.Envoy}[name]
	if _, err := exec.LookPath(path); err != nil {
		return fmt.Errorf("%w (make %s fetches it)", err, name)
	}
	return nil
}

// tool is a program that comes with redis-server, such as redis-benchmark.
func (r *Rig) tool(name string) string {
	if path, err := exec.LookPath(filepath.Join(filepath.Dir(r.o.Redis), name)); err == nil && strings.ContainsRune(r.o.Redis, filepath.Separator) {
		return path
	}
	return name
}

// nextPort is where the search for a free port goes on; it begins somewhere else in each process.
var nextPort atomic.Int32

// Port is a free one, for programs that can't tell which one they took. It lies below those that the kernel gives to
// outgoing connections: one of these, closed again, may be taken before the program gets to it.
func Port() (int, error) {
	const first, last = 22000, 32000
	nextPort.CompareAndSwap(0, int32(os.Getpid()*37%(last-first)))
	for range last - first {
		port := first + int(nextPort.Add(1))%(last-first)
		if l, err := net.Listen("tcp", Local(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no port is free from %d to %d", first, last)
}

// Local is the loopback address with a port.
func Local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// Until tries until there is no error, for limit at most.
func Until(ctx context.Context, limit time.Duration, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s for %s: %w", limit, what, err)
		case <-tick.C:
		}
	}
}

// Envoy starts an Envoy of one worker with a configuration file.
func (r *Rig) Envoy(config string) (*Process, error) {
	return r.Start(r.o.Envoy, "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn")
}

// Legation is the program that is started, for another rig's Options.
func (r *Rig) Legation() string { return r.o.Legation }
