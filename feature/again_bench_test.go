package feature_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// guarded is a policy of all real keys with many routes, all of which ask who calls and what it may use.
func guarded(routes, perFile, hosts int) policy.Files {
	files := policy.Files{"edge.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 80}}, defaults: {timeouts: {request: 15s}, retry: {attempts: 2}}}}
auth: {idp: {jwt: {issuer: https://id.test/, audiences: [a], jwks: https://id.test/keys, headers: {x-user: sub}}}}
plans: {gold: {quota: 1000/day}}
consumers: {acme: {identities: {idp: acme}, plan: gold}}
`)}
	for from := 0; from < routes; from += perFile {
		var b strings.Builder
		fmt.Fprintf(&b, "services:\n  s%d: {endpoints: [10.0.0.1:80], healthCheck: {path: /healthz}}\nroutes:\n", from)
		for i := from; i < from+perFile; i++ {
			fmt.Fprintf(&b, "  r%05d:\n    hostnames: [h%d.test]\n    match: {path: /v1/r%d, methods: [GET, POST]}\n    backends: {s%d: 1}\n", i, i%hosts, i, from)
			b.WriteString("    auth: [idp]\n    plan: optional\n    cors: {allowOrigins: [\"https://a.test\"]}\n    timeouts: {request: 5s}\n    rateLimit: {rate: 5/second, by: consumer}\n")
		}
		files[fmt.Sprintf("team%d.yaml", from)] = []byte(b.String())
	}
	return files
}

// BenchmarkGuardedEdit changes a value of one of 10,000 routes: in 100 hosts, and all in one.
func BenchmarkGuardedEdit(b *testing.B) {
	for _, hosts := range []int{100, 1} {
		b.Run(fmt.Sprintf("%dhosts", hosts), func(b *testing.B) {
			before, after := guarded(10_000, 20, hosts), guarded(10_000, 20, hosts)
			after["team5000.yaml"] = bytes.Replace(after["team5000.yaml"], []byte("request: 5s"), []byte("request: 6s"), 1)
			l := feature.Language().NewLoader()
			if m, problems := l.Load(before); m == nil {
				b.Fatal(problems[0])
			}
			b.ReportAllocs()
			for b.Loop() {
				before, after = after, before
				l.Load(before)
			}
		})
	}
}
