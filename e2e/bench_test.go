package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/control"
)

// BenchmarkEdit measures from the edit of a policy file to the first answer of a real Envoy that shows it, with the
// 150 ms for which the directory has to rest included, at several sizes of the route table.
func BenchmarkEdit(b *testing.B) {
	for _, routes := range []int{1, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("routes=%d", routes), func(b *testing.B) {
			port := ports(b, 1)[0]
			p := newPlane(b, policyDir(b, edge(port, upstream(b, "app"))))
			for from := 0; from < routes; from += 1000 {
				write(b, filepath.Join(p.dir, fmt.Sprintf("many-%d.yaml", from)), many(from, min(from+1000, routes)))
			}
			edit := func(n int) { write(b, filepath.Join(p.dir, "edit.yaml"), routeTelling(n)) }
			edit(-1)
			p.serve(b)
			p.envoy(b, "edge")
			url := fmt.Sprintf("http://localhost:%d/edited", port)
			answers(b, url)
			n := 0
			var total time.Duration
			for b.Loop() {
				begin := time.Now()
				edit(n)
				eventually(b, "edit", func() error {
					a, err := request("GET", url)
					if err == nil && a.header.Get("X-Edit") != fmt.Sprint(n) {
						err = fmt.Errorf("status %d, x-edit %q", a.status, a.header.Get("X-Edit"))
					}
					return err
				})
				total += time.Since(begin)
				n++
			}
			b.ReportMetric(float64(total.Milliseconds())/float64(n), "ms/edit")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// many is the routes of these numbers, ten to a host.
func many(from, to int) string {
	s := &strings.Builder{}
	s.WriteString("routes:\n")
	for i := from; i < to; i++ {
		fmt.Fprintf(s, "  r%d: {hostnames: [h%d.test], match: {path: /p%d}, backends: {app: 1}}\n", i, i/10, i%10)
	}
	return s.String()
}

// BenchmarkSwap measures from the atomic swap of the policy directory, which is a link to one of two, to the first answer of
// a real Envoy that shows the route that differs: the median of all swaps, and the processor time of Legation for one, which
// depends less on what else the machine does. There are twenty routes to a file.
func BenchmarkSwap(b *testing.B) {
	for _, row := range []struct {
		routes  int
		perHost bool
	}{{1000, false}, {10000, false}, {1000, true}, {10000, true}, {50000, true}} {
		b.Run(fmt.Sprintf("routes=%d/perHost=%v", row.routes, row.perHost), func(b *testing.B) {
			port := ports(b, 1)[0]
			policy := edge(port, upstream(b, "app"))
			if row.perHost {
				policy = strings.Replace(policy, "address: 127.0.0.1}", "address: 127.0.0.1, routeTables: perHost}", 1)
			}
			sides := []string{policyDir(b, policy), policyDir(b, policy)}
			for _, side := range sides {
				for from := 0; from < row.routes; from += 20 {
					write(b, filepath.Join(side, fmt.Sprintf("many-%05d.yaml", from)), many(from, min(from+20, row.routes)))
				}
				write(b, filepath.Join(side, "edit.yaml"), routeTelling(-1))
			}
			current := filepath.Join(b.TempDir(), "current")
			point(b, current, sides[0])
			p := newPlane(b, current)
			p.serve(b)
			p.envoy(b, "edge")
			url := fmt.Sprintf("http://localhost:%d/edited", port)
			answers(b, url)
			var took []time.Duration
			before := processorTime(b, p.cmd.Process.Pid)
			for b.Loop() {
				n := len(took)
				next := sides[(n+1)%2]
				write(b, filepath.Join(next, "edit.yaml"), routeTelling(n))
				begin := time.Now()
				point(b, current, next)
				awaitEdit(b, url, n)
				took = append(took, time.Since(begin))
			}
			p.report(b, "swap", took, before)
		})
	}
}

// BenchmarkPush measures from a push to the first answer of a real Envoy that shows the route that differs: by the call of the
// API that the verb makes, and by legation push, a process of its own that reads all files and asks for the head first. There
// are twenty routes to a file, as in BenchmarkSwap; the median of all pushes, and the processor time of the process for one.
func BenchmarkPush(b *testing.B) {
	for _, row := range []struct {
		routes  int
		perHost bool
		verb    bool
	}{{1000, false, false}, {10000, true, false}, {50000, true, false}, {1000, false, true}, {10000, true, true}, {50000, true, true}} {
		b.Run(fmt.Sprintf("routes=%d/perHost=%v/verb=%v", row.routes, row.perHost, row.verb), func(b *testing.B) {
			port := ports(b, 1)[0]
			policy := edge(port, upstream(b, "app"))
			if row.perHost {
				policy = strings.Replace(policy, "address: 127.0.0.1}", "address: 127.0.0.1, routeTables: perHost}", 1)
			}
			dir := policyDir(b, policy)
			for from := 0; from < row.routes; from += 20 {
				write(b, filepath.Join(dir, fmt.Sprintf("many-%05d.yaml", from)), many(from, min(from+20, row.routes)))
			}
			write(b, filepath.Join(dir, "edit.yaml"), routeTelling(-1))
			p := newPlane(b, "")
			p.child = start(b, binary, p.args("serve")...)
			eventually(b, "the admin port", func() error { _, err := get("http://"+p.admin+"/healthz", ""); return err })
			files := filesOf(b, dir)
			head := pushFiles(b, p, files, 0)
			p.envoy(b, "edge")
			url := fmt.Sprintf("http://localhost:%d/edited", port)
			answers(b, url)
			var took []time.Duration
			before := processorTime(b, p.cmd.Process.Pid)
			for b.Loop() {
				n := len(took)
				write(b, filepath.Join(dir, "edit.yaml"), routeTelling(n))
				files["edit.yaml"] = []byte(routeTelling(n))
				begin := time.Now()
				if row.verb {
					if out, err := exec.Command(binary, "push", dir, "--server", "http://"+p.admin).CombinedOutput(); err != nil {
						b.Fatalf("%v: %s", err, out)
					}
				} else {
					head = pushFiles(b, p, files, head)
				}
				awaitEdit(b, url, n)
				took = append(took, time.Since(begin))
			}
			p.report(b, "push", took, before)
		})
	}
}

// report tells the median of the times, and the processor time of the process since before for each.
func (p *plane) report(b *testing.B, what string, took []time.Duration, before time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1e3, "ms/"+what)
	spent := processorTime(b, p.cmd.Process.Pid) - before
	b.ReportMetric(spent.Seconds()*1e3/float64(len(took)), "CPU-ms/"+what)
	b.ReportMetric(0, "ns/op")
}

// filesOf reads a policy directory.
func filesOf(b *testing.B, dir string) map[string][]byte {
	b.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if err == nil {
			files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name()))
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	return files
}

// pushFiles pushes by the API, and gives the number of the revision.
func pushFiles(b *testing.B, p *plane, files map[string][]byte, head int64) int64 {
	b.Helper()
	parent := fmt.Sprint(head)
	if head == 0 {
		parent = "none"
	}
	body, err := json.Marshal(app.Push{Files: files, ChangeWanted: app.ChangeWanted{Parent: parent}})
	if err != nil {
		b.Fatal(err)
	}
	patient := *client // the first push is of all there is
	patient.Timeout = time.Minute
	r, err := patient.Post("http://"+p.admin+"/revisions", "application/json", bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	var a control.Accepted
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil || r.StatusCode != http.StatusOK {
		b.Fatalf("status %d, %v", r.StatusCode, err)
	}
	return a.Number
}

// routeTelling is a route whose answers tell a number.
func routeTelling(n int) string {
	return fmt.Sprintf("routes:\n  edited:\n    hostnames: [localhost]\n    match: {path: /edited}\n    backends: {app: 1}\n"+
		"    headers: {response: {set: {x-edit: \"%d\"}}}\n", n)
}

// processorTime is what the threads of a process have had so far.
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		b.Fatalf("no processor time of %d: %v", pid, err)
	}
	var sum time.Duration
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		var one int64
		if _, err := fmt.Sscan(string(text), &one); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(one)
	}
	return sum
}

// point swaps a link in one step.
func point(b *testing.B, link, to string) {
	b.Helper()
	if err := os.Symlink(to, link+".new"); err != nil {
		b.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		b.Fatal(err)
	}
}

// awaitEdit asks without pause until an answer tells the number.
func awaitEdit(b *testing.B, url string, n int) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		a, err := request("GET", url)
		if err == nil && a.header.Get("X-Edit") == fmt.Sprint(n) {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("still at %q after a minute: %v", a.header.Get("X-Edit"), err)
		}
	}
}
