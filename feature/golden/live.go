package golden

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
)

var found = sync.OnceValues(func() (string, error) {
	path, _, err := envoy.Find("")
	return path, err
})

// validate gives the static form of a gateway's resources to the real Envoy.
func validate(t *testing.T, resources []envoy.Resource) {
	t.Helper()
	path, err := found()
	if err != nil {
		t.Log("not asked: ", err)
		return
	}
	bootstrap, err := envoy.Static(resources, envoy.BootstrapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := envoy.Validate(ctx, path, bootstrap); err != nil {
		t.Error(err)
	}
}

// Binary is the real Envoy. Where there is none the test is skipped, and fails where LEGATION_ENVOY has named one, as
// make test does.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := found()
	if err != nil && os.Getenv("LEGATION_ENVOY") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}

// Envoy is a real Envoy that serves a policy, for the tests that ask one.
type Envoy struct {
	Secrets *Secrets // those of the policy; nil without any

	admin     string
	addresses map[string]string // by listener
	first     string            // the listener that [Envoy.Ask] asks
	stop      func()
	stdout    bytes.Buffer // whole once stop has returned
}

// Serve runs an Envoy on the gateway edge of a policy; the test is skipped where there is no Envoy. Its listeners' ports
// are any free ones, whatever the policy says. The text is that of a policy file; others, and the file secrets, may follow
// as in a txtar ("-- secrets --").
func Serve(t *testing.T, text string, kinds ...*policy.Kind) *Envoy {
	t.Helper()
	return ServeIn(t, "", text, kinds...)
}

// ServeIn is [Serve] with an Envoy that stands in a zone.
func ServeIn(t *testing.T, zone, text string, kinds ...*policy.Kind) *Envoy {
	t.Helper()
	binary := Binary(t)
	archive := txtar.Parse([]byte(text))
	archive.Files = append(archive.Files, txtar.File{Name: "policy.yaml", Data: archive.Comment})
	c := split(t, archive)
	config := filepath.Join(t.TempDir(), "envoy.json")
	e := &Envoy{Secrets: c.secrets, first: c.write(t, config, zone, kinds)}
	admin := config + ".admin"
	cmd := exec.Command(binary, "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "error", "--admin-address-path", admin)
	cmd.Stdout, cmd.Stderr = &e.stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	e.stop = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-exited
	}
	t.Cleanup(e.stop)
	e.listening(t, admin, exited)
	return e
}

// write writes the configuration of an Envoy in a zone, and returns the name of the first listener.
func (c content) write(t *testing.T, path, zone string, kinds []*policy.Kind) string {
	t.Helper()
	model, problems := c.load(kinds)
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	resources, err := envoy.Translate(model, kinds)
	if err != nil {
		t.Fatal(err)
	}
	labelled := append(resources["edge"], envoy.Labels(model.Revision)...)
	bootstrap, err := envoy.Static(labelled, envoy.BootstrapOptions{Group: "edge", Zone: zone, Admin: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	anyPort(bootstrap)
	config, err := envoy.JSON(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return bootstrap.StaticResources.Listeners[0].Name
}

func anyPort(b *bootstrapv3.Bootstrap) {
	for _, l := range b.StaticResources.Listeners {
		address := l.Address.GetSocketAddress()
		address.Address, address.PortSpecifier = "127.0.0.1", &corev3.SocketAddress_PortValue{PortValue: 0}
	}
}

// listening waits until Envoy does, and notes its addresses.
func (e *Envoy) listening(t *testing.T, adminFile string, exited <-chan struct{}) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		if admin, err := os.ReadFile(adminFile); err == nil && get(string(admin), "/ready") == "LIVE\n" {
			e.admin, e.addresses = string(admin), make(map[string]string)
			for line := range strings.Lines(get(e.admin, "/listeners")) {
				if name, address, ok := strings.Cut(strings.TrimSpace(line), "::"); ok {
					e.addresses[name] = address
				}
			}
			return
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

// Address is where a listener listens.
func (e *Envoy) Address(t testing.TB, listener string) string {
	t.Helper()
	address, ok := e.addresses[listener]
	if !ok {
		t.Fatalf("there is no listener %s", listener)
	}
	return address
}

// Admin asks Envoy's admin interface, such as for /stats?filter=ssl.
func (e *Envoy) Admin(t testing.TB, path string) string {
	t.Helper()
	return get(e.admin, path)
}

func get(address, path string) string {
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// Answer is what came back for a request.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Ask sends a request for a host, with headers given as name, value, name, value. It asks the first listener by name.
func (e *Envoy) Ask(t *testing.T, method, host, path string, headers ...string) Answer {
	t.Helper()
	return e.AskAt(t, e.first, method, host, path, headers...)
}

// AskAt is [Envoy.Ask] at one of several listeners.
func (e *Envoy) AskAt(t *testing.T, listener, method, host, path string, headers ...string) Answer {
	t.Helper()
	return ask(t, http.DefaultTransport, "http://"+e.Address(t, listener), method, host, path, headers)
}

func ask(t *testing.T, through http.RoundTripper, url, method, host, path string, headers []string) Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := through.RoundTrip(req)
	if err != nil {
		t.Fatal(fmt.Errorf("%s %s%s: %w", method, host, path, err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return Answer{resp.StatusCode, resp.Header, string(body)}
}

// Raw sends the bytes of a request as they are, which no HTTP client would do.
func (e *Envoy) Raw(t *testing.T, request string) Answer {
	t.Helper()
	conn, err := net.Dial("tcp", e.Address(t, e.first))
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
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, string(body)}
}

// Stop ends Envoy and returns what it wrote to its standard output.
func (e *Envoy) Stop() string {
	e.stop()
	return e.stdout.String()
}
