package feature_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/examples"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/jwt"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
	"golang.org/x/tools/txtar"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", feature.All()...) }

func TestBadPolicies(t *testing.T) { golden.Run(t, "testdata/bad", feature.All()...) }

// Every one of them is bad: each kind of mistake is told.
func TestBadPoliciesAreBad(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil || len(names) < 60 {
		t.Fatalf("%d bad policies (%v), want at least 60 kinds of mistakes", len(names), err)
	}
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files := policy.Files{}
		for _, f := range archive.Files {
			if f.Name != "want" {
				files[f.Name] = f.Data
			}
		}
		m, problems := feature.Language().Load(files)
		if m != nil {
			_, err = envoy.Translate(m, feature.All())
		}
		if !problems.HasErrors() && err == nil {
			t.Errorf("%s: nothing is wrong", name)
		}
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	kinds := feature.All()
	if !slices.IsSortedFunc(kinds, func(a, b *policy.Kind) int { return strings.Compare(a.Key, b.Key) }) {
		t.Error("the table is not in the order of the keys")
	}
	for _, k := range kinds {
		summary, rest, _ := strings.Cut(k.Doc, "\n")
		if !strings.HasPrefix(summary, "`"+k.Key+"` ") || !strings.HasSuffix(summary, ".") {
			t.Errorf("%s: the first line of its doc is %q, want a sentence that begins with the key", k.Key, summary)
		}
		if !strings.Contains(rest, "```yaml\n") {
			t.Errorf("%s: its doc has no example", k.Key)
		}
	}
}

// load reads one of the examples.
func load(t *testing.T, name string) *policy.Model {
	t.Helper()
	files, problems := policy.ReadFiles(os.DirFS(path.Join("../examples", name)))
	model, found := feature.Language().Load(files)
	for _, p := range slices.Concat(problems, found) {
		t.Error(p)
	}
	if model == nil {
		t.FailNow()
	}
	return model
}

func TestExamplesPassEnvoy(t *testing.T) {
	binary := golden.Binary(t)
	entries, err := os.ReadDir("../examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			resources, err := envoy.Translate(load(t, e.Name()), feature.All())
			if err != nil {
				t.Fatal(err)
			}
			for _, gateway := range slices.Sorted(maps.Keys(resources)) {
				bootstrap, err := envoy.Static(resources[gateway], envoy.BootstrapOptions{Group: gateway})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := envoy.Validate(ctx, binary, bootstrap); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestExamplesLoadIntoTheCompanions(t *testing.T) {
	for _, name := range []string{"quickstart", "teams", "canary", "plans"} {
		table, limits := feature.Companions(load(t, name))
		if err := auth.New(auth.Options{Counter: counter{}}).Load(table); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		known := map[string]bool{}
		for _, l := range limits.Limits {
			known[l.ID()] = true
			if err := l.Validate(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, p := range limits.Plans {
			if err := p.Validate(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, r := range table.Rules {
			for _, id := range r.Limits {
				if !known[id] {
					t.Errorf("%s: the rule %s counts %s, which the rate limit service does not get", name, r.Name, id)
				}
			}
		}
	}
}

func TestQuickstartTakesItsTestKey(t *testing.T) {
	m := load(t, "quickstart")
	demo, ok := policy.Find[*jwt.JWT](m.Auth[0].Settings)
	if !ok || !slices.Equal(demo.Issuer, []string{examples.Issuer}) || !slices.Equal(demo.Audiences.Names, []string{examples.Audience}) {
		t.Errorf("got the auth entry %+v, want issuer %s and audience %s", demo, examples.Issuer, examples.Audience)
	}
	if !strings.HasPrefix(string(examples.TestKey()), "# TEST KEY") {
		t.Error("the private key does not say that it is a test key")
	}
	if !strings.Contains(string(demo.JWKS.Keys), `"`+examples.TestKeyID+`"`) {
		t.Errorf("the key set has no key %s", examples.TestKeyID)
	}
}

func TestLimitsKeepTheirNames(t *testing.T) {
	_, limits := feature.Companions(load(t, "teams"))
	var got []string
	for _, l := range limits.Limits {
		got = append(got, l.Name)
	}
	want := []string{"gateway/edge/0", "route/login/0", "route/orders-read/0", "route/orders-write/0", "route/orders-write/1"}
	if !slices.Equal(got, want) {
		t.Errorf("got the limits %v, want %v", got, want)
	}
}

// counter stands for the rate limit service, as app wires it.
type counter struct{ limits *ratelimit.Service }

func (c counter) Count(asks []*auth.Ask) {
	uses := map[auth.PlanUse]ratelimit.PlanUse{auth.PlanOptional: ratelimit.PlanOptional, auth.PlanRequired: ratelimit.PlanRequired}
	for _, a := range asks {
		who := &a.Caller
		v := c.limits.Count(context.Background(), a.Limits, ratelimit.Attributes{
			Anonymous: !who.Identified, IP: who.IP, Consumer: who.Consumer, Plan: who.Plan, Plans: uses[a.Plans],
			Header: who.Header, Claim: who.Claim,
		}, 1)
		headers := make([][2]string, len(v.Headers))
		for i, h := range v.Headers {
			headers[i] = [2]string{h.Name, h.Value}
		}
		a.Verdict = auth.Verdict{Allowed: v.Allowed, Status: v.Status, Headers: headers, Limit: v.Limit}
	}
}

func TestExamplesFitTheSchema(t *testing.T) {
	text, err := jsonschema.UnmarshalJSON(bytes.NewReader(feature.Language().Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.json", text); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../examples/*/*.yaml")
	more, err2 := filepath.Glob("../examples/*/*/*.yaml")
	if err := errors.Join(err, err2); err != nil || len(files) == 0 {
		t.Fatalf("no examples (%v)", err)
	}
	for _, name := range slices.DeleteFunc(slices.Concat(files, more), policy.IsTest) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var document any
		if err := yaml.Unmarshal(content, &document); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(document); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRouteWithoutAuthDoesNotTakeDownTheDefaults(t *testing.T) {
	last := policy.Files{
		"platform.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 10000}}, defaults: {rateLimit: {rate: 100/minute, by: consumer}}}}
auth: {idp: {jwt: {issuer: "https://id.test/", audiences: [a], jwks: "https://id.test/keys"}}}
services: {orders: {endpoints: ["10.0.0.1:80"]}}
`),
		"orders.yaml": []byte(`routes: {orders: {hostnames: [a.test], auth: [idp], backends: {orders: 1}}}`),
	}
	candidate := maps.Clone(last)
	candidate["web.yaml"] = []byte(`routes: {web: {hostnames: [b.test], backends: {orders: 1}}}`)
	candidate["carts.yaml"] = []byte(`routes: {carts: {hostnames: [c.test], auth: [idp], backends: {orders: 1}}}`)
	files, m, problems := feature.Language().Isolate(candidate, last)
	if len(problems) != 1 || !strings.Contains(problems[0].Message, `"web" has no auth`) {
		t.Errorf("got the problems %v, want one about the route web", problems)
	}
	got := slices.Sorted(maps.Keys(files))
	if want := []string{"carts.yaml", "orders.yaml", "platform.yaml"}; !slices.Equal(got, want) || m == nil {
		t.Errorf("got the files %v (model %t), want %v", got, m != nil, want)
	}
}
