package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

const redirects = `
gateways: {edge: {listeners: {http: {port: 80}}}}
routes:
  prefix: {hostnames: [a.test], match: {path: /old}, redirect: {hostname: b.test, prefix: /new, status: 301}}
  cut: {hostnames: [a.test], match: {path: {prefix: /Cut, ignoreCase: true}}, redirect: {scheme: https, prefix: /}}
  all: {hostnames: [b.test], redirect: {scheme: https, port: 8443, prefix: /all, stripQuery: true}}
  path: {hostnames: [a.test], match: {path: {exact: /here}}, redirect: {path: /there, port: 80, status: 308}}
  host: {hostnames: [a.test], match: {path: /same}, redirect: {hostname: b.test, scheme: https, port: 443, prefix: /same}}
`

func TestRedirectsLeadWhereEnvoySendsClients(t *testing.T) {
	edge := golden.Serve(t, redirects, feature.All()...)
	p := served(t, policy.Files{"policy.yaml": []byte(redirects)})
	for _, url := range []string{
		"a.test/old", "a.test/old/", "a.test/old/x?y=/old", "a.test/cut", "a.test/CUT//x/?y", "b.test/", "b.test/x?y", "a.test/here?y=1",
		"a.test/same/x?y", "a.test/same",
	} {
		e, err := p.Explain(Question{URL: "http://" + url})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(e.Facts, func(f Told) bool { return f.Topic == "redirect" })
		if i < 0 {
			t.Fatalf("%s: nothing is told of the redirect: %+v", url, e)
		}
		_, got, _ := strings.Cut(e.Facts[i].Text, ", to ")
		host, path, _ := strings.Cut(url, "/")
		if want := edge.Ask(t, "GET", host, "/"+path).Header.Get("location"); got != want {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
	}
}
