package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/control"
)

// answering is a policy whose routes, one for each of these words, answer with their word.
func answering(port int, words ...string) string {
	text := fmt.Sprintf("gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1}}}}\nroutes:\n", port)
	for i, word := range words {
		path := ""
		if i > 0 {
			path = fmt.Sprintf("match: {path: /%d}, ", i)
		}
		text += fmt.Sprintf("  r%d: {hostnames: [localhost], %sdirectResponse: {status: 200, body: %s}}\n", i, path, word)
	}
	return text
}

// through is a policy with a route to each of these services, all of them one upstream.
func through(port int, upstream string, names ...string) string {
	text := fmt.Sprintf("gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1}}}}\n", port)
	for i, name := range names {
		match := ""
		if i > 0 {
			match = "match: {path: /" + name + "}, "
		}
		text += fmt.Sprintf("---\nservices: {%[1]s: {endpoints: [%[2]q]}}\nroutes: {%[1]s: {hostnames: [localhost], %[3]sbackends: {%[1]s: 1}}}\n", name, upstream, match)
	}
	return text
}

// dirOf is a directory with one policy file.
func dirOf(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "policy.yaml"), text)
	return dir
}

// client runs a verb that asks p.
func (p *plane) client(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return legation(t, append(args, "--server", "http://"+p.admin)...)
}

// pushes pushes a policy of one file, and gives what became of it.
func (p *plane) pushes(t *testing.T, text string, flags ...string) control.Accepted {
	t.Helper()
	out, status := p.client(t, append([]string{"push", dirOf(t, text), "-o", "json"}, flags...)...)
	var a control.Accepted
	if err := json.Unmarshal([]byte(out), &a); status != 0 || err != nil {
		t.Fatalf("push: status %d, %v:\n%s", status, err, out)
	}
	return a
}

// says waits until a URL answers 200 with this body.
func says(t testing.TB, url, body string) time.Duration {
	t.Helper()
	return eventually(t, url+" says "+body, func() error {
		got, err := get(url, "")
		if err == nil && got != body {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}

// A policy from the first push on: served, refused where somebody pushed meanwhile or it is bad, gone back, and there
// again after a SIGKILL.
func TestPush(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	p := newPlane(t, "")
	p.child = start(t, binary, p.args("serve")...)
	eventually(t, "the admin port", func() error { _, err := get("http://"+p.admin+"/healthz", ""); return err })
	if out, status := p.client(t, "status"); status != 1 || !strings.Contains(out, "no policy has been pushed yet: legation push DIR") {
		t.Errorf("before the first push: %d\n%s", status, out)
	}
	e := p.envoyUnready(t, "edge")
	eventually(t, "an Envoy that is held", func() error {
		if n := p.status(t).Nodes; len(n) != 1 || !n[0].Held {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})

	first, second := answering(port, "one"), answering(port, "two")
	p.pushes(t, first, "-m", "the beginning", "--parent", "none")
	says(t, url, "one")
	p.awaitReady(t)
	began := time.Now()
	if a := p.pushes(t, second, "-m", "more", "--by", "ci"); a.Number != 2 || a.By != "ci" || !a.Served {
		t.Errorf("got %+v", a)
	}
	says(t, url, "two")
	t.Logf("served %s after the push began", time.Since(began))

	for _, row := range []struct {
		name   string
		args   []string
		status int
		want   []string
	}{
		{"stale", []string{"push", dirOf(t, first), "--parent", "1"}, 1, []string{
			"last: revision 2 (", "by ci: more", "revision 2 is the last one, and this one builds on 1", "push again on top of it",
		}},
		{"first", []string{"push", dirOf(t, first), "--parent", "none"}, 1, []string{"revision 2 is there"}},
		{"bad", []string{"push", dirOf(t, "routes: {r: {hostnames: [a], backends: {b: 1}}}\nnonsense: 1\n")}, 1, []string{
			"policy.yaml:2:1: nonsense: unknown section", "nothing was changed", "policy.yaml:1:",
		}},
		{"bad as JSON", []string{"push", dirOf(t, "nonsense: 1\n"), "-o", "json"}, 1, []string{`"problems": [`, `"line": 1`}},
		{"odd parent", []string{"push", dirOf(t, first), "--parent", "-"}, 2, []string{"names no revision"}},
		{"no directory", []string{"push", "/nowhere"}, 1, []string{"/nowhere"}},
		{"history", []string{"history"}, 0, []string{"2*", "the beginning", "more", "1 of 1"}},
		{"show", []string{"show", "previous"}, 0, []string{"revision 1 (", "the beginning", "policy.yaml"}},
		{"diff", []string{"diff", "1", "2"}, 1, []string{"directResponse", "one", "two", "policy.yaml:3:"}},
		{"diff of the same", []string{"diff", "2", "head"}, 0, nil},
		{"no such revision", []string{"show", "9"}, 1, []string{"no such revision", "from 1 to 2"}},
		{"no revision", []string{"rollback", "-x"}, 2, nil},
		{"completion", []string{"__complete", "rollback", "--server", "http://" + p.admin, ""}, 0, []string{"2\tmore", "1\tthe beginning"}},
	} {
		out, status := p.client(t, row.args...)
		if row.name == "completion" {
			out, status = legation(t, row.args...)
		}
		if status != row.status {
			t.Errorf("%s: status %d, want %d:\n%s", row.name, status, row.status, out)
		}
		for _, want := range row.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: want it to say %q:\n%s", row.name, want, out)
			}
		}
	}
	says(t, url, "two")

	stop := load(t, url, http.StatusOK)
	if out, status := p.client(t, "rollback", "-m", "too much"); status != 0 || !strings.Contains(out, "revision 3 (") || !strings.Contains(out, "files of 1") {
		t.Errorf("rollback: %d\n%s", status, out)
	}
	says(t, url, "one")
	p.kill()
	p.serve(t)
	eventually(t, "the Envoy in step again", func() error {
		s := p.status(t)
		if len(s.Nodes) != 1 || s.Policy.Accepted == nil || s.Policy.Accepted.Number != 3 || s.Nodes[0].Revision != s.Policy.Revision {
			return fmt.Errorf("%+v", s.Nodes)
		}
		return nil
	})
	says(t, url, "one")
	if good, bad := stop(); len(bad) > 0 || good == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
	}
	e.zero(t, "listener_manager.listener_modified", "listener_manager.listener_removed")
	into := filepath.Join(t.TempDir(), "two")
	if out, status := p.client(t, "show", "2", "--write", into); status != 0 {
		t.Errorf("show --write: %s", out)
	}
	if text, err := os.ReadFile(filepath.Join(into, "policy.yaml")); string(text) != second {
		t.Errorf("written: %q, %v", text, err)
	}
}

// versionsOf is what the Envoys of a process have acknowledged.
func versionsOf(s app.Status) (all []string) {
	for _, n := range s.Nodes {
		for _, one := range n.Types {
			all = append(all, one.Type+" "+one.Acknowledged)
		}
		all = append(all, n.Revision)
	}
	slices.Sort(all)
	return all
}

// pair is two processes on one Redis, each with an Envoy. Both Envoys are on one machine: each has a gateway, and both
// gateways the same route.
type pair struct {
	planes    []*plane
	urls      []string // of the Envoys
	gateways  []int    // their ports
	redisPort int
	redis     *child
}

func (r *pair) redisURL() string { return fmt.Sprintf("redis://127.0.0.1:%d", r.redisPort) }

// policy is one whose route says this word.
func (r *pair) policy(word string) string { return r.both(answering(r.gateways[0], word)) }

// both is a policy of the first gateway for both of them.
func (r *pair) both(text string) string {
	text += fmt.Sprintf("---\ngateways: {side: {listeners: {http: {port: %d, address: 127.0.0.1}}}}\n", r.gateways[1])
	return strings.ReplaceAll(text, "hostnames:", "gateways: [edge, side], hostnames:")
}

// say waits until both Envoys say a word.
func (r *pair) say(t *testing.T, word string) {
	t.Helper()
	for _, url := range r.urls {
		says(t, url, word)
	}
}

// serve starts one of the processes.
func (r *pair) serve(t *testing.T, p *plane) {
	t.Helper()
	p.child = start(t, binary, p.args("serve", "--redis", r.redisURL(), "--redis-timeout", "100ms")...)
	eventually(t, "the admin port", func() error { _, err := get("http://"+p.admin+"/healthz", ""); return err })
}

// pushUntil pushes until that goes well.
func (r *pair) pushUntil(t *testing.T, p *plane, word, parent string) {
	t.Helper()
	dir := dirOf(t, r.policy(word))
	eventually(t, "a push", func() error {
		if out, status := p.client(t, "push", dir, "--parent", parent); status != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// newPair has a pair serve a first policy.
func newPair(t *testing.T) *pair {
	t.Helper()
	ask := ports(t, 3)
	r := &pair{gateways: ask[:2], redisPort: ask[2], redis: redisAt(t, ask[2])}
	for i := range 2 {
		p := newPlane(t, "")
		r.serve(t, p)
		r.planes = append(r.planes, p)
		r.urls = append(r.urls, fmt.Sprintf("http://localhost:%d/", r.gateways[i]))
	}
	r.pushUntil(t, r.planes[0], "one", "none")
	return r
}

// Two processes on one Redis: a push to one is served by both, and of two at once one wins.
func TestReplicas(t *testing.T) {
	t.Parallel()
	r := newPair(t)
	r.planes[0].envoy(t, "edge")
	r.planes[1].envoy(t, "side")
	r.say(t, "one")
	pushed := r.planes[0].pushes(t, r.policy("two"))
	took := says(t, r.urls[1], "two")
	if t.Logf("the other process served it %s later", took); took > 2*time.Second {
		t.Errorf("want 2s at most")
	}
	r.say(t, "two")
	for _, p := range r.planes {
		eventually(t, "the same revision", func() error { // Envoys have it before the status says so
			if s := p.status(t); s.Policy.Accepted == nil || *s.Policy.Accepted != pushed.Revision {
				return fmt.Errorf("got %+v, want %+v", s.Policy.Accepted, pushed.Revision)
			}
			return nil
		})
	}

	var done sync.WaitGroup
	var status [2]int
	var out [2]string
	for i, p := range r.planes {
		dir := dirOf(t, r.policy(fmt.Sprintf("three-%d", i)))
		done.Go(func() { out[i], status[i] = p.client(t, "push", dir, "--parent", fmt.Sprint(pushed.Number)) })
	}
	done.Wait()
	if status[0]+status[1] != 1 || !strings.Contains(out[0]+out[1], "push again on top of it") {
		t.Errorf("two at once: %v\n%s\n%s", status, out[0], out[1])
	}
	r.say(t, fmt.Sprintf("three-%d", slices.Index(status[:], 0)))
}

// Redis may be gone: then nothing can be pushed, and nothing else changes, also for a process that starts meanwhile. When it
// comes back empty it is given what was lost.
func TestReplicasWithoutRedis(t *testing.T) {
	t.Parallel()
	r := newPair(t)
	a, b := r.planes[0], r.planes[1]
	a.envoy(t, "edge")
	b.envoy(t, "side")
	r.pushUntil(t, a, "two", "1")
	r.say(t, "two")
	var before []string
	eventually(t, "the Envoy in step", func() error {
		s := a.status(t)
		if before = versionsOf(s); len(s.Nodes) != 1 || s.Nodes[0].Revision != s.Policy.Revision || s.Policy.Accepted.Number != 2 {
			return fmt.Errorf("got %+v", s.Nodes)
		}
		return nil
	})
	stop := load(t, r.urls[0], http.StatusOK)
	r.redis.kill()
	eventually(t, "a push without Redis", func() error {
		out, status := a.client(t, "push", dirOf(t, r.policy("three")), "--parent", "2")
		if status != 1 || !strings.Contains(out, "the store of revisions can't be written, and nothing was changed") {
			return fmt.Errorf("%d %s", status, out)
		}
		return nil
	})
	a.kill()
	r.serve(t, a)
	eventually(t, "the same after a restart without Redis", func() error {
		if got := versionsOf(a.status(t)); !slices.Equal(got, before) {
			return fmt.Errorf("got %v, want %v", got, before)
		}
		return nil
	})
	r.say(t, "two")

	redisAt(t, r.redisPort)
	eventually(t, "the revision written back", func() error {
		if out, status := b.client(t, "history"); status != 0 || !strings.Contains(out, "2*") {
			return fmt.Errorf("%d %s", status, out)
		}
		return nil
	})
	r.pushUntil(t, b, "four", "2")
	r.say(t, "four")
	if good, bad := stop(); len(bad) > 0 || good == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
	}
}

// Two processes are replaced one after the other, twice, while policies are pushed: no request fails, also of those that take a
// companion, and no push is lost.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	r := newPair(t)
	a, b := r.planes[0], r.planes[1]
	app := upstream(t, "app")
	policy := func(word string) string { return r.both(withCallouts(t, answering(r.gateways[0], word), app)) }
	last := a.pushes(t, policy("one"), "--parent", "1").Number
	e := a.envoyUnready(t, "edge", "--xds", b.xds, "--companion", b.companion)
	says(t, r.urls[0], "one")
	answers(t, r.urls[0]+"counted")
	stop, end := load(t, r.urls[0], http.StatusOK), calloutLoad(t, r.urls[0])
	for round, p := range []*plane{a, b, a, b} {
		other := r.planes[1-round%2]
		for n := range 3 {
			if n == 1 {
				began := time.Now()
				p.signal(syscall.SIGTERM)
				if status, took := p.wait(), time.Since(began); status != 0 || took > 10*time.Second {
					t.Errorf("exit status %d after %s, want 0 in 10 s at most", status, took)
				} else {
					t.Logf("ended %s after SIGTERM", took)
				}
			}
			word := fmt.Sprintf("%d-%d", round, n)
			pushed := other.pushes(t, policy(word), "--parent", fmt.Sprint(last))
			if last++; pushed.Number != last {
				t.Fatalf("pushed %d, want %d", pushed.Number, last)
			}
			says(t, r.urls[0], word)
		}
		r.serve(t, p)
		eventually(t, "the upgraded process in step", func() error {
			if s := p.status(t); s.Policy.Accepted == nil || s.Policy.Accepted.Number != last {
				return fmt.Errorf("%+v", s.Policy.Accepted)
			}
			return nil
		})
		e.knows(t, 2)
	}
	end()
	if good, bad := stop(); len(bad) > 0 || good == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
	}
	e.zero(t,
		"listener_manager.listener_modified", "listener_manager.listener_removed", "cluster.legation_companion.upstream_cx_connect_fail",
	)
}

// A change that takes away more than half is held back until it is approved, under load.
func TestShrinkingPolicyIsHeldBack(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	up := upstream(t, "app")
	p := newPlane(t, dirOf(t, through(port, up, "a", "b", "c", "d", "e")))
	p.serve(t)
	e := p.envoy(t, "edge")
	answers(t, url)
	stop := load(t, url, http.StatusOK)
	write(t, filepath.Join(p.dir, "policy.yaml"), through(port, up, "a", "b"))
	var out string
	eventually(t, "the refusal in status", func() error {
		var status int
		if out, status = p.client(t, "status"); status != 1 || !strings.Contains(out, "takes away 3 of 5 clusters (edge/c, edge/d, edge/e)") {
			return fmt.Errorf("%d %s", status, out)
		}
		return nil
	})
	answers(t, url+"e")
	if out, status := p.client(t, "push", p.dir); status != 1 || !strings.Contains(out, "serves a directory, which rules") {
		t.Errorf("a push over a directory: %d %s", status, out)
	}
	if out, status := p.client(t, "push", p.dir, "--force"); status != 0 {
		t.Errorf("approved: %d %s", status, out)
	}
	eventually(t, "the clusters to go", func() error {
		if got := e.stat(t, "cluster_manager.cluster_removed"); got != "3" {
			return fmt.Errorf("cluster_removed is %s", got)
		}
		return nil
	})
	if good, bad := stop(); len(bad) > 0 || good == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
	}
}

// refusedByEnvoy is laid over a policy's listener: Legation can't tell that Envoy doesn't take it.
const refusedByEnvoy = `envoy: {filters: [{name: acme.limit, typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency, gradientControllerConfig: {concurrencyLimitParams: {concurrencyUpdateInterval: 1s}, minRttCalcParams: {requestCount: 5}}}}]}`

// What only Envoy refuses is taken back by itself, told with the line, and not sent to anybody again; under load.
func TestPolicyThatEnvoyRefuses(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	good := answering(port, "one")
	bad := strings.Replace(answering(port, "two"), "address: 127.0.0.1", "address: 127.0.0.1, "+refusedByEnvoy, 1)
	p := newPlane(t, "")
	p.child = start(t, binary, p.args("serve")...)
	eventually(t, "the first push", func() error {
		if out, status := p.client(t, "push", dirOf(t, good)); status != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	e := p.envoy(t, "edge")
	says(t, url, "one")
	was := p.status(t).Policy.Revision
	stop := load(t, url, http.StatusOK)
	began := time.Now()
	pushed := p.pushes(t, bad)
	var status app.Status
	eventually(t, "the group rolled back", func() error {
		if status = p.status(t); len(status.Policy.Parked) != 1 || len(status.Nodes) != 1 || status.Nodes[0].Revision != was {
			return fmt.Errorf("parked %+v, nodes %+v", status.Policy.Parked, status.Nodes)
		}
		return nil
	})
	took := time.Since(began)
	if took > 5*time.Second {
		t.Errorf("rolled back %s after the push began, want 5s at most", took)
	}
	t.Logf("rolled back %s after the push began", took)
	parked := status.Policy.Parked[0]
	if parked.Group != "edge" || parked.Revision != pushed.Hash || parked.To != was || parked.Refused != 1 || parked.Of != 1 || len(parked.Reasons) == 0 {
		t.Errorf("got %+v", parked)
	}
	reason := parked.Reasons[0]
	if reason.Type != "listener" || !strings.Contains(reason.Error, "concurrency_update_interval") || !strings.HasPrefix(reason.Origin, "policy.yaml:1:") {
		t.Errorf("got %+v", reason)
	}
	out, code := p.client(t, "status")
	for _, want := range []string{"ROLLED BACK: gateway edge", "1 of 1 Envoys refused", "policy.yaml:1:", "concurrency_update_interval"} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("status %d lacks %q:\n%s", code, want, out)
		}
	}
	if metrics, err := get("http://"+p.admin+"/metrics", ""); err != nil || !strings.Contains(metrics, `legation_control_rollbacks_total{group="edge"} 1`) ||
		!strings.Contains(metrics, `legation_control_parked{group="edge"} 1`) {
		t.Errorf("metrics: %v", err)
	}

	// It stays so for new Envoys, and over a restart of the control plane.
	rejected := e.stat(t, "listener_manager.lds.update_rejected")
	p.kill()
	p.serve(t)
	again := p.status(t).Policy.Parked
	eventually(t, "parked after a restart", func() error {
		if again = p.status(t).Policy.Parked; len(again) != 1 || again[0].To != was {
			return fmt.Errorf("%+v", again)
		}
		return nil
	})
	eventually(t, "the Envoy is back", func() error {
		if n := p.status(t).Nodes; len(n) != 1 || n[0].Revision != was {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	if got := e.stat(t, "listener_manager.lds.update_rejected"); got != rejected {
		t.Errorf("update_rejected: got %s, want %s: it was sent again", got, rejected)
	}
	says(t, url, "one")

	// Another one is tried, and served.
	p.pushes(t, answering(port, "three")) // which ends when the status has it
	says(t, url, "three")
	if parked := p.status(t).Policy.Parked; len(parked) != 0 {
		t.Errorf("still parked: %+v", parked)
	}
	if n, bad := stop(); len(bad) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), n+len(bad), append(bad, "")[0])
	}
}

// Where Envoy is asked first, such a push is refused with Envoy's words at the line.
func TestPushIsValidated(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, "")
	p.child = start(t, binary, p.args("serve", "--validate", "envoy")...)
	eventually(t, "the first push", func() error {
		if out, status := p.client(t, "push", dirOf(t, answering(port, "one"))); status != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	bad := strings.Replace(answering(port, "two"), "address: 127.0.0.1", "address: 127.0.0.1, "+refusedByEnvoy, 1)
	out, status := p.client(t, "push", dirOf(t, bad))
	for _, want := range []string{"policy.yaml:1:", "Envoy refuses this", "concurrency_update_interval", "nothing was changed"} {
		if status != 1 || !strings.Contains(out, want) {
			t.Errorf("status %d, want it to say %q:\n%s", status, want, out)
		}
	}
	if s := p.status(t); s.Policy.Accepted == nil || s.Policy.Accepted.Number != 1 {
		t.Errorf("got %+v", s.Policy.Accepted)
	}
}

// A control plane whose directory is gone serves what it served, without a drain.
func TestStartWithoutTheDirectory(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	p := newPlane(t, dirOf(t, answering(port, "one")))
	p.serve(t)
	e := p.envoy(t, "edge")
	says(t, url, "one")
	versions := versionsOf(p.status(t))
	p.kill()
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	p.serve(t)
	eventually(t, "the same versions", func() error {
		s := p.status(t)
		if got := versionsOf(s); !slices.Equal(got, versions) || s.Policy.Error == "" {
			return fmt.Errorf("got %v, error %q", got, s.Policy.Error)
		}
		return nil
	})
	says(t, url, "one")
	if got := e.stat(t, "listener_manager.listener_modified"); got != "0" {
		t.Errorf("listener_modified: got %s, want 0", got)
	}
}

// A rollback over a directory holds until the directory changes.
func TestRollbackOverADirectory(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	p := newPlane(t, dirOf(t, answering(port, "one")))
	p.serve(t)
	p.envoy(t, "edge")
	says(t, url, "one")
	write(t, filepath.Join(p.dir, "policy.yaml"), answering(port, "two"))
	says(t, url, "two")
	if out, status := p.client(t, "rollback", "1", "-m", "two is wrong"); status != 0 || !strings.Contains(out, "holds until the directory changes") {
		t.Errorf("%d %s", status, out)
	}
	says(t, url, "one")
	if out, _ := p.client(t, "status"); !strings.Contains(out, "pinned: a rollback, which holds until the directory changes") || !strings.Contains(out, "back to 1: two is wrong") {
		t.Errorf("status:\n%s", out)
	}
	p.kill()
	p.serve(t)
	says(t, url, "one")
	write(t, filepath.Join(p.dir, "policy.yaml"), answering(port, "three"))
	says(t, url, "three")
	eventually(t, "the fourth revision, not pinned", func() error { // Envoys have it before the status says so
		if s := p.status(t); s.Policy.Pinned || s.Policy.Accepted == nil || s.Policy.Accepted.Number != 4 {
			return fmt.Errorf("got %+v", s.Policy.Accepted)
		}
		return nil
	})
}
