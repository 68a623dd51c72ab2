package envoy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// upstream is a backend that tells in JSON what it received.
type received struct {
	Path    string      `json:"path"` // as on the wire
	Host    string      `json:"host"`
	Headers http.Header `json:"headers"`
}

func upstream(t *testing.T) policy.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Server", "X-Powered-By", "X-Envoy-Degraded", "X-Envoy-Immediate-Health-Check-Fail"} {
			w.Header().Set(name, "leaked")
		}
		w.Header().Set("X-Served-By", l.Addr().String())
		json.NewEncoder(w).Encode(received{r.RequestURI, r.Host, r.Header})
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return endpoint(l.Addr())
}

func endpoint(a net.Addr) policy.Endpoint {
	ap := netip.MustParseAddrPort(a.String())
	return policy.Endpoint{Host: ap.Addr().String(), Port: uint32(ap.Port())}
}

// live runs the real Envoy on the static form of a model, and returns the addresses of its listeners by name.
func live(t *testing.T, m *policy.Model, kinds ...*policy.Kind) map[string]string {
	t.Helper()
	binary := realEnvoy(t)
	resources, err := envoy.Translate(m, append(kinds, testKinds...))
	if err != nil {
		t.Fatal(err)
	}
	b, err := envoy.Static(resources["edge"], envoy.BootstrapOptions{Group: "edge", Admin: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := envoy.JSON(b)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, admin := filepath.Join(dir, "envoy.json"), filepath.Join(dir, "admin")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(binary, "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn",
		"--admin-address-path", admin)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-exited
		if s := log.String(); s != "" {
			t.Logf("envoy said:\n%s", s)
		}
	})
	return listenersOf(t, admin, exited)
}

// listenersOf waits until Envoy listens.
func listenersOf(t *testing.T, adminFile string, exited <-chan struct{}) map[string]string {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		if found := askListeners(adminFile); len(found) > 0 {
			return found
		}
		select {
		case <-tick.C:
		case <-exited:
			t.Fatal("envoy ended")
		case <-deadline:
			t.Fatal("envoy does not listen")
		}
	}
}

func askListeners(adminFile string) map[string]string {
	admin, err := os.ReadFile(adminFile)
	if err != nil || len(admin) == 0 {
		return nil
	}
	if code, _ := adminGet(string(admin), "/ready"); code != 200 {
		return nil
	}
	return listenersAt(string(admin))
}

func listenersAt(admin string) map[string]string {
	_, body := adminGet(admin, "/listeners")
	found := make(map[string]string)
	for line := range strings.Lines(body) {
		if name, address, ok := strings.Cut(strings.TrimSpace(line), "::"); ok {
			found[name] = address
		}
	}
	return found
}

func adminGet(address, path string) (int, string) {
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// answer is what came back over the wire.
type answer struct {
	code   int
	header http.Header
	body   string
}

// got is what the upstream received.
func (a answer) got(t *testing.T) received {
	t.Helper()
	var r received
	if err := json.Unmarshal([]byte(a.body), &r); err != nil {
		t.Fatalf("%d %q: %v", a.code, a.body, err)
	}
	return r
}

// raw sends the bytes of a request as they are, which no HTTP client would do.
func raw(t *testing.T, address, request string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	body, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func get(t *testing.T, address, host, path string, headers ...string) answer {
	t.Helper()
	lines := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n", path, host)
	for _, h := range headers {
		lines += h + "\r\n"
	}
	return raw(t, address, lines+"Connection: close\r\n\r\n")
}
