package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs.
type Process struct {
	Name string
	PID  int
	cmd  *exec.Cmd
	done chan struct{}
	said said
}

// said is what a program wrote, as far as is kept.
type said struct {
	mu   sync.Mutex // guards what follows
	text []byte
	more chan struct{} // closed at the next write
}

// kept is how much output is kept: what a program says at its start.
const kept = 1 << 20

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p[:min(len(p), kept-len(s.text))]...)
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
	return len(p), nil
}

func (s *said) next() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more == nil {
		s.more = make(chan struct{})
	}
	return string(s.text), s.more
}

// Start runs a program until Kill or the rig's Close.
func (r *Rig) Start(name string, args ...string) (*Process, error) {
	p := &Process{Name: filepath.Base(name), cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	p.cmd.Dir = r.Dir // no settings file of the caller's is read there
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.PID = p.cmd.Process.Pid
	go func() {
		_ = p.cmd.Wait() // how it ends is told by what it said
		close(p.done)
	}()
	r.mu.Lock()
	r.processes = append(r.processes, p)
	r.mu.Unlock()
	return p, nil
}

// Await waits until the program has written what matches, for a minute at most, and gives the first group.
func (p *Process) Await(ctx context.Context, pattern *regexp.Regexp) (string, error) {
	limit := time.After(time.Minute)
	for {
		text, more := p.said.next()
		if m := pattern.FindStringSubmatch(text); m != nil {
			return m[len(m)-1], nil
		}
		select {
		case <-more:
		case <-p.done:
			return "", fmt.Errorf("%s ended without a word of %s:\n%s", p.Name, pattern, text)
		case <-limit:
			return "", fmt.Errorf("%s never said %s:\n%s", p.Name, pattern, text)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// Said is what the program wrote so far.
func (p *Process) Said() string {
	text, _ := p.said.next()
	return text
}

// Signal sends a signal, such as SIGSTOP.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the program at once, and returns when it has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // one that has ended is as good
	<-p.done
}

// CPU is the processor time that a process used so far, by the kernel's scheduler where that tells, which is exact, else
// in clock ticks of 10 ms.
func CPU(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return ticks(pid)
	}
	var sum time.Duration
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // a thread that ended in between
		}
		if err != nil {
			return ticks(pid)
		}
		ns, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			return ticks(pid)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// ticks is CPU from /proc/PID/stat.
func ticks(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), ") ") // behind the name, which may hold spaces
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// RSS is the memory that a process has in use, in bytes.
func RSS(pid int) (uint64, error) { return memory(pid, "VmRSS") }

// PeakRSS is the most that RSS was, since the start of the process or since the kernel was told to forget it.
func PeakRSS(pid int) (uint64, error) { return memory(pid, "VmHWM") }

func memory(pid int, field string) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, found := strings.Cut(string(text), field+":")
	fields := strings.Fields(after)
	if !found || len(fields) == 0 {
		return 0, fmt.Errorf("/proc/%d/status has no %s", pid, field)
	}
	kib, err := strconv.ParseUint(fields[0], 10, 64)
	return kib << 10, err
}
