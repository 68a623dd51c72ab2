package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/app"
)

// staging is a control plane, and Envoys of one gateway, by their names.
type staging struct {
	*plane
	envoys map[string]*envoyChild
	port   int
}

// byStages is a policy that goes to one Envoy first, and answers with this word.
func (s *staging) byStages(word, hold string) string {
	return strings.Replace(answering(s.port, word), "{edge: {", "{edge: {delivery: {canary: 1, hold: "+hold+"}, ", 1)
}

func newStaging(t *testing.T, names ...string) *staging {
	t.Helper()
	s := &staging{plane: newPlane(t, ""), envoys: map[string]*envoyChild{}, port: ports(t, 1)[0]}
	s.child = start(t, binary, s.args("serve")...)
	eventually(t, "the first push", func() error {
		if out, status := s.client(t, "push", dirOf(t, s.byStages("one", "1s"))); status != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	for _, name := range names {
		s.envoys[name] = s.envoyUnready(t, "edge", "--node", name)
	}
	s.eventually(t, "all Envoys in step", func(now app.Status) error {
		if got := s.saying(t, "one"); len(got) != len(names) || len(now.Policy.Staged) != 0 {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
	return s
}

func (s *staging) url() string { return fmt.Sprintf("http://localhost:%d/", s.port) }

// eventually waits for what the status tells.
func (s *staging) eventually(t *testing.T, what string, try func(app.Status) error) time.Duration {
	t.Helper()
	return eventually(t, what, func() error { return try(s.status(t)) })
}

// saying is the Envoys whose routes answer with this word, by their own account.
func (s *staging) saying(t *testing.T, word string) (names []string) {
	t.Helper()
	for name, e := range s.envoys {
		body, err := get("http://"+e.admin+"/config_dump?resource=dynamic_route_configs", "")
		if err == nil && strings.Contains(body, `"inline_string": "`+word+`"`) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// canary is the Envoy that has something first, once it has it.
func (s *staging) canary(t *testing.T) (name string, took time.Duration) {
	t.Helper()
	took = s.eventually(t, "a canary that holds it", func(now app.Status) error {
		if len(now.Policy.Staged) != 1 || len(now.Policy.Staged[0].Canaries) != 1 || now.Policy.Staged[0].Canaries[0].Since.IsZero() {
			return fmt.Errorf("staged %+v, parked %+v", now.Policy.Staged, now.Policy.Parked)
		}
		name = now.Policy.Staged[0].Canaries[0].Node
		return nil
	})
	return name, took
}

// A policy goes to one Envoy of three first and then to all, also when the control plane is killed meanwhile; what that one
// refuses the others have never seen. No request fails.
func TestFirstToSomeEnvoys(t *testing.T) {
	t.Parallel()
	s := newStaging(t, "edge-a", "edge-b", "edge-c")
	stop := load(t, s.url(), http.StatusOK)

	began := time.Now()
	pushed := s.pushes(t, s.byStages("two", "5s"))
	if len(pushed.Staged) != 1 || pushed.Staged[0].Of != 3 || len(pushed.Staged[0].Canaries) != 1 {
		t.Errorf("the push says %+v, want one of three Envoys", pushed.Staged)
	}
	eventually(t, "one Envoy has it", func() error {
		if got := s.saying(t, "two"); len(got) != 1 {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
	t.Logf("the canary had it %s after the push began", time.Since(began))
	canary, _ := s.canary(t)
	if got := s.saying(t, "two"); !slices.Equal(got, []string{canary}) {
		t.Errorf("%v have it, want %s alone", got, canary)
	}
	out, _ := s.client(t, "status")
	for _, want := range []string{"goes to 1 of 3 Envoys of edge first", canary + ": holds it for", "of 5s"} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
	eventually(t, "all have it", func() error {
		switch got := s.saying(t, "two"); {
		case len(got) > 1 && time.Since(began) < 5*time.Second:
			t.Fatalf("%v have it %s after the push", got, time.Since(began))
		case len(got) < 3:
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
	took := time.Since(began)
	if t.Logf("all had it %s after the push began, of which 5s were held", took); took > 10*time.Second {
		t.Error("want 10s at most")
	}

	// What the canary refuses.
	bad := strings.Replace(s.byStages("bad", "5s"), "address: 127.0.0.1", "address: 127.0.0.1, "+refusedByEnvoy, 1)
	began = time.Now()
	out, status := s.client(t, "push", dirOf(t, bad), "--wait")
	took = time.Since(began)
	if t.Logf("rolled back and told %s after the push began", took); took > 5*time.Second || status != 1 {
		t.Errorf("status %d after %s, want 1 within 5s", status, took)
	}
	for _, want := range []string{"staged: to 1 of 3 Envoys of edge", "ROLLED BACK: gateway edge", "1 of 1 Envoys that had", "policy.yaml:1:", "concurrency_update_interval"} {
		if !strings.Contains(out, want) {
			t.Errorf("push --wait lacks %q:\n%s", want, out)
		}
	}
	refused := 0
	eventually(t, "all at the policy before", func() error {
		if got := s.saying(t, "two"); len(got) != 3 {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
	for _, e := range s.envoys {
		if e.stat(t, "listener_manager.lds.update_rejected") != "0" {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d Envoys refused it, want the canary alone to have seen it", refused)
	}

	// The control plane is killed during the hold.
	s.pushes(t, s.byStages("three", "8s"))
	canary, _ = s.canary(t)
	s.kill()
	s.serve(t)
	began = time.Now()
	again, _ := s.canary(t)
	if got := s.saying(t, "three"); again != canary || !slices.Equal(got, []string{canary}) {
		t.Errorf("after the restart %s is the canary, and %v have it; want %s", again, got, canary)
	}
	if out, status := s.client(t, "push", dirOf(t, s.byStages("three", "8s")), "--wait"); status != 0 || !strings.Contains(out, "all Envoys get it") {
		t.Errorf("push --wait: %d %s", status, out)
	}
	if held := time.Since(began); held < 7*time.Second {
		t.Errorf("held %s after the restart, want a hold of 8s anew", held)
	}
	eventually(t, "all have the third", func() error {
		if got := s.saying(t, "three"); len(got) != 3 {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
	if n, bad := stop(); len(bad) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), n+len(bad), append(bad, "")[0])
	}
}

// A canary that is killed takes the policy back with it.
func TestCanaryIsKilled(t *testing.T) {
	t.Parallel()
	s := newStaging(t, "edge-a", "edge-b", "edge-c")
	s.pushes(t, s.byStages("two", "1m"))
	canary, _ := s.canary(t)
	s.envoys[canary].kill()
	delete(s.envoys, canary)
	took := s.eventually(t, "the group rolled back", func(now app.Status) error {
		if len(now.Policy.Parked) != 1 {
			return fmt.Errorf("staged %+v", now.Policy.Staged)
		}
		return nil
	})
	if t.Logf("rolled back %s after it was killed", took); took < 14*time.Second || took > 20*time.Second {
		t.Error("want some 15s")
	}
	out, status := s.client(t, "status")
	for _, want := range []string{"ROLLED BACK: gateway edge", "policy.yaml:1:19: " + canary + " left ", "and did not come back"} {
		if status != 1 || !strings.Contains(out, want) {
			t.Errorf("status %d lacks %q:\n%s", status, want, out)
		}
	}
	s.envoys["edge-d"] = s.envoyUnready(t, "edge", "--node", "edge-d")
	eventually(t, "all at the policy before", func() error {
		if got := s.saying(t, "one"); len(got) != 3 {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
}

// newStagings is two processes on one Redis, each with two Envoys of one gateway, at these ports.
func newStagings(t *testing.T, port, redisPort int) (both []*staging, redis *child) {
	t.Helper()
	redis = redisAt(t, redisPort)
	for _, prefix := range []string{"edge-a", "edge-b"} {
		s := &staging{plane: newPlane(t, ""), envoys: map[string]*envoyChild{}, port: port}
		s.child = start(t, binary, s.args("serve", "--redis", fmt.Sprintf("redis://127.0.0.1:%d", redisPort), "--redis-timeout", "100ms")...)
		for n := range 2 {
			name := fmt.Sprint(prefix, n)
			s.envoys[name] = s.envoyUnready(t, "edge", "--node", name)
		}
		both = append(both, s)
	}
	return both, redis
}

// Two processes on one Redis have one canary together, end the stage together, and what the canary of one refuses both
// park. While Redis is gone nothing goes on.
func TestFirstToSomeOfSeveralProcesses(t *testing.T) {
	t.Parallel()
	ask := ports(t, 2)
	both, redis := newStagings(t, ask[0], ask[1])
	a, b := both[0], both[1]
	eventually(t, "the first push", func() error {
		if out, status := a.client(t, "push", dirOf(t, a.byStages("one", "4s")), "--parent", "none"); status != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	saying := func(word string) []string { return append(a.saying(t, word), b.saying(t, word)...) }
	have := func(word string, n int) time.Duration {
		t.Helper()
		return eventually(t, fmt.Sprintf("%d Envoys that say %s", n, word), func() error {
			if got := saying(word); len(got) != n {
				return fmt.Errorf("got %v", got)
			}
			return nil
		})
	}
	together := func(what string, try func(app.Status) error) {
		t.Helper()
		for _, s := range both {
			s.eventually(t, what, try)
		}
	}
	have("one", 4)
	together("all in step", func(now app.Status) error {
		if len(now.Policy.Staged) > 0 || len(now.Nodes) != 2 || now.Nodes[0].Revision != now.Policy.Revision || now.Nodes[1].Revision != now.Policy.Revision {
			return fmt.Errorf("%+v", now.Nodes)
		}
		return nil
	})

	began := time.Now()
	a.pushes(t, a.byStages("two", "4s"))
	have("two", 1)
	one, _ := a.canary(t)
	if other, _ := b.canary(t); other != one {
		t.Errorf("%s and %s are canaries, want one", one, other)
	}
	together("how many there are", func(now app.Status) error {
		if len(now.Policy.Staged) == 1 && now.Policy.Staged[0].Of != 4 {
			return fmt.Errorf("got %+v, want one of 4", now.Policy.Staged)
		}
		return nil
	})
	have("two", 4)
	took := time.Since(began)
	if t.Logf("all had it %s after the push began, of which 4s were held", took); took < 4*time.Second || took > 9*time.Second {
		t.Error("want 4s to 9s")
	}

	a.pushes(t, a.byStages("three", "4s"))
	have("three", 1)
	a.canary(t)
	redis.kill()
	if out, status := a.client(t, "push", dirOf(t, a.byStages("three", "4s")), "--parent", "3"); status == 0 {
		t.Errorf("pushed without Redis: %s", out)
	}
	began = time.Now()
	eventually(t, "8s without Redis", func() error {
		if got := saying("three"); len(got) != 1 {
			t.Fatalf("%v have it, want the others to wait", got)
		}
		if time.Since(began) < 8*time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	redisAt(t, ask[1])
	t.Logf("all had it %s after Redis was back", have("three", 4))

	bad := strings.Replace(a.byStages("bad", "4s"), "address: 127.0.0.1", "address: 127.0.0.1, "+refusedByEnvoy, 1)
	began = time.Now()
	eventually(t, "a push that is refused", func() error {
		if out, status := a.client(t, "push", dirOf(t, bad)); status != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	together("both rolled back", func(now app.Status) error {
		if len(now.Policy.Parked) != 1 || !strings.HasPrefix(now.Policy.Parked[0].Reasons[0].Origin, "policy.yaml:1:") {
			return fmt.Errorf("%+v", now.Policy.Parked)
		}
		return nil
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("rolled back after %s, want 5s at most", took)
	}
	have("three", 4)
}
