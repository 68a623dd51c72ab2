package envoy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Admin is the address of Envoy's admin interface; before Envoy has opened it, the one that it was told.
func (p *Process) Admin() string {
	if text, err := os.ReadFile(adminFile(p.o.Dir)); err == nil && len(text) > 0 {
		return strings.TrimSpace(string(text))
	}
	return p.state.Admin
}

var adminClient = &http.Client{
	Timeout:   2 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true}, // without a proxy: Envoy is on this machine
}

// ask calls Envoy's admin interface. Any status but 200 is an error.
func (p *Process) ask(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.Admin()+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask envoy: %w", err)
	}
	resp, err := adminClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask envoy: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("ask envoy for %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask envoy for %s: %s", path, resp.Status)
	}
	return body, nil
}

// node is the id that the running Envoy gives itself; empty when it does not answer.
func (p *Process) node(ctx context.Context) string {
	body, err := p.ask(ctx, "GET", "/server_info")
	if err != nil {
		return ""
	}
	var info struct {
		Node struct {
			ID string `json:"id"`
		} `json:"node"`
	}
	if json.Unmarshal(body, &info) != nil {
		return ""
	}
	return info.Node.ID
}

// drain closes the listeners and waits a moment for the requests in flight: SIGTERM would cut them off.
func (p *Process) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.o.Drain, 3*time.Second))
	defer cancel()
	if _, err := p.ask(ctx, "POST", "/drain_listeners"); err != nil {
		return
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		body, err := p.ask(ctx, "GET", "/stats?filter=downstream_rq_active&usedonly")
		if err != nil || !busy(string(body)) {
			return
		}
		select {
		case <-tick.C:
		case <-p.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// busy tells whether any connection manager but the admin's has requests in flight.
func busy(stats string) bool {
	for line := range strings.Lines(stats) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if strings.HasSuffix(name, ".downstream_rq_active") && !strings.HasPrefix(name, "http.admin.") && value != "0" {
			return true
		}
	}
	return false
}
