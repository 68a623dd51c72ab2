//go:build !race

package feature_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

// combinedMatches is conditions of routes, the odd ones among them.
var combinedMatches = []string{
	`{}`, `{path: /}`, `{path: /v1/orders}`, `{path: /v1/orders/, methods: [GET, HEAD]}`, `{path: {exact: /}}`, `{path: {exact: /a/b}}`,
	`{path: {prefix: /Api, ignoreCase: true}}`, `{path: {exact: /Api, ignoreCase: true}, methods: [POST]}`,
	`{path: {regex: "/v[0-9]+/(orders|carts)(/.*)?"}}`, `{path: {regex: "(?i)/x"}, headers: {x-a: {regex: "[a-z]{1,5}"}}}`,
	`{path: {template: "/users/{id}/{rest=**}"}}`, `{path: {template: "/{a}/{b}/{c}/*/x.html"}}`, `{path: {template: "/**"}}`,
	`{path: {template: "/a/{v=x/*/y}/*.html"}}`, `{path: {template: "/~!$&'()+,;:@=-._"}}`,
	`{headers: {x-canary: "yes", x-gone: {present: false}, x-here: {present: true}, x-empty: ""}}`,
	`{query: {dry: {present: true}, v: "1", w: {regex: ".*"}, none: {present: false}, "a%20b": ""}}`,
	`{source: [10.0.0.0/8, 10.1.0.0/16, "2001:db8::/32", 127.0.0.1, "::/0", 0.0.0.0/0]}`, `{path: /s, source: [10.1.2.3]}`,
	`{grpc: {service: a.b.C}}`, `{grpc: {service: a.b.C, method: Do}, headers: {x-a: b}}`, `{methods: [PROPFIND, M-SEARCH, "X!"]}`,
	`{methods: [TRACE]}`, `{methods: [CONNECT]}`, `{path: "/%C3%A4;x=1,(2)"}`,
}

// combinedKeys is settings, each in forms that are good somewhere.
var combinedKeys = map[string][]string{
	"access":      {`{allow: [10.0.0.0/8, "2001:db8::/32"]}`, `{deny: [0.0.0.0/0, "::/0", 10.1.2.3]}`, `{allow: ["::"], deny: [127.0.0.1]}`, `off`},
	"accessLog":   {`off`, `{}`},
	"auth":        {`[demo]`, `[demo, other]`, `none`, `off`},
	"compression": {`true`, `off`, `{algorithms: [zstd, gzip, brotli], minLength: 1B}`, `{contentTypes: [text/event-stream]}`, `{algorithms: [zstd], minLength: 1GiB, contentTypes: [text/x.y+json]}`},
	"cors": {
		`{allowOrigins: ["*"]}`, `{allowOrigins: ["https://*.a.test", "http://b.test:81"], allowMethods: ["*"], allowHeaders: ["*"], maxAge: 10m}`,
		`{allowOrigins: ["https://a.test"], allowCredentials: true, exposeHeaders: [x-a, etag], allowMethods: [GET], maxAge: 1s}`, `off`,
	},
	"directResponse": {
		`{}`, `{status: 204}`, `{status: 599, body: "%x% \n", contentType: text/html, headers: {x-a: "100%", retry-after: "3"}}`, `{status: 200, body: hi}`,
		`{status: 599, body: "", headers: {location: /x}}`,
	},
	"fault": {
		`{delay: {fixed: 1ms, percent: 0%}}`, `{abort: {status: 200, percent: 100%}}`, `{delay: {fixed: 1m, percent: 0.01%}, abort: {grpcStatus: 16, percent: 50%}}`,
		`{delay: {fixed: 1500us, percent: 33.3333%}}`, `off`,
	},
	"grpcWeb": {`true`, `false`, `off`},
	"headers": {
		`{request: {set: {x-a: "%REQ(:path)%", x-b: ""}, add: {via: "1.1 %PROTOCOL%"}, remove: [x-c]}, response: {set: {server: ours}, remove: [x-powered-by, server2]}}`,
		`{response: {add: {x-s: "%RESPONSE_CODE% %UPSTREAM_HOST% %START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%"}, set: {set-cookie: "a=b; Secure"}}}`,
		`{request: {set: {x-t: "100%% %REQ(a?b):5%", x-u: "%DOWNSTREAM_PEER_URI_SAN%%DOWNSTREAM_TLS_VERSION%%ROUTE_NAME%"}}}`,
		`{request: {remove: [cookie, user-agent, accept-encoding, x-forwarded-for, authorization]}}`, `{response: {remove: [content-type, date, etag]}}`,
		`{response: {set: {location: "/x", content-type: a/b, vary: "*"}}}`, `{request: {set: {accept: "%REQ(accept)%", content-type: x}}}`,
	},
	"mirror":      {`{shadow: 100%}`, `{shadow: 0%, second: 0.0001%}`, `{shadow: 33.3%, second: 50%}`, `off`},
	"paths":       {`strict`, `lenient`, `off`},
	"query":       {`{set: {a: "b&c=d", "ä": "%"}, remove: ["x y"]}`, `{add: {a: ""}}`, `{set: {"]]": "[[\\\"--"}}`, `{remove: [a, b]}`},
	"rateLimit":   {`{rate: 100/minute, by: ip}`, `[{rate: 1/second, burst: 5, by: {header: x-a}}, {rate: 10/30s, onError: deny}]`, `off`, `{rate: 10/hour, by: consumer, replace: true}`, `{rate: 4000000000/day, algorithm: gcra, burst: 1, onError: allow}`},
	"redirect":    {`{scheme: https, port: 8443}`, `{hostname: b.test, status: 308}`, `{path: /x, stripQuery: true, status: 303}`, `{prefix: /}`, `{prefix: /new/, status: 301}`, `{port: 65535, prefix: "/%20", status: 307}`},
	"requestBody": {`{max: 1B}`, `{max: 64MiB, buffer: true}`, `{max: 4GiB}`, `{max: 1B, buffer: true}`, `off`},
	"retry": {
		`{}`, `{attempts: 10, retryOn: [5xx, reset, 429, 503, unavailable, retriable-4xx], methods: ["*"], backoff: {base: 1ms, max: 1h}}`,
		`{retryOn: [cancelled], otherEndpoint: false, otherPriority: true}`, `{rateLimited: {header: retry-after, max: 1s, format: unixTimestamp}, methods: [POST, PUT, GET, X]}`, `off`,
	},
	"rewrite": {
		`{prefix: /}`, `{prefix: /x/}`, `{path: /index.html}`, `{regex: {pattern: "^/v1/([^/]+)(/.*)?$", substitution: '/\1\2'}}`, `{template: "/u/{id}/{rest}"}`,
		`{template: "/{b}/{a}", hostname: b.test}`, `{hostname: auto}`, `{hostname: x.y}`, `{template: "/x"}`, `{template: "/q/{v}"}`,
	},
	"sessionPersistence": {`{cookie: s}`, `{cookie: {name: "a!b", ttl: 1s, path: /x}, strict: true}`, `{header: x-session, strict: true}`, `{cookie: {name: s, ttl: 876000h}}`, `off`},
	"timeouts":           {`{request: 0s}`, `{request: 1ms, backendRequest: 1ms, idle: 1ms}`, `{stream: 876000h, idle: 0s}`, `{stream: 0s}`, `{idle: 1h30m, request: off}`, `{backendRequest: 10s}`},
	"tracing":            {`{sampling: 0.01%}`, `off`, `{attributes: {a: "%b%", c: {header: x-a}}}`, `{sampling: 100%, attributes: {"ä b": x}}`},
	"upgrades":           {`[websocket]`, `[WebSocket, a/1]`, `["x!"]`, `off`},
}

// onlyInRoutes is the keys that stand in no other layer.
var onlyInRoutes = []string{"directResponse", "redirect", "rewrite"}

const combinedBase = `
gateways:
  edge:
    listeners: {http: {port: 10000}, hosts: {port: 10001, routeTables: perHost}}
    tracing: {openTelemetry: {service: otel}}
    accessLog: {}
%s
auth:
  demo: {jwt: {issuer: "https://id.test/", audiences: [a], jwks: "https://id.test/keys", headers: {x-user: sub}}}
  other: {jwt: {issuer: "https://other.test/", audiences: any, jwks: "https://other.test/keys"}}
services:
  otel: {endpoints: ["127.0.0.1:4317"], protocol: grpc}
  shadow: {endpoints: ["127.0.0.1:81"]}
  second: {endpoints: ["127.0.0.1:82"]}
`

// combined is a route with the service that it sends to, as the entries of their maps.
type combined struct {
	number         int
	service, route []string
}

// combiner makes policies at random, the same in each run.
type combiner struct{ *rand.Rand }

func (c combiner) one(list []string) string { return list[c.IntN(len(list))] }

// settings is some keys in an order by chance, each with a value.
func (c combiner) settings(n int, without ...string) []string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(combinedKeys)), func(k string) bool { return slices.Contains(without, k) })
	c.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for i, name := range names[:n] {
		names[i] = name + ": " + c.one(combinedKeys[name])
	}
	return names[:n]
}

// route is the frame of one: what it matches and where it sends to.
func (c combiner) route(i int) combined {
	r := combined{
		number:  i,
		service: []string{c.one([]string{`endpoints: ["127.0.0.1:80", "127.0.0.2:80"]`, `dns: "localhost:80"`})},
		route: []string{
			"hostnames: [" + fmt.Sprintf(c.one([]string{"h%d.test", `"*.w%d.test"`, "h%[1]d.test, x%[1]d.test"}), i) + "]",
			"match: " + c.one(combinedMatches),
		},
	}
	if c.IntN(5) == 0 {
		answer := c.one([]string{"redirect", "directResponse"})
		r.route = append(r.route, answer+": "+c.one(combinedKeys[answer]))
		return r
	}
	r.route = append(r.route, "backends: "+fmt.Sprintf(c.one([]string{"{s%d: 1}", "{s%d: 1}", "{s%d: 90, second: 10}", "{s%d: 0, second: 1}"}), i))
	r.service = append(r.service, c.one([]string{"protocol: http1", "protocol: http1", "protocol: grpc", "protocol: http2", "overload: true"}))
	return r
}

// grow adds what goes together with the rest, up to a number of settings that are tried.
func (c combiner) grow(defaults string, r combined) (combined, bool) {
	if m, _, _ := combine(defaults, r); m == nil {
		return r, false
	}
	for _, setting := range c.settings(7) {
		more := r
		if key, _, _ := strings.Cut(setting, ":"); c.IntN(4) == 0 && len(r.service) > 1 && !slices.Contains(onlyInRoutes, key) {
			more.service = append(slices.Clone(r.service), setting)
		} else {
			more.route = append(slices.Clone(r.route), setting)
		}
		if m, _, _ := combine(defaults, more); m != nil {
			r = more
		}
	}
	return r, true
}

// combine reads the policy with the routes.
func combine(defaults string, routes ...combined) (*policy.Model, policy.Problems, string) {
	var b strings.Builder
	fmt.Fprintf(&b, combinedBase, defaults)
	for _, r := range routes {
		fmt.Fprintf(&b, "  s%d: {%s}\n", r.number, strings.Join(r.service, ", "))
	}
	b.WriteString("routes:\n")
	for _, r := range routes {
		fmt.Fprintf(&b, "  r%d: {%s}\n", r.number, strings.Join(r.route, ", "))
	}
	m, problems := feature.Language().Load(policy.Files{"policy.yaml": []byte(b.String())})
	return m, problems, b.String()
}

// Whatever keys stand together: what passes our checks passes Envoy's.
func TestCombinationsThatPassAreGoodForEnvoy(t *testing.T) {
	binary := golden.Binary(t)
	taken := map[string]int{}
	for seed := range uint64(8) {
		c := combiner{rand.New(rand.NewPCG(seed, 0))}
		defaults := c.defaults(seed)
		var good []combined
		for i := range 30 {
			if r, ok := c.grow(defaults, c.route(i)); ok {
				good = append(good, r)
			}
		}
		m, problems, text := combine(defaults, good...)
		if m == nil {
			t.Fatalf("each alone is good, and together: %v\n%s", problems.Err(), text)
		}
		validates(t, binary, m, text)
		for key := range combinedKeys {
			taken[key] += strings.Count(text, ", "+key+": ")
		}
	}
	for key := range combinedKeys {
		if taken[key] == 0 {
			t.Errorf("no route with %s was ever good: the test says nothing of it", key)
		}
	}
}

// defaults is a gateway's, or none for every other policy.
func (c combiner) defaults(seed uint64) string {
	if seed%2 == 0 {
		return ""
	}
	for {
		text := "    defaults: {" + strings.Join(c.settings(4, onlyInRoutes...), ", ") + "}"
		if m, _, _ := combine(text); m != nil {
			return text
		}
	}
}

// validates gives what becomes of a policy to the real Envoy.
func validates(t *testing.T, binary string, m *policy.Model, text string) {
	t.Helper()
	resources, err := envoy.Translate(m, feature.All())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	bootstrap, err := envoy.Static(resources["edge"], envoy.BootstrapOptions{Group: "edge"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := envoy.Validate(ctx, binary, bootstrap); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}
