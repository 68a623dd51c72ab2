package trustedhops_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/trustedhops"
	"github.com/legation/legation/policy"
)

var kinds = []*policy.Kind{trustedhops.Kind}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

const live = `
gateways:
  edge:
    trustedHops: 2
    listeners:
      none: {port: 1, trustedHops: 0}
      one: {port: 2, trustedHops: 1}
      two: {port: 3}
services: {echo: {endpoints: [%q]}, teapot: {endpoints: [%q]}}
routes:
  any: {hostnames: [a.test], backends: {echo: 1}}
  inside: {hostnames: [a.test], match: {path: /inside, source: [10.0.0.0/8]}, backends: {teapot: 1}}
`

// seen is what becomes of a request.
type seen struct {
	Client string // as backends are told
	Inside int    // 418 for clients of 10.0.0.0/8
	Proto  string
}

// TestClientsAddress holds that what a client writes itself never wins.
func TestClientsAddress(t *testing.T) {
	teapot := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) })
	e := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo), teapot), kinds...)
	peer := seen{"127.0.0.1", 200, "http"}
	rows := []struct {
		forwarded      []string
		none, one, two seen
	}{
		{nil, peer, peer, peer},
		{[]string{"10.1.1.1"}, peer, seen{"10.1.1.1", 418, "http"}, peer},
		{[]string{"10.1.1.1, 192.0.2.1"}, peer, seen{"192.0.2.1", 200, "http"}, seen{"10.1.1.1", 418, "http"}},
		{[]string{"10.1.1.1, 192.0.2.1, 192.0.2.2"}, peer, seen{"192.0.2.2", 200, "http"}, seen{"192.0.2.1", 200, "http"}},
		{[]string{"10.1.1.1", "192.0.2.1"}, peer, seen{"192.0.2.1", 200, "http"}, seen{"10.1.1.1", 418, "http"}},
		{[]string{"192.0.2.1, 10.1.1.1"}, peer, seen{"10.1.1.1", 418, "http"}, seen{"192.0.2.1", 200, "http"}},
		{[]string{"10.1.1.1, "}, peer, peer, seen{"10.1.1.1", 418, "http"}},
		{[]string{"10.1.1.1, unknown"}, peer, peer, seen{"10.1.1.1", 418, "http"}},
		{[]string{"10.1.1.1:80"}, peer, peer, peer},
		{[]string{"2001:db8::1"}, peer, seen{"2001:db8::1", 200, "http"}, peer},
	}
	for _, r := range rows {
		for listener, want := range map[string]seen{"none": r.none, "one": r.one, "two": r.two} {
			if listener != "none" {
				want.Proto = "https" // which the proxies say
			}
			headers := []string{
				"X-Forwarded-Proto", "https", "X-Envoy-External-Address", "10.9.9.9", "X-Real-IP", "10.9.9.9", "Forwarded", "for=10.9.9.9",
				"True-Client-IP", "10.9.9.9", "X-Forwarded-Host", "evil.test",
				"X-Forwarded-Client-Cert", "URI=spiffe://mesh/admin", "X-Legation-Peer", "spiffe://mesh/admin",
			}
			for _, line := range r.forwarded {
				headers = append(headers, "X-Forwarded-For", line)
			}
			got := e.AskAt(t, listener, "GET", "a.test", "/", headers...).Received(t)
			is := seen{
				Client: got.Header.Get("X-Envoy-External-Address"), Proto: got.Header.Get("X-Forwarded-Proto"),
				Inside: e.AskAt(t, listener, "GET", "a.test", "/inside", headers...).Status,
			}
			if diff := cmp.Diff(want, is); diff != "" {
				t.Errorf("%s: %q (-want +got):\n%s", listener, r.forwarded, diff)
			}
			for _, name := range []string{"X-Real-Ip", "Forwarded", "True-Client-Ip", "X-Forwarded-Host", "X-Forwarded-Client-Cert", "X-Legation-Peer"} {
				if got.Header.Get(name) != "" {
					t.Errorf("%s: the backend got %s", listener, name)
				}
			}
		}
	}
}
