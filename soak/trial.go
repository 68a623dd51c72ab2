package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// trial is a scenario that runs.
type trial struct {
	ctx    context.Context // ends with the scenario's time
	rig    *rig.Rig
	out    io.Writer
	lasts  time.Duration // of a scenario that needs time itself
	failed int
}

// say tells a figure that nothing is promised of.
func (t *trial) say(format string, args ...any) { fmt.Fprintf(t.out, "        "+format+"\n", args...) }

// hold tells whether a promise held.
func (t *trial) hold(ok bool, format string, args ...any) {
	word := "pass"
	if !ok {
		word = "FAIL"
		t.failed++
	}
	fmt.Fprintf(t.out, "  %s  %s\n", word, fmt.Sprintf(format, args...))
}

// knows tells whether this legation takes a policy; what it does not know yet is skipped, and said.
func (t *trial) knows(p rig.Policy) bool {
	err := t.rig.Check(t.ctx, p.String())
	if err != nil {
		reason, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Fprintf(t.out, "  skip  %s\n", reason)
	}
	return err == nil
}

// sleep waits; an error means that the scenario's time is over.
func (t *trial) sleep(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

// patient is for scenarios in which all processors are busy with calls: what is promised there is of counts, and a
// process that had no processor for 10 ms should not take Redis to be down.
var patient = []string{"--redis-timeout", "100ms"}

// replicas starts n processes on one Redis.
func (t *trial) replicas(n int, p rig.Policy, redis string, args ...string) (all []*rig.Legation, addresses []string, err error) {
	for range n {
		l, err := t.rig.Serve(t.ctx, p.String(), redis, args...)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, l)
		addresses = append(addresses, l.Address)
	}
	return all, addresses, nil
}

// call asks for the limit of a route, with a %d in the value for the number of the key.
func call(r rig.Route, value string, keys uint64) load.Call {
	return load.RateLimits("legation", []load.Entry{{Key: "limit", Value: r.Limit()}, {Key: "header:x-key", Value: value}}, keys, false)
}

// exhaust asks three replicas from 64 workers each, so many times in all, for one key.
func (t *trial) exhaust(addresses []string, r rig.Route, value string, calls uint64) (*load.Result, error) {
	run, err := load.Start(load.Options{Addresses: addresses, Connections: len(addresses), InFlight: 64, Calls: calls, Call: call(r, value, 1)})
	if err != nil {
		return nil, err
	}
	return run.Wait(t.ctx), context.Cause(t.ctx)
}

// ask asks once; hits 0 does so without counting.
func (t *trial) ask(address string, r rig.Route, value string, hits uint64) (*rls.RateLimitResponse, error) {
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
	defer cancel()
	return rls.NewRateLimitServiceClient(c).ShouldRateLimit(ctx, &rls.RateLimitRequest{
		Domain: "legation",
		Descriptors: []*corev3.RateLimitDescriptor{{
			HitsAddend: wrapperspb.UInt64(hits),
			Entries: []*corev3.RateLimitDescriptor_Entry{
				{Key: "limit", Value: r.Limit()}, {Key: "header:x-key", Value: value},
			},
		}},
	})
}

// awayFromHour waits where a full hour is near: windows of hours, days and months end there, in whatever zone.
func (t *trial) awayFromHour(d time.Duration) error {
	now := time.Now()
	if next := now.Truncate(time.Hour).Add(time.Hour); next.Sub(now) < d {
		return t.sleep(next.Sub(now) + time.Second)
	}
	return nil
}

func millis(d time.Duration) float64 { return float64(d) / 1e6 }
