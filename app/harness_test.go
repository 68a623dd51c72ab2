package app

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// quickstart is a policy like the quickstart's, at a port that is never opened.
const quickstart = `gateways: {edge: {listeners: {http: {port: 10000, address: 127.0.0.1}}}}
auth: {demo: {jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: {file: keys.json}}}}
services:
  orders-v1: {endpoints: ["127.0.0.1:9001"]}
  orders-v2: {endpoints: ["127.0.0.1:9002"]}
routes:
  home: {hostnames: [localhost], backends: {orders-v1: 1}}
  orders:
    hostnames: [localhost]
    match: {path: /orders}
    auth: [demo]
    rateLimit: {rate: 10/minute, by: consumer}
    backends: {orders-v1: 90, orders-v2: 10}
`

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// publicKeys is the key set of the quickstart.
func publicKeys(t testing.TB) string {
	t.Helper()
	keys, err := os.ReadFile("../examples/quickstart/test-keys.json")
	must(t, err)
	return string(keys)
}

// policyDir is a directory with this policy and the quickstart's keys.
func policyDir(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "keys.json"), publicKeys(t))
	write(t, filepath.Join(dir, "policy.yaml"), text)
	return dir
}

// model is what a policy of one file loads to.
func model(t testing.TB, text string) *policy.Model {
	t.Helper()
	m, problems := feature.Language().Load(policy.Files{"policy.yaml": []byte(text), "keys.json": []byte(publicKeys(t))})
	must(t, problems.Err())
	return m
}

// anywhere is options with ports of the kernel's choice.
func anywhere(o Options) Options {
	o.XDSAddress, o.CompanionAddress, o.AdminAddress = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	return o
}

// assemble makes a process without running it.
func assemble(t testing.TB, o Options) *process {
	t.Helper()
	p, err := newProcess(anywhere(o))
	must(t, err)
	t.Cleanup(func() { must(t, p.close()) })
	return p
}

// running is a process that serves; stop ends it and gives its error.
func running(t testing.TB, o Options) (p *process, stop func() error) {
	t.Helper()
	p, err := newProcess(anywhere(o))
	must(t, err)
	must(t, p.open())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		err := await(t, "the end of the process", ended)
		must(t, p.close())
		return err
	})
	t.Cleanup(func() { _ = stop() })
	await(t, "a policy", p.control.Loaded())
	return p, stop
}

// await is the next value of a channel, or that it is closed.
func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

// until asks every 2 ms, for what has no event to wait for.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end, tick := time.After(patience), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// output collects what is written from several goroutines.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
