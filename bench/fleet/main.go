// Fleet measures xDS for a thousand Envoys: what a change, a join storm and a reconnection cost legation's xds room, beside
// go-control-plane's SnapshotCache at its best (one key for the fleet) over the same gRPC server options, and beside a gRPC
// server that only reads what reconnecting Envoys say: there is no getting below that. Each server is a
// process of its own, which tells its processor time by getrusage; the Envoys are light clients in this one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == serveVerb {
		end(serve(os.Args[2:]))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	end(run(ctx, os.Args[1:]))
}

func end(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// settings are what is measured. A server gets them as its arguments.
type settings struct {
	engine   string // who serves
	clients  int
	clusters int
	routes   int
	layout   string // of the routes: perHost or one
	sotw     bool
	labels   bool   // each change has the label that access logs tell of it
	tls      string // folder with the certificates; "" without TLS
	changes  int
}

// The engines and layouts.
const (
	legation = "legation"
	cache    = "SnapshotCache"
	bare     = "bare gRPC"
	perHost  = "perHost"
	oneTable = "one"
)

// perTable is how many routes a route configuration has where each host has its own.
const perTable = 10

func (s *settings) flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.IntVar(&s.clients, "clients", 1000, "Envoys")
	f.IntVar(&s.clusters, "clusters", 1000, "clusters, each with its endpoints")
	f.IntVar(&s.routes, "routes", 10_000, "routes")
	f.IntVar(&s.changes, "changes", 7, "changes of a route, of which the median is told")
	return f
}

func (s *settings) title() string {
	protocol, tls := "delta", ""
	if s.sotw {
		protocol = "sotw"
	}
	if s.tls != "" {
		tls = " mTLS"
	}
	if s.labels {
		tls += " labels"
	}
	return protocol + " " + s.layout + tls
}

func run(ctx context.Context, args []string) error {
	var s settings
	var only string
	var promises bool
	f := s.flags("fleet")
	f.BoolVar(&promises, "promises", false, "hold instead what is promised of herds and of Envoys that do not behave")
	f.StringVar(&only, "run", "", "measure only what this is part of the name of, as in delta or mTLS")
	if err := f.Parse(args); err != nil {
		return err
	}
	if s.clients < 1 || s.clusters < 1 || s.routes < perTable || s.changes < 1 {
		return errors.New("--clients, --clusters, --routes, --changes: too few")
	}
	certificates, err := os.MkdirTemp("", "fleet")
	if err != nil {
		return err
	}
	defer os.RemoveAll(certificates)
	if err := writeCertificates(certificates); err != nil {
		return err
	}
	if promises {
		return hold(ctx, s, certificates)
	}
	r, err := compare(ctx, s, certificates, only)
	if err != nil {
		return err
	}
	return r.print(os.Stdout, s)
}

// compare measures the engines in each setting.
func compare(ctx context.Context, s settings, certificates, only string) (*report, error) {
	r := &report{}
	for _, c := range []struct {
		layout, protocol, tls string
		labels                bool
	}{
		{perHost, "delta", "", false},
		{perHost, "delta", "", true},
		{perHost, "sotw", "", false},
		{perHost, "delta", certificates, false},
		{oneTable, "delta", "", false},
	} {
		one := s
		one.layout, one.sotw, one.tls, one.labels = c.layout, c.protocol == "sotw", c.tls, c.labels
		if !strings.Contains(one.title(), only) {
			continue
		}
		engines := []string{cache, legation, bare}
		if one.sotw {
			engines = engines[:2]
		}
		if one.labels {
			engines = engines[1:2] // the cache has none: legation with them is held against it without
		}
		for _, engine := range engines {
			one.engine = engine
			fmt.Fprintf(os.Stderr, "%s: %s\n", one.title(), engine)
			found, err := measure(ctx, one)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", one.title(), engine, err)
			}
			r.rows = append(r.rows, row{one, found})
		}
	}
	return r, nil
}

// hold tries what is promised of herds and of Envoys that do not behave; it fails when a promise did not hold.
func hold(ctx context.Context, s settings, certificates string) error {
	s.engine, s.layout = legation, perHost
	secure := s
	secure.tls = certificates
	broken := 0
	for _, try := range []func() ([]promise, error){
		func() ([]promise, error) { return herd(ctx, s) },
		func() ([]promise, error) { return herd(ctx, secure) },
		func() ([]promise, error) { return unruly(ctx, s) },
		func() ([]promise, error) { return leaks(ctx, s) },
	} {
		list, err := try()
		if err != nil {
			return err
		}
		for _, p := range list {
			fmt.Println(p)
			if !p.held {
				broken++
			}
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d promises were broken", broken)
	}
	return nil
}
