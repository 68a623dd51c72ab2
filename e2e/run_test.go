package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// example copies an example with other ports, and returns its directory and Envoy's port.
func example(t *testing.T, name string) (dir string, port int) {
	t.Helper()
	n := ports(t, 3)
	swap := strings.NewReplacer("10000", strconv.Itoa(n[0]), "127.0.0.1:9001", local(n[1]), "127.0.0.1:9002", local(n[2]))
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../examples/"+name)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no policy files in %s: %v", name, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, swap.Replace(string(text)))
	}
	return dir, n[0]
}

// runQuickstart runs it until it says that it is ready.
func runQuickstart(t *testing.T) (p *plane, base string) {
	t.Helper()
	dir, port := example(t, "quickstart")
	p = newPlane(t, dir)
	p.child = start(t, binary, p.args("run")...)
	p.says(0, "ready:")
	return p, fmt.Sprintf("http://localhost:%d", port)
}

func TestQuickstart(t *testing.T) {
	t.Parallel()
	p, base := runQuickstart(t)
	p.says(0, "curl -i "+base+"/orders")

	if a := mustRequest(t, "GET", base+"/"); a.status != http.StatusOK {
		t.Errorf("GET /: got %d %s, want 200", a.status, a.body)
	}
	a := mustRequest(t, "GET", base+"/orders")
	if a.status != http.StatusUnauthorized || !strings.HasPrefix(a.header.Get("Www-Authenticate"), "Bearer") {
		t.Errorf("GET /orders without a token: got %d %v, want 401 with WWW-Authenticate", a.status, a.header)
	}
	bob := "Bearer " + token(t, "bob")
	eventually(t, "some seconds before the minute ends", func() error {
		reset := mustRequest(t, "GET", base+"/orders", "Authorization", bob).header.Get("Ratelimit-Reset")
		if seconds, err := strconv.Atoi(reset); err != nil || seconds < 5 {
			return fmt.Errorf("the window ends in %q s", reset)
		}
		return nil
	})
	alice := "Bearer " + token(t, "alice")
	for i := range 10 {
		a := mustRequest(t, "GET", base+"/orders", "Authorization", alice)
		if a.status != http.StatusOK || a.header.Get("Ratelimit-Limit") == "" {
			t.Fatalf("request %d of alice: got %d %v %s, want 200 with rate limit headers", i, a.status, a.header, a.body)
		}
		if service := a.header.Get("X-Service"); service != "orders-v1" && service != "orders-v2" {
			t.Errorf("answered by %q, want orders-v1 or orders-v2", service)
		}
	}
	a = mustRequest(t, "GET", base+"/orders", "Authorization", alice)
	if a.status != http.StatusTooManyRequests {
		t.Fatalf("the eleventh request: got %d, want 429", a.status)
	}
	if wait, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 {
		t.Errorf("Retry-After: got %q, want 1 to 60 seconds", a.header.Get("Retry-After"))
	}
	for name, want := range map[string]string{"Ratelimit-Limit": "10", "Ratelimit-Remaining": "0"} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if a := mustRequest(t, "GET", base+"/orders", "Authorization", "Bearer "+token(t, "carol")); a.status != http.StatusOK {
		t.Errorf("carol has a limit of his own: got %d, want 200", a.status)
	}
	p.signal(syscall.SIGINT)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status after Ctrl-C: got %d, want 0\n%s", status, p.out)
	}
	for _, address := range []string{p.xds, p.companion, p.admin, p.envoyAdmin, strings.TrimPrefix(base, "http://")} {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Errorf("%s still answers after the end", address)
		}
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	_, base := runQuickstart(t)
	count := map[string]int{}
	for i := range 30 {
		bearer := "Bearer " + token(t, fmt.Sprintf("user-%d", i))
		for range 10 {
			a := mustRequest(t, "GET", base+"/orders", "Authorization", bearer)
			count[a.header.Get("X-Service")]++
		}
	}
	// 300 draws at 10 %: 30 expected, and less than one run in ten million is outside 8 to 70.
	if v2 := count["orders-v2"]; count["orders-v1"]+v2 != 300 || v2 < 8 || v2 > 70 {
		t.Errorf("got %v of 300, want about 270 orders-v1 and 30 orders-v2", count)
	}
}

func TestHotReload(t *testing.T) {
	t.Parallel()
	p, base := runQuickstart(t)
	extra := filepath.Join(p.dir, "extra.yaml")
	route := func(path string) string {
		return fmt.Sprintf("routes:\n  extra:\n    hostnames: [localhost]\n    match: {path: %s}\n    backends: {orders-v1: 1}\n"+
			"    headers: {response: {set: {x-extra: \"%s\"}}}\n", path, path)
	}
	shown := func(path string) func() error {
		return func() error {
			a, err := request("GET", base+path)
			if err == nil && a.header.Get("X-Extra") != path {
				err = fmt.Errorf("%s: status %d, x-extra %q", path, a.status, a.header.Get("X-Extra"))
			}
			return err
		}
	}
	write(t, extra, route("/one"))
	t.Logf("a new file was live after %v", eventually(t, "new route", shown("/one")))

	mark := len(p.out.String())
	write(t, extra, strings.Replace(route("/two"), "backends", "backend", 1))
	p.says(mark, "extra.yaml:5:5")
	out := p.out.String()[mark:]
	for _, want := range []string{"    backend: {orders-v1: 1}", "    ^", "backends"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report of the broken edit lacks %q:\n%s", want, out)
		}
	}
	if err := shown("/one")(); err != nil {
		t.Errorf("after a broken edit what was live has changed: %v", err)
	}
	write(t, extra, route("/two"))
	t.Logf("the mended file was live after %v", eventually(t, "mended route", shown("/two")))
}

func TestRunAdoptsTheEnvoyOfAKilledRun(t *testing.T) {
	t.Parallel()
	p, base := runQuickstart(t)
	before := envoyPID(t, p)
	p.kill()
	if got := envoyPID(t, p); got != before {
		t.Fatalf("Envoy did not outlive the killed run: pid %d, before %d", got, before)
	}
	p.child = start(t, binary, p.args("run")...)
	p.says(0, "ready:")
	if got := envoyPID(t, p); got != before {
		t.Errorf("got the Envoy with pid %d, want %d adopted", got, before)
	}
	eventually(t, "GET / after adoption", func() error { _, err := get(base+"/", ""); return err })
	p.signal(syscall.SIGINT)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status: got %d, want 0", status)
	}
	if _, err := get("http://"+p.envoyAdmin+"/ready", ""); err == nil {
		t.Error("the adopted Envoy outlived Ctrl-C")
	}
}

// envoyPID is the process that run noted, which has to answer as well.
func envoyPID(t *testing.T, p *plane) int {
	t.Helper()
	if _, err := get("http://"+p.envoyAdmin+"/server_info", ""); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(p.data, "envoy-edge", "envoy.json"))
	if err != nil {
		t.Fatal(err)
	}
	var noted struct{ PID int }
	if err := json.Unmarshal(text, &noted); err != nil {
		t.Fatal(err)
	}
	return noted.PID
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	dir, port := example(t, "quickstart")
	for name, test := range map[string]struct {
		take func(*plane) string
		cure string
	}{
		"xds":      {func(p *plane) string { return p.xds }, "--xds-address"},
		"admin":    {func(p *plane) string { return p.admin }, "--admin-address"},
		"envoy":    {func(p *plane) string { return p.envoyAdmin }, "--envoy-admin-address"},
		"listener": {func(*plane) string { return local(port) }, ".yaml:"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t, dir)
			address := test.take(p)
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			out, status := legation(t, p.args("run")...)
			if status != 1 || !strings.Contains(out, address) || !strings.Contains(out, test.cure) {
				t.Errorf("got status %d and\n%s\nwant 1, with the address %s and how to choose another: %s", status, out, address, test.cure)
			}
		})
	}
}

// A gateway that is added while it runs gets an Envoy, and one that is removed loses it; the terminal tells of each edit.
func TestGatewaysComeAndGo(t *testing.T) {
	t.Parallel()
	p, base := runQuickstart(t)
	n := ports(t, 1)
	second := filepath.Join(p.dir, "second.yaml")
	mark := len(p.out.String())
	// With a second gateway every route has to name its own.
	first, err := os.ReadFile(filepath.Join(p.dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.dir, "policy.yaml"), strings.ReplaceAll(string(first), "    hostnames:", "    gateways: [edge]\n    hostnames:"))
	mark = p.says(mark, "live: revision")
	write(t, second, fmt.Sprintf("gateways: {second: {listeners: {http: {port: %d, address: 127.0.0.1}}}}\n"+
		"routes: {other: {gateways: [second], hostnames: [localhost], backends: {orders-v2: 1}}}\n", n[0]))
	mark = p.says(mark, "live: revision")
	answers(t, fmt.Sprintf("http://localhost:%d/", n[0]))
	answers(t, base+"/")

	write(t, second, "gateways: {second: [}\n")
	mark = p.says(mark, "nothing changed: still revision")
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	p.says(mark, "live: revision")
	eventually(t, "the second Envoy is gone", func() error {
		if c, err := net.Dial("tcp", local(n[0])); err == nil {
			c.Close()
			return fmt.Errorf("port %d still answers", n[0])
		}
		return nil
	})
	answers(t, base+"/")
}

// A second signal while it stops changes nothing: no Envoy is left behind.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p, base := runQuickstart(t)
	answers(t, base+"/")
	p.signal(syscall.SIGINT)
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGINT)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status: got %d, want 0", status)
	}
	if _, err := get("http://"+p.envoyAdmin+"/ready", ""); err == nil {
		t.Error("Envoy was left behind")
	}
}
