package ratelimit_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/callout"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/ratelimit"
	"github.com/legation/legation/policy"
	companion "github.com/legation/legation/ratelimit"
	"google.golang.org/grpc"
)

const livePolicy = `
gateways: {edge: {listeners: {http: {port: PORT, address: 127.0.0.1}}}}
services: {echo: {endpoints: ["BACKEND"]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny}, backends: {echo: 1}}
  values: {hostnames: [a.test], match: {path: /values}, backends: {echo: 1}, rateLimit: [{rate: 1000/day, by: {header: x-t}}, {rate: 3/day}]}
  mixed: {hostnames: [a.test], match: {path: /mixed}, backends: {echo: 1}, rateLimit: [{rate: 50/day, onError: deny}, {rate: 1/day, by: {header: x-t}}]}
  many: {hostnames: [a.test], match: {path: /many}, backends: {echo: 1}, rateLimit: [{rate: 2/day}, MANY]}
`

// live is a real Envoy that asks a real companion.
type live struct {
	t       *testing.T
	address string
	limits  *companion.Service
}

func serve(t *testing.T) live {
	t.Helper()
	backend := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit-Limit", "999")
		w.Header().Set("RateLimit-Remaining", "998")
		w.Header().Set("RateLimit-Reset", "997")
	})
	port := strconv.Itoa(golden.FreePort(t))
	many := strings.Repeat("{rate: 1000/day, by: {header: x-t}}, ", 22) + "{rate: 1000/day, by: {header: x-t}}"
	text := strings.NewReplacer("PORT", port, "BACKEND", backend, "MANY", many).Replace(livePolicy)
	kinds := []*policy.Kind{ratelimit.Kind}
	m, problems := policy.New(kinds...).Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	v := live{t, "127.0.0.1:" + port, companion.New(companion.Options{})}
	t.Cleanup(func() { v.limits.Close() })
	v.limits.Load(companion.Table{Limits: ratelimit.Limits(m)})
	golden.Start(t, m, kinds, v.answer())
	for range 200 {
		if v.ask("/ready").StatusCode == http.StatusOK {
			return v
		}
	}
	t.Fatal("the companion does not answer")
	return v
}

// answer serves the companion as app does, and tells where.
func (v live) answer() string {
	s := grpc.NewServer(grpc.ForceServerCodecV2(callout.AnyText()), grpc.MaxRecvMsgSize(1<<20))
	v.limits.Register(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		v.t.Fatal(err)
	}
	go s.Serve(l)
	v.t.Cleanup(s.Stop)
	return l.Addr().String()
}

// ask sends the bytes of the headers as they are.
func (v live) ask(path string, headers ...string) *http.Response {
	v.t.Helper()
	c, err := net.DialTimeout("tcp", v.address, 5*time.Second)
	if err != nil {
		v.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n", path)
	for i := 0; i < len(headers); i += 2 {
		fmt.Fprintf(c, "%s: %s\r\n", headers[i], headers[i+1])
	}
	fmt.Fprint(c, "\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		v.t.Fatal(err)
	}
	r.Body.Close()
	return r
}

// left asks the companion what is left of a limit.
func (v live) left(name string) string {
	for _, h := range v.limits.Count(v.t.Context(), []string{name}, companion.Attributes{}, 0).Headers {
		if h.Name == "RateLimit-Remaining" {
			return h.Value
		}
	}
	return ""
}

func TestThroughEnvoy(t *testing.T) {
	v := serve(t)
	t.Run("no value gets around a limit", func(t *testing.T) {
		values := []string{strings.Repeat("x", 4097), "\xff\xfe", strings.Repeat("x", 30<<10), strings.Repeat("\xff", 30<<10), "a"}
		for i, value := range values {
			want := http.StatusOK
			if i >= 3 {
				want = http.StatusTooManyRequests
			}
			if r := v.ask("/values", "x-t", value); r.StatusCode != want || r.Header.Get("Ratelimit-Limit") != "3" {
				t.Errorf("%d bytes: got %d %v, want %d by the limit of 3", len(value), r.StatusCode, r.Header, want)
			}
		}
	})
	t.Run("as many limits as may be, with the longest value", func(t *testing.T) {
		for _, want := range []int{200, 200, 429, 429} {
			if got := v.ask("/many", "x-t", strings.Repeat("x", 31<<10)).StatusCode; got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		}
	})
	t.Run("limits that fail open and closed are one decision", func(t *testing.T) {
		for i := range 10 {
			r := v.ask("/mixed", "x-t", "a")
			if want := map[bool]int{true: 200, false: 429}[i == 0]; r.StatusCode != want {
				t.Errorf("request %d: got %d, want %d", i, r.StatusCode, want)
			}
			for _, name := range []string{"Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset"} {
				if got := r.Header.Values(name); len(got) != 1 || slices.Contains([]string{"997", "998", "999"}, got[0]) {
					t.Errorf("request %d: %s is %q, want ours alone", i, name, got)
				}
			}
			if got := r.Header.Values("X-Envoy-Ratelimited"); len(got) > 0 {
				t.Errorf("x-envoy-ratelimited is %q", got)
			}
		}
		if got := v.left("route/mixed/0"); got != "49" {
			t.Errorf("%s of the shared limit are left, want 49: refused requests do not count", got)
		}
	})
}
