package control

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
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

// editTimeout and editLimit are an edit of one route that touches no companion, and one that touches both.
func editTimeout(n int) []byte { return teamOf(5000, 5020, fmt.Sprintf("%dms", n+1)) }

func editLimit(n int) []byte {
	return bytes.Replace(teamOf(5000, 5020, "5s"), []byte("1/second"), fmt.Appendf(nil, "%d/second", 1000+n), 1)
}

// BenchmarkEdit10k is what an edit of one route of 10,000 in 500 files costs from the files to the snapshots that are
// published, and its parts.
func BenchmarkEdit10k(b *testing.B) {
	for _, perHost := range []bool{false, true} {
		for name, edit := range map[string]func(int) []byte{"timeout": editTimeout, "limit": editLimit} {
			b.Run(fmt.Sprintf("perHost=%v/%s", perHost, name), func(b *testing.B) { benchmarkEdit(b, perHost, edit) })
		}
	}
}

func benchmarkEdit(b *testing.B, perHost bool, edit func(int) []byte) {
	files, spent := manyRoutes(10_000, perHost), map[string]time.Duration{}
	c := New(Options{Auth: auth.New(auth.Options{Counter: counter{}}), Limits: ratelimit.New(ratelimit.Options{})})
	serve := func() {
		begin := time.Now()
		step := func(name string) {
			spent[name] += time.Since(begin)
			begin = time.Now()
		}
		model, problems := c.loader.Load(files)
		if model == nil {
			b.Fatal(problems)
		}
		step("load")
		resources, err := c.compiler.translator.Translate(model)
		if err != nil {
			b.Fatal(err)
		}
		step("translate")
		compiled := &Compiled{Model: model, Resources: resources}
		compiled.Auth, compiled.Limits = c.compiler.companions.Companions(model)
		step("tables")
		if _, err := c.encoder.snapshots(compiled); err != nil {
			b.Fatal(err)
		}
		step("snapshots")
		if len(c.tables) > 0 {
			changedListeners(c.tables[0], compiled)
		}
		c.tables = append([]*Compiled{compiled}, older(c.tables, compiled)...)
		if err := c.loadTables(c.tables); err != nil {
			b.Fatal(err)
		}
		step("companions")
	}
	serve()
	clear(spent)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		files = maps.Clone(files)
		files["team05000.yaml"] = edit(n)
		serve()
	}
	for name, d := range spent {
		b.ReportMetric(d.Seconds()*1e3/float64(n), "ms-"+name)
	}
}
