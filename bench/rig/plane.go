package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Plane is a `legation serve` with all roles, at addresses that it has again after a restart.
type Plane struct {
	Legation        // once it was started
	XDS      string // address
	Data     string // its data directory
	rig      *Rig
	args     []string
}

// Plane gives one that serves a directory, which is the first argument then, or what is pushed. It is started by [Plane.Start].
func (r *Rig) Plane(args ...string) (*Plane, error) {
	p := &Plane{rig: r}
	for _, address := range []*string{&p.XDS, &p.Address, &p.Admin} {
		port, err := Port()
		if err != nil {
			return nil, err
		}
		*address = Local(port)
	}
	var err error
	if p.Data, err = r.Folder(); err != nil {
		return nil, err
	}
	p.args = append([]string{"serve"}, args...)
	p.args = append(p.args, "--xds-address", p.XDS, "--companion-address", p.Address, "--admin-address", p.Admin, "--data-dir", p.Data,
		"--log-level", "info", "--log-format", "text")
	return p, nil
}

// Start starts the process, and waits until it is alive; it is ready once it has a policy.
func (p *Plane) Start(ctx context.Context) (err error) {
	if p.Process, err = p.rig.Start(p.rig.o.Legation, append(p.args, p.rig.o.Args...)...); err != nil {
		return err
	}
	if err = Until(ctx, time.Minute, "legation to be alive", func() error { _, err := p.Get("/healthz"); return err }); err != nil {
		return fmt.Errorf("%w\n%s", err, p.Said())
	}
	return nil
}

// Ready waits until it serves a policy.
func (p *Plane) Ready(ctx context.Context) error {
	if err := Until(ctx, time.Minute, "legation to be ready", func() error { _, err := p.Get("/readyz"); return err }); err != nil {
		return fmt.Errorf("%w\n%s", err, p.Said())
	}
	return nil
}

// Stop ends the process by SIGTERM.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ErrNotPushed is the answer to a push that was not taken.
var ErrNotPushed = errors.New("the push was not taken")

// Push has files served as the next revision after parent, which is 0 for the first one, and gives its number.
func (l *Legation) Push(ctx context.Context, files map[string][]byte, parent int64) (int64, error) {
	on := "none"
	if parent > 0 {
		on = fmt.Sprint(parent)
	}
	body, err := json.Marshal(map[string]any{"files": files, "parent": on})
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.Admin+"/revisions", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	a, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, err
	}
	if a.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%w: status %d: %s", ErrNotPushed, a.StatusCode, text)
	}
	var accepted struct{ Number int64 }
	err = json.Unmarshal(text, &accepted)
	return accepted.Number, err
}

// Head is the number of the last revision, 0 while there is none.
func (l *Legation) Head() (int64, error) {
	text, err := l.Get("/revisions")
	if err != nil {
		return 0, err
	}
	var h struct{ Revisions []struct{ Number int64 } }
	if err := json.Unmarshal([]byte(text), &h); err != nil || len(h.Revisions) == 0 {
		return 0, err
	}
	return h.Revisions[0].Number, nil
}

// Run runs a verb of legation to its end, and gives what it prints.
func (r *Rig) Run(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, r.o.Legation, args...)
	c.Dir = r.Dir
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("legation %s: %w: %s", args[0], err, said.String())
	}
	return string(out), nil
}

// Gateway is an Envoy that has its configuration from control planes.
type Gateway struct {
	*Process
	Admin string // address
}

// Gateway starts an Envoy of a group with legation's own bootstrap, to which flags add. It does not wait.
func (r *Rig) Gateway(ctx context.Context, group, node string, planes []*Plane, flags ...string) (*Gateway, error) {
	port, err := Port()
	if err != nil {
		return nil, err
	}
	dir, err := r.Folder()
	if err != nil {
		return nil, err
	}
	g := &Gateway{Admin: Local(port)}
	args := []string{"bootstrap", "--group", group, "--node", node, "--envoy-admin-address", g.Admin, "--out", dir}
	for _, p := range planes {
		args = append(args, "--xds", p.XDS, "--companion", p.Address)
	}
	if _, err := r.Run(ctx, append(args, flags...)...); err != nil {
		return nil, err
	}
	g.Process, err = r.Envoy(filepath.Join(dir, "envoy.json"))
	return g, err
}

// Get asks Envoy's admin interface.
func (g *Gateway) Get(path string) (string, error) { return (&Legation{Admin: g.Admin}).Get(path) }

// Ready waits until Envoy serves.
func (g *Gateway) Ready(ctx context.Context) error {
	if err := Until(ctx, time.Minute, "Envoy to be ready", func() error { _, err := g.Get("/ready"); return err }); err != nil {
		return fmt.Errorf("%w\n%s", err, g.Said())
	}
	return nil
}

// Write writes a file of the rig, and gives its path.
func (r *Rig) Write(name string, content []byte) (string, error) {
	path := filepath.Join(r.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, content, 0o600)
}
