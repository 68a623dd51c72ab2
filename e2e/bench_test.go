package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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
			edit := func(n int) { write(b, filepath.Join(p.dir, "edit.yaml"), edited(n)) }
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
// a real Envoy that shows the route that differs: the median of all swaps. There are twenty routes to a file.
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
				write(b, filepath.Join(side, "edit.yaml"), edited(-1))
			}
			current := filepath.Join(b.TempDir(), "current")
			point(b, current, sides[0])
			p := newPlane(b, current)
			p.serve(b)
			p.envoy(b, "edge")
			url := fmt.Sprintf("http://localhost:%d/edited", port)
			answers(b, url)
			var took []time.Duration
			for b.Loop() {
				n := len(took)
				next := sides[(n+1)%2]
				write(b, filepath.Join(next, "edit.yaml"), edited(n))
				begin := time.Now()
				point(b, current, next)
				awaitEdit(b, url, n)
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds()*1e3, "ms/swap")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// edited is a route whose answers tell a number.
func edited(n int) string {
	return fmt.Sprintf("routes:\n  edited:\n    hostnames: [localhost]\n    match: {path: /edited}\n    backends: {app: 1}\n"+
		"    headers: {response: {set: {x-edit: \"%d\"}}}\n", n)
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
