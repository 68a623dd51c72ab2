package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
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
	f.leave()
	if s.sotw {
		return found, nil
	}
	known, err := f.learn(ctx)
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
		cpu, took, err := f.timed(func() error { return f.reconnect(known) })
		if err != nil {
			return fmt.Errorf("reconnect: %w", err)
		}
		if f.leave(); round > 0 {
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
	server  *process
	script  *script
	config  *tls.Config
	clients []*client
	told    chan arrival
	gone    sync.WaitGroup
}

// newFleet starts a server, and no client yet.
func newFleet(ctx context.Context, s settings) (*fleet, error) {
	config, err := clientConfig(s.tls)
	if err != nil {
		return nil, err
	}
	p, err := newScript(s)
	if err != nil {
		return nil, err
	}
	server, err := startServer(ctx, s)
	if err != nil {
		return nil, err
	}
	return &fleet{settings: s, server: server, script: p, config: config, told: make(chan arrival, s.clients)}, nil
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

// open dials all clients at once, each of which sends the messages of start and then does what next says.
func (f *fleet) open(start [][]byte, next func(*client) func(string)) error {
	f.clients = make([]*client, f.settings.clients)
	errs := make(chan error, len(f.clients))
	for i := range f.clients {
		f.gone.Add(1)
		go func() {
			defer f.gone.Done()
			k, err := dial(f.server.address, f.script.path, f.config, wideWindow, f.told)
			if err != nil {
				errs <- err
				return
			}
			f.clients[i] = k
			for _, m := range start {
				k.send(m)
			}
			errs <- k.flush()
			k.follow(f.script, next(k))
		}()
	}
	for range f.clients {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// await waits until each client has got a response of the type.
func (f *fleet) await(url string) error {
	late := time.After(patience)
	for n := 0; n < f.settings.clients; {
		select {
		case a := <-f.told:
			if a.err != nil {
				return a.err
			}
			if a.url == url {
				n++
			}
		case <-late:
			return fmt.Errorf("%d of %d clients have got %s", n, f.settings.clients, url)
		}
	}
	return nil
}

// join has each client ask for one type after the other, as Envoy does.
func (f *fleet) join() error {
	err := f.open([][]byte{f.script.first[asked[0]]}, func(k *client) func(string) {
		at := 0
		return func(url string) {
			if at < len(asked)-1 && url == asked[at] {
				at++
				k.send(f.script.first[asked[at]])
			}
		}
	})
	if err != nil {
		return err
	}
	return f.await(asked[len(asked)-1])
}

func (f *fleet) change() error {
	if err := f.server.say("change"); err != nil {
		return err
	}
	return f.await(resource.RouteType)
}

// reconnect has each client say all that it knows, and waits for the marker that it asks for last.
func (f *fleet) reconnect(known map[string]map[string]string) error {
	var start [][]byte
	for _, url := range append(slices.Clone(asked), resource.SecretType) {
		m, err := f.script.request(url, namesOf(f.settings, url), known[url])
		if err != nil {
			return err
		}
		start = append(start, m)
	}
	if err := f.open(start, func(*client) func(string) { return func(string) {} }); err != nil {
		return err
	}
	return f.await(resource.SecretType)
}

// leave ends the connections.
func (f *fleet) leave() {
	for _, k := range f.clients {
		k.conn.Close()
	}
	done := make(chan struct{})
	go func() {
		f.gone.Wait()
		close(done)
	}()
	for {
		select {
		case <-f.told:
		case <-done:
			for len(f.told) > 0 {
				<-f.told
			}
			return
		}
	}
}

// learn asks for everything with a client that reads it.
func (f *fleet) learn(ctx context.Context) (map[string]map[string]string, error) {
	security := insecure.NewCredentials()
	if f.config != nil {
		security = credentials.NewTLS(f.config)
	}
	conn, err := grpc.NewClient(f.server.address, grpc.WithTransportCredentials(security), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]map[string]string{}
	for _, url := range asked {
		err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{
			Node: &corev3.Node{Id: "reader", Cluster: group}, TypeUrl: url, ResourceNamesSubscribe: namesOf(f.settings, url),
		})
		if err != nil {
			return nil, err
		}
		r, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		known[url] = map[string]string{}
		for _, x := range r.GetResources() {
			known[url][x.GetName()] = x.GetVersion()
		}
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: r.GetNonce()}); err != nil {
			return nil, err
		}
	}
	return known, nil
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
		"--clusters", fmt.Sprint(s.clusters), "--routes", fmt.Sprint(s.routes))}
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
