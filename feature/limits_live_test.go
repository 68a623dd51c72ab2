package feature_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"google.golang.org/grpc"
)

const limitsPolicy = `
gateways: {edge: {listeners: {http: {port: PORT, address: 127.0.0.1}}}}
auth:
  demo: {jwt: {issuer: ISSUER, audiences: [AUDIENCE], jwks: {file: keys.json}, plan: tenant.plan}}
consumers: {acme: {plan: gold, jwt: {demo: [alice, anna]}}}
plans:
  gold: {rate: 100/hour, quota: 5/year}
  free: {quota: 2/year, headers: structured}
  trial: {rate: 2/day, quota: 2/year, refund: [5xx]}
services: {echo: {endpoints: ["UPSTREAM"]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny}, backends: {echo: 1}}
  refund-none: {hostnames: [a.test], match: {path: /refund/none}, rateLimit: {rate: 2/day, refund: [5xx, 404, 429]}, backends: {echo: 1}}
  refund-values:
    hostnames: [a.test]
    match: {path: /refund/values}
    rewrite: {prefix: /new}
    headers: {request: {set: {x-team: other}}}
    rateLimit: [{rate: 1/day, by: [ip, {header: x-team}, {cookie: id}, path], refund: [5xx]}, {rate: 100/day}]
    backends: {echo: 1}
  refund-refused: {hostnames: [a.test], match: {path: /refund/refused}, access: {deny: [127.0.0.1]}, rateLimit: {rate: 2/day, refund: [4xx]}, backends: {echo: 1}}
  refund-itself: {hostnames: [a.test], match: {path: /refund/itself}, rateLimit: [{rate: 3/day, refund: [4xx]}, {rate: 1/hour, mode: perEnvoy}], backends: {echo: 1}}
  refund-fault: {hostnames: [a.test], match: {path: /refund/fault}, fault: {abort: {status: 503, percent: 100%}}, rateLimit: {rate: 3/day, refund: [5xx]}, backends: {echo: 1}}
  refund-host: {hostnames: [a.test], match: {path: /refund/host}, rewrite: {hostname: b.test}, rateLimit: {rate: 1/day, by: [host, method, route], refund: [5xx]}, backends: {echo: 1}}
  refund-known:
    hostnames: [a.test]
    match: {path: /refund/known}
    auth: [demo]
    rateLimit: [{rate: 1/day, by: [consumer, {claim: tenant.id}], refund: [4xx, 5xx]}, {rate: 100/day, by: ip}]
    backends: {echo: 1}
  itself: {hostnames: [a.test], match: {path: /itself}, auth: [demo], rateLimit: [{rate: 1/hour, by: [consumer, {claim: tenant.id}], mode: perEnvoy}, {rate: 100/day}], backends: {echo: 1}}
  parts: {hostnames: [a.test], match: {path: /parts}, rateLimit: {rate: 1/day, by: [{cookie: id}, path, method, host]}, backends: {echo: 1}}
  cel: {hostnames: [a.test], match: {path: /cel}, rateLimit: {rate: 1/day, by: [route, {cel: "request.headers['x-team'] == 'a' ? 'one' : 'two'"}]}, backends: {echo: 1}}
  values: {hostnames: [a.test], match: {path: /values}, rateLimit: {rate: 1/day, by: {header: x-team}, overrides: {two: 2/day, any: unlimited}, exempt: [free]}, backends: {echo: 1}}
  shadow: {hostnames: [a.test], match: {path: /shadow}, rateLimit: [{rate: 1/day, shadow: true}, {rate: 3/day, headers: [legacy, structured]}], backends: {echo: 1}}
  plan: {hostnames: [a.test], match: {path: /plan}, auth: [demo], plan: required, rateLimit: [{rate: 1/day, by: consumer}, {rate: 1000/day}], backends: {echo: 1}}
  plan-refund: {hostnames: [a.test], match: {path: /refund/plan}, auth: [demo], plan: optional, rateLimit: {rate: 2/day, by: consumer, refund: [5xx]}, backends: {echo: 1}}
  plan-itself: {hostnames: [a.test], match: {path: /itself/plan}, auth: [demo], plan: optional, rateLimit: {rate: 1/hour, by: consumer, mode: perEnvoy}, backends: {echo: 1}}
  planned: {hostnames: [a.test], match: {path: /planned}, auth: [demo], plan: optional, rateLimit: {rate: 1/day, by: consumer}, backends: {echo: 1}}
`

// refunds are the calls that give hits back, as the entries of their descriptors.
type refunds chan string

// watch notes the calls that give hits back, once they are answered.
func (r refunds) watch(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	response, err := next(ctx, request)
	q, ok := request.(*rls.RateLimitRequest)
	if !ok || !q.Descriptors[0].IsNegativeHits {
		return response, err
	}
	var all []string
	for _, d := range q.Descriptors {
		for i, e := range d.Entries {
			value := e.Value
			if i == 0 {
				value, _, _ = strings.Cut(value, "@")
			}
			all = append(all, e.Key+"="+value)
		}
	}
	r <- fmt.Sprint(strings.Join(all, " "), err)
	return response, err
}

// next waits for a call.
func (r refunds) next(t *testing.T) string {
	t.Helper()
	select {
	case call := <-r:
		return strings.TrimSuffix(call, "<nil>")
	case <-time.After(10 * time.Second):
		t.Fatal("no call gives anything back")
		return ""
	}
}

// TestLimitsThroughEnvoy runs the real Envoy between a policy of limits and the companions.
func TestLimitsThroughEnvoy(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, err := strconv.Atoi(r.Header.Get("x-status")); err == nil {
			w.WriteHeader(status)
		}
	}))
	defer upstream.Close()
	port := golden.FreePort(t)
	m := loadText(t, limitsPolicy, port, upstream.Listener.Addr().String())
	given := make(refunds, 100)
	_, address := companions(t, m, grpc.UnaryInterceptor(given.watch))
	golden.Start(t, m, feature.All(), address)
	c := client{t, "http://127.0.0.1:" + strconv.Itoa(port)}
	c.waitReady()

	t.Run("by", func(t *testing.T) { client{t, c.base}.parts() })
	t.Run("plans", func(t *testing.T) { client{t, c.base}.plans() })
	t.Run("Envoy counts consumers by itself", func(t *testing.T) {
		c := client{t, c.base}
		c.want("/itself", []int{200, 429}, "Authorization", bearer(t, "alice"))
		c.want("/itself", []int{429}, "Authorization", bearer(t, "anna"))
		c.want("/itself", []int{200, 429}, "Authorization", bearer(t, "alice", "t1"))
		c.want("/itself", []int{200, 429}, "Authorization", bearer(t, "bob", "t1"))
		c.want("/itself", []int{401})
		c.want("/itself/plan", []int{200, 200}, "Authorization", bearer(t, "gina", "t", "gold"))
		c.want("/itself/plan", []int{200, 429}, "Authorization", bearer(t, "gina", "t", "unknown"))
		c.want("/itself/plan", []int{200, 429}, "Authorization", bearer(t, "henry"))
	})
	t.Run("refunds", func(t *testing.T) { client{t, c.base}.refunds(given) })
}

func (c client) parts() {
	c.t.Helper()
	c.want("/parts?a", []int{200, 429}, "Cookie", "id=1")
	c.want("/parts?b", []int{429}, "Cookie", "a=b; id=1")
	c.want("/parts", []int{200, 429}, "Cookie", "id=2")
	c.want("/parts/x", []int{200, 429}, "Cookie", "id=2")
	c.want("/parts", []int{200, 429})
	c.want("/cel", []int{200, 429}, "X-Team", "a")
	c.want("/cel", []int{200, 429}, "X-Team", "b")
	c.want("/cel", []int{200, 429})
	c.want("/values", []int{200, 429}, "X-Team", "one")
	c.want("/values", []int{200, 200, 429}, "X-Team", "two")
	c.want("/values", []int{200, 200, 200}, "X-Team", "any")
	c.want("/values", []int{200, 200, 200}, "X-Team", "free")
	c.want("/shadow", []int{200, 200, 200})
	r := c.get("/shadow")
	if r.StatusCode != 429 || r.Header.Get("X-Ratelimit-Limit") != "3" || r.Header.Get("Ratelimit") == "" || r.Header.Get("Ratelimit-Limit") != "" {
		c.t.Errorf("got %d %v, want 429 with x-ratelimit-limit 3 and ratelimit", r.StatusCode, r.Header)
	}
}

func (c client) plans() {
	c.t.Helper()
	c.want("/plan", []int{200, 200}, "Authorization", bearer(c.t, "alice"))
	c.want("/planned", []int{200, 200}, "Authorization", bearer(c.t, "anna", "t", "free")) // the consumer's plan goes first
	c.want("/plan", []int{200, 429}, "Authorization", bearer(c.t, "alice"))
	c.want("/plan", []int{200}, "Authorization", bearer(c.t, "carol", "t", "free"))
	c.want("/planned", []int{200, 429}, "Authorization", bearer(c.t, "carol", "t", "free"))
	c.want("/plan", []int{200, 200}, "Authorization", bearer(c.t, "carol", "t", "gold")) // raised in mid-period
	for _, header := range []string{"Ratelimit-Policy", "Ratelimit"} {
		if got := c.get("/plan", "Authorization", bearer(c.t, "dave", "t", "free")).Header.Get(header); got == "" {
			c.t.Errorf("the answer has no header %s", header)
		}
	}
	for _, tenant := range [][]string{nil, {"t"}, {"t", "unknown"}} {
		c.want("/plan", []int{403}, "Authorization", bearer(c.t, "bob", tenant...))
	}
	c.want("/planned", []int{200, 429}, "Authorization", bearer(c.t, "bob"))
	c.want("/planned", []int{429}, "Authorization", bearer(c.t, "bob", "t", "unknown"))
	c.want("/plan", []int{401})
}

func (c client) refunds(given refunds) {
	c.t.Helper()
	// Each call that gives back is awaited. There is none for other statuses, nor for requests that were refused: it would come
	// before the next one.
	var got []string
	failing := func(path, status string, headers ...string) {
		c.t.Helper()
		want, err := strconv.Atoi(status)
		if err != nil {
			c.t.Fatal(err)
		}
		c.want(path, []int{want}, append(slices.Clone(headers), "X-Status", status)...)
		got = append(got, given.next(c.t))
	}
	failing("/refund/none", "500")
	failing("/refund/none", "404")
	failing("/refund/none", "429")
	c.want("/refund/none", []int{401}, "X-Status", "401")
	failing("/refund/none", "599")
	c.want("/refund/none", []int{200, 429, 429})

	failing("/refund/values/x?q=1", "500", "X-Team", "a", "Cookie", "id=1")
	failing("/refund/values/x?q=2", "503", "X-Team", "a", "Cookie", "b=c; id=1")
	c.want("/refund/values/x", []int{200, 429}, "X-Team", "a", "Cookie", "id=1")
	failing("/refund/values/x", "500")
	c.want("/refund/values/x", []int{200, 429})
	long := strings.Repeat("x", 9<<10)
	c.want("/refund/values/x", []int{429}, "X-Team", long, "X-Status", "500") // counts as none, and gives nothing back
	c.want("/refund/values/y", []int{500, 429}, "X-Team", long, "X-Status", "500")

	c.want("/refund/refused", []int{403}) // before it is counted
	c.want("/refund/itself", []int{200, 429})
	failing("/refund/fault", "503") // after

	failing("/refund/host", "500")
	c.want("/refund/host", []int{200, 429})

	c.want("/refund/known", []int{401}, "X-Status", "500")
	failing("/refund/known", "400", "Authorization", bearer(c.t, "alice"))
	failing("/refund/known", "500", "Authorization", bearer(c.t, "anna"))
	c.want("/refund/known", []int{200, 429}, "Authorization", bearer(c.t, "alice"))
	failing("/refund/known", "500", "Authorization", bearer(c.t, "bob", "t1"))
	c.want("/refund/known", []int{200, 429}, "Authorization", bearer(c.t, "bob", "t1"))

	trial := bearer(c.t, "erin", "t", "trial")
	failing("/refund/plan", "500", "Authorization", trial)
	c.want("/refund/plan", []int{200, 200, 429}, "Authorization", trial)
	c.want("/refund/plan", []int{500, 500, 429}, "Authorization", bearer(c.t, "frank", "t", "free"), "X-Status", "500") // no refund
	failing("/refund/plan", "500", "Authorization", bearer(c.t, "frank", "t", "unknown"))
	failing("/refund/plan", "500", "Authorization", bearer(c.t, "frank"))

	failing("/refund/values/z", "500") // nothing comes before it
	const none, values = "limit=route/refund-none/0", "limit=route/refund-values/0 ip=127.0.0.1"
	const known, planned = "limit=route/refund-known/0", "limit=route/plan-refund/0"
	want := []string{
		none, none, none, none,
		values + " header:x-team=a cookie:id=1 path=/refund/values/x", values + " header:x-team=a cookie:id=1 path=/refund/values/x",
		values + " header:x-team= cookie:id= path=/refund/values/x",
		"limit=route/refund-fault/0", "limit=route/refund-host/0 host=a.test method=GET route=edge/refund-host",
		known + " consumer=acme", known + " consumer=acme", known + " consumer=demo/bob claim:tenant.id=t1",
		"limit=plan/rate consumer=demo/erin limit=plan/quota consumer=demo/erin",
		planned + " consumer=demo/frank", planned + " consumer=demo/frank",
		values + " header:x-team= cookie:id= path=/refund/values/z",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		c.t.Errorf("(-want +got):\n%s", diff)
	}
}
