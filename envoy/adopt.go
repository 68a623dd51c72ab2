package envoy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// state is what the file envoy.json in a process's directory says: which Envoy runs with which bootstrap, and for whom.
type state struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // in clock ticks since boot: the pid alone may be somebody else's by now
	Owner   int    `json:"owner"`   // our own pid
	OwnedAt string `json:"ownedAt"` // and our own start
	Admin   string `json:"admin"`
	Node    string `json:"node"`
	Hash    string `json:"hash"` // of the bootstrap and of how Envoy is run
	Adopted bool   `json:"adopted,omitempty"`
	// Stopping is an Envoy that was told to stop: its listeners are closed.
	Stopping bool `json:"stopping,omitempty"`
}

func newState(o ProcessOptions, bootstrap []byte, pid int) state {
	admin := o.Bootstrap.GetAdmin().GetAddress().GetSocketAddress()
	return state{
		PID: pid, Started: startOf(pid), Owner: os.Getpid(), OwnedAt: startOf(os.Getpid()),
		Admin: fmt.Sprintf("%s:%d", admin.GetAddress(), admin.GetPortValue()),
		Node:  o.Bootstrap.GetNode().GetId(), Hash: o.hash(bootstrap),
	}
}

func (o ProcessOptions) hash(bootstrap []byte) string {
	h := sha256.New()
	h.Write(bootstrap)
	fmt.Fprintf(h, "\x00%s\x00%d", o.Binary, o.Concurrency)
	return hex.EncodeToString(h.Sum(nil))
}

func stateFile(dir string) string { return filepath.Join(dir, "envoy.json") }
func adminFile(dir string) string { return filepath.Join(dir, "admin") }

// write replaces the file as a whole, so that a reader never sees half of it.
func (s state) write(dir string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	next := stateFile(dir) + ".next"
	if err := os.WriteFile(next, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(next, stateFile(dir))
}

// forget removes the file if it still speaks of this Envoy.
func (s state) forget(dir string) error {
	now, err := readState(dir)
	if err != nil || now == nil || now.PID != s.PID || now.Started != s.Started {
		return err
	}
	return os.Remove(stateFile(dir))
}

// readState is nil when no Envoy was left behind, or the file can't be understood.
func readState(dir string) (*state, error) {
	text, err := os.ReadFile(stateFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("which envoy runs: %w", err)
	}
	s := new(state)
	if json.Unmarshal(text, s) != nil || s.PID <= 1 || s.Started == "" {
		return nil, nil
	}
	return s, nil
}

// Adopt takes over the Envoy that an earlier, killed run has left behind in o.Dir, if it runs with the same bootstrap;
// one with another bootstrap is stopped. It returns nil when there is none to take over. An Envoy whose own legation
// still runs is an error.
func Adopt(ctx context.Context, o ProcessOptions) (*Process, error) {
	s, err := readState(o.Dir)
	if s == nil || err != nil {
		return nil, err
	}
	// The handle comes before the look at the start time, so that both speak of the same process.
	proc, err := os.FindProcess(s.PID)
	if err != nil || startOf(s.PID) != s.Started {
		return nil, s.forget(o.Dir)
	}
	if s.OwnedAt != "" && startOf(s.Owner) == s.OwnedAt {
		return nil, fmt.Errorf("the envoy in %s (pid %d) belongs to a legation that runs (pid %d)", o.Dir, s.PID, s.Owner)
	}
	text, err := JSON(o.Bootstrap)
	if err != nil {
		return nil, err
	}
	p := &Process{o: o, proc: proc, done: make(chan struct{}), state: *s}
	go p.watch()
	if s.Stopping || s.Hash != o.hash(text) || p.node(ctx) != s.Node {
		if err := p.Stop(ctx); err != nil {
			return nil, fmt.Errorf("stop the envoy of an earlier run: %w", err)
		}
		return nil, nil
	}
	p.state.Adopted, p.state.Owner, p.state.OwnedAt = true, os.Getpid(), startOf(os.Getpid())
	if err := p.state.write(o.Dir); err != nil {
		return nil, fmt.Errorf("note which envoy runs: %w", err)
	}
	if o.Log != nil {
		fmt.Fprintf(o.Log, "envoy (pid %d) was left running by an earlier legation and is taken over; "+
			"what it prints is lost until it is started again\n", p.state.PID)
	}
	return p, nil
}

// watch notices the end of an Envoy that is not our child.
func (p *Process) watch() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for startOf(p.state.PID) == p.state.Started {
		<-tick.C
	}
	p.err = fmt.Errorf("envoy (pid %d) ended", p.state.PID)
	close(p.done)
}

// startOf is the start time of a process in clock ticks since boot, field 22 of /proc/PID/stat; empty when there is no
// such process, or only its exit status.
func startOf(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // the name before it may hold anything
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

// tail hands on what Envoy prints and keeps the end of it, for the case that it is about why Envoy ended.
type tail struct {
	to   io.Writer
	kept []byte
}

const tailSize = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, b...)
	if extra := len(t.kept) - tailSize; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return t.to.Write(b)
}

// complaint is the last line of what Envoy calls critical.
func (t *tail) complaint() string {
	last := ""
	for line := range strings.Lines(string(t.kept)) {
		if strings.Contains(line, "[critical]") {
			last = logPrefix.ReplaceAllString(strings.TrimSpace(line), "")
		}
	}
	return last
}
