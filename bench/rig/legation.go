package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Legation is a `legation serve` with the companion's roles.
type Legation struct {
	*Process
	Address string // of the rate limit and auth services
	Admin   string
	Policy  string // the file, which may be edited
}

var (
	companionAddress = regexp.MustCompile(`port=companion address=(\S+)`)
	adminAddress     = regexp.MustCompile(`port=admin address=(\S+)`)
)

// Serve starts legation with a policy, and waits until it is ready and its store answers. Without a Redis it counts in
// its own memory.
func (r *Rig) Serve(ctx context.Context, policy, redis string, args ...string) (*Legation, error) {
	l, err := r.ServeAnyhow(ctx, policy, redis, args...)
	if err != nil {
		return nil, err
	}
	err = Until(ctx, time.Minute, "legation to be ready", func() error {
		text, err := l.Get("/readyz")
		if err == nil && !strings.Contains(text, `"degraded": []`) {
			err = fmt.Errorf("%s", text)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, l.Said())
	}
	return l, nil
}

// ServeAnyhow is Serve that waits for the ports only.
func (r *Rig) ServeAnyhow(ctx context.Context, policy, redis string, args ...string) (*Legation, error) {
	dir, err := r.Folder()
	if err != nil {
		return nil, err
	}
	l := &Legation{Policy: filepath.Join(dir, "policy.yaml")}
	if err := os.WriteFile(l.Policy, []byte(policy), 0o600); err != nil {
		return nil, err
	}
	all := []string{
		"serve", dir, "--roles", "ratelimit,auth", "--companion-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0",
		"--data-dir", "", "--redis", redis, "--log-level", "info", "--log-format", "text",
	}
	if l.Process, err = r.Start(r.o.Legation, append(append(all, r.o.Args...), args...)...); err != nil {
		return nil, err
	}
	if l.Address, err = l.Await(ctx, companionAddress); err != nil {
		return nil, err
	}
	l.Admin, err = l.Await(ctx, adminAddress)
	return l, err
}

// Render gives the configuration that legation makes of a policy, for an Envoy that asks nobody for more: JSON.
func (r *Rig) Render(ctx context.Context, policy string) ([]byte, error) {
	dir, err := r.Folder()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, r.o.Legation, "render", dir, "--static")
	c.Dir = r.Dir
	var problems strings.Builder
	c.Stderr = &problems
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("render: %w: %s", err, problems.String())
	}
	return out, nil
}

// Check tells why legation refuses a policy; nil when it takes it.
func (r *Rig) Check(ctx context.Context, policy string) error {
	dir, err := r.Folder()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, r.o.Legation, "check", dir)
	c.Dir = r.Dir
	c.Env = append(os.Environ(), "LEGATION_ENVOY="+r.o.Envoy)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s", strings.TrimSpace(string(out)))
	}
	return nil
}

// asking has its connections closed once they rest: those of a process that was killed are no use.
var asking = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{IdleConnTimeout: 10 * time.Second}}

// Get asks the admin API.
func (l *Legation) Get(path string) (string, error) {
	a, err := asking.Get("http://" + l.Admin + path)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err == nil && a.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", path, a.StatusCode, text)
	}
	return string(text), err
}

// Metric sums a metric over its series that have all these label pairs, written as in the text format: result="ok".
func (l *Legation) Metric(name string, pairs ...string) (float64, error) {
	text, err := l.Get("/metrics")
	if err != nil {
		return 0, err
	}
	return metricIn(text, name, pairs...)
}

// Gauges gives several metrics as they stood at one moment.
func (l *Legation) Gauges(names ...string) ([]float64, error) {
	text, err := l.Get("/metrics")
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(names))
	for i, name := range names {
		if values[i], err = metricIn(text, name); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// metricIn is Metric in a text.
func metricIn(text, name string, pairs ...string) (float64, error) {
	sum, found := 0.0, false
	for in := bufio.NewScanner(strings.NewReader(text)); in.Scan(); {
		at := strings.LastIndexByte(in.Text(), ' ')
		if at < 0 {
			continue
		}
		series, value := in.Text()[:at], in.Text()[at+1:]
		if series != name && !strings.HasPrefix(series, name+"{") || !containsAll(series, pairs) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("no metric %s %v", name, pairs)
	}
	return sum, nil
}

func containsAll(text string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}
