package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// A stock Envoy loads render --static by itself.
func TestRenderStatic(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	dir := policyDir(t, edge(port, upstream(t, "app")))
	admin := local(ports(t, 1)[0])
	out, status := legation(t, "render", dir, "--static", "--envoy-admin-address", admin)
	if status != 0 {
		t.Fatalf("render: %s", out)
	}
	config := filepath.Join(t.TempDir(), "envoy.json")
	write(t, config, out)
	start(t, proxy, "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn")
	answers(t, fmt.Sprintf("http://localhost:%d/", port))
	if a := mustRequest(t, "GET", fmt.Sprintf("http://localhost:%d/private", port)); a.status != http.StatusServiceUnavailable {
		t.Errorf("/private without a companion: got %d, want 503", a.status)
	}
}

// A table per host answers as one table does.
func TestRouteTablesPerHost(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	policy := strings.Replace(edge(port, upstream(t, "app")), "address: 127.0.0.1}", "address: 127.0.0.1, routeTables: perHost}", 1)
	p := newPlane(t, policyDir(t, policy))
	p.serve(t)
	p.envoy(t, "edge")
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/")
	for path, want := range map[string]int{"/private": http.StatusUnauthorized, "/counted": http.StatusOK} {
		if a := mustRequest(t, "GET", base+path); a.status != want {
			t.Errorf("%s: got %d, want %d", path, a.status, want)
		}
	}
	if a := mustRequest(t, "GET", base+"/", "Host", "other.test"); a.status != http.StatusNotFound {
		t.Errorf("an unknown host: got %d, want 404", a.status)
	}
}

func TestCheckAndFriends(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, edge(10000, "127.0.0.1:9001"))
	out, status := legation(t, "check", dir, "--envoy")
	if status != 0 || !strings.HasPrefix(out, "ok: 1 gateway, 3 routes, 1 service") {
		t.Errorf("check: %d %s", status, out)
	}
	write(t, filepath.Join(dir, "bad.yaml"), "routes:\n  x: {hostnames: [localhost], backends: {nowhere: 1}}\n")
	out, status = legation(t, "check", dir)
	if status != 1 || !strings.Contains(out, "bad.yaml:2:") || !strings.Contains(out, "nowhere") {
		t.Errorf("check of a bad file: %d %s", status, out)
	}
	out, status = legation(t, "check", dir, "-o", "json")
	var parsed struct {
		OK       bool
		Problems []struct{ Message string }
	}
	if err := json.Unmarshal([]byte(out), &parsed); err != nil || status != 1 || parsed.OK || len(parsed.Problems) != 1 {
		t.Errorf("check -o json: %d %v %s", status, err, out)
	}
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"version"}, 0, "legation"},
		{[]string{"schema"}, 0, "$schema"},
		{[]string{"completion", "bash"}, 0, "bash completion"},
		{[]string{"token"}, 2, "--sub"},
		{[]string{"bootstrap"}, 2, "--group"},
		{[]string{"check"}, 2, "directory"},
		{[]string{"check", "/does/not/exist"}, 1, "/does/not/exist"},
		{[]string{"serve", dir, "--roles", "dns"}, 2, "xds, ratelimit, auth"},
		{[]string{"serve", dir, "--nope"}, 2, "--help"},
		{[]string{"status", "--server", "http://127.0.0.1:1"}, 1, "127.0.0.1:1"},
		{[]string{"help"}, 0, "Exit status"},
	} {
		if out, status := legation(t, test.args...); status != test.status || !strings.Contains(out, test.want) {
			t.Errorf("%v: got status %d and %q, want %d and %q", test.args, status, out, test.status, test.want)
		}
	}
}
