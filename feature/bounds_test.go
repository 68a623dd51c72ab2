package feature_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// TestBoundsOfLongTexts holds bounds that no golden file could show: each of these is one too long, and good with one less.
func TestBoundsOfLongTexts(t *testing.T) {
	ranges := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("10.0.%d.%d", i/256, i%256))
		}
		return "[" + strings.Join(all, ", ") + "]"
	}
	text := func(n int) string { return strings.Repeat("a", n) }
	for _, r := range []struct {
		what    string
		most    int
		listens string // the listener's setting, with the long text
		routes  string // the route's
		want    string // how the problem begins
	}{
		{"access.allow", 1000, "", "access: {allow: %s}", "want at most 1000 ranges"},
		{"proxyProtocol.from", 100, "proxyProtocol: {from: %s}", "", "want at most 100 ranges"},
		{"headers.request.set.x-a", 16384, "", "headers: {request: {set: {x-a: %s}}}", "the value is longer than"},
		{"query.set.a", 4096, "", "query: {set: {a: %s}}", "the value is longer than"},
		{"directResponse.body", 64 << 10, "", "directResponse: {body: %s}", "65537 bytes, more than 64 KiB"},
		{"directResponse.headers.x-a", 16384, "", "directResponse: {headers: {x-a: %s}}", "the value is longer than"},
	} {
		for _, n := range []int{r.most, r.most + 1} {
			long := text(n)
			if strings.Contains(r.want, "ranges") {
				long = ranges(n)
			}
			files := policy.Files{"policy.yaml": []byte(boundsPolicy(r.listens, r.routes, long))}
			_, problems := feature.Language().Load(files)
			told := slices.ContainsFunc(problems, func(p *policy.Problem) bool {
				return strings.HasSuffix(p.Path, r.what) && strings.HasPrefix(p.Message, r.want)
			})
			if fine := n == r.most; fine == told || fine && problems.Err() != nil {
				t.Errorf("%s with %d: got %.300v", r.what, n, problems)
			}
		}
	}
}

// boundsPolicy is a policy with one setting too long for a golden file.
func boundsPolicy(listens, routes, long string) string {
	filled := func(setting string) string {
		if setting == "" {
			return ""
		}
		return ", " + fmt.Sprintf(setting, long)
	}
	backends := ", backends: {orders: 1}"
	if strings.Contains(routes, "directResponse") {
		backends = ""
	}
	return fmt.Sprintf(`
gateways: {edge: {listeners: {http: {port: 10000%s}}}}
services: {orders: {endpoints: ["127.0.0.1:8080"]}}
routes: {orders: {hostnames: [a.test]%s%s}}
`, filled(listens), backends, filled(routes))
}
