package access_test

import (
	"fmt"
	"testing"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/access"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", access.Kind) }

// behind is a listener behind so many proxies of ours.
type behind uint32

var behindKind = policy.Define[behind]("behind", policy.InListener, "")

func (*behind) Check(*policy.Check) {}

func (b *behind) HTTP(envoy.ListenerContext) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{XffNumTrustedHops: uint32(*b)}
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000%s}}}}
services: {orders: {endpoints: [%q]}}
routes:
  allow: {hostnames: [a.test], match: {path: /allow}, backends: {orders: 1}, access: {allow: [10.0.0.0/8, "2001:db8::/32"]}}
  deny: {hostnames: [a.test], match: {path: /deny}, backends: {orders: 1}, access: {deny: [10.0.0.0/8, "::/0"]}}
  both: {hostnames: [a.test], match: {path: /both}, backends: {orders: 1}, access: {allow: [10.0.0.0/8], deny: [10.1.2.3, 10.2.0.0/16]}}
  v4: {hostnames: [a.test], match: {path: /v4}, backends: {orders: 1}, access: {allow: [0.0.0.0/0]}}
  local: {hostnames: [a.test], match: {path: /local}, backends: {orders: 1}, access: {allow: [127.0.0.1]}}
  any: {hostnames: [a.test], match: {path: /any}, backends: {orders: 1}}
`

func TestClientsBehindAProxy(t *testing.T) {
	edge := golden.Serve(t, fmt.Sprintf(live, ", behind: 1", golden.Backend(t, golden.Echo)), access.Kind, behindKind)
	for _, tt := range []struct {
		path, client string // what x-forwarded-for says
		status       int
	}{
		{"/allow", "10.9.9.9", 200},
		{"/allow", "11.0.0.1", 403},
		{"/allow", "2001:db8::7", 200},
		{"/allow", "2001:db9::7", 403},
		{"/allow", "::ffff:10.9.9.9", 200}, // so a proxy may write an IPv4 client
		{"/allow", "10.9.9.9, 11.0.0.1", 403},
		{"/allow", "11.0.0.1, 10.9.9.9", 200}, // the proxy has written the last one
		{"/deny", "10.9.9.9", 403},
		{"/deny", "11.0.0.1", 200},
		{"/deny", "2001:db8::7", 403},
		{"/deny", "::ffff:10.9.9.9", 403},
		{"/both", "10.9.9.9", 200},
		{"/both", "10.1.2.3", 403},
		{"/both", "10.2.255.255", 403},
		{"/both", "192.0.2.1", 403},
		{"/both", "::ffff:10.1.2.3", 403},
		{"/both", "::ffff:a01:203", 403},
		{"/v4", "192.0.2.1", 200},
		{"/v4", "2001:db8::7", 403},
		{"/any", "192.0.2.1", 200},
		{"/local", "not an address", 200}, // Envoy falls back to the peer
		{"/allow", "not an address", 403},
	} {
		got := edge.Ask(t, "GET", "a.test", tt.path, "X-Forwarded-For", tt.client)
		if got.Status != tt.status {
			t.Errorf("%s from %q: got %d, want %d", tt.path, tt.client, got.Status, tt.status)
		}
		if want := `{"error":"forbidden"}`; got.Status == 403 && got.Body != want+"\n" && got.Body != want {
			t.Errorf("%s: got the body %q, want %s", tt.path, got.Body, want)
		}
	}
}

// Without a trusted proxy the peer is the client, whatever it says of itself.
func TestClientsCannotChooseTheirAddress(t *testing.T) {
	edge := golden.Serve(t, fmt.Sprintf(live, "", golden.Backend(t, golden.Echo)), access.Kind, behindKind)
	for path, want := range map[string]int{"/allow": 403, "/local": 200, "/deny": 200, "/v4": 200} {
		for _, header := range []string{"X-Forwarded-For", "X-Envoy-External-Address", "X-Real-IP", "Forwarded"} {
			if got := edge.Ask(t, "GET", "a.test", path, header, "10.9.9.9"); got.Status != want {
				t.Errorf("%s with %s: got %d, want %d", path, header, got.Status, want)
			}
		}
	}
}
