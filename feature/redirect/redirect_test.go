package redirect_test

import (
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/redirect"
	"github.com/legation/legation/policy"
)

// other stands for the other key that answers by itself.
type other struct{}

func (*other) Check(*policy.Check) {}

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", redirect.Kind, policy.Define[other]("directResponse", policy.InRoute, ""))
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
routes:
  scheme: {hostnames: [scheme.test], redirect: {scheme: https, status: 301}}
  known: {hostnames: [known.test], redirect: {scheme: https, port: 443}}
  port: {hostnames: [port.test], redirect: {scheme: https, port: 8443}}
  host: {hostnames: [host.test, "*.host.test"], redirect: {hostname: www.example.com, status: 308}}
  path: {hostnames: [path.test], match: {path: /old}, redirect: {path: "/a%20b"}}
  prefix: {hostnames: [prefix.test], match: {path: /v1/orders}, redirect: {prefix: "/orders%2Cx/", status: 307}}
  cut: {hostnames: [cut.test], match: {path: /v1.2}, redirect: {prefix: /, status: 303}}
  under: {hostnames: [under.test], redirect: {prefix: /x, hostname: under.example.com}}
  case: {hostnames: [case.test], match: {path: {prefix: /Old, ignoreCase: true}}, redirect: {prefix: /new}}
  cutcase: {hostnames: [cutcase.test], match: {path: {prefix: /Old, ignoreCase: true}}, redirect: {prefix: /}}
  template: {hostnames: [template.test], match: {path: {template: "/users/{id}"}}, redirect: {path: /users}}
  bare: {hostnames: [bare.test], match: {path: /a}, redirect: {path: /b, stripQuery: true}}
  cutbare: {hostnames: [cutbare.test], match: {path: /a}, redirect: {prefix: /, stripQuery: true}}
`

func TestClientsAreSentElsewhere(t *testing.T) {
	envoy := golden.Serve(t, live, redirect.Kind)
	for _, tt := range []struct {
		host, path string
		status     int
		want       string
	}{
		{"scheme.test", "/a?b=c", 301, "https://scheme.test/a?b=c"},
		{"scheme.test:8080", "/", 301, "https://scheme.test/"},
		{"known.test", "/", 302, "https://known.test/"},
		{"port.test:80", "/", 302, "https://port.test:8443/"},
		{"host.test", "/a/b?c", 308, "http://www.example.com/a/b?c"},
		{"x.host.test:8080", "/", 308, "http://www.example.com/"},
		{"path.test", "/old/thing?a=b", 302, "http://path.test/a%20b?a=b"},
		{"prefix.test", "/v1/orders", 307, "http://prefix.test/orders%2Cx"},
		{"prefix.test", "/v1/orders/", 307, "http://prefix.test/orders%2Cx/"},
		{"prefix.test", "/v1/orders/7?a=/v1/orders", 307, "http://prefix.test/orders%2Cx/7?a=/v1/orders"},
		{"cut.test", "/v1.2", 303, "http://cut.test/"},
		{"cut.test", "/v1.2/?a=b", 303, "http://cut.test/?a=b"},
		{"cut.test", "/v1.2?a=b", 303, "http://cut.test/?a=b"},
		{"cut.test", "/v1.2//evil.test/7", 303, "http://cut.test/evil.test/7"},
		{"under.test", "/", 302, "http://under.example.com/x/"},
		{"under.test", "/7?a=b", 302, "http://under.example.com/x/7?a=b"},
		{"case.test", "/oLD/a?b=c", 302, "http://case.test/new/a?b=c"},
		{"cutcase.test", "/oLD/a?b=c", 302, "http://cutcase.test/a?b=c"},
		{"template.test", "/users/7", 302, "http://template.test/users"},
		{"bare.test", "/a?b=c", 302, "http://bare.test/b"},
		{"cutbare.test", "/a/c?b=c", 302, "http://cutbare.test/c"},
		{"bare.test", "/", 404, ""},
	} {
		got := envoy.Ask(t, "GET", tt.host, tt.path)
		if location := got.Header.Get("location"); got.Status != tt.status || location != tt.want {
			t.Errorf("%s%s: %d to %q, want %d to %q", tt.host, tt.path, got.Status, location, tt.status, tt.want)
		}
	}
}
