package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/bench/envoys"
)

// figures are what was found of one engine. Times are processor time of the server and time until all clients were there.
type figures struct {
	changeCPU, change       time.Duration // medians
	joinCPU, join           time.Duration
	reconnectCPU, reconnect time.Duration // medians, with known versions; delta only
	rss                     int64         // bytes, with all clients in sync
}

// patience is how long clients may take for anything.
const patience = 3 * time.Minute

// measure starts a server and has the clients join, be told of changes, leave, and come again.
func measure(ctx context.Context, s settings) (figures, error) {
	f, err := newFleet(ctx, s)
	if err != nil {
		return figures{}, err
	}
	defer f.server.stop()
	var found figures
	if s.engine == bare {
		err := f.reconnects(&found, pretended(s))
		return found, err
	}
	if found.joinCPU, found.join, err = f.timed(f.join); err != nil {
		return found, fmt.Errorf("join: %w", err)
	}
	u, err := f.server.usage()
	if err != nil {
		return found, err
	}
	found.rss = u.rss
	var cpus, times []time.Duration
	for range s.changes {
		cpu, took, err := f.timed(f.change)
		if err != nil {
			return found, fmt.Errorf("change: %w", err)
		}
		cpus, times = append(cpus, cpu), append(times, took)
	}
	found.changeCPU, found.change = median(cpus), median(times)
	f.Leave()
	if s.sotw {
		return found, nil
	}
	known, err := f.Learn(ctx, f.script)
	if err != nil {
		return found, fmt.Errorf("learn what there is: %w", err)
	}
	return found, f.reconnects(&found, known)
}

// rounds is how often clients reconnect.
const rounds = 3

// reconnects has the clients come and go, once more than is told: the first ones find a server without buffers.
func (f *fleet) reconnects(found *figures, known map[string]map[string]string) error {
	var cpus, times []time.Duration
	for round := range 1 + rounds {
		cpu, took, err := f.timed(func() error { return f.Rejoin(f.everybody(), known) })
		if err != nil {
			return fmt.Errorf("reconnect: %w", err)
		}
		if f.Leave(); round > 0 {
			cpus, times = append(cpus, cpu), append(times, took)
		}
	}
	found.reconnectCPU, found.reconnect = median(cpus), median(times)
	return nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// fleet is the clients of one server.
type fleet struct {
	settings
	*envoys.Fleet
	server *process
	script *envoys.Script
}

// newFleet starts a server, and no client yet.
func newFleet(ctx context.Context, s settings) (*fleet, error) {
	config, err := clientConfig(s.tls)
	if err != nil {
		return nil, err
	}
	script, err := envoys.NewScript(&corev3.Node{Id: "envoy", Cluster: group, UserAgentName: "envoy"}, s.sotw, asksOf(s))
	if err != nil {
		return nil, err
	}
	server, err := startServer(ctx, s)
	if err != nil {
		return nil, err
	}
	return &fleet{settings: s, Fleet: envoys.NewFleet(server.address, config), server: server, script: script}, nil
}

// asksOf is what a client asks for, in this order, as Envoy does.
func asksOf(s settings) []envoys.Ask {
	asks := []envoys.Ask{
		{URL: resource.ClusterType},
		{URL: resource.EndpointType, Names: clusterNames(s)},
		{URL: resource.ListenerType},
		{URL: resource.RouteType, Names: tableNames(s)},
	}
	if s.labels {
		asks = append(asks, envoys.Ask{URL: resource.ExtensionConfigType, Names: []string{labelName}})
	}
	return asks
}

// timed tells what the server used for do, until it rests again, and how long do took.
func (f *fleet) timed(do func() error) (cpu, took time.Duration, err error) {
	before, err := f.server.rest()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	after, err := f.server.rest()
	return after.cpu - before.cpu, took, err
}

// join has all clients come at once.
func (f *fleet) join() error { return f.Join(f.everybody()) }

func (f *fleet) everybody() []*envoys.Script {
	return slices.Repeat([]*envoys.Script{f.script}, f.settings.clients)
}

func (f *fleet) change() error {
	if err := f.server.say("change"); err != nil {
		return err
	}
	return f.Await(resource.RouteType)
}

// process is a server that runs.
type process struct {
	address string
	cmd     *exec.Cmd
	in      io.WriteCloser
	lines   *bufio.Scanner
}

func startServer(ctx context.Context, s settings) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, serveVerb, "--engine", s.engine, "--layout", s.layout, "--tls", s.tls,
		fmt.Sprintf("--labels=%t", s.labels), "--clusters", fmt.Sprint(s.clusters), "--routes", fmt.Sprint(s.routes))}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.lines = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if !p.lines.Scan() {
		p.stop()
		return nil, errors.New("the server did not start")
	}
	p.address = p.lines.Text()
	return p, nil
}

func (p *process) say(line string) error {
	_, err := fmt.Fprintln(p.in, line)
	return err
}

func (p *process) usage() (u usage, err error) {
	if err := p.say("usage"); err != nil {
		return u, err
	}
	if !p.lines.Scan() {
		return u, errors.New("the server is gone")
	}
	_, err = fmt.Sscan(p.lines.Text(), (*int64)(&u.cpu), &u.rss, &u.most)
	return u, err
}

func (p *process) live() (heap uint64, goroutines int, err error) {
	if err := p.say("live"); err != nil {
		return 0, 0, err
	}
	if !p.lines.Scan() {
		return 0, 0, errors.New("the server is gone")
	}
	_, err = fmt.Sscan(p.lines.Text(), &heap, &goroutines)
	return heap, goroutines, err
}

// rest waits until the server does nothing any more, as after the last acknowledgement, and tells what it has used.
func (p *process) rest() (usage, error) {
	const pause, idle = 50 * time.Millisecond, 2 * time.Millisecond
	last, err := p.usage()
	for quiet := 0; err == nil && quiet < 3; {
		time.Sleep(pause)
		var now usage
		if now, err = p.usage(); now.cpu-last.cpu < idle {
			quiet++
		} else {
			quiet = 0
		}
		last = now
	}
	return last, err
}

func (p *process) stop() {
	p.in.Close()
	_ = p.cmd.Wait()
}
