package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/envoy"
)

// binary is legation, built once for all tests; proxy is the real Envoy.
var binary, proxy string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if proxy, _, err = envoy.Find(""); err != nil {
		fmt.Fprintln(os.Stderr, "the end to end tests need a real Envoy (make envoy):", err)
		return 1
	}
	dir, err := os.MkdirTemp("", "legation-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "legation")
	build := exec.Command("go", "build", "-o", binary, "../cmd/legation")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// buffer collects output that is read while it is written.
type buffer struct {
	mu   sync.Mutex // guards text and wake
	text bytes.Buffer
	wake chan struct{} // closed at the next write
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wake != nil {
		close(b.wake)
		b.wake = nil
	}
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// next returns what was written so far, and a channel that is closed when there is more.
func (b *buffer) next() (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wake == nil {
		b.wake = make(chan struct{})
	}
	return b.text.String(), b.wake
}

// child is a process of the test; it is gone when the test ends.
type child struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  *buffer
	done chan struct{}
	err  error // valid once done is closed
}

func start(t testing.TB, name string, args ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(name, args...), out: &buffer{}, done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	c.cmd.WaitDelay = 5 * time.Second
	c.cmd.Env = append(os.Environ(), "LEGATION_ENVOY="+proxy)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	t.Cleanup(func() {
		c.signal(syscall.SIGTERM)
		select {
		case <-c.done:
		case <-time.After(15 * time.Second):
			c.signal(syscall.SIGKILL)
			<-c.done
		}
		if t.Failed() {
			t.Logf("%s %s:\n%s", filepath.Base(name), strings.Join(args, " "), c.out)
		}
	})
	return c
}

func (c *child) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

// wait returns the exit status.
func (c *child) wait() int {
	c.t.Helper()
	select {
	case <-c.done:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(30 * time.Second):
		c.t.Fatalf("still running:\n%s", c.out)
		return -1
	}
}

// says waits until the output after mark holds text, and returns the output's length.
func (c *child) says(mark int, text string) int {
	c.t.Helper()
	limit := time.After(60 * time.Second)
	for {
		out, more := c.out.next()
		if strings.Contains(out[min(mark, len(out)):], text) {
			return len(out)
		}
		select {
		case <-more:
		case <-c.done:
			c.t.Fatalf("ended without saying %q:\n%s", text, c.out)
		case <-limit:
			c.t.Fatalf("never said %q:\n%s", text, c.out)
		}
	}
}

// kill ends the process at once.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	<-c.done
}

// nextPort is where the search for a free port goes on; it begins somewhere else in each run.
var nextPort atomic.Int32

// ports gives n ports that are free, to processes that can't be handed an open listener. They lie below those that the
// kernel gives to outgoing connections: one of these, closed again, may be taken by any request of another test before
// its process gets to it.
func ports(t testing.TB, n int) []int {
	t.Helper()
	const first, last = 20000, 32000
	nextPort.CompareAndSwap(0, int32(os.Getpid()%(last-first)))
	var list []int
	for range last - first {
		port := first + int(nextPort.Add(1))%(last-first)
		if l, err := net.Listen("tcp", local(port)); err == nil {
			l.Close()
			list = append(list, port)
		}
		if len(list) == n {
			return list
		}
	}
	t.Fatalf("fewer than %d ports are free from %d to %d", n, first, last)
	return nil
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// plane is one legation process and how it is reached.
type plane struct {
	*child
	dir, data                         string
	xds, companion, admin, envoyAdmin string
}

// args is the addresses as flags; without a directory, of a process that serves what is pushed.
func (p *plane) args(verb string, more ...string) []string {
	args := []string{verb}
	if p.dir != "" {
		args = append(args, p.dir)
	}
	args = append(args, "--xds-address", p.xds, "--companion-address", p.companion, "--admin-address", p.admin,
		"--data-dir", p.data)
	if verb == "run" {
		args = append(args, "--envoy-admin-address", p.envoyAdmin)
	}
	return append(args, more...)
}

func newPlane(t testing.TB, dir string) *plane {
	t.Helper()
	n := ports(t, 5)
	for n[4] != n[3]+1 { // legation run gives the Envoy of a second gateway the next one
		n = append(n[:3], n[4], ports(t, 1)[0])
	}
	return &plane{dir: dir, data: t.TempDir(), xds: local(n[0]), companion: local(n[1]), admin: local(n[2]), envoyAdmin: local(n[3])}
}

// serve starts `legation serve` and waits until it is ready.
func (p *plane) serve(t testing.TB, more ...string) {
	t.Helper()
	p.child = start(t, binary, p.args("serve", more...)...)
	p.awaitReady(t)
}

func (p *plane) awaitReady(t testing.TB) {
	t.Helper()
	eventually(t, "ready", func() error {
		_, err := get("http://"+p.admin+"/readyz", "")
		return err
	})
}

func (p *plane) status(t testing.TB) app.Status {
	t.Helper()
	body, err := get("http://"+p.admin+"/status", "")
	if err != nil {
		t.Fatal(err)
	}
	var s app.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return s
}

// envoy is an Envoy that the test itself started from legation's bootstrap.
type envoyChild struct {
	*child
	admin string
}

// envoy starts an Envoy that connects to p, and waits until it serves.
func (p *plane) envoy(t testing.TB, group string) *envoyChild {
	t.Helper()
	e := p.envoyUnready(t, group)
	eventually(t, "envoy ready", func() error {
		_, err := get("http://"+e.admin+"/ready", "")
		return err
	})
	return e
}

func (p *plane) envoyUnready(t testing.TB, group string, more ...string) *envoyChild {
	t.Helper()
	admin := local(ports(t, 1)[0])
	args := append([]string{"bootstrap", "--group", group, "--xds", p.xds, "--companion", p.companion, "--envoy-admin-address", admin}, more...)
	text, err := exec.Command(binary, args...).Output()
	if err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	config := filepath.Join(t.TempDir(), "envoy.json")
	write(t, config, string(text))
	c := start(t, proxy, "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn", "--file-flush-interval-msec", "50")
	return &envoyChild{c, admin}
}

// stat reads one of Envoy's counters or gauges.
func (e *envoyChild) stat(t *testing.T, name string) string {
	t.Helper()
	value, err := e.lookUp(name)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// zero fails for each of Envoy's counters and gauges that isn't 0.
func (e *envoyChild) zero(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if got := e.stat(t, name); got != "0" {
			t.Errorf("%s: got %s, want 0", name, got)
		}
	}
}

// lookUp is stat for an Envoy that may not be up yet.
func (e *envoyChild) lookUp(name string) (string, error) {
	body, err := get("http://"+e.admin+"/stats?filter=^"+name+"$", "")
	_, value, _ := strings.Cut(strings.TrimSpace(body), ": ")
	return value, err
}

// redis starts a real redis-server and returns its URL.
func redis(t *testing.T) (url string, server *child) {
	t.Helper()
	port := ports(t, 1)[0]
	return fmt.Sprintf("redis://127.0.0.1:%d", port), redisAt(t, port)
}

// redisAt starts an empty one.
func redisAt(t *testing.T, port int) *child {
	t.Helper()
	path := os.Getenv("LEGATION_REDIS_SERVER")
	if path == "" {
		path = "redis-server"
	}
	if _, err := exec.LookPath(path); err != nil {
		t.Fatalf("the end to end tests need a real redis-server (make redis): %v", err)
	}
	c := start(t, path, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	c.says(0, "Ready to accept connections")
	return c
}

// answer is what a request came to.
type reply struct {
	status int
	header http.Header
	body   string
}

var client = &http.Client{
	Timeout:       10 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// request asks once; headers are pairs, and Host sets the host.
func request(method, url string, headers ...string) (reply, error) {
	return requestBy(client, method, url, headers...)
}

func requestBy(c *http.Client, method, url string, headers ...string) (reply, error) {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		} else {
			r.Header.Add(headers[i], headers[i+1])
		}
	}
	a, err := c.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	return reply{a.StatusCode, a.Header, string(body)}, err
}

// mustRequest asks once and fails the test where there is no answer.
func mustRequest(t *testing.T, method, url string, headers ...string) reply {
	t.Helper()
	a, err := request(method, url, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// get returns the body of a 200.
func get(url, token string) (string, error) {
	var headers []string
	if token != "" {
		headers = []string{"Authorization", "Bearer " + token}
	}
	a, err := request("GET", url, headers...)
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", url, a.status, a.body)
	}
	return a.body, err
}

// eventually tries until there is no error, for what has no event to wait for; it asks every 5 ms.
func eventually(t testing.TB, what string, try func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return time.Since(begin)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// legation runs a verb to its end.
func legation(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	c := exec.Command(binary, args...)
	c.Env = append(os.Environ(), "LEGATION_ENVOY="+proxy)
	text, err := c.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(text), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text), 0
}

// token is a test token of the quickstart; further are flags of the verb.
func token(t *testing.T, sub string, further ...string) string {
	t.Helper()
	out, status := legation(t, append([]string{"token", "--sub", sub}, further...)...)
	if status != 0 {
		t.Fatalf("token: %s", out)
	}
	return strings.TrimSpace(out)
}

// write replaces a file as editors do: a new one is moved over it.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	next := path + ".tmp"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// upstream is a sample upstream in the test's own process.
func upstream(t testing.TB, name string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: app.Echo{Name: name}, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// load asks without pause from several keep-alive connections until stop is called, which returns how many requests
// were answered as wanted, and what went wrong with the others.
func load(t *testing.T, url string, want int, headers ...string) (stop func() (good int, bad []string)) {
	t.Helper()
	return loadBy(t, client, url, want, headers...)
}

func loadBy(t *testing.T, c *http.Client, url string, want int, headers ...string) (stop func() (good int, bad []string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var (
		mu   sync.Mutex // guards good and bad
		good int
		bad  []string
		done sync.WaitGroup
	)
	for range 4 {
		done.Go(func() {
			for ctx.Err() == nil {
				a, err := requestBy(c, "GET", url, headers...)
				mu.Lock()
				switch {
				case err != nil:
					bad = append(bad, err.Error())
				case a.status != want:
					bad = append(bad, fmt.Sprintf("status %d: %s", a.status, a.body))
				default:
					good++
				}
				mu.Unlock()
			}
		})
	}
	t.Cleanup(cancel)
	return func() (int, []string) {
		cancel()
		done.Wait()
		return good, bad
	}
}
