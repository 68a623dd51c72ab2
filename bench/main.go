// Bench measures the rate limit and auth services: how many calls a second they answer, how long each takes, and how
// much processor time the service and its Redis use for one, apart from the client's. make bench runs it; it stands
// beside an empty handler of grpc-go in the same run, so that figures of different machines can be compared as ratios.
//
// What it measures is the legation of the module that it is started in, and with --target any other rate limit service.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

func main() {
	if err, ok := child(os.Args[1:]); ok {
		end(err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	end(run(ctx, os.Args[1:]))
}

func end(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// bench is one run.
type bench struct {
	rig         *rig.Rig
	issuer      *rig.Issuer
	policy      rig.Policy
	checks      map[string][][]byte // messages to the auth service, by route
	tokens      []string
	field       []*contestant
	variants    []variant
	target      target
	grpcTimeout time.Duration
	rounds      int
	time        time.Duration // of one measurement
	warm        time.Duration
	skipped     []skip
	progress    func(format string, args ...any)
}

// target is a service that runs elsewhere.
type target struct {
	address, domain string
	entries         []load.Entry
	pids            []int
}

// skip is a scenario that this legation or this machine has not what it takes for.
type skip struct {
	Scenario string `json:"scenario"`
	Reason   string `json:"reason"`
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

type arguments struct {
	rig                  rig.Options
	run, output, domain  string
	list                 bool
	seconds              float64
	entries, pids, texts list
}

func (a *arguments) flags(b *bench) *flag.FlagSet {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&a.list, "list", false, "list the scenarios and end")
	f.StringVar(&a.run, "run", "", "run only the scenarios whose name matches this `regexp`")
	f.IntVar(&b.rounds, "rounds", 3, "rounds of each scenario, whose medians are told")
	f.Float64Var(&a.seconds, "seconds", 1, "length of one measurement")
	f.StringVar(&a.output, "o", "table", "table or json")
	f.StringVar(&b.target.address, "target", "", "also measure the rate limit service at this `host:port` (gRPC without TLS)")
	f.StringVar(&a.domain, "domain", "bench", "domain to ask the target with")
	f.Var(&a.entries, "entry", "`key=value` of the descriptor to ask the target with; %d in the value is the number of the key (repeat for more)")
	f.Var(&a.pids, "pid", "`process` of the target, whose processor time is measured (repeat for more, such as its Redis)")
	f.Var(&a.texts, "variant", "measure legation also with further arguments, `name='--flag=value …'` (repeat for more)")
	f.DurationVar(&b.grpcTimeout, "grpc-timeout", 0, "deadline to tell with each call, as Envoy does; 0 tells none")
	f.StringVar(&a.rig.Legation, "legation", "", "`program` to measure instead of the one that is built from this module")
	f.StringVar(&a.rig.Redis, "redis", "", "`program` to start as redis-server")
	f.StringVar(&a.rig.Envoy, "envoy", "", "`program` to start as Envoy")
	f.Usage = func() {
		fmt.Fprint(f.Output(), "Measure rate limit and auth services. See docs/benchmarks.md.\n\n  go run ./bench [flag]...\n\n")
		f.PrintDefaults()
	}
	return f
}

// read turns the arguments into settings.
func (a *arguments) read(b *bench) (names *regexp.Regexp, err error) {
	if b.rounds < 1 || a.seconds <= 0 {
		return nil, errors.New("--rounds and --seconds: want more than 0")
	}
	if a.output != "table" && a.output != "json" {
		return nil, fmt.Errorf("-o %s: want table or json", a.output)
	}
	b.time = time.Duration(a.seconds * float64(time.Second))
	b.warm = min(b.time/3, time.Second)
	if b.variants, err = variants(a.texts); err != nil {
		return nil, err
	}
	b.target.domain = a.domain
	for _, text := range a.entries {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--entry %q: want key=value", text)
		}
		b.target.entries = append(b.target.entries, load.Entry{Key: key, Value: value})
	}
	if b.target.address != "" && len(b.target.entries) == 0 {
		return nil, errors.New("--target: say with --entry what to ask it")
	}
	for _, text := range a.pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("--pid %q: want a number", text)
		}
		b.target.pids = append(b.target.pids, pid)
	}
	if names, err = regexp.Compile(a.run); err != nil {
		return nil, fmt.Errorf("--run: %w", err)
	}
	return names, nil
}

func run(ctx context.Context, args []string) (err error) {
	b := &bench{progress: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	var a arguments
	f := a.flags(b)
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q: there are flags only; see --help", f.Arg(0))
	}
	names, err := a.read(b)
	if err != nil {
		return err
	}
	var chosen []scenario
	for _, s := range scenarios {
		if names.MatchString(s.name) {
			chosen = append(chosen, s)
		}
	}
	switch {
	case len(chosen) == 0:
		return fmt.Errorf("--run %s: no scenario has such a name; --list lists them", names)
	case a.list:
		for _, s := range chosen {
			fmt.Printf("%-14s  %s\n", s.name, s.about)
		}
		return nil
	}
	if b.rig, err = rig.New(ctx, a.rig); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.rig.Close()) }()
	rows, err := b.measure(ctx, chosen)
	if err != nil {
		return err
	}
	report := b.report(rows)
	if a.output == "json" {
		return report.json(os.Stdout)
	}
	return report.table(os.Stdout)
}
