package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/bench/envoys"
	"github.com/legation/legation/bench/rig"
)

// The life that is held to leave nothing behind. A minute is a tenth of the scenario's time.
const (
	tenths    = 10
	comers    = 60              // Envoys that come and go
	passing   = 20              // services, routes and limits that get other names with each push
	pushEvery = 2 * time.Second // revisions
)

// gauges are what is held, as the process tells them itself.
var gauges = []struct {
	metric, name string
	unit         float64
	held         bool
}{
	{"go_gc_heap_live_bytes", "heap in use at the last collection, MiB", 1 << 20, true},
	{"go_goroutines", "goroutines", 1, true},
	{"process_open_fds", "file descriptors", 1, true},
	{"go_memstats_heap_inuse_bytes", "heap with what waits for collection, MiB", 1 << 20, false},
	{"process_resident_memory_bytes", "RSS, MiB", 1 << 20, false},
}

// C12.
func leaks(t *trial) error {
	l, err := newLife(t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(t.ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	part := func(run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	load := t.traffic(l.port, 5*time.Millisecond, l.pages)
	for i := range comers {
		part(func(ctx context.Context) error { return l.comeAndGo(ctx, i) })
	}
	part(l.pushOn)
	part(l.gatewaysComeAndGo)
	part(l.outages)
	samples, err := l.sample(ctx)
	good, failed, why := load.end()
	cancel(nil)
	parts.Wait()
	if err != nil {
		return err
	}
	t.say("%d pushes served and %d refused while Redis was away, %d Envoys came and left, %d more real ones, %d kills of Redis",
		l.pushed.Load(), l.unpushed.Load(), l.came.Load(), l.gateways.Load(), l.kills.Load())
	// A machine that others use has moments of its own.
	t.hold(1000*failed <= good, "%d requests through the Envoy that stayed, with auth and limits, %d failed%s", good, failed, why)
	for i, g := range gauges {
		second, last := median(samples[1], i)/g.unit, median(samples[tenths-1], i)/g.unit
		text := fmt.Sprintf("%s: %.1f in the last minute, %.1f in the second, %.2f ×, at most 1.1", g.name, last, second, last/second)
		if g.held {
			t.hold(last <= 1.1*second, "%s", text)
		} else {
			t.say("%s", text)
		}
	}
	return nil
}

// life is a process, and what comes and goes around it.
type life struct {
	*trial
	minute  time.Duration
	redis   *rig.Redis
	plane   *rig.Plane
	fleet   *envoys.Fleet // for its address and certificates
	flags   []string      // the Envoys' certificates
	service string
	port    int
	issuer  *rig.Issuer
	pages   []page

	script                                  atomic.Pointer[envoys.Script] // asks for what the last push has
	pushed, unpushed, came, gateways, kills atomic.Int64
}

// newLife has a first policy served, and one Envoy run it that stays.
func newLife(t *trial) (l *life, err error) {
	l = &life{trial: t, minute: t.lasts / tenths}
	if l.redis, err = t.rig.Redis(t.ctx); err != nil {
		return nil, err
	}
	if l.service, err = t.upstream(); err != nil {
		return nil, err
	}
	if l.issuer, err = rig.NewIssuer(); err != nil {
		return nil, err
	}
	if l.port, err = rig.Port(); err != nil {
		return nil, err
	}
	server, client, config, err := t.certificates("edge")
	if err != nil {
		return nil, err
	}
	l.flags = client
	args := append([]string{"--redis", l.redis.URL(), "--allow-shrink"}, server...)
	if l.plane, err = t.rig.Plane(args...); err != nil {
		return nil, err
	}
	if err := l.plane.Start(t.ctx); err != nil {
		return nil, err
	}
	l.fleet = envoys.NewFleet(l.plane.XDS, config)
	if _, err := l.plane.Push(t.ctx, l.policy(0), 0); err != nil {
		return nil, err
	}
	if err := l.follow(t.ctx); err != nil {
		return nil, err
	}
	g, err := t.rig.Gateway(t.ctx, "edge", "stays", []*rig.Plane{l.plane}, l.flags...)
	if err != nil {
		return nil, err
	}
	if err := g.Ready(t.ctx); err != nil {
		return nil, err
	}
	return l, l.visit()
}

// visit lists the pages: with a limit, with auth and a limit, and those whose routes get other names.
func (l *life) visit() error {
	for i := range 50 {
		token, err := l.issuer.Token(fmt.Sprintf("user-%d", i))
		if err != nil {
			return err
		}
		l.pages = append(l.pages,
			page{host: "edge.test", path: "/limited"}, page{host: "edge.test", path: "/private", token: token},
			page{host: fmt.Sprintf("passing-%d.test", i%passing), path: "/"})
	}
	return nil
}

// policy is the nth: some services, routes and limits stay, others have names of their own.
func (l *life) policy(n int) map[string][]byte {
	var b strings.Builder
	fmt.Fprintf(&b, "gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1}}}}\nauth: %s\nservices:\n  app: {endpoints: [%q]}\n", l.port, l.issuer.Entry(), l.service)
	for i := range passing {
		fmt.Fprintf(&b, "  passing-%d-%d: {endpoints: [%q]}\n", n, i, l.service)
	}
	b.WriteString("routes:\n" +
		"  limited: {hostnames: [edge.test], match: {path: /limited}, backends: {app: 1}, rateLimit: {rate: 1000000/minute, by: ip}}\n" +
		"  private: {hostnames: [edge.test], match: {path: /private}, backends: {app: 1}, auth: [idp], rateLimit: {rate: 1000000/hour, by: consumer}}\n")
	for i := range passing {
		fmt.Fprintf(&b, "  passing-%d-%d: {hostnames: [passing-%[2]d.test], backends: {passing-%[1]d-%[2]d: 1}, rateLimit: {rate: 1000000/minute, burst: 1000000, by: ip}}\n", n, i)
	}
	return map[string][]byte{"policy.yaml": []byte(b.String())}
}

// follow notes what Envoys ask for by now.
func (l *life) follow(ctx context.Context) error {
	node := &corev3.Node{Id: "reader", Cluster: "edge", UserAgentName: "envoy"}
	first, err := envoys.NewScript(node, false, nil)
	if err != nil {
		return err
	}
	asks, err := l.fleet.Follow(ctx, first)
	if err != nil {
		return err
	}
	script, err := envoys.NewScript(node, false, asks)
	l.script.Store(script)
	return err
}

// pushOn pushes one policy after the other. While Redis is away that is refused.
func (l *life) pushOn(ctx context.Context) error {
	tick := time.NewTicker(pushEvery)
	defer tick.Stop()
	head := int64(1)
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		number, err := l.plane.Push(ctx, l.policy(n), head)
		if errors.Is(err, rig.ErrNotPushed) {
			l.unpushed.Add(1)
			// After an answer that was lost, the head may be another.
			if now, err := l.plane.Head(); err == nil && now > 0 {
				head = now
			}
			continue
		}
		if err != nil {
			return err
		}
		head = number
		l.pushed.Add(1)
		if err := l.follow(ctx); err != nil {
			return err
		}
	}
}

// comeAndGo is the life of one simulated Envoy: it stays for a while, leaves without a word, and comes again by the same name.
// Of ten one speaks of the state of the world, and one reads nothing.
func (l *life) comeAndGo(ctx context.Context, number int) error {
	f := envoys.NewFleet(l.fleet.Address, l.fleet.TLS)
	for ctx.Err() == nil {
		known := l.script.Load()
		s, err := envoys.NewScript(known.Node, number%10 == 0, known.Asks)
		if err != nil {
			return err
		}
		if s, err = s.As(fmt.Sprintf("envoy-%d", number)); err != nil {
			return err
		}
		stay := time.Duration(1+rand.N(6)) * l.minute / 60
		if number%10 == 1 {
			err = l.stuck(ctx, f, s, stay)
		} else if err = f.Join([]*envoys.Script{s}); err == nil {
			err = f.Stay(ctx, stay)
			f.Leave()
		}
		if err != nil {
			return fmt.Errorf("envoy-%d: %w", number, err)
		}
		l.came.Add(1)
		pause(ctx, time.Duration(rand.N(3000))*l.minute/60_000)
	}
	return nil
}

func (l *life) stuck(ctx context.Context, f *envoys.Fleet, s *envoys.Script, stay time.Duration) error {
	all, err := f.Stuck(s, 1)
	pause(ctx, stay)
	for _, e := range all {
		e.Close()
	}
	return err
}

// gatewaysComeAndGo has a second real Envoy come, three times a minute, and go without a word.
func (l *life) gatewaysComeAndGo(ctx context.Context) error {
	for ctx.Err() == nil {
		g, err := l.rig.Gateway(ctx, "edge", "passes", []*rig.Plane{l.plane}, l.flags...)
		if err != nil {
			return err
		}
		pause(ctx, l.minute/3)
		g.Kill()
		l.gateways.Add(1)
	}
	return nil
}

// outages kills Redis in the middle of each minute, and starts it again after a tenth of one. Its data is gone then.
func (l *life) outages(ctx context.Context) error {
	for pause(ctx, l.minute/2); ctx.Err() == nil; pause(ctx, l.minute-l.minute/10) {
		l.redis.Kill()
		l.kills.Add(1)
		pause(ctx, l.minute/10)
		if err := l.redis.Restart(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sample reads the gauges sixty times a minute, and gives what it read by minute.
func (l *life) sample(ctx context.Context) (minutes [][][]float64, err error) {
	var names []string
	for _, g := range gauges {
		names = append(names, g.metric)
	}
	tick := time.NewTicker(l.minute / 60)
	defer tick.Stop()
	for range tenths {
		var all [][]float64
		for range 60 {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-tick.C:
			}
			one, err := l.plane.Gauges(names...)
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
		minutes = append(minutes, all)
		var text []string
		for i, g := range gauges {
			text = append(text, fmt.Sprintf("%s %.1f", g.name, median(all, i)/g.unit))
		}
		l.say("minute %d: %s", len(minutes), strings.Join(text, ", "))
	}
	return minutes, nil
}

// median is that of one gauge over samples.
func median(samples [][]float64, gauge int) float64 {
	var all []float64
	for _, one := range samples {
		all = append(all, one[gauge])
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
