package envoy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// TestMain lets the test binary be a legation that starts an Envoy and can be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LEGATION_TEST_OWNER"); dir != "" {
		os.Exit(own(dir))
	}
	os.Exit(m.Run())
}

// own starts an Envoy, tells its pid, and lives until standard input ends.
func own(dir string) int {
	p, err := envoy.Start(context.Background(), processOptions(os.Getenv("LEGATION_TEST_ENVOY"), dir, "edge"))
	if err == nil {
		err = p.Ready(context.Background())
	}
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString(strconv.Itoa(p.PID()) + "\n")
	bufio.NewReader(os.Stdin).ReadByte()
	return 0
}

func processOptions(binary, dir, node string) envoy.ProcessOptions {
	return envoy.ProcessOptions{Binary: binary, Dir: dir, Bootstrap: emptyBootstrap(node), Concurrency: 1}
}

func emptyBootstrap(node string) *bootstrapv3.Bootstrap {
	b, err := envoy.Static(nil, envoy.BootstrapOptions{Group: "edge", Node: node, Admin: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	return b
}

// abandoned returns the pid of an Envoy whose legation was killed.
func abandoned(t *testing.T, binary, dir string) int {
	t.Helper()
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), "LEGATION_TEST_OWNER="+dir, "LEGATION_TEST_ENVOY="+binary)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the owner says %q", line)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	if _, err := envoy.Adopt(t.Context(), processOptions(binary, dir, "edge")); err == nil {
		t.Error("an envoy was taken over whose legation lives")
	}
	owner.Process.Kill()
	owner.Wait()
	return pid
}

func TestStartAdoptsWhatAKilledRunLeft(t *testing.T) {
	binary, dir := realEnvoy(t), t.TempDir()
	pid := abandoned(t, binary, dir)

	var log bytes.Buffer
	o := processOptions(binary, dir, "edge")
	o.Log = &log
	p, err := envoy.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Adopted() || p.PID() != pid {
		t.Errorf("adopted %v, pid %d, want the envoy with pid %d", p.Adopted(), p.PID(), pid)
	}
	if err := p.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	// Its log goes to nobody now; that must not end it.
	adminPost(t, p.Admin(), "/logging?level=trace")
	for range 20 {
		if code, _ := adminGet(p.Admin(), "/ready"); code != 200 {
			t.Fatalf("the adopted envoy is gone: %d", code)
		}
	}
	if !strings.Contains(log.String(), "taken over") {
		t.Errorf("the log does not tell: %q", log.String())
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Err(); err == nil {
		t.Error("envoy ended without a word")
	}
	if _, err := os.Stat(filepath.Join(dir, "envoy.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("envoy.json stays behind: %v", err)
	}
}

func adminPost(t *testing.T, address, path string) {
	t.Helper()
	resp, err := http.Post("http://"+address+path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestStartReplacesAnEnvoyWithAnotherBootstrap(t *testing.T) {
	binary, dir := realEnvoy(t), t.TempDir()
	pid := abandoned(t, binary, dir)
	p, err := envoy.Start(t.Context(), processOptions(binary, dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(context.Background())
	if p.Adopted() || p.PID() == pid {
		t.Errorf("adopted %v, pid %d", p.Adopted(), p.PID())
	}
	if err := p.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && !bytes.Contains(stat, []byte(") Z ")) {
		t.Errorf("the old envoy still runs: %s", stat)
	}
}

// TestStartReplacesAnEnvoyThatWasStopping is about a legation that was killed while it stopped its Envoy.
func TestStartReplacesAnEnvoyThatWasStopping(t *testing.T) {
	binary, dir := realEnvoy(t), t.TempDir()
	pid := abandoned(t, binary, dir)
	noted := filepath.Join(dir, "envoy.json")
	text, err := os.ReadFile(noted)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("{"), []byte(`{"stopping": true,`), 1)
	if err := os.WriteFile(noted, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := envoy.Start(t.Context(), processOptions(binary, dir, "edge"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(context.Background())
	if p.Adopted() || p.PID() == pid {
		t.Errorf("adopted %v, pid %d, want another envoy", p.Adopted(), p.PID())
	}
}

// TestStopAnswersWhatIsInFlight stops an Envoy while its upstream thinks.
func TestStopAnswersWhatIsInFlight(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-leave
	}))
	defer backend.Close()
	s := service("slow", endpoint(backend.Listener.Addr()))
	list := translate(t, modelOf([]*policy.Listener{httpListener("http")}, route("r", "app.test", "/", to(s))))
	b, err := envoy.Static(list, envoy.BootstrapOptions{Admin: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := envoy.Start(t.Context(), envoy.ProcessOptions{Binary: realEnvoy(t), Dir: t.TempDir(), Bootstrap: b})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	address, answered := listenersAt(p.Admin())["http"], make(chan int, 1)
	go func() { answered <- get(t, address, "app.test", "/").code }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- p.Stop(context.Background()) }()
	for refused := false; !refused; { // until the listener is closed
		conn, err := net.Dial("tcp", address)
		if refused = err != nil; !refused {
			conn.Close()
		}
	}
	close(leave)
	if got := <-answered; got != 200 {
		t.Errorf("the request in flight: %d", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestAdoptLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	// A pid that somebody else has by now: ours, with another start time.
	stale := `{"pid": ` + strconv.Itoa(os.Getpid()) + `, "started": "1", "owner": 1, "ownedAt": "0", "hash": "x"}`
	for _, text := range []string{stale, "{", ""} {
		if err := os.WriteFile(filepath.Join(dir, "envoy.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := envoy.Adopt(t.Context(), processOptions("envoy", dir, "edge")); p != nil || err != nil {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}

func TestEndedEnvoyTellsWhy(t *testing.T) {
	o := processOptions(realEnvoy(t), t.TempDir(), "edge")
	o.Bootstrap.StaticResources.Clusters[0].TransportSocket = brokenSocket()
	p, err := envoy.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Ready(ctx); err == nil || !strings.Contains(err.Error(), "no.such.socket") {
		t.Errorf("got %v", err)
	}
}
