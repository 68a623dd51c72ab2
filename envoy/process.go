package envoy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
)

// ProcessOptions is how an Envoy is run.
type ProcessOptions struct {
	Binary      string
	Dir         string // keeps the bootstrap and who runs, so that a later start finds an Envoy that was left behind
	Bootstrap   *bootstrapv3.Bootstrap
	Log         io.Writer     // what Envoy prints; default nowhere
	LogLevel    string        // Envoy's own; default warn
	Concurrency int           // worker threads; default one for each CPU
	Drain       time.Duration // how long Stop waits for requests in flight; default 3s
	Grace       time.Duration // how long Envoy has to end by itself after that; default 5s
}

// Process is an Envoy that runs as a child, or that a run before this one has left behind.
type Process struct {
	o     ProcessOptions
	state state
	proc  *os.Process
	done  chan struct{}
	err   error // set before done is closed
}

// Start adopts the Envoy that an earlier, killed run has left behind in the same directory with the same bootstrap, or
// else starts one. It does not wait until Envoy is ready. Envoy outlives ctx, and our own death.
func Start(ctx context.Context, o ProcessOptions) (*Process, error) {
	if p, err := Adopt(ctx, o); p != nil || err != nil {
		return p, err
	}
	text, err := JSON(o.Bootstrap)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("envoy's directory: %w", err)
	}
	if err := os.Remove(adminFile(o.Dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("envoy's directory: %w", err)
	}
	config := filepath.Join(o.Dir, "bootstrap.json")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, fmt.Errorf("envoy's bootstrap: %w", err)
	}
	said := &tail{to: cmp.Or[io.Writer](o.Log, io.Discard)}
	cmd := exec.Command(o.Binary, o.args(config)...)
	cmd.Stdout, cmd.Stderr, cmd.Env = said, said, environment()
	// A group of its own: the terminal's Ctrl-C is for us, who stop Envoy in order. Nothing ties its life to ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	p := &Process{o: o, proc: cmd.Process, done: make(chan struct{}), state: newState(o, text, cmd.Process.Pid)}
	go p.wait(cmd, said)
	if err := p.state.write(o.Dir); err != nil {
		return nil, errors.Join(fmt.Errorf("note which envoy runs: %w", err), p.Stop(ctx))
	}
	return p, nil
}

// environment is ours without Legation's settings and secrets, which are none of Envoy's business.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LEGATION_") })
}

func (o ProcessOptions) args(config string) []string {
	args := []string{
		"-c", config, "--admin-address-path", adminFile(o.Dir), "--log-level", cmp.Or(o.LogLevel, "warn"),
		"--file-flush-interval-msec", "1000", // access log lines otherwise wait for 10 s
		"--disable-hot-restart", // several Envoys on one machine would fight over one base id
	}
	if o.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(o.Concurrency))
	}
	return args
}

// wait is the only one that waits for the child.
func (p *Process) wait(cmd *exec.Cmd, said *tail) {
	err := cmd.Wait()
	p.err = fmt.Errorf("envoy (pid %d) ended: %s", p.state.PID, cmd.ProcessState)
	if err != nil && cmd.ProcessState == nil {
		p.err = fmt.Errorf("wait for envoy (pid %d): %w", p.state.PID, err)
	}
	if last := said.complaint(); last != "" {
		p.err = fmt.Errorf("%w: %s", p.err, last)
	}
	close(p.done)
}

// PID is Envoy's process id.
func (p *Process) PID() int { return p.state.PID }

// Adopted tells whether this Envoy was running before; it goes on printing to where it did.
func (p *Process) Adopted() bool { return p.state.Adopted }

// Done is closed when Envoy has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells how Envoy ended; nil while it runs.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Ready waits until Envoy has its listeners and serves.
func (p *Process) Ready(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := p.ask(ctx, "GET", "/ready"); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return p.err
		case <-ctx.Done():
			return fmt.Errorf("wait for envoy (pid %d): %w", p.state.PID, context.Cause(ctx))
		}
	}
}

// Stop ends this one Envoy: it takes no more connections, answers what is in flight, and is killed if it does not go.
// When ctx ends it is killed at once.
func (p *Process) Stop(ctx context.Context) error {
	// Noted first: should we be killed meanwhile, nobody may take over an Envoy that has closed its listeners. Where it
	// can't be noted it is stopped all the same.
	p.state.Stopping = true
	_ = p.state.write(p.o.Dir)
	p.drain(ctx)
	if err := p.proc.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop envoy (pid %d): %w", p.state.PID, err)
	}
	grace := time.NewTimer(cmp.Or(p.o.Grace, 5*time.Second))
	defer grace.Stop()
	select {
	case <-p.done:
		return p.state.forget(p.o.Dir)
	case <-grace.C:
	case <-ctx.Done():
	}
	if err := p.proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill envoy (pid %d): %w", p.state.PID, err)
	}
	<-p.done
	return p.state.forget(p.o.Dir)
}
