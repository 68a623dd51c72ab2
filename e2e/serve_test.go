package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// edge is a policy of one gateway at a port with routes to one upstream: / open, /private with the quickstart's auth,
// /counted with a limit that Envoy's own call counts.
func edge(port int, upstream string) string {
	return fmt.Sprintf(`gateways:
  edge:
    listeners:
      http: {port: %d, address: 127.0.0.1}
auth:
  demo:
    jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: {file: test-keys.json}}
services:
  app: {endpoints: ["%s"]}
routes:
  open:
    hostnames: [localhost]
    backends: {app: 1}
  private:
    hostnames: [localhost]
    match: {path: /private}
    auth: [demo]
    rateLimit: {rate: 100/day, by: consumer}
    backends: {app: 1}
  counted:
    hostnames: [localhost]
    match: {path: /counted}
    rateLimit: {rate: 100/day, by: ip}
    backends: {app: 1}
`, port, upstream)
}

// policyDir writes a policy and the quickstart's public keys into a new directory.
func policyDir(t testing.TB, policy string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "policy.yaml"), policy)
	if out, err := exec.Command("cp", "../examples/quickstart/test-keys.json", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return dir
}

// answers waits until a URL answers 200.
func answers(t testing.TB, url string) {
	t.Helper()
	eventually(t, url, func() error { _, err := get(url, ""); return err })
}

// Two processes on one Redis, each with its own Envoy: a limit holds over both, to the request. It is not parallel, and
// Redis has time: what a stalled Redis does to limits is not its subject.
func TestTwoReplicasCountTogether(t *testing.T) {
	url, _ := redis(t)
	app := upstream(t, "app")
	var bases []string
	for _, port := range ports(t, 2) {
		policy := strings.ReplaceAll(edge(port, app), "by: consumer", "by: consumer, onError: deny")
		policy = strings.ReplaceAll(policy, "by: ip", "by: {header: x-round}, onError: deny")
		p := newPlane(t, policyDir(t, policy))
		p.serve(t, "--redis", url, "--redis-timeout", "100ms")
		p.envoy(t, "edge")
		base := fmt.Sprintf("http://localhost:%d", port)
		answers(t, base+"/")
		bases = append(bases, base)
	}
	// A round in which an answer came too late proves nothing about the exact number; the bound holds in every round.
	for _, path := range []string{"/private", "/counted"} {
		proved := false
		for round := 0; round < 5 && !proved; round++ {
			who := fmt.Sprintf("round-%d", round)
			allowed, refused, late := countOver(t, bases, path, "Authorization", "Bearer "+token(t, who), "X-Round", who)
			if allowed > 100 {
				t.Fatalf("%s: %d allowed of 200, want at most 100", path, allowed)
			}
			if proved = late == 0; proved && (allowed != 100 || refused != 100) {
				t.Errorf("%s: %d allowed and %d refused of 200, want exactly 100 and 100", path, allowed, refused)
			}
		}
		if !proved {
			t.Errorf("%s: in five rounds there were late answers: this machine is too busy to tell", path)
		}
	}
}

// countOver asks 200 times over all bases at once, and counts the answers: 200, 429, and 503 for those that came late.
func countOver(t *testing.T, bases []string, path string, headers ...string) (allowed, refused, late int64) {
	t.Helper()
	var count [3]atomic.Int64
	var done sync.WaitGroup
	for worker := range 8 {
		done.Go(func() {
			for range 25 {
				a, err := request("GET", bases[worker%len(bases)]+path, headers...)
				switch {
				case err != nil:
					t.Error(err)
				case a.status == http.StatusOK:
					count[0].Add(1)
				case a.status == http.StatusTooManyRequests:
					count[1].Add(1)
				case a.status == http.StatusServiceUnavailable:
					count[2].Add(1)
				default:
					t.Errorf("%s: got %d %s", path, a.status, a.body)
				}
			}
		})
	}
	done.Wait()
	return count[0].Load(), count[1].Load(), count[2].Load()
}

// What Envoy runs outlives a killed control plane, and a restart with the same policy changes nothing.
func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	p.serve(t)
	e := p.envoy(t, "edge")
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/")
	versions := acknowledged(t, p)

	stop := load(t, base+"/", http.StatusOK)
	p.kill()
	for range 50 { // the load goes on while nothing of ours runs
		mustRequest(t, "GET", base+"/")
	}
	p.serve(t)
	eventually(t, "Envoy back", func() error {
		if n := len(p.status(t).Nodes); n != 1 {
			return fmt.Errorf("%d nodes", n)
		}
		return nil
	})
	eventually(t, "same revision acknowledged", func() error {
		if got := acknowledged(t, p); got != versions {
			return fmt.Errorf("got %s, want %s", got, versions)
		}
		return nil
	})
	good, bad := stop()
	if len(bad) > 0 || good == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
	}
	t.Logf("%d requests, 0 failed", good)
	e.zero(t,
		"listener_manager.listener_modified", "cluster_manager.cluster_modified",
		"listener_manager.listener_removed", "cluster_manager.cluster_removed",
	)
}

// acknowledged is the revision that the only Envoy runs.
func acknowledged(t *testing.T, p *plane) string {
	t.Helper()
	s := p.status(t)
	if len(s.Nodes) != 1 {
		return ""
	}
	return s.Policy.Revision + "/" + s.Nodes[0].Revision
}

// Endpoints and routes change without a failed request, and without a change of the listener.
func TestChangesUnderLoad(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	first, second := upstream(t, "first"), upstream(t, "second")
	p := newPlane(t, policyDir(t, edge(port, first)))
	p.serve(t)
	e := p.envoy(t, "edge")
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/")
	stop := load(t, base+"/", http.StatusOK)
	for i := range 6 {
		text := edge(port, []string{second, first}[i%2])
		if i%3 == 2 { // the service itself changes its name: the route has to move before it goes
			text = strings.ReplaceAll(strings.ReplaceAll(text, "  app:", "  app2:"), "{app:", "{app2:")
		}
		want := []string{"second", "first"}[i%2]
		if i%2 == 0 { // and a filter is used that was not before
			text += "    cors: {allowOrigins: [\"https://app.example.com\"]}\n"
		}
		write(t, filepath.Join(p.dir, "policy.yaml"), text)
		eventually(t, "change", func() error {
			a, err := request("GET", base+"/")
			if err == nil && a.header.Get("X-Service") != want {
				err = fmt.Errorf("answered by %s, want %s", a.header.Get("X-Service"), want)
			}
			return err
		})
	}
	good, bad := stop()
	if len(bad) > 0 || good == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
	}
	if got := e.stat(t, "listener_manager.listener_modified"); got != "0" {
		t.Errorf("listener_modified: got %s, want 0", got)
	}
}

// An Envoy that refuses what we thought good is shown with the policy line.
func TestStatusShowsNACK(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	taken, err := net.Listen("tcp", local(port))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p.serve(t)
	p.envoyUnready(t, "edge")
	var out string
	eventually(t, "NACK in status", func() error {
		var status int
		out, status = legation(t, "status", "--server", "http://"+p.admin)
		if status != 1 || !strings.Contains(out, "NACK") {
			return fmt.Errorf("status %d:\n%s", status, out)
		}
		return nil
	})
	for _, want := range []string{"policy.yaml:4:7", "cannot bind", "edge", "1.40.0", "ACK"} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
}

// Nothing is served before there is a whole policy; the last good one is served over a broken directory.
func TestNeverAnEmptyOrPartialStart(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	good := edge(port, upstream(t, "app"))
	p := newPlane(t, policyDir(t, "gateways: {edge: {listeners: {http: {port: 0}}}}\n"))
	p.child = start(t, binary, p.args("serve")...)
	p.says(0, "policy.yaml:1:")
	if a := mustRequest(t, "GET", "http://"+p.admin+"/readyz"); a.status != http.StatusServiceUnavailable {
		t.Errorf("readyz without a policy: got %d %s, want 503", a.status, a.body)
	}
	e := p.envoyUnready(t, "edge")
	write(t, filepath.Join(p.dir, "policy.yaml"), good)
	answers(t, fmt.Sprintf("http://localhost:%d/", port))
	p.kill()

	write(t, filepath.Join(p.dir, "policy.yaml"), "routes: [\n")
	p.serve(t)
	eventually(t, "the last good policy", func() error {
		if s := p.status(t); s.Policy.Revision == "" || len(s.Nodes) != 1 {
			return fmt.Errorf("%+v", s.Policy)
		}
		return nil
	})
	answers(t, fmt.Sprintf("http://localhost:%d/", port))
	if got := e.stat(t, "listener_manager.listener_modified"); got != "0" {
		t.Errorf("listener_modified: got %s, want 0", got)
	}
}

// The auth and rate limit services stay closed or open as the policy says when they are gone.
func TestCompanionGone(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	policy := edge(port, upstream(t, "app")) + `  strict:
    hostnames: [localhost]
    match: {path: /strict}
    rateLimit: {rate: 100/day, onError: deny}
    backends: {app: 1}
`
	p := newPlane(t, policyDir(t, policy))
	p.serve(t)
	p.envoy(t, "edge")
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/")
	answers(t, base+"/strict")
	bearer := "Bearer " + token(t, "alice")
	p.kill()
	for path, want := range map[string]int{
		"/": http.StatusOK, "/private": http.StatusServiceUnavailable, "/counted": http.StatusOK, "/strict": http.StatusServiceUnavailable,
	} {
		if a := mustRequest(t, "GET", base+path, "Authorization", bearer); a.status != want {
			t.Errorf("%s without a companion: got %d %s, want %d", path, a.status, a.body, want)
		}
	}
}

// Redis may be killed at any time: limits go on per process, and heal.
func TestRedisGone(t *testing.T) {
	t.Parallel()
	url, server := redis(t)
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	p.serve(t, "--redis", url)
	p.envoy(t, "edge")
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/counted")
	server.kill()
	bearer := "Bearer " + token(t, "alice")
	for range 20 {
		if a := mustRequest(t, "GET", base+"/private", "Authorization", bearer); a.status != http.StatusOK {
			t.Fatalf("with Redis gone: got %d %s, want 200 from the local limit", a.status, a.body)
		}
	}
	eventually(t, "readyz names the store", func() error {
		a, err := request("GET", "http://"+p.admin+"/readyz")
		if err == nil && (a.status != http.StatusOK || !strings.Contains(a.body, "store")) {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
}

// SIGTERM under load ends in time, and what is in flight is answered.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	p.serve(t)
	p.envoy(t, "edge")
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/")
	stop := load(t, base+"/", http.StatusOK)
	begin := time.Now()
	p.signal(15)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status: got %d, want 0", status)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v to stop, want at most 10 s", took)
	}
	if good, bad := stop(); len(bad) > 0 || good == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
	}
}
