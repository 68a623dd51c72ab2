package ratelimit_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/ratelimit"
)

// hour is long enough that no bucket fills by one while a test runs.
const perEnvoyPolicy = `
gateways: {edge: {listeners: {http: {port: 10000}}, defaults: {rateLimit: {rate: 1000/hour, mode: perEnvoy, headers: none}}}}
services: {echo: {endpoints: ["BACKEND"]}}
routes:
  all: {hostnames: [a.test], match: {path: /all}, rateLimit: {rate: 2/hour, mode: perEnvoy}, backends: {echo: 1}}
  other: {hostnames: [a.test], match: {path: /other}, rateLimit: {rate: 2/hour, mode: perEnvoy}, backends: {echo: 1}}
  burst: {hostnames: [a.test], match: {path: /burst}, rateLimit: {rate: 1/hour, burst: 3, mode: perEnvoy}, backends: {echo: 1}}
  ip: {hostnames: [a.test], match: {path: /ip}, rateLimit: {rate: 2/hour, by: {ip: /56}, mode: perEnvoy}, backends: {echo: 1}}
  header: {hostnames: [a.test], match: {path: /header}, rateLimit: {rate: 1/hour, by: {header: x-team}, mode: perEnvoy}, backends: {echo: 1}}
  cookie: {hostnames: [a.test], match: {path: /cookie}, rateLimit: {rate: 1/hour, by: {cookie: id}, mode: perEnvoy}, backends: {echo: 1}}
  path: {hostnames: [a.test], match: {path: /path}, rateLimit: {rate: 1/hour, by: [path, method], mode: perEnvoy}, backends: {echo: 1}}
  cel: {hostnames: [a.test], match: {path: /cel}, rateLimit: {rate: 1/hour, by: [{cel: "request.headers['x-team'] == 'a'"}, {header: x-app}], mode: perEnvoy}, backends: {echo: 1}}
  shadow: {hostnames: [a.test], match: {path: /shadow}, rateLimit: [{rate: 1/hour, mode: perEnvoy, shadow: true}, {rate: 3/hour, mode: perEnvoy}], backends: {echo: 1}}
  values:
    hostnames: [a.test]
    match: {path: /values}
    rateLimit: {rate: 1/hour, by: {header: x-team}, mode: perEnvoy, overrides: {two: 2/hour, any: unlimited}, exempt: [free]}
    backends: {echo: 1}
  several: {hostnames: [a.test], match: {path: /several}, rateLimit: [{rate: 3/hour, mode: perEnvoy}, {rate: 1/hour, by: {header: x-team}, mode: perEnvoy}], backends: {echo: 1}}
  quiet: {hostnames: [a.test], match: {path: /quiet}, rateLimit: {rate: 1/hour, mode: perEnvoy, headers: none}, backends: {echo: 1}}
  answer: {hostnames: [a.test], match: {path: /answer}, rateLimit: {rate: 1/hour, mode: perEnvoy}, answer: true}
`

func TestEnvoyCountsByItself(t *testing.T) {
	backend := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("x-ratelimit-limit", "999") })
	e := golden.Serve(t, strings.Replace(perEnvoyPolicy, "BACKEND", backend, 1), ratelimit.Kind, answerKind)
	ask := func(path string, headers ...string) golden.Answer { return e.Ask(t, "GET", "a.test", path, headers...) }
	for _, test := range []struct {
		path    string
		headers []string
		want    []int
	}{
		{"/all", nil, []int{200, 200, 429, 429}},
		{"/other", nil, []int{200, 200, 429}},
		{"/burst", nil, []int{200, 200, 200, 429}},
		{"/ip", []string{"x-forwarded-for", "1.2.3.4"}, []int{200, 200, 429}},
		{"/header", []string{"x-team", "a"}, []int{200, 429}},
		{"/header", []string{"x-team", "b"}, []int{200, 429}},
		{"/header", []string{"x-team", "b", "x-team", "c"}, []int{429}},
		{"/header", nil, []int{200, 429}},
		{"/header", []string{"x-team", ""}, []int{200, 429}},
		{"/header", []string{"x-team", strings.Repeat("x", 20<<10)}, []int{200, 429}},
		{"/cookie", []string{"cookie", "a=1; id=x"}, []int{200, 429}},
		{"/cookie", []string{"cookie", `id="x"; a=2`}, []int{429}},
		{"/cookie", []string{"cookie", "id=y"}, []int{200, 429}},
		{"/cookie", nil, []int{200, 429}},
		{"/cookie", []string{"cookie", "id=" + strings.Repeat("x", 20<<10)}, []int{429}},
		{"/path/a?b", nil, []int{200, 429}},
		{"/path/a?c", nil, []int{429}},
		{"/path/%61", nil, []int{429}},
		{"/path/b", nil, []int{200, 429}},
		{"/cel", []string{"x-team", "a"}, []int{200, 429}},
		{"/cel", []string{"x-team", "a", "x-app", "a"}, []int{200, 429}},
		{"/cel", []string{"x-team", "b"}, []int{200, 429}},
		{"/cel", []string{"x-team", "c"}, []int{429}},
		{"/cel", []string{"x-app", "a"}, []int{200, 429}},
		{"/cel", nil, []int{200, 429}},
		{"/shadow", nil, []int{200, 200, 200, 429}},
		{"/values", []string{"x-team", "one"}, []int{200, 429}},
		{"/values", []string{"x-team", "two"}, []int{200, 200, 429}},
		{"/values", []string{"x-team", "any"}, []int{200, 200, 200, 200}},
		{"/values", []string{"x-team", "free"}, []int{200, 200, 200, 200}},
		{"/several", []string{"x-team", "a"}, []int{200, 429}},
		{"/several", []string{"x-team", "b"}, []int{200, 429}},
		{"/answer", nil, []int{204, 429}},
	} {
		var got []int
		for range test.want {
			got = append(got, ask(test.path, test.headers...).Status)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s with %.80q (-want +got):\n%s", test.path, test.headers, diff)
		}
	}
	t.Run("what answers tell", func(t *testing.T) {
		names := []string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "Retry-After", "X-Envoy-Ratelimited"}
		for _, test := range []struct {
			path string
			want map[string]int // how often each stands there
		}{
			{"/all", map[string]int{"X-Ratelimit-Limit": 1, "X-Ratelimit-Remaining": 1, "X-Ratelimit-Reset": 1, "Retry-After": 1}},
			{"/quiet", map[string]int{"X-Ratelimit-Limit": 1}}, // the backend's
			{"/quiet", map[string]int{"Retry-After": 1}},
		} {
			a := ask(test.path)
			got := map[string]int{}
			for _, name := range names {
				if n := len(a.Header.Values(name)); n > 0 {
					got[name] = n
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s: %v (-want +got):\n%s", test.path, a.Header, diff)
			}
		}
		a := ask("/all")
		if want := `{"error":"too many requests"}`; strings.TrimSpace(a.Body) != want || a.Header.Get("X-Ratelimit-Limit") == "999" {
			t.Errorf("got %s %v, want %s", a.Body, a.Header, want)
		}
		if got := ask("/all", "content-type", "application/grpc").Header.Get("Grpc-Status"); got != "8" {
			t.Errorf("got grpc-status %q, want 8", got)
		}
	})
}
