package explain

import (
	"fmt"
	"strings"
	"testing"

	"github.com/legation/legation/policy"
)

// manyRoutes is 10,000 routes: of a hundred hosts, or all of one, where every tenth is a regular expression.
func manyRoutes(hosts int) policy.Files {
	var b strings.Builder
	b.WriteString("gateways: {edge: {listeners: {http: {port: 10000}}, defaults: {timeouts: {request: 5s}}}}\nservices: {web: {endpoints: [127.0.0.1:1]}}\nroutes:\n")
	for i := range 10_000 {
		path := fmt.Sprintf("/v1/r%d", i)
		if i%10 == 0 {
			path = fmt.Sprintf("{regex: '/v[0-9]/x%d/.*'}", i)
		}
		fmt.Fprintf(&b, "  r%d: {hostnames: [h%d.test], match: {path: %s}, backends: {web: 1}, rateLimit: {rate: 5/second, by: ip}}\n", i, i%hosts, path)
	}
	files := policy.Files{}
	for i, part := range strings.SplitAfter(b.String(), "\n") {
		name := fmt.Sprintf("f%d.yaml", max(i-3, -1)/1000)
		if i >= 3 && len(files[name]) == 0 {
			files[name] = []byte("routes:\n")
		}
		files[name] = append(files[name], part...)
	}
	return files
}

// An explanation of a policy of 10,000 routes, from the question to the text, once the policy is loaded.
func BenchmarkExplain10k(b *testing.B) {
	for _, row := range []struct {
		name  string
		hosts int
		url   string
	}{
		{"hundred hosts", 100, "http://h3.test/v1/r9903/x"},
		{"one host", 1, "http://h0.test/v1/r9999/x"},
		{"last regex", 1, "http://h0.test/v1/x0/y"},
		{"no route", 1, "http://h0.test/nowhere"},
		{"no host", 100, "http://nowhere.test/"},
	} {
		b.Run(row.name, func(b *testing.B) {
			p := served(b, manyRoutes(row.hosts))
			b.ReportAllocs()
			for b.Loop() {
				e, err := p.Explain(Question{URL: row.url})
				if err != nil {
					b.Fatal(err)
				}
				if err := e.Write(&strings.Builder{}, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
