// Soak holds the promises that need load, outages or time against the built program: real processes, a real redis-server,
// and calls over gRPC, all on loopback. make soak runs it, and make soak SCENARIO=L4 one scenario.
//
// Each scenario says what it found, and whether the promise held. The program ends with status 1 when one did not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/legation/legation/bench/rig"
)

// scenario holds one promise.
type scenario struct {
	name, promise string
	run           func(*trial) error
	limit         time.Duration // for all of it
}

var scenarios = []scenario{
	{"L1", "exact is exact: three replicas, 64 workers each", exactness, 2 * time.Minute},
	{"L2", "leased is bounded", leases, time.Minute},
	{"L3", "a sliding window decides as an exact log would", sliding, time.Minute},
	{"L4", "Redis killed and started again", killed, time.Minute},
	{"L5", "Redis slow, paused, or swallowing packets", stuck, time.Minute},
	{"L6", "Redis absent at the start, wrong password, TLS refused", absent, time.Minute},
	{"L7", "fail-over of Sentinel and Cluster, a read-only replica, slots that move", failover, 2 * time.Minute},
	{"L8", "counters lost", lost, time.Minute},
	{"L9", "Redis out of memory, or with an evicting policy", full, time.Minute},
	{"L10", "scripts flushed each 100 ms", flushed, time.Minute},
	{"L12", "one of ten replies lost", replies, time.Minute},
	{"L14", "a hot key", hot, time.Minute},
	{"L15", "a million keys", million, 2 * time.Minute},
	{"K", "an issuer takes another key each 10 s", rotation, 2 * time.Minute},
	{"L16", "three times as many calls as can be answered", overload, time.Minute},
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	cancel()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	list := f.Bool("list", false, "list the scenarios and end")
	program := f.String("legation", "", "`program` to hold to the promises instead of the one that is built from this module")
	f.Usage = func() {
		fmt.Fprint(f.Output(), "Hold the promises that need load. Without a name it runs all scenarios.\n\n  go run ./soak [flag]... [L1]...\n\n")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(f.Args())
	if err != nil {
		return err
	}
	if *list {
		for _, s := range chosen {
			fmt.Printf("%-4s %s\n", s.name, s.promise)
		}
		return nil
	}
	o := rig.Options{}
	if *program != "" {
		if o.Legation, err = filepath.Abs(*program); err != nil {
			return err
		}
	}
	built, err := rig.New(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	if err := built.Has("redis"); err != nil {
		return err
	}
	o.Legation = built.Legation()
	return all(ctx, o, chosen)
}

// choose gives the scenarios of these names, in the order of the table; without names all.
func choose(names []string) ([]scenario, error) {
	if len(names) == 0 {
		return scenarios, nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return s.name == name }) {
			return nil, fmt.Errorf("there is no scenario %q; --list lists them", name)
		}
	}
	return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return !slices.Contains(names, s.name) }), nil
}

// all runs the scenarios one after the other, each with processes of its own.
func all(ctx context.Context, o rig.Options, chosen []scenario) error {
	var broken []string
	for _, s := range chosen {
		fmt.Printf("%s: %s\n", s.name, s.promise)
		begin := time.Now()
		failed, err := try(ctx, o, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			fmt.Printf("  FAIL  it could not be tried: %v\n", err)
		}
		if err != nil || failed > 0 {
			broken = append(broken, s.name)
		}
		fmt.Printf("  %s in %.0f s\n\n", s.name, time.Since(begin).Seconds())
	}
	if len(broken) > 0 {
		return fmt.Errorf("not held: %s", strings.Join(broken, ", "))
	}
	fmt.Println("all held")
	return nil
}

func try(ctx context.Context, o rig.Options, s scenario) (failed int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("it took longer than %s", s.limit))
	defer cancel()
	r, err := rig.New(ctx, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	t := &trial{ctx: ctx, rig: r, out: os.Stdout}
	err = s.run(t)
	return t.failed, err
}
