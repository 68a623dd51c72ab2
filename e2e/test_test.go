package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// legation test runs cases on the real Envoy, and Ctrl-C ends it with nothing left running.
func TestTestEnds(t *testing.T) {
	done := start(t, binary, "test", "../examples/quickstart", "--cover", "100")
	if status, got := done.wait(), done.out.String(); status != 0 || !strings.Contains(got, "2 of 2 routes reached") {
		t.Errorf("status %d: %s", status, got)
	}

	dir := t.TempDir()
	writeSlow(t, dir)
	slow, envoys := slowly(t, dir)
	slow.signal(syscall.SIGINT)
	if status, got := slow.wait(), slow.out.String(); status != 1 || !strings.Contains(got, "legation: interrupted") {
		t.Errorf("status %d: %s", status, got)
	}
	for _, pid := range envoys {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("the Envoy %s still runs", pid)
		}
	}
}

// writeSlow writes a policy, and cases of which the second waits.
func writeSlow(t *testing.T, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "policy.yaml"), `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {web: {endpoints: ["10.0.0.1:80"]}}
routes: {web: {hostnames: [a.test], backends: {web: 1}, timeouts: {request: 55s}}}
`)
	write(t, filepath.Join(dir, "policy_test.yaml"), `
cases:
  at once: {request: GET http://a.test:10000/, expect: {status: 200}}
  slow: {upstreams: {web: {delay: 50s}}, request: GET http://a.test:10000/, expect: {status: 200}}
  never: {request: GET http://a.test:10000/, expect: {status: 200}}
`)
}

// An Envoy that dies is told, and ends the run.
func TestTestLosesEnvoy(t *testing.T) {
	dir := t.TempDir()
	writeSlow(t, dir)
	slow, envoys := slowly(t, dir)
	for _, text := range envoys {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if status, got := slow.wait(), slow.out.String(); status != 1 || !strings.Contains(got, "ended: signal: killed") || strings.Contains(got, "never") {
		t.Errorf("status %d: %s", status, got)
	}
}

// slowly runs cases until the slow one, and gives the Envoys that it has started.
func slowly(t *testing.T, dir string) (*child, []string) {
	t.Helper()
	slow := start(t, binary, "test", dir)
	slow.says(0, "at once")
	envoys := childrenOf(t, slow.cmd.Process.Pid)
	if len(envoys) == 0 {
		t.Fatal("there is no Envoy")
	}
	return slow, envoys
}

func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	var all []string
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Skip(err)
	}
	for _, task := range tasks {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			t.Skip(err)
		}
		all = append(all, strings.Fields(string(children))...)
	}
	return all
}
