package trustedhops_test

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/access"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/ratelimit"
	"github.com/legation/legation/feature/trustedhops"
	"github.com/legation/legation/policy"
	companion "github.com/legation/legation/ratelimit"
	"google.golang.org/grpc"
)

var kinds = []*policy.Kind{trustedhops.Kind, access.Kind, ratelimit.Kind}

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
  inside: {hostnames: [a.test], match: {path: /inside}, access: {allow: [10.0.0.0/8]}, backends: {echo: 1}}
  source: {hostnames: [a.test], match: {path: /source, source: [10.0.0.0/8]}, backends: {teapot: 1}}
`

// seen is what becomes of a request.
type seen struct {
	Client string // as backends are told
	Inside int    // the answer to clients of 10.0.0.0/8 only
	Proto  string
}

// TestClientsAddress holds that what a client writes itself never wins.
func TestClientsAddress(t *testing.T) {
	teapot := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) })
	e := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo), teapot), kinds...)
	peer := seen{"127.0.0.1", 403, "http"}
	rows := []struct {
		forwarded      []string
		none, one, two seen
	}{
		{nil, peer, peer, peer},
		{[]string{"10.1.1.1"}, peer, seen{"10.1.1.1", 200, "http"}, peer},
		{[]string{"10.1.1.1, 192.0.2.1"}, peer, seen{"192.0.2.1", 403, "http"}, seen{"10.1.1.1", 200, "http"}},
		{[]string{"10.1.1.1, 192.0.2.1, 192.0.2.2"}, peer, seen{"192.0.2.2", 403, "http"}, seen{"192.0.2.1", 403, "http"}},
		{[]string{"10.1.1.1", "192.0.2.1"}, peer, seen{"192.0.2.1", 403, "http"}, seen{"10.1.1.1", 200, "http"}},
		{[]string{"192.0.2.1, 10.1.1.1"}, peer, seen{"10.1.1.1", 200, "http"}, seen{"192.0.2.1", 403, "http"}},
		{[]string{"10.1.1.1, "}, peer, peer, seen{"10.1.1.1", 200, "http"}},
		{[]string{"10.1.1.1, unknown"}, peer, peer, seen{"10.1.1.1", 200, "http"}},
		{[]string{"10.1.1.1:80"}, peer, peer, peer},
		{[]string{"2001:db8::1"}, peer, seen{"2001:db8::1", 403, "http"}, peer},
	}
	for _, r := range rows {
		for listener, want := range map[string]seen{"none": r.none, "one": r.one, "two": r.two} {
			if listener != "none" {
				want.Proto = "https" // which the proxies say
			}
			headers := []string{
				"X-Forwarded-Proto", "https", "X-Envoy-External-Address", "10.9.9.9", "X-Real-IP", "10.9.9.9", "Forwarded", "for=10.9.9.9",
				"True-Client-IP", "10.9.9.9", "X-Forwarded-Host", "evil.test",
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
			matched := map[int]int{200: 418, 403: 200}[want.Inside]
			if got := e.AskAt(t, listener, "GET", "a.test", "/source", headers...).Status; got != matched {
				t.Errorf("%s: %q: a route for 10.0.0.0/8: got %d, want %d", listener, r.forwarded, got, matched)
			}
			for _, name := range []string{"X-Real-Ip", "Forwarded", "True-Client-Ip", "X-Forwarded-Host"} {
				if got.Header.Get(name) != "" {
					t.Errorf("%s: the backend got %s", listener, name)
				}
			}
		}
	}
}

const limited = `
gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1, trustedHops: 1}}}}
services: {echo: {endpoints: [%q]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny}, backends: {echo: 1}}
  each: {hostnames: [a.test], rateLimit: {rate: 2/day, by: ip}, backends: {echo: 1}}
`

// TestLimitsByAddress counts by the address that the proxy tells.
func TestLimitsByAddress(t *testing.T) {
	port := golden.FreePort(t)
	text := fmt.Sprintf(limited, port, golden.Backend(t, golden.Echo))
	m, problems := policy.New(kinds...).Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	limits := companion.New(companion.Options{})
	t.Cleanup(func() { limits.Close() })
	limits.Load(ratelimit.Limits(m))
	golden.Start(t, m, kinds, serveLimits(t, limits))
	ask := func(path, forwarded string) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "a.test"
		req.Header.Set("X-Forwarded-For", forwarded)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	ready := false
	for range 200 { // until Envoy has reached the companion
		if ready = ask("/ready", "") == 200; ready {
			break
		}
	}
	if !ready {
		t.Fatal("the companion does not answer")
	}
	for _, r := range []struct {
		forwarded string
		want      int
	}{
		{"192.0.2.1", 200},
		{"10.0.0.1, 192.0.2.1", 200},
		{"10.0.0.2, 192.0.2.1", 429},
		{"192.0.2.1, 192.0.2.2", 200},
	} {
		if got := ask("/", r.forwarded); got != r.want {
			t.Errorf("%s: got %d, want %d", r.forwarded, got, r.want)
		}
	}
}

func serveLimits(t *testing.T, limits *companion.Service) string {
	t.Helper()
	server := grpc.NewServer(companion.AnyText(), grpc.MaxRecvMsgSize(1<<20))
	limits.Register(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String()
}
