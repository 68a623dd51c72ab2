package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

const rewrites = `
gateways: {edge: {listeners: {http: {port: 80}}}}
services: {web: {endpoints: [%q]}}
routes:
  prefix: {hostnames: [a.test], match: {path: /v1}, rewrite: {prefix: /new}, backends: {web: 1}}
  slash: {hostnames: [a.test], match: {path: {prefix: /cut, ignoreCase: true}}, rewrite: {prefix: /}, backends: {web: 1}}
  root: {hostnames: [b.test], rewrite: {prefix: /all/}, backends: {web: 1}}
  path: {hostnames: [a.test], match: {path: /fixed}, rewrite: {path: "/100%%25"}, backends: {web: 1}}
  regex: {hostnames: [a.test], match: {path: /old}, rewrite: {regex: {pattern: '^/old/([^/]+)(/.*)?$', substitution: '/files/\1\2'}}, backends: {web: 1}}
  same: {hostnames: [a.test], match: {path: /same}, rewrite: {prefix: /same}, backends: {web: 1}}
`

func TestRewrittenPathIsWhatTheBackendGets(t *testing.T) {
	text := fmt.Sprintf(rewrites, golden.Backend(t, golden.Echo))
	edge := golden.Serve(t, text, feature.All()...)
	p := served(t, policy.Files{"policy.yaml": []byte(text)})
	for _, url := range []string{
		"a.test/v1", "a.test/v1/", "a.test/v1/x?y=/v1", "a.test/cut", "a.test/CUT/x", "a.test/cut//x/", "b.test/", "b.test/x?y",
		"a.test/fixed/x?y=1", "a.test/old/a", "a.test/old/a/b/c?d", "a.test/old", "a.test/old/", "a.test/same/x",
	} {
		e, err := p.Explain(Question{URL: "http://" + url})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(e.Facts, func(f Told) bool { return f.Topic == "rewrite" })
		if i < 0 {
			t.Fatalf("%s: nothing is told of the rewrite: %+v", url, e)
		}
		host, path, _ := strings.Cut(url, "/")
		want := "the backend gets the path " + edge.Ask(t, "GET", host, "/"+path).Received(t).Path
		if got := e.Facts[i].Text; got != want {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
	}
}
