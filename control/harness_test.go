package control

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/legation/legation/policy"
)

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// gateway is a policy of one gateway at this port.
func gateway(port int) string {
	return fmt.Sprintf("gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1}}}}\n", port)
}

// whole is a policy of one file: a gateway, and a route to a service at this port.
func whole(port int) string { return gateway(10000) + team("app", port) }

// team is a service at this port and the route to it, which need a gateway of another file.
func team(name string, port int) string {
	return fmt.Sprintf("services: {%[1]s: {endpoints: [\"127.0.0.1:%[2]d\"]}}\n"+
		"routes: {%[1]s: {hostnames: [%[1]s.test], backends: {%[1]s: 1}}}\n", name, port)
}

// tree writes files, by name, below a new directory.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "policy")
	must(t, os.Mkdir(dir, 0o755))
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes a file in place.
func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// move writes a file as editors do: a new one is renamed over it.
func move(t testing.TB, path, text string) {
	t.Helper()
	write(t, path+".tmp", text)
	must(t, os.Rename(path+".tmp", path))
}

// link makes a link, or points it elsewhere at once, as mounted config maps do.
func link(t testing.TB, target, path string) {
	t.Helper()
	must(t, os.Symlink(target, path+".next.tmp"))
	must(t, os.Rename(path+".next.tmp", path))
}

// revisionIn is that of the policy files in a directory.
func revisionIn(t testing.TB, dir string) string {
	t.Helper()
	files, problems, err := ReadDir(dir)
	must(t, err)
	return revisionOf(t, files, problems)
}

func revisionOf(t testing.TB, files policy.Files, problems policy.Problems) string {
	t.Helper()
	c := New(Options{})
	model, found := c.lang.Load(files)
	must(t, append(problems, found...).Err())
	return model.Revision
}

// controller is a new one, which knows the tests' own setting where it has secrets.
func controller(o Options) *Controller {
	c := New(o)
	if o.Secrets != nil {
		c.lang, c.loader = withVault, withVault.NewLoader()
	}
	return c
}

// loop is a controller that runs, and what it has reported.
type loop struct {
	*Controller
	t        testing.TB
	reports  chan Outcome
	stop     func()
	revision []string // that were served, in order
}

func start(t testing.TB, o Options) *loop {
	t.Helper()
	l := &loop{t: t, reports: make(chan Outcome, 1000)}
	o.Report = func(o Outcome) { l.reports <- o }
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	l.Controller = controller(o)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	l.stop = func() { cancel(); done.Wait() }
	t.Cleanup(l.stop)
	return l
}

// next is the next thing that is reported.
func (l *loop) next() Outcome {
	l.t.Helper()
	select {
	case o := <-l.reports:
		if o.Changed {
			l.revision = append(l.revision, o.Revision)
		}
		return o
	case <-time.After(patience):
		l.t.Fatalf("nothing reported in %v; the last: %+v", patience, l.Outcome())
		return Outcome{}
	}
}

// serves waits until the revision of the directory is served, and tells how long that took.
func (l *loop) serves(want string) {
	l.t.Helper()
	began := time.Now()
	for o := l.next(); o.Revision != want || o.Problems.HasErrors(); o = l.next() {
		continue
	}
	l.t.Logf("served %v after the last write", time.Since(began).Round(time.Millisecond))
}

// served tells of every revision that was served, where it is not what is wanted.
func (l *loop) served(want ...string) {
	l.t.Helper()
	l.stop()
	for len(l.reports) > 0 {
		l.next()
	}
	if !slices.Equal(l.revision, want) {
		l.t.Errorf("served %s, want %s", strings.Join(l.revision, ", "), strings.Join(want, ", "))
	}
}

// pace calls step n times, one each interval. On a machine that stalls for so long that the directory rests in between,
// the test says nothing.
func pace(t testing.TB, n int, interval time.Duration, step func(i int)) {
	t.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for i := range n {
		began := time.Now()
		step(i)
		<-tick.C
		keptPace(t, began)
	}
}

// stall is well below the promised quiet period of 150 ms.
const stall = 75 * time.Millisecond

func keptPace(t testing.TB, began time.Time) {
	t.Helper()
	if gap := time.Since(began); gap > stall {
		t.Skipf("the machine stood still for %v: too slow to tell", gap)
	}
}
