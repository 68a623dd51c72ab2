package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"golang.org/x/sync/errgroup"
)

// startGrace is how long an Envoy may take to run the policy that it is served.
const startGrace = 30 * time.Second

// Run serves the directory and runs everything that it takes on this machine: an Envoy for each gateway, and the
// sample upstreams that the policy asks for. It ends when ctx does, the Envoys included.
func Run(ctx context.Context, o Options) error {
	binary, version, err := envoy.Find(o.Envoy)
	if err != nil {
		return err
	}
	p, err := newProcess(o)
	if err != nil {
		return err
	}
	if err := p.open(); err != nil {
		return errors.Join(err, p.close())
	}
	p.o.Log.Info("envoy found", "path", binary, "version", version)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	// The services stop after the Envoys, so that the last requests are still checked and counted.
	services, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group.Go(func() error {
		defer cancel()
		return p.run(services)
	})
	group.Go(func() error {
		defer stop()
		return p.runEnvoys(ctx, binary)
	})
	return errors.Join(group.Wait(), p.close())
}

// runEnvoys waits for a whole policy, then runs the samples and the Envoys until ctx ends.
func (p *process) runEnvoys(ctx context.Context, binary string) error {
	select {
	case <-p.control.Loaded():
	case <-ctx.Done():
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	samples := newSamples()
	defer samples.wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.served(func(m *policy.Model) {
		if err := samples.sync(ctx, m); err != nil {
			p.o.Log.Error("sample upstream not started", "error", err)
		}
	})
	model := p.control.Outcome().Model
	if err := samples.sync(ctx, model); err != nil {
		return err
	}
	children, err := p.startEnvoys(ctx, binary, model)
	defer p.stopEnvoys(ctx, children)
	if err != nil {
		return err
	}
	for _, child := range children {
		group.Go(func() error {
			select {
			case <-child.Done():
				return fmt.Errorf("envoy of gateway %s: %w", child.gateway, child.Err())
			case <-ctx.Done():
				return nil
			}
		})
	}
	if err := p.awaitReady(ctx, children); err != nil {
		return err
	}
	p.tour(model, children)
	return group.Wait()
}

// child is the Envoy of one gateway.
type child struct {
	*envoy.Process
	gateway string
	admin   string
}

func (p *process) startEnvoys(ctx context.Context, binary string, m *policy.Model) ([]child, error) {
	var children []child
	for i, gateway := range m.Gateways {
		admin, err := nthPort(p.o.EnvoyAdminAddress, i)
		if err != nil {
			return children, usagef("--envoy-admin-address: %w", err)
		}
		o := envoy.ProcessOptions{
			Binary: binary, Dir: filepath.Join(p.stateDir(), "envoy-"+gateway.Name), Log: p.o.Out, LogLevel: "error",
			Bootstrap: envoy.Bootstrap(p.bootstrap(gateway.Name, admin)),
		}
		process, err := envoy.Adopt(ctx, o)
		if err != nil {
			return children, err
		}
		if process == nil {
			if err := p.portsFree(gateway, admin); err != nil {
				return children, err
			}
			if process, err = envoy.Start(ctx, o); err != nil {
				return children, err
			}
		}
		p.o.Log.Info("envoy runs", "gateway", gateway.Name, "pid", process.PID(), "adopted", process.Adopted())
		children = append(children, child{process, gateway.Name, admin})
	}
	return children, nil
}

// bootstrap is what an Envoy of this machine starts with.
func (p *process) bootstrap(gateway, admin string) envoy.BootstrapOptions {
	return envoy.BootstrapOptions{
		Group: gateway, XDS: p.address("xDS"), Companion: p.companionTarget(), Admin: admin,
		TLSCert: p.o.TLSCert, TLSKey: p.o.TLSKey, TLSCA: p.o.TLSCA,
	}
}

// portsFree checks Envoy's ports before it starts: it would only tell of a refused listener.
func (p *process) portsFree(g *policy.Gateway, admin string) error {
	var errs []error
	if !free(admin) {
		errs = append(errs, taken("envoy's admin", admin, "--envoy-admin-address"))
	}
	for _, l := range g.Listeners {
		address := net.JoinHostPort(l.Address, strconv.Itoa(int(l.Port)))
		if !free(address) {
			errs = append(errs, taken("listener "+l.Name+" of gateway "+g.Name, address, "port: in "+l.Pos.String()))
		}
	}
	return errors.Join(errs...)
}

// awaitReady waits until every Envoy runs the policy.
func (p *process) awaitReady(ctx context.Context, children []child) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startGrace, fmt.Errorf("not ready within %v", startGrace))
	defer cancel()
	for _, c := range children {
		if err := c.Ready(ctx); err != nil {
			return fmt.Errorf("envoy of gateway %s: %w", c.gateway, err)
		}
	}
	return nil
}

// stopEnvoys ends the Envoys, whatever ended the process.
func (p *process) stopEnvoys(ctx context.Context, children []child) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	for _, c := range children {
		if err := c.Stop(ctx); err != nil {
			p.o.Log.Error("envoy not stopped", "gateway", c.gateway, "error", err)
		}
	}
}

// nthPort is the address n ports further.
func nthPort(address string, n int) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(first+n)), nil
}
