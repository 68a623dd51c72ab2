package feature_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/callout"
	"github.com/legation/legation/examples"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"google.golang.org/grpc"
)

const livePolicy = `
gateways:
  edge:
    listeners: {http: {port: PORT, address: 127.0.0.1}}
    defaults: {rateLimit: {rate: 6/day, by: ip}}
auth:
  demo: {jwt: {issuer: ISSUER, audiences: [AUDIENCE], jwks: {file: keys.json}, headers: {X-User: sub}}}
consumers: {acme: {jwt: {demo: [alice, bob]}}}
services: {echo: {endpoints: ["UPSTREAM"]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny, replace: true}, backends: {echo: 1}}
  shared-open: {hostnames: [a.test], match: {path: /shared/open}, backends: {echo: 1}}
  shared-asked: {hostnames: [a.test], match: {path: /shared/asked}, auth: [demo], backends: {echo: 1}}
  header: {hostnames: [a.test], match: {path: /header}, rateLimit: {rate: 2/day, by: {header: X-Team}, replace: true}, backends: {echo: 1}}
  consumer: {hostnames: [a.test], match: {path: /consumer}, auth: [demo], rateLimit: {rate: 2/day, by: consumer, replace: true}, backends: {echo: 1}}
  claim: {hostnames: [a.test], match: {path: /claim}, auth: [demo], rateLimit: {rate: 1/day, by: {claim: tenant.id}, replace: true}, backends: {echo: 1}}
  asked: {hostnames: [a.test], match: {path: /asked}, auth: [demo], rateLimit: off, backends: {echo: 1}}
  free: {hostnames: [a.test], match: {path: /free}, rateLimit: off, backends: {echo: 1}}
  lenient: {hostnames: [a.test], match: {path: /lenient}, paths: lenient, rateLimit: off, backends: {echo: 1}}
  changed: {hostnames: [a.test], match: {path: /changed}, rewrite: {prefix: /new}, query: {set: {v: 2}}, rateLimit: off, backends: {echo: 1}}
  broken: {hostnames: [a.test], match: {path: /broken}, auth: [demo], rateLimit: {rate: 2/day, by: consumer, replace: true}, fault: {abort: {status: 418, percent: 100%}}, backends: {echo: 1}}
  page: {hostnames: [a.test], match: {path: /page}, auth: [demo], rateLimit: {rate: 2/day, by: consumer, replace: true}, directResponse: {body: hi}}
  moved: {hostnames: [a.test], match: {path: /moved}, auth: [demo], rateLimit: off, redirect: {hostname: b.test, status: 308}}
`

// client calls the Envoy of a test.
type client struct {
	t    *testing.T
	base string
}

func (c client) get(path string, headers ...string) *http.Response {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.base+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Host = "a.test"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	res.Body.Close()
	return res
}

// want calls a path and holds the status against those wanted, one call for each.
func (c client) want(path string, statuses []int, headers ...string) {
	c.t.Helper()
	for i, status := range statuses {
		if got := c.get(path, headers...).StatusCode; got != status {
			c.t.Errorf("request %d to %s with %v: got %d, want %d", i+1, path, headers[:min(2, len(headers))], got, status)
		}
	}
}

// TestThroughEnvoy runs the real Envoy between both halves: what it sends is what the companions read.
func TestThroughEnvoy(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-seen-user", strings.Join(r.Header.Values("X-User"), "|"))
		w.Header().Set("x-seen-path", r.RequestURI+" for "+strings.Join(r.Header.Values("X-Envoy-Original-Path"), "|"))
	}))
	defer upstream.Close()
	port := golden.FreePort(t)
	m := loadLive(t, port, upstream.Listener.Addr().String())
	companion, address := companions(t, m)
	golden.Start(t, m, feature.All(), address)
	c := client{t, "http://127.0.0.1:" + strconv.Itoa(port)}
	c.waitReady()

	t.Run("one bucket by ip, whoever counts", func(t *testing.T) {
		c := client{t, c.base}
		c.want("/shared/open", []int{200, 200, 200})
		c.want("/shared/asked", []int{200, 200, 200}, "Authorization", bearer(t, "alice"))
		c.want("/shared/asked", []int{429}, "Authorization", bearer(t, "bob"))
		res := c.get("/shared/open")
		if res.StatusCode != 429 || res.Header.Get("Ratelimit-Limit") != "6" || res.Header.Get("Retry-After") == "" {
			t.Errorf("got %d %v, want 429 with ratelimit-limit 6 and retry-after", res.StatusCode, res.Header)
		}
	})
	t.Run("by header", func(t *testing.T) {
		c := client{t, c.base}
		c.want("/header", []int{200, 200, 429}, "X-Team", "a")
		c.want("/header", []int{200, 200, 429}, "X-Team", "b")
		c.want("/header", []int{200, 200, 429})
	})
	t.Run("by consumer", func(t *testing.T) {
		c := client{t, c.base}
		c.want("/consumer", []int{401, 401, 401})
		c.want("/consumer", []int{200}, "Authorization", bearer(t, "alice"))
		c.want("/consumer", []int{200, 429}, "Authorization", bearer(t, "bob"))
		c.want("/consumer", []int{200, 200, 429}, "Authorization", bearer(t, "carol"))
	})
	t.Run("by claim", func(t *testing.T) {
		c := client{t, c.base}
		c.want("/claim", []int{200, 429}, "Authorization", bearer(t, "alice", "t1"))
		c.want("/claim", []int{429}, "Authorization", bearer(t, "bob", "t1"))
		c.want("/claim", []int{200, 429}, "Authorization", bearer(t, "bob", "t2"))
	})
	t.Run("claim headers are ours", func(t *testing.T) {
		c := client{t, c.base}
		if got := c.get("/free", "X-User", "root").Header.Get("X-Seen-User"); got != "" {
			t.Errorf("the backend got x-user %q from a client", got)
		}
		if got := c.get("/asked", "X-User", "root", "Authorization", bearer(t, "alice")).Header.Get("X-Seen-User"); got != "alice" {
			t.Errorf("the backend got x-user %q, want alice", got)
		}
	})
	t.Run("paths", func(t *testing.T) {
		c := client{t, c.base}
		c.want("/free;x=1", []int{400})
		c.want("/free/%252e%252e/asked", []int{400})
		c.want("/nowhere;x", []int{400})
		c.want("/lenient/a;x=1", []int{200})
		c.want("/free?x=;%25", []int{200})
	})
	t.Run("what the client asked for", func(t *testing.T) {
		c := client{t, c.base}
		got := c.get("/changed/a?v=1", "X-Envoy-Original-Path", "/forged").Header.Get("X-Seen-Path")
		if want := "/new/a?v=2 for /changed/a?v=1"; got != want {
			t.Errorf("the backend got %s, want %s", got, want)
		}
	})
	t.Run("faults hide nothing", func(t *testing.T) {
		c := client{t, c.base}
		c.want("/broken", []int{401, 401, 401})
		c.want("/broken", []int{418, 418, 429}, "Authorization", bearer(t, "carol"))
	})
	t.Run("answers without a backend", func(t *testing.T) {
		c := client{t, c.base}
		c.want("/page", []int{401, 401, 401})
		c.want("/page", []int{200, 200, 429}, "Authorization", bearer(t, "carol"))
		c.want("/page;x=1", []int{400}, "Authorization", bearer(t, "dave"))
		if got := c.get("/moved"); got.StatusCode != 401 || got.Header.Get("Location") != "" {
			t.Errorf("got %d to %q without a token, want 401", got.StatusCode, got.Header.Get("Location"))
		}
	})
	t.Run("without companions", func(t *testing.T) {
		companion.Stop()
		c := client{t, c.base}
		c.want("/ready", []int{503}) // onError: deny
		c.want("/header", []int{200, 200, 200}, "X-Team", "c")
		c.want("/asked", []int{503}, "Authorization", bearer(t, "alice"))
		c.want("/page", []int{503}, "Authorization", bearer(t, "alice"))
		c.want("/free", []int{200})
	})
}

func loadLive(t *testing.T, port int, upstream string) *policy.Model {
	t.Helper()
	return loadText(t, livePolicy, port, upstream)
}

// loadText reads a policy whose keys are those of the quickstart.
func loadText(t *testing.T, text string, port int, upstream string) *policy.Model {
	t.Helper()
	keys, problems := policy.ReadFiles(os.DirFS("../examples/quickstart"))
	text = strings.NewReplacer("PORT", strconv.Itoa(port), "UPSTREAM", upstream, "ISSUER", examples.Issuer,
		"AUDIENCE", examples.Audience).Replace(text)
	m, found := feature.Language().Load(policy.Files{"policy.yaml": []byte(text), "keys.json": keys["test-keys.json"]})
	for _, p := range slices.Concat(problems, found) {
		t.Error(p)
	}
	if m == nil {
		t.FailNow()
	}
	return m
}

// companions serves both services as app does, and tells where.
func companions(t *testing.T, m *policy.Model, options ...grpc.ServerOption) (*grpc.Server, string) {
	t.Helper()
	table, list := feature.Companions(m)
	limits := ratelimit.New(ratelimit.Options{})
	t.Cleanup(func() { limits.Close() })
	limits.Load(list)
	rules := auth.New(auth.Options{Counter: counter{limits}})
	if err := rules.Load(table); err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(options, grpc.ForceServerCodecV2(callout.AnyText()))...)
	limits.Register(s)
	rules.Register(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return s, l.Addr().String()
}

// waitReady waits for Envoy's connection to the companions: until then limits can't be counted in time.
func (c client) waitReady() {
	c.t.Helper()
	for range 100 {
		if c.get("/ready").StatusCode == http.StatusOK {
			return
		}
	}
	c.t.Fatal("the companions do not answer")
}

// bearer is a token; what is given of the tenant is its ID and its plan.
func bearer(t *testing.T, sub string, tenant ...string) string {
	t.Helper()
	claims := map[string]any{
		"iss": examples.Issuer, "aud": examples.Audience, "sub": sub, "exp": time.Now().Add(time.Hour).Unix(),
	}
	switch len(tenant) {
	case 1:
		claims["tenant"] = map[string]any{"id": tenant[0]}
	case 2:
		claims["tenant"] = map[string]any{"id": tenant[0], "plan": tenant[1]}
	}
	token, err := auth.Sign(examples.TestKey(), claims, examples.TestKeyID)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + token
}
