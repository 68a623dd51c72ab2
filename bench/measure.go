package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// figures is what was measured, by name; what could not be is absent.
//
//	rate            calls answered a second
//	p50, p99, p999  µs until the answer
//	cpu             µs of processor time for one call: service + redis, with Envoy also envoy and backend
//	client          µs of the load generator's own
//	late            µs by which the p99 of the open loop's calls went out too late
//	tax             µs of cpu beyond that without filters
//	bytes, rss      bytes of Redis for one key; MiB of the service
//	failed          share of the calls that weren't answered as they should be
type figures map[string]float64

// row is what a scenario found of a contestant in all rounds.
type row struct {
	scenario   scenario
	contestant string
	rounds     []figures
}

// measure runs the scenarios, the contestants of each in turns, round after round: what else the machine does falls on
// all of them.
func (b *bench) measure(ctx context.Context, chosen []scenario) ([]*row, error) {
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	chosen = slices.DeleteFunc(chosen, b.lacking)
	if err := b.contestants(ctx); err != nil {
		return nil, err
	}
	var rows []*row
	for _, s := range chosen {
		more, err := b.scenario(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// prepare makes the policy, of the routes that this legation takes.
func (b *bench) prepare(ctx context.Context) error {
	if err := b.rig.Has("redis"); err != nil {
		return err
	}
	issuer, err := rig.NewIssuer()
	if err != nil {
		return err
	}
	b.issuer, b.policy = issuer, rig.Policy{Auth: issuer.Entry()}
	for _, r := range routes {
		alone := rig.Policy{Auth: b.policy.Auth, Routes: []rig.Route{r}}
		if err := b.rig.Check(ctx, alone.String()); err != nil {
			reason, _, _ := strings.Cut(err.Error(), "\n")
			for _, s := range scenarios {
				if s.limit == r.Name {
					b.skipped = append(b.skipped, skip{s.name, "legation check: " + reason})
				}
			}
			continue
		}
		b.policy.Routes = append(b.policy.Routes, r)
	}
	b.checks = map[string][][]byte{}
	for i := range 100 {
		token, err := issuer.Token(fmt.Sprintf("user-%d", i))
		if err != nil {
			return err
		}
		b.tokens = append(b.tokens, token)
		for _, r := range b.policy.Routes {
			message, err := rig.Check(r.Rule(), token, fmt.Sprintf("key-%d", i))
			if err != nil {
				return err
			}
			b.checks[r.Name] = append(b.checks[r.Name], message)
		}
	}
	return nil
}

// lacking tells of a scenario that can't run here.
func (b *bench) lacking(s scenario) bool {
	if s.kind == throughs {
		if err := b.rig.Has("envoy"); err != nil {
			b.skipped = append(b.skipped, skip{s.name, err.Error()})
		}
	}
	return slices.ContainsFunc(b.skipped, func(k skip) bool { return k.Scenario == s.name })
}

// side is one contestant's part in a scenario.
type side struct {
	*row
	measure func(ctx context.Context) (figures, error)
}

func (b *bench) scenario(ctx context.Context, s scenario) ([]*row, error) {
	sides, rounds, err := b.sides(ctx, s)
	if err != nil {
		return nil, err
	}
	for n := range rounds {
		for _, side := range sides {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			f, err := side.measure(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", side.contestant, err)
			}
			side.rounds = append(side.rounds, f)
			b.progress("%-14s %-22s round %d: %s", s.name, side.contestant, n+1, brief(f))
		}
	}
	var rows []*row
	for _, side := range sides {
		rows = append(rows, side.row)
	}
	return rows, nil
}

func brief(f figures) string {
	if bytes, ok := f["bytes"]; ok {
		return fmt.Sprintf("%.0f bytes a key", bytes)
	}
	return fmt.Sprintf("%.0f/s, p99 %.0f µs, CPU %.1f µs", f["rate"], f["p99"], f["cpu"])
}

func (b *bench) sides(ctx context.Context, s scenario) (sides []side, rounds int, err error) {
	if s.kind == throughs {
		sides, err = b.envoySides(ctx, s)
		return sides, b.rounds, err
	}
	rounds = b.rounds
	if s.kind == memory {
		rounds = 1
	}
	for _, c := range b.field {
		if !s.enters(c) {
			continue
		}
		one := side{row: &row{scenario: s, contestant: c.name}, measure: func(ctx context.Context) (figures, error) {
			return b.sample(ctx, b.options(s, c), map[string][]int{"service": c.service, "redis": c.redis}, c.ours && s.refused)
		}}
		if s.kind == memory {
			one.measure = func(ctx context.Context) (figures, error) { return b.memory(ctx, s, c) }
		}
		if s.refused {
			if err := b.spend(ctx, b.options(s, c), s.keys); err != nil {
				return nil, 0, err
			}
		}
		sides = append(sides, one)
	}
	return sides, rounds, nil
}

// spend uses up all keys' limits.
func (b *bench) spend(ctx context.Context, o load.Options, keys uint64) error {
	o.Calls = 100 * keys // they are picked as if by chance
	r, err := load.Start(o)
	if err == nil {
		r.Wait(ctx)
	}
	return err
}

// used is the processor time of processes by what they are.
func used(processes map[string][]int) (map[string]time.Duration, error) {
	sum := map[string]time.Duration{}
	for name, pids := range processes {
		for _, pid := range pids {
			t, err := rig.CPU(pid)
			if err != nil {
				return nil, err
			}
			sum[name] += t
		}
	}
	return sum, nil
}

// sample measures for a while, after a while of warming up. refused tells that refusals are what is wanted.
func (b *bench) sample(ctx context.Context, o load.Options, processes map[string][]int, refused bool) (figures, error) {
	r, err := load.Start(o)
	if err != nil {
		return nil, err
	}
	defer r.Stop()
	if err := sleep(ctx, b.warm); err != nil {
		return nil, err
	}
	processes["client"] = []int{os.Getpid()}
	r.Take()
	before, err := used(processes)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, b.time); err != nil {
		return nil, err
	}
	after, err := used(processes)
	if err != nil {
		return nil, err
	}
	got := r.Take()
	if got.Answered() == 0 {
		return nil, fmt.Errorf("no answers: %v", got.Failed)
	}
	f := latencies(got)
	for name, t := range after {
		one := (t - before[name]).Seconds() * 1e6 / float64(got.Answered())
		if f[name] = one; name != "client" {
			f["cpu"] += one
		}
	}
	wrong := got.Refused
	if refused {
		wrong = got.Allowed
	}
	f["failed"] = float64(got.Failures()+wrong) / float64(got.Answered()+got.Failures())
	return f, nil
}

func latencies(got *load.Result) figures {
	micros := func(d time.Duration) float64 { return float64(d) / 1e3 }
	f := figures{
		"rate": got.Rate(),
		"p50":  micros(got.Latency.Quantile(.5)), "p99": micros(got.Latency.Quantile(.99)), "p999": micros(got.Latency.Quantile(.999)),
	}
	if got.Late.Count() > 0 {
		f["late"] = micros(got.Late.Quantile(.99))
	}
	return f
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// memory asks once for each key, of processes that hold nothing else, and looks at what is held then.
func (b *bench) memory(ctx context.Context, s scenario, c *contestant) (figures, error) {
	c, err := c.again(ctx)
	if err != nil {
		return nil, err
	}
	var before int64
	if c.store != nil {
		if before, err = c.store.Info("used_memory"); err != nil {
			return nil, err
		}
	}
	o := b.options(s, c)
	o.Calls = s.keys
	r, err := load.Start(o)
	if err != nil {
		return nil, err
	}
	got := r.Wait(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f := latencies(got)
	f["failed"] = float64(got.Failures()+got.Refused) / float64(s.keys)
	rss, err := rig.RSS(c.service[0])
	if f["rss"] = float64(rss) / (1 << 20); err != nil || c.store == nil {
		return f, err
	}
	after, err := c.store.Info("used_memory")
	f["bytes"] = float64(after-before) / float64(s.keys)
	return f, err
}
