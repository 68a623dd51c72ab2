package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// asking is an Envoy that notes each question in a file.
func asking(t *testing.T) (path string, questions func() int) {
	t.Helper()
	dir := t.TempDir()
	path, log := filepath.Join(dir, "envoy"), filepath.Join(dir, "asked")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *validate*) echo asked >> %s;; esac\nexec %s \"$@\"\n", log, proxy)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, func() int {
		text, _ := os.ReadFile(log)
		return strings.Count(string(text), "asked")
	}
}

// What only Envoy refuses is kept back before any Envoy hears of it, the rest of the change is served, and a directory that
// rests is not asked about.
func TestEnvoyIsAskedBeforeItIsServed(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	app := upstream(t, "app")
	edge := func(id string) string {
		return fmt.Sprintf(`gateways:
  edge:
    listeners:
      http:
        port: %d
        address: 127.0.0.1
        envoy:
          filters:
            - name: cdn
              typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.cdn_loop.v3.CdnLoopConfig, cdnId: %q}
`, port, id)
	}
	good := func(edit int) string {
		return fmt.Sprintf(`services: {app: {endpoints: [%q]}}
routes: {app: {hostnames: [app.test], backends: {app: 1}, headers: {response: {set: {x-edit: "%d"}}}}}
`, app, edit)
	}
	p := newPlane(t, policyDir(t, edge("one")))
	write(t, filepath.Join(p.dir, "app.yaml"), good(0))
	binary, asked := asking(t)
	p.serve(t, "--validate", "envoy", "--envoy", binary)
	e := p.envoy(t, "edge")
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	eventually(t, "the first policy", func() error { return showsEdit(url, 0) })
	stop := load(t, url, http.StatusOK, "Host", "app.test")

	write(t, filepath.Join(p.dir, "policy.yaml"), edge("a b, c"))
	write(t, filepath.Join(p.dir, "app.yaml"), good(1))
	eventually(t, "the rest of the change", func() error { return showsEdit(url, 1) })
	out, status := legation(t, "status", "--server", "http://"+p.admin)
	if status != 1 || !strings.Contains(out, "policy.yaml:7:9") || !strings.Contains(out, "Envoy refuses this") || strings.Contains(out, "NACK") {
		t.Errorf("status %d:\n%s", status, out)
	}
	questions := asked()
	for range 2 { // the directory is looked at, and is as it was
		write(t, filepath.Join(p.dir, "policy.yaml"), edge("a b, c"))
		read := p.status(t).Policy.Read
		eventually(t, "a look at the directory", func() error {
			if !p.status(t).Policy.Read.After(read) {
				return fmt.Errorf("read at %s", read)
			}
			return nil
		})
	}
	if got := asked(); got != questions {
		t.Errorf("asked %d times more about a directory that rests", got-questions)
	}
	if got := e.stat(t, "listener_manager.listener_modified"); got != "0" {
		t.Errorf("listener_modified: got %s, want 0", got)
	}

	write(t, filepath.Join(p.dir, "policy.yaml"), edge("two"))
	eventually(t, "the mended file", func() error {
		if s := p.status(t).Policy; len(s.Problems) > 0 || s.Error != "" {
			return fmt.Errorf("%v %s", s.Problems, s.Error)
		}
		return nil
	})
	eventually(t, "the listener", func() error {
		if n, err := e.lookUp("listener_manager.listener_modified"); err != nil || n != "1" {
			return fmt.Errorf("%s modified, %v", n, err)
		}
		return nil
	})
	if good, bad := stop(); len(bad) > 0 || good == 0 {
		t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
	}
	if got := e.stat(t, "listener_manager.lds.update_rejected"); got != "0" {
		t.Errorf("update_rejected: got %s, want 0", got)
	}
	if a := mustRequest(t, "GET", "http://"+p.admin+"/metrics"); !strings.Contains(a.body, `legation_control_validations_total{result="refused"}`) {
		t.Error("the metrics do not tell")
	}
}

// An Envoy that can't be asked is told of at once, with the setting that asks for it.
func TestEnvoyThatCantBeAskedIsToldAtTheStart(t *testing.T) {
	t.Parallel()
	sick := filepath.Join(t.TempDir(), "envoy")
	script := "#!/bin/sh\ncase \"$*\" in --version) exec " + proxy + " --version;; esac\necho no room left >&2\nexit 1\n"
	if err := os.WriteFile(sick, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for binary, want := range map[string]string{"/nowhere/envoy": "/nowhere/envoy", sick: "no room left"} {
		p := newPlane(t, policyDir(t, "gateways: {edge: {listeners: {http: {port: 1}}}}\n"))
		out, status := legation(t, p.args("serve", "--validate", "envoy", "--envoy", binary)...)
		if status != 2 || !strings.Contains(out, "--validate envoy") || !strings.Contains(out, want) {
			t.Errorf("status %d, %s", status, out)
		}
	}
}
