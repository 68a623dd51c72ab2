package e2e

import (
	"fmt"
	"path/filepath"
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
			edit := func(n int) {
				write(b, filepath.Join(p.dir, "edit.yaml"), fmt.Sprintf("routes:\n  edited:\n    hostnames: [localhost]\n"+
					"    match: {path: /edited}\n    backends: {app: 1}\n    headers: {response: {set: {x-edit: \"%d\"}}}\n", n))
			}
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
