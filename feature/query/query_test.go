package query_test

import (
	"fmt"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/query"
	"github.com/legation/legation/policy"
)

// answer stands for a key that answers by itself.
type answer struct{}

func (*answer) Check(*policy.Check) {}

func (*answer) Answers() bool { return true }

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", query.Kind, policy.Define[answer]("answer", policy.InRoute, ""))
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}, other: {endpoints: ["127.0.0.1:1"]}}
routes:
  set: {hostnames: [set.test], backends: {orders: 1}, query: {set: {v: "2"}}}
  add: {hostnames: [add.test], backends: {orders: 1}, query: {add: {v: "2"}}}
  remove: {hostnames: [remove.test], backends: {orders: 1}, query: {remove: [debug]}}
  odd: {hostnames: [odd.test], backends: {orders: 1}, query: {set: {"a b&c=d#é%%": "x y&z=1#é+%%REQ(:PATH)%%", empty: ""}}}
  path: {hostnames: [path.test], match: {path: /a}, backends: {orders: 1}, query: {set: {v: "2"}}}
  other: {hostnames: [path.test], match: {path: /a, query: {v: "2"}}, backends: {other: 1}}
`

func TestBackendGetsQuery(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo)), query.Kind)
	for _, tt := range []struct{ host, path, want string }{
		{"set.test", "/a", "/a?v=2"},
		{"set.test", "/a?", "/a?v=2"},
		{"set.test", "/a?v=1&v=3&w=4&v&v=", "/a?w=4&v=2"},
		{"set.test", "/a?%76=1", "/a?v=2"},
		{"set.test", "/a?V=1&v[]=2&vv=3", "/a?V=1&v[]=2&vv=3&v=2"},
		{"set.test", "/a?b=1&a=2&flag&&=x", "/a?b=1&a=2&flag&=x&v=2"},
		{"set.test", "/a?b=%26v%3D1%23%2B+c%20d/?v=f%zz%", "/a?b=%26v%3D1%23%2B+c%20d/?v=f%zz%&v=2"},
		{"set.test", "/a?b=%0d%0ax:%20y%00%ff&%00v=1", "/a?b=%0d%0ax:%20y%00%ff&%00v=1&v=2"},
		{"set.test", "/a?b=%2526v=1", "/a?b=%2526v=1&v=2"},
		{"add.test", "/a?v=1", "/a?v=1&v=2"},
		{"add.test", "/a", "/a?v=2"},
		{"remove.test", "/a?debug", "/a"},
		{"remove.test", "/a?debug=1&a=1&d%65bug=2", "/a?a=1"},
		{"remove.test", "/a?b=2&&a=1", "/a?b=2&&a=1"},
		{"remove.test", "/a%2Cb/debug", "/a%2Cb/debug"},
		{"odd.test", "/a?a+b%26c%3Dd%23%C3%a9%25=1&a%20b&%25", "/a?a%20b&%25&a%20b%26c%3Dd%23%C3%A9%25=x%20y%26z%3D1%23%C3%A9%2B%25REQ%28%3APATH%29%25&empty="},
		{"path.test", "/a", "/a?v=2"}, // and not to the other route
	} {
		got := envoy.Raw(t, "GET "+tt.path+" HTTP/1.1\r\nhost: "+tt.host+"\r\nx-envoy-original-path: /forged\r\n\r\n").Received(t)
		if got.Path != tt.want {
			t.Errorf("%s%s became %s, want %s", tt.host, tt.path, got.Path, tt.want)
		}
		original := tt.path
		if tt.want == tt.path {
			original = ""
		}
		if told := got.Header.Get("x-envoy-original-path"); told != original {
			t.Errorf("%s%s: the original path is told as %q, want %q", tt.host, tt.path, told, original)
		}
	}
}
