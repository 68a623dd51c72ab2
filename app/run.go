package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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
	if err := o.withDefaults().checkEnvoyAdmin(); err != nil {
		return err
	}
	if o.TLSCert != "" && o.TLSCA == "" {
		return usagef("the Envoys of legation run have no tokens: give --tls-ca")
	}
	binary, version, err := envoy.Find(o.Envoy)
	if err != nil {
		return err
	}
	if _, err := os.Stat(o.Dir); err != nil {
		return usagef("policy directory: %w", err)
	}
	p, err := newProcess(o)
	if err != nil {
		return err
	}
	p.people = true
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
	// Samples end after the Envoys, which still answer what is in flight.
	upstreams, end := context.WithCancel(context.WithoutCancel(ctx))
	samples, envoys := newSamples(), newEnvoys(p, binary)
	defer samples.wait()
	defer end()
	defer envoys.stop(ctx)
	sync := func(m *policy.Model) error { return errors.Join(samples.sync(upstreams, m), envoys.sync(ctx, m)) }
	p.served(func(m *policy.Model) {
		go func() { // an Envoy that is stopped takes its time, and reloads go on
			if err := sync(m); err != nil {
				fmt.Fprintf(p.o.Out, "not everything runs; the next change of the files tries again: %v\n", err)
			}
		}()
	})
	model := p.control.Outcome().Model
	if err := sync(model); err != nil {
		return err
	}
	if err := envoys.awaitReady(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to end before it was up
		}
		return err
	}
	p.tour(model, envoys.list())
	select {
	case err := <-envoys.failed:
		return err
	case <-ctx.Done():
		return nil
	}
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

// sharesPort tells whether a gateway wants a port of one before it. Envoys could both listen there: the kernel would hand
// each connection to one of them, and nobody would complain.
func sharesPort(m *policy.Model, g *policy.Gateway) error {
	for _, other := range m.Gateways {
		if other == g {
			return nil
		}
		for _, l := range g.Listeners {
			for _, first := range other.Listeners {
				if l.Meets(first) {
					return fmt.Errorf("listener %s of gateway %s: port %d is that of listener %s of gateway %s: on one machine choose another one with port: in %s or %s",
						l.Name, g.Name, l.Port, first.Name, other.Name, l.Pos, first.Pos)
				}
			}
		}
	}
	return nil
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
	if first+n > 65535 {
		return "", fmt.Errorf("%s leaves no room for %d more ports", address, n)
	}
	return net.JoinHostPort(host, strconv.Itoa(first+n)), nil
}
