//go:build !race

package feature_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

// What the policy language takes, the real Envoy takes, in combinations that nobody has thought of: services and routes
// are made at random from the schema, always the same, and what is refused is left out until a policy remains.
func TestWhatIsAcceptedEnvoyTakes(t *testing.T) {
	binary := golden.Binary(t)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			g := generator{rand.New(rand.NewPCG(seed, 40)), readSchema(t)["$defs"].(object), make(map[string][]any)}
			p := g.policy(t, 200)
			m := p.accepted(t)
			resources, err := envoy.Translate(m, feature.All())
			if err != nil {
				t.Fatal(err)
			}
			bootstrap, err := envoy.Static(resources["edge"], envoy.BootstrapOptions{Group: "edge"})
			if err != nil {
				t.Fatal(err)
			}
			if err := envoy.Validate(t.Context(), binary, bootstrap); err != nil {
				t.Errorf("%v, in the policy:\n%s", err, p.text(t))
			}
		})
	}
}

// generator makes values that the schema allows.
type generator struct {
	*rand.Rand
	defs object
	pool map[string][]any // by kind and key: values that are taken where they stand alone
}

// made is a policy on its way.
type made object

// policy makes as many services, and for each a route, from values that are taken alone.
func (g generator) policy(t *testing.T, services int) made {
	for _, kind := range []string{"service", "route"} {
		for _, key := range g.keys(kind) {
			g.fill(t, kind, key)
		}
	}
	p := g.empty()
	for i := range services {
		s, r := p.add(g, fmt.Sprintf("s%d", i))
		g.combine(s, "service")
		g.combine(r, "route")
	}
	return p
}

// combine gives an entry some of the keys that it may have.
func (g generator) combine(e object, kind string) {
	for _, key := range g.keys(kind) {
		if pool := g.pool[kind+"."+key]; len(pool) > 0 && g.IntN(3) == 0 {
			e[key] = g.pick(pool...)
		}
	}
}

// fill tries values of a key, each in an entry of its own, and keeps what is left of them.
func (g generator) fill(t *testing.T, kind, key string) {
	p := g.empty()
	schema := g.defs[kind].(object)["properties"].(object)[key].(object)
	var entries []object
	for i := range 60 {
		s, r := p.add(g, fmt.Sprintf("s%d", i))
		e := map[string]object{"service": s, "route": r}[kind]
		e[key] = g.value(key, schema)
		entries = append(entries, e)
	}
	p.accepted(t)
	for _, e := range entries {
		if v, ok := e[key]; ok {
			g.pool[kind+"."+key] = append(g.pool[kind+"."+key], v)
		}
	}
	if len(g.pool[kind+"."+key]) == 0 {
		t.Errorf("no value of %s in a %s is taken: give the generator better words", key, kind)
	}
}

// empty is a policy with a gateway, and a service that may be sent to by mirror and tracing.
func (g generator) empty() made {
	return made{
		"gateways": object{"edge": object{
			"listeners": object{"http": object{"port": 10000}},
			"tracing":   object{"openTelemetry": object{"service": "collector"}},
			"accessLog": object{},
		}},
		"auth": object{"idp": object{"jwt": object{
			"issuer": "https://id.test/", "audiences": []any{"a"}, "jwks": "https://id.test/keys",
		}}},
		"services": object{"collector": object{"endpoints": []any{"127.0.0.1:4317"}, "protocol": "grpc"}},
		"routes":   object{},
	}
}

// add puts a service with endpoints, or with a name to resolve, into the policy, and a route that leads to it.
func (p made) add(g generator, name string) (service, route object) {
	service = object{"endpoints": g.endpoints()}
	if g.IntN(4) == 0 {
		service = object{"dns": object{"name": "localhost:8080", "type": g.pick("strict", "logical"), "refresh": g.pick("100ms", "5s", "24h")}}
	}
	route = object{"hostnames": []any{name + ".test"}, "backends": object{name: 1}}
	p["services"].(object)[name], p["routes"].(object)[name] = service, route
	return service, route
}

// keys are the keys of an entry, but for those that say where to send, and for patches, each field of which their own room
// holds against the real Envoy.
func (g generator) keys(kind string) []string {
	fixed := []string{"endpoints", "dns", "hostnames", "backends", "gateways", "listeners", "directResponse", "redirect", "envoy"}
	keys := slices.Sorted(maps.Keys(g.defs[kind].(object)["properties"].(object)))
	return slices.DeleteFunc(keys, func(key string) bool { return slices.Contains(fixed, key) })
}

// endpoints are up to four, each another one, with priorities from 0.
func (g generator) endpoints() []any {
	all := make([]any, 1+g.IntN(4))
	for i := range all {
		e := object{"address": fmt.Sprintf("127.0.0.%d:9000", i+1)}
		if g.IntN(2) == 0 {
			e["weight"] = 1 + g.IntN(1_000_000)
		}
		if g.IntN(2) == 0 {
			e["zone"] = g.pick("a", "b", "eu-1.c_D")
		}
		if i > 0 {
			e["priority"] = g.IntN(2)
		}
		all[i] = e
	}
	return all
}

func (g generator) pick(from ...any) any { return from[g.IntN(len(from))] }

// value is one that the schema of a key allows.
func (g generator) value(key string, schema object) any {
	switch {
	case schema["$ref"] != nil:
		return g.value(key, g.defs[strings.TrimPrefix(schema["$ref"].(string), "#/$defs/")].(object))
	case schema["const"] != nil:
		return schema["const"]
	case schema["enum"] != nil:
		return g.pick(schema["enum"].([]any)...)
	case schema["anyOf"] != nil:
		return g.value(key, g.pick(schema["anyOf"].([]any)...).(object))
	case schema["oneOf"] != nil && schema["properties"] == nil:
		return g.value(key, g.pick(schema["oneOf"].([]any)...).(object))
	}
	switch schema["type"] {
	case "object":
		return g.object(schema)
	case "array":
		all := make([]any, 1+g.IntN(3))
		for i := range all {
			all[i] = g.value(key, schema["items"].(object))
		}
		return all
	case "integer", "number":
		return g.number(schema)
	case "boolean":
		return g.IntN(2) == 0
	default:
		return g.string(key, schema)
	}
}

func (g generator) object(schema object) object {
	o, often := object{}, g.IntN(4)
	properties, _ := schema["properties"].(object)
	required, _ := schema["required"].([]any)
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		if slices.Contains(required, any(key)) || g.IntN(4) <= often {
			o[key] = g.value(key, properties[key].(object))
		}
	}
	if each, ok := schema["additionalProperties"].(object); ok {
		for range g.IntN(3) {
			o[g.pick("x-a", "x-b", "collector").(string)] = g.value("", each)
		}
	}
	return o
}

// number is one of the ends of what is allowed, or one between; some are statuses, and primes.
func (g generator) number(schema object) any {
	least, most := 0.0, 1e6
	if v, ok := schema["minimum"].(float64); ok {
		least = v
	}
	if v, ok := schema["maximum"].(float64); ok {
		most = v
	}
	n := max(least, min(most, g.pick(least, most, least+1, least+g.Float64()*10, 100.0, 503.0, 65537.0).(float64)))
	if schema["type"] == "integer" {
		return int64(n)
	}
	return n
}

// texts are those worth trying, by what is in the pattern of a text.
var texts = []struct {
	in     string
	values []any
}{
	{"ns|us", []any{"0s", "1ns", "1ms", "100ms", "999ms", "1s", "1500ms", "2s", "15s", "1m30s", "1h", "24h", "8760h", "100000h"}},
	{"%$", []any{"0%", "1%", "0.01%", "10%", "33.3%", "50%", "99.99%", "100%", "140%", "1000%"}},
	{"KiB", []any{"1B", "1000B", "1KiB", "32KiB", "64KiB", "100KiB", "1MiB", "1GiB", "4GiB"}},
	{"(second|minute", []any{"1/second", "10/minute", "5/30s", "1000/day"}},
	{"[0-9]{1,3}", []any{"10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "0.0.0.0/0"}},
	{"^[1-5][0-9][0-9]", []any{"200", "200-299", "100-599"}},
	{"[^:\\s]+:[0-9]+", []any{"localhost:8080", "a.internal:1", "a-very-long-name.internal:65535"}},
	{"/[A-Za-z0-9!#$&", []any{"text/html", "application/json", "image/svg+xml"}},
	{"[A-Z", []any{"GET", "HEAD", "POST", "PUT", "websocket", "x-token"}},
	{"^/", []any{"/", "/v1", "/v1/orders", "/a/b.html"}},
}

// words are those worth trying for texts without a pattern, by the name of their key.
var words = map[string][]any{
	"allowOrigins": {"https://a.test", "https://*.a.test", "http://localhost:3000", "*"},
	"body":         {"hi", "%RESPONSE_CODE%"},
	"claim":        {"sub", "tenant.id"},
	"contentTypes": {"text/html", "application/json"},
	"cookie":       {"lb", "session"},
	"host":         {"a.test", "10.0.0.1", "A.test:80"},
	"hostname":     {"a.test", "10.0.0.1", "auto"},
	"metrics":      {"named_metrics.queue", "cpu_utilization", "application_utilization"},
	"path":         {"/", "/healthz", "/a?b=c", "/a/b"},
	"pattern":      {"^/a/([0-9]+)(/.*)?$", "^/a$", "(a|b)+"},
	"prefix":       {"/", "/v1", "/a/b"},
	"receive":      {"220", "é", "a\x00b"},
	"regex":        {"[0-9]+", "/v[0-9]/.*", "(a|b)*", "x{1,100}"},
	"retryOn":      {"connect-failure", "refused-stream", "reset", "gateway-error", "5xx", "retriable-4xx", "cancelled", "unavailable", "503", "429"},
	"send":         {"PING\r\n", "é", "\x00"},
	"service":      {"orders.v1.Orders", "hello.Greeter", "é"},
	"substitution": {`/b/\1\2`, "/c", `\1`},
	"template":     {"/u/{id}", "/u/{id}/{rest=**}", "/u"},
}

func (g generator) string(key string, schema object) any {
	pattern, _ := schema["pattern"].(string)
	for _, text := range texts {
		if strings.Contains(pattern, text.in) {
			return g.pick(text.values...)
		}
	}
	if named := words[key]; named != nil {
		return g.pick(named...)
	}
	return g.pick("x-a", "x-b", "value", "/v1", "a b", "é", `a"b`, "%REQ(x)%", "100%")
}

// accepted takes out of the policy what is refused, key by key, until it loads.
func (p made) accepted(t *testing.T) *policy.Model {
	t.Helper()
	for range 100 {
		m, problems := feature.Language().Load(policy.Files{"policy.yaml": p.text(t)})
		if !problems.HasErrors() {
			return m
		}
		for _, problem := range problems {
			if !problem.Warning {
				p.remove(problem)
			}
		}
	}
	_, problems := feature.Language().Load(policy.Files{"policy.yaml": p.text(t)})
	t.Fatalf("still refused after 100 loads: %v", problems.Err())
	return nil
}

// remove takes out what a problem is about: the innermost of its path that is there.
func (p made) remove(problem *policy.Problem) {
	in, path := object(p), strings.Split(problem.Path, ".")
	take := func() {}
	for i, key := range path {
		key, _, _ = strings.Cut(key, "[")
		next, there := in[key]
		if !there {
			break
		}
		if key == "backends" || key == "hostnames" {
			break // nothing is left without them
		}
		if parent := in; i > 0 {
			take = func() { delete(parent, key) }
		}
		var inside bool
		if in, inside = next.(object); !inside {
			break
		}
	}
	take()
}

// text is the policy as JSON, which is YAML, but for the word off: in quotes it is a text.
func (p made) text(t *testing.T) []byte {
	t.Helper()
	text, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(text, []byte(`"off"`), []byte("off"))
}
