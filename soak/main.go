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
	limit         time.Duration // for all of it, beside lasts
	lasts         time.Duration // of those that need time itself; --for takes its place
}

var scenarios = []scenario{
	{"C8", "a thousand Envoys come at once", herd, 3 * time.Minute, 0},
	{"C9", "Envoys that read nothing and Envoys that flood, beside good ones", unruly, 4 * time.Minute, 0},
	{"C10", "rolling upgrade of two processes under load, with a push each 2 s", upgrade, 4 * time.Minute, 0},
	{"C12", "coming and going, pushes, and Redis killed each minute leave nothing behind", leaks, 2 * time.Minute, 10 * time.Minute},
	{"L1", "exact is exact: three replicas, 64 workers each", exactness, 2 * time.Minute, 0},
	{"L2", "leased is bounded", leases, time.Minute, 0},
	{"L3", "a sliding window decides as an exact log would", sliding, time.Minute, 0},
	{"L4", "Redis killed and started again", killed, time.Minute, 0},
	{"L5", "Redis slow, paused, or swallowing packets", stuck, time.Minute, 0},
	{"L6", "Redis absent at the start, wrong password, TLS refused", absent, time.Minute, 0},
	{"L7", "fail-over of Sentinel and Cluster, a read-only replica, slots that move", failover, 2 * time.Minute, 0},
	{"L8", "counters lost", lost, time.Minute, 0},
	{"L9", "Redis out of memory, or with an evicting policy", full, time.Minute, 0},
	{"L10", "scripts flushed each 100 ms", flushed, time.Minute, 0},
	{"L12", "one of ten replies lost", replies, time.Minute, 0},
	{"L14", "a hot key", hot, time.Minute, 0},
	{"L15", "a million keys", million, 2 * time.Minute, 0},
	{"K", "an issuer takes another key each 10 s", rotation, 2 * time.Minute, 0},
	{"L16", "three times as many calls as can be answered", overload, time.Minute, 0},
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
	lasts := f.Duration("for", 0, "how long C12 lasts, and a minute of it is a tenth; default 10m")
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
	if *lasts != 0 {
		if *lasts < 30*time.Second {
			return errors.New("--for: want 30s at least")
		}
		chosen = lasting(chosen, *lasts)
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
	for _, program := range []string{"redis", "envoy"} {
		if program == "envoy" && !slices.ContainsFunc(chosen, func(s scenario) bool { return strings.HasPrefix(s.name, "C") }) {
			continue
		}
		if err := built.Has(program); err != nil {
			return err
		}
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

// lasting has scenarios that need time itself take this much.
func lasting(chosen []scenario, d time.Duration) []scenario {
	chosen = slices.Clone(chosen)
	for i := range chosen {
		if chosen[i].lasts > 0 {
			chosen[i].lasts = d
		}
	}
	return chosen
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
	limit := s.limit + s.lasts
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	r, err := rig.New(ctx, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	t := &trial{ctx: ctx, rig: r, out: os.Stdout, lasts: s.lasts}
	err = s.run(t)
	return t.failed, err
}
