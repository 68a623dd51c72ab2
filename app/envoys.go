package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// envoys is the Envoys of this machine, one for each gateway, in step with the policy.
type envoys struct {
	p      *process
	binary string
	failed chan error // an Envoy has ended by itself

	mu      sync.Mutex // guards what follows
	running map[string]child
	started int // so many admin ports were given out
}

// child is the Envoy of one gateway.
type child struct {
	*envoy.Process
	gateway string
	admin   string
}

func newEnvoys(p *process, binary string) *envoys {
	return &envoys{p: p, binary: binary, failed: make(chan error, 1), running: map[string]child{}}
}

// sync starts an Envoy for each gateway that has none, and ends those whose gateway is gone. One that can't be started
// keeps no other from it.
func (e *envoys) sync(ctx context.Context, m *policy.Model) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	for name, c := range e.running {
		if !slices.ContainsFunc(m.Gateways, func(g *policy.Gateway) bool { return g.Name == name }) {
			delete(e.running, name)
			e.end(ctx, c)
		}
	}
	var errs []error
	for _, g := range m.Gateways {
		if err := sharesPort(m, g); err != nil {
			errs = append(errs, err)
			continue
		}
		if _, ok := e.running[g.Name]; ok {
			continue
		}
		c, err := e.start(ctx, g)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		e.running[g.Name] = c
		go e.watch(c)
	}
	return errors.Join(errs...)
}

// start adopts the Envoy that an earlier run has left behind, or starts one.
func (e *envoys) start(ctx context.Context, g *policy.Gateway) (child, error) {
	p := e.p
	admin, err := nthPort(p.o.EnvoyAdminAddress, e.started)
	if err != nil {
		return child{}, usagef("--envoy-admin-address: %w", err)
	}
	o := envoy.ProcessOptions{
		Binary: e.binary, Dir: filepath.Join(p.stateDir(), "envoy-"+g.Name), Log: p.o.Out, LogLevel: "error",
		Bootstrap: envoy.Bootstrap(p.bootstrap(g.Name, admin)),
	}
	process, err := envoy.Adopt(ctx, o)
	if err == nil && process == nil {
		if err = p.portsFree(g, admin); err == nil {
			process, err = envoy.Start(ctx, o)
		}
	}
	if err != nil {
		return child{}, err
	}
	e.started++
	p.o.Log.Info("envoy runs", "gateway", g.Name, "pid", process.PID(), "adopted", process.Adopted())
	return child{process, g.Name, admin}, nil
}

// watch tells of an Envoy that ends without having been told to.
func (e *envoys) watch(c child) {
	<-c.Done()
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.running[c.gateway]; !ok {
		return
	}
	select {
	case e.failed <- fmt.Errorf("envoy of gateway %s: %w", c.gateway, c.Err()):
	default: // one is enough to end the run
	}
}

// list is the Envoys that run, by gateway.
func (e *envoys) list() []child {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []child
	for _, c := range e.running {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b child) int { return cmp.Compare(a.gateway, b.gateway) })
	return all
}

// awaitReady waits until every Envoy serves.
func (e *envoys) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startGrace, fmt.Errorf("not ready within %v", startGrace))
	defer cancel()
	for _, c := range e.list() {
		if err := c.Ready(ctx); err != nil {
			return fmt.Errorf("envoy of gateway %s: %w", c.gateway, err)
		}
	}
	return nil
}

// stop ends all Envoys, whatever ended the process.
func (e *envoys) stop(ctx context.Context) {
	e.mu.Lock()
	all := e.running
	e.running = nil
	e.mu.Unlock()
	var done sync.WaitGroup
	for _, c := range all {
		done.Go(func() { e.end(context.WithoutCancel(ctx), c) })
	}
	done.Wait()
}

func (e *envoys) end(ctx context.Context, c child) {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		e.p.o.Log.Error("envoy not stopped", "gateway", c.gateway, "error", err)
	}
}
