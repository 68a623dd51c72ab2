package control

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// manyRoutes is n routes, ten to a host and twenty to a file, with auth and limits on all of them.
func manyRoutes(n int, perHost bool) policy.Files {
	listener := "{port: 10000}"
	if perHost {
		listener = "{port: 10000, routeTables: perHost}"
	}
	files := policy.Files{"edge.yaml": []byte(`
gateways:
  edge: {listeners: {http: ` + listener + `}, accessLog: {}}
auth:
  idp: {jwt: {issuer: https://id.test/, audiences: [a], jwks: https://id.test/keys}}
consumers:
  acme: {identities: {idp: [acme]}, plan: gold}
plans:
  gold: {rate: 100/second}
`)}
	for from := 0; from < n; from += 20 {
		files[fmt.Sprintf("team%05d.yaml", from)] = teamOf(from, min(from+20, n), "5s")
	}
	return files
}

func teamOf(from, to int, timeout string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "services:\n  s%05d: {endpoints: [10.0.0.1:80], healthCheck: {path: /}}\nroutes:\n", from)
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "  r%05d:\n    hostnames: [h%d.test]\n    match: {path: /v1/r%d}\n    backends: {s%05d: 1}\n", i, i/10, i, from)
		fmt.Fprintf(&b, "    timeouts: {request: %s}\n    auth: [idp]\n    plan: optional\n    rateLimit: {rate: %d/second, by: consumer}\n", timeout, 1+i%50)
		timeout = "5s" // the first one's alone is another
	}
	return []byte(b.String())
}

func BenchmarkBefore(b *testing.B) {
	for _, perHost := range []bool{false, true} {
		b.Run(fmt.Sprintf("perHost=%v", perHost), func(b *testing.B) {
			files := manyRoutes(10_000, perHost)
			c := New(Options{})
			_ = c
			var load, trans, comp, snap, unionT time.Duration
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				files = maps.Clone(files)
				files["team05000.yaml"] = teamOf(5000, 5020, fmt.Sprintf("%dms", n+1))
				t0 := time.Now()
				m, problems := feature.Language().Load(files)
				if m == nil {
					b.Fatal(problems)
				}
				t1 := time.Now()
				compiled, err := Compile(m)
				if err != nil {
					b.Fatal(err)
				}
				t2 := time.Now()
				feature.Companions(m)
				t3 := time.Now()
				if _, err := new(encoder).snapshots(compiled); err != nil {
					b.Fatal(err)
				}
				t4 := time.Now()
				union([]*Compiled{compiled, compiled}, func(t *Compiled) []string2 { return nil })
				unionT += time.Since(t4)
				load += t1.Sub(t0)
				trans += t2.Sub(t1) - t3.Sub(t2)
				comp += t3.Sub(t2)
				snap += t4.Sub(t3)
			}
			b.ReportMetric(float64(load.Microseconds())/float64(n)/1e3, "ms-load")
			b.ReportMetric(float64(trans.Microseconds())/float64(n)/1e3, "ms-translate")
			b.ReportMetric(float64(comp.Microseconds())/float64(n)/1e3, "ms-companions")
			b.ReportMetric(float64(snap.Microseconds())/float64(n)/1e3, "ms-snapshots")
		})
	}
}

type string2 string

func (s string2) ID() string { return string(s) }
