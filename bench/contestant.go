package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/legation/legation/bench/rig"
)

// contestant is a service that is measured, with what it needs beside it.
type contestant struct {
	name    string
	address string
	service []int // process IDs whose processor time is the service's
	redis   []int // and that is its Redis'
	store   *rig.Redis
	ours    bool
	again   func(context.Context) (*contestant, error) // starts another one, in which nothing has happened yet
	target  bool                                       // runs elsewhere, and counts by the settings of whoever started it
}

// The names of those that always run.
const (
	empty    = "empty"         // grpc-go with handlers that say OK
	legation = "legation"      // over Redis
	embedded = "embedded"      // legation that counts in its own memory
	slow     = "fast path off" // legation that answers by way of grpc-go; auth only
)

var listening = regexp.MustCompile(`listening on (\S+)`)

// startChild starts this program under one of its other names.
func startChild(ctx context.Context, r *rig.Rig, verb string) (*rig.Process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	p, err := r.Start(self, verb)
	if err != nil {
		return nil, "", err
	}
	address, err := p.Await(ctx, listening)
	return p, address, err
}

// variant is legation with further arguments.
type variant struct {
	name string
	args []string
}

// variants reads --variant name=arguments.
func variants(texts []string) ([]variant, error) {
	var all []variant
	for _, text := range texts {
		name, args, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--variant %q: want a name, = and the arguments, as in slow='--fast-path=off'", text)
		}
		all = append(all, variant{legation + " " + name, strings.Fields(args)})
	}
	return all, nil
}

// contestants starts all of them.
func (b *bench) contestants(ctx context.Context) error {
	p, address, err := startChild(ctx, b.rig, emptyVerb)
	if err != nil {
		return err
	}
	b.field = append(b.field, &contestant{name: empty, address: address, service: []int{p.PID}})
	for _, v := range append([]variant{{name: legation}}, b.variants...) {
		c, err := b.overRedis(ctx, v)
		if err != nil {
			return err
		}
		b.field = append(b.field, c)
	}
	c, err := b.embedded(ctx)
	if err != nil {
		return err
	}
	b.field = append(b.field, c)
	if c, err = b.overRedis(ctx, variant{slow, []string{"--fast-path", "off"}}); err != nil {
		return err
	}
	b.field = append(b.field, c)
	if b.target.address != "" {
		b.field = append(b.field, &contestant{name: b.target.address, address: b.target.address, service: b.target.pids, target: true})
	}
	return nil
}

// overRedis starts legation over a Redis of its own.
func (b *bench) overRedis(ctx context.Context, v variant) (*contestant, error) {
	store, err := b.rig.Redis(ctx)
	if err != nil {
		return nil, err
	}
	l, err := b.rig.Serve(ctx, b.policy.String(), store.URL(), v.args...)
	if err != nil {
		return nil, err
	}
	again := func(ctx context.Context) (*contestant, error) { return b.overRedis(ctx, v) }
	return &contestant{name: v.name, address: l.Address, service: []int{l.PID}, redis: []int{store.PID}, store: store, ours: true, again: again}, nil
}

// embedded starts legation without a Redis.
func (b *bench) embedded(ctx context.Context) (*contestant, error) {
	l, err := b.rig.Serve(ctx, b.policy.String(), "")
	if err != nil {
		return nil, err
	}
	return &contestant{name: embedded, address: l.Address, service: []int{l.PID}, ours: true, again: b.embedded}, nil
}
