package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/legation/legation/app"
)

// fullLoad is four workers over HTTP/1.1 and one over HTTP/2; what it gives ends it, and fails the test where a request failed.
func fullLoad(t *testing.T, url string) (end func()) {
	t.Helper()
	first, second := load(t, url, http.StatusOK), loadBy(t, priorHTTP2(), url, http.StatusOK)
	return func() {
		t.Helper()
		for _, stop := range []func() (int, []string){first, second} {
			if good, bad := stop(); len(bad) > 0 || good == 0 {
				t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
			}
		}
	}
}

// untouched fails where an Envoy was told to change something, or has asked a connection to end.
func (e *envoyChild) untouched(t *testing.T) {
	t.Helper()
	e.zero(t,
		"listener_manager.listener_modified", "listener_manager.listener_removed", "cluster_manager.cluster_modified",
		"cluster_manager.cluster_removed", "http.http.downstream_cx_drain_close",
	)
}

// A process that is killed and started again over the same directory, or one that went wrong meanwhile in any way, serves what
// it served: its Envoy is back within 6 s, is sent nothing, drains nothing, and no request fails.
func TestKilledOverAnyDirectory(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	p := newPlane(t, filepath.Join(t.TempDir(), "policy"))
	file, routes := filepath.Join(p.dir, "policy.yaml"), filepath.Join(p.dir, "routes.yaml")
	gateway, whole, _ := strings.Cut(answering(port, "one", "two", "three"), "routes:")
	whole = "routes:" + whole
	good := func() {
		must(t, os.RemoveAll(p.dir))
		write(t, file, gateway)
		write(t, routes, whole)
	}
	good()
	p.serve(t)
	e := p.envoy(t, "edge")
	says(t, url, "one")
	inStep := func(s app.Status) bool { return len(s.Nodes) == 1 && s.Nodes[0].Revision == s.Policy.Revision }
	eventually(t, "the Envoy in step", func() error {
		if s := p.status(t); !inStep(s) {
			return fmt.Errorf("%+v", s.Nodes)
		}
		return nil
	})
	versions := versionsOf(p.status(t))
	for name, harm := range map[string]func(){
		"the same":           good,
		"missing":            func() { must(t, os.RemoveAll(p.dir)) },
		"empty":              func() { must(t, os.RemoveAll(p.dir)); must(t, os.Mkdir(p.dir, 0o755)) },
		"emptied":            func() { write(t, routes, "") },
		"unreadable":         func() { must(t, os.Remove(routes)); must(t, os.Symlink("nowhere", routes)) },
		"still being copied": func() { must(t, os.Remove(routes)); write(t, routes, whole[:len(whole)-30]) },
		"half of the files":  func() { must(t, os.Remove(file)) },
	} {
		good()
		end := fullLoad(t, url)
		p.kill()
		harm()
		began := time.Now()
		p.child = start(t, binary, p.args("serve")...)
		p.awaitReady(t)
		var s app.Status
		eventually(t, name+": the same versions", func() error {
			if s = p.status(t); !slices.Equal(versionsOf(s), versions) {
				return fmt.Errorf("got %v, want %v", versionsOf(s), versions)
			}
			return nil
		})
		if took := s.Nodes[0].Connected.Sub(began); took > 6*time.Second {
			t.Errorf("%s: the Envoy was back after %s, want 6s at most", name, took)
		}
		end()
		e.untouched(t)
	}
	for path, word := range map[string]string{"": "one", "1": "two", "2": "three"} {
		says(t, url+path, word)
	}
}

// The Envoy that a killed run leaves behind goes on, and the next run takes it up; no request fails.
func TestKilledRunUnderLoad(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	p.child = start(t, binary, p.args("run")...)
	p.says(0, "ready:")
	answers(t, url)
	before := envoyPID(t, p)
	end := fullLoad(t, url)
	p.kill()
	for range 50 { // the load goes on while nothing of ours runs
		mustRequest(t, "GET", url)
	}
	p.child = start(t, binary, p.args("run")...)
	p.says(0, "ready:")
	end()
	if got := envoyPID(t, p); got != before {
		t.Errorf("got the Envoy with pid %d, want %d adopted", got, before)
	}
	(&envoyChild{admin: p.envoyAdmin}).untouched(t)
}

// A process that is told to stop is not ready from then on, answers what it was asked, and ends in time; what its Envoys do
// without it goes on, also with auth: there is another companion.
func TestStopTellsAtOnce(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	p := newPlane(t, dirOf(t, withCallouts(t, answering(port, "one"), upstream(t, "app"))))
	other := newPlane(t, p.dir)
	p.serve(t)
	other.serve(t)
	e := p.envoyUnready(t, "edge", "--companion", other.companion)
	answers(t, url+"counted")
	ends := []func(){fullLoad(t, url), calloutLoad(t, url)}
	began := time.Now()
	p.signal(syscall.SIGTERM)
	eventually(t, "not ready", func() error {
		if a, err := request("GET", "http://"+p.admin+"/readyz"); err == nil && a.status == http.StatusOK {
			return fmt.Errorf("still ready")
		}
		return nil
	})
	t.Logf("not ready %s after the signal", time.Since(began))
	if status := p.wait(); status != 0 {
		t.Errorf("exit status: got %d, want 0", status)
	}
	took := time.Since(began)
	if t.Logf("ended %s after it", took); took > 10*time.Second {
		t.Errorf("took %v to stop, want at most 10 s", took)
	}
	for _, end := range ends {
		end()
	}
	e.untouched(t)
}

// withCallouts is a policy with two routes more: /private is for those who have a token, and fails where no companion answers;
// /counted has a limit, which a stalled Redis doesn't fail.
func withCallouts(t *testing.T, policy, upstream string) string {
	t.Helper()
	keys, err := os.ReadFile("../examples/quickstart/test-keys.json")
	must(t, err)
	var line bytes.Buffer
	must(t, json.Compact(&line, keys))
	return policy + fmt.Sprintf(`---
auth: {demo: {jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: %s}}}
services: {app: {endpoints: [%q]}}
routes:
  private: {hostnames: [localhost], match: {path: /private}, auth: [demo], backends: {app: 1}}
  counted: {hostnames: [localhost], match: {path: /counted}, rateLimit: {rate: 1000000/day, by: ip}, backends: {app: 1}}
`, &line, upstream)
}

// calloutLoad is load on the routes of withCallouts, by a token; what it gives ends it, and fails the test where a request failed.
func calloutLoad(t *testing.T, url string) (end func()) {
	t.Helper()
	stops := []func() (int, []string){
		load(t, url+"private", http.StatusOK, "Authorization", "Bearer "+token(t, "alice")),
		load(t, url+"counted", http.StatusOK),
	}
	return func() {
		t.Helper()
		for _, stop := range stops {
			good, bad := stop()
			if t.Logf("%d answered that take a companion", good); len(bad) > 0 || good == 0 {
				t.Errorf("with a companion %d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
			}
		}
	}
}

// knows waits until so many companions are well, as the Envoy sees it.
func (e *envoyChild) knows(t *testing.T, companions int) {
	t.Helper()
	eventually(t, "companions that are well", func() error {
		got, err := e.lookUp("cluster.legation_companion.membership_healthy")
		if err == nil && got != fmt.Sprint(companions) {
			err = fmt.Errorf("%s of them, want %d", got, companions)
		}
		return err
	})
}

// An Envoy whose companion was killed tries it no more with calls, also once its ejection has ended, and goes back to it by
// itself.
func TestKilledCompanion(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	a := newPlane(t, dirOf(t, withCallouts(t, answering(port, "one"), upstream(t, "app"))))
	b := newPlane(t, a.dir)
	a.serve(t)
	b.serve(t)
	e := a.envoyUnready(t, "edge", "--xds", b.xds, "--companion", strings.Replace(b.companion, "127.0.0.1", "localhost", 1))
	answers(t, url+"counted")
	e.knows(t, 2)
	a.kill()
	e.knows(t, 1)
	eventually(t, "the health check to fail", func() error {
		got, err := e.lookUp("cluster.legation_companion.health_check.healthy")
		if err == nil && got != "1" {
			err = fmt.Errorf("%s are well", got)
		}
		return err
	})
	eventually(t, "no ejection any more", func() error {
		got, err := e.lookUp("cluster.legation_companion.outlier_detection.ejections_active")
		if err == nil && got != "0" {
			err = fmt.Errorf("%s are ejected", got)
		}
		return err
	})
	alice := token(t, "alice")
	for range 50 {
		if a := mustRequest(t, "GET", url+"private", "Authorization", "Bearer "+alice); a.status != http.StatusOK {
			t.Fatalf("status %d: %s", a.status, a.body)
		}
	}
	a.serve(t)
	e.knows(t, 2)
}

// Files that are written bit by bit, in each of the ways in which that is done: the last route is there at every time, none is
// refused meanwhile, and the new policy is live within a second of the last byte.
func TestHalfWrittenFilesUnderLoad(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	url := fmt.Sprintf("http://localhost:%d/", port)
	folder := t.TempDir()
	current := filepath.Join(folder, "current")
	side := func(name, word string) string {
		dir := filepath.Join(folder, name)
		must(t, os.RemoveAll(dir))
		for file, text := range parts(port, word) {
			write(t, filepath.Join(dir, file), text)
		}
		return dir
	}
	must(t, os.Symlink(side("first", "begin"), current))
	p := newPlane(t, current)
	p.serve(t)
	e := p.envoy(t, "edge")
	says(t, url, "begin")
	says(t, url+"last", "stays")
	ends := []func(){fullLoad(t, url), fullLoad(t, url+"last")}
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for _, row := range []struct {
		word  string
		write func(word string)
	}{
		{"steps", func(word string) {
			f, err := os.Create(filepath.Join(current, "routes.yaml"))
			must(t, err)
			for piece := range slices.Chunk([]byte(parts(port, word)["routes.yaml"]), 10) {
				<-pace.C
				_, err := f.Write(piece)
				must(t, err)
			}
			must(t, f.Close())
		}},
		{"truncated", func(word string) {
			name := filepath.Join(current, "routes.yaml")
			must(t, os.Truncate(name, 0))
			<-pace.C
			must(t, os.WriteFile(name, []byte(parts(port, word)["routes.yaml"]), 0o644))
		}},
		{"renamed", func(word string) { write(t, filepath.Join(current, "routes.yaml"), parts(port, word)["routes.yaml"]) }},
		{"swapped", func(word string) {
			must(t, os.Symlink(side("second", word), current+".new"))
			must(t, os.Rename(current+".new", current))
		}},
		{"copied", func(word string) {
			for _, name := range []string{"last.yaml", "routes.yaml", "gateway.yaml"} {
				must(t, os.Remove(filepath.Join(current, name)))
			}
			for _, name := range []string{"gateway.yaml", "routes.yaml", "last.yaml"} {
				<-pace.C
				must(t, os.WriteFile(filepath.Join(current, name), []byte(parts(port, word)[name]), 0o644))
			}
		}},
	} {
		row.write(row.word)
		took := says(t, url, row.word)
		if t.Logf("%s: live %s after the last byte", row.word, took); took > time.Second {
			t.Errorf("%s: live %s after the last byte, want 1s at most", row.word, took)
		}
	}
	for _, end := range ends {
		end()
	}
	e.untouched(t)
}

// parts is a policy in three files, of which each is needed.
func parts(port int, word string) map[string]string {
	return map[string]string{
		"gateway.yaml": fmt.Sprintf("gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1}}}}\n", port),
		"routes.yaml": fmt.Sprintf("routes:\n  first:\n    hostnames: [localhost]\n    directResponse: {status: 200, body: %s}\n"+
			"  second:\n    hostnames: [localhost]\n    match: {path: /second}\n    directResponse: {status: 200, body: second}\n", word),
		"last.yaml": "routes: {last: {hostnames: [localhost], match: {path: /last}, directResponse: {status: 200, body: stays}}}\n",
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
