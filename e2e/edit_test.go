package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Each key of a service is edited under load. No request fails, no listener changes, and Envoy makes a cluster anew for
// those edits only that it can't take otherwise: nothing of routes, and nothing of endpoints.
func TestServiceEditsUnderLoad(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	first, second := upstream(t, "first"), upstream(t, "second")
	at := func(service, edit string) string {
		return fmt.Sprintf(`gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1}}, accessLog: {}}}
services: {app: {%s}}
routes: {all: {hostnames: [localhost], backends: {app: 1}, headers: {response: {set: {x-edit: %q}}}}}
`, port, service, edit)
	}
	both := fmt.Sprintf("endpoints: [%q, %q]", first, second)
	p := newPlane(t, policyDir(t, at(both, "none")))
	write(t, filepath.Join(p.dir, "app.endpoints"), first+" weight=3 zone=a\n"+second+" zone=b\n")
	p.serve(t)
	e := p.envoy(t, "edge")
	url := fmt.Sprintf("http://localhost:%d/", port)
	answers(t, url)
	modified := func() int {
		n, err := strconv.Atoi(e.stat(t, "cluster_manager.cluster_modified"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	stop := load(t, url, http.StatusOK)
	for i, row := range []struct {
		service string
		anew    int // clusters that are made anew
	}{
		{fmt.Sprintf("endpoints: [{address: %q, weight: 2}, %q]", first, second), 0},
		{fmt.Sprintf("endpoints: [%q, {address: %q, priority: 1}]", first, second), 0},
		{"endpoints: {file: app.endpoints}", 0},
		{both + ", timeouts: {request: 9s}, retry: {attempts: 2}", 0},
		{both + ", rateLimit: {rate: 1000000/second}", 0},
		{both + ", sessionPersistence: {cookie: c}, compression: true, upgrades: [websocket]", 0},
		{both + ", accessLog: off, sample: true", 0},
		{both + ", circuitBreakers: {maxRequests: 2000}", 1},
		{both + ", connections: {connectTimeout: 2s}", 1},
		{both + ", loadBalancer: leastRequest", 1},
		{both + ", loadBalancer: {maglev: {by: ip}}", 1},
		{both + ", outlierDetection: true", 1},
		{both + ", healthCheck: {path: /, interval: 1s}", 1},
		{both + ", overload: true", 1},
		{fmt.Sprintf("dns: {name: %q, refresh: 1s}", strings.Replace(first, "127.0.0.1", "localhost", 1)), 1},
		{both, 1},
	} {
		before, edit := modified(), strconv.Itoa(i)
		write(t, filepath.Join(p.dir, "policy.yaml"), at(row.service, edit))
		eventually(t, row.service, func() error {
			a, err := request("GET", url)
			if got := a.header.Get("X-Edit"); err == nil && got != edit {
				err = fmt.Errorf("still at %s:\n%s", got, p.out)
			}
			return err
		})
		if got := modified() - before; got != row.anew {
			t.Errorf("%s: %d clusters were made anew, want %d", row.service, got, row.anew)
		}
	}
	good, bad := stop()
	if len(bad) > 0 || good == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
	}
	if got := e.stat(t, "listener_manager.listener_modified"); got != "0" || strings.Contains(p.out.String(), "listener changed") {
		t.Errorf("listener_modified: got %s, want 0 and no word of it:\n%s", got, p.out)
	}
}
