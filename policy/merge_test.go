package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/policy"
)

// hash has one thing by which it hashes, and settings that are merged.
type hash struct {
	By   union            `policy:"by"`
	More map[string]union `policy:"more"`
	Size int              `policy:"size"`
}

func (*hash) Check(*policy.Check) {}

// union is one of two.
type union struct {
	Header string `policy:"header"`
	Cookie string `policy:"cookie"`
	Name   string `policy:"name,required"`
}

func (*union) Whole() {}

// watcher keeps what its checks were told.
type watcher struct {
	Ask string `policy:"ask"`
}

type tally struct{ n int }

var seen []string

func (w *watcher) Check(c *policy.Check) {
	shared := policy.Once(c, func() *tally { return &tally{} })
	shared.n++
	seen = append(seen, fmt.Sprintf("%s merged=%t broken=%t %d", w.Ask, c.Route() != nil, c.Broken("hash"), shared.n))
}

func wholeLanguage() *policy.Language {
	return policy.New(policy.Define[hash]("hash", policy.Layers, "x"), policy.Define[watcher]("watch", policy.Layers, "x"))
}

func TestWholeIsNotMergedKeyByKey(t *testing.T) {
	for _, test := range []struct {
		service, route string
		want           hash
	}{
		{"{by: {header: a, name: s}, size: 1}", "{by: {cookie: b, name: r}}", hash{By: union{Cookie: "b", Name: "r"}, Size: 1}},
		{"{by: {header: a, name: s}, size: 1}", "{size: 2}", hash{By: union{Header: "a", Name: "s"}, Size: 2}},
		{"{by: {header: a, name: s}, size: 1}", "{by: off}", hash{Size: 1}},
		{"{size: 1}", "{by: {header: off, name: r}}", hash{By: union{Header: "off", Name: "r"}, Size: 1}},
		{
			"{more: {x: {header: a, name: s}, y: {header: b, name: s}}}", "{more: {x: {name: r}}}",
			hash{More: map[string]union{"x": {Name: "r"}, "y": {Header: "b", Name: "s"}}},
		},
	} {
		m, problems := wholeLanguage().Load(policy.Files{"a.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 80}}}}
services: {s: {dns: "a:1", hash: ` + test.service + `}}
routes: {r: {hostnames: ["*"], backends: {s: 1}, hash: ` + test.route + `}}
`)})
		if m == nil {
			t.Fatalf("%s over %s: %v", test.route, test.service, problems.Err())
		}
		got, _ := policy.Find[*hash](m.Bound[m.Gateways[0]][0].Settings)
		if diff := cmp.Diff(&test.want, got); diff != "" {
			t.Errorf("%s over %s (-want +got):\n%s", test.route, test.service, diff)
		}
	}
}

func TestWholeIsCompleteInEachLayer(t *testing.T) {
	_, problems := wholeLanguage().Load(policy.Files{"a.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 80}}}}
services: {s: {dns: "a:1", hash: {by: {header: a, name: s}}}}
routes: {r: {hostnames: ["*"], backends: {s: 1}, hash: {by: {cookie: b}}}}
`)})
	if len(problems) != 1 || problems[0].Path != "routes.r.hash.by.name" {
		t.Errorf("got %v, want the missing name", problems)
	}
	if n := strings.Count(string(wholeLanguage().Schema()), `policy_test.union.layer`); n != 0 {
		t.Errorf("the schema has a form of the union for layers, %d times", n)
	}
}

func TestChecksAreToldWhatIsBroken(t *testing.T) {
	seen = nil
	_, problems := wholeLanguage().Load(policy.Files{"a.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 80}}}}
services: {s: {dns: "a:1", hash: [1], watch: {ask: service}}}
routes:
  good: {hostnames: [a], backends: {s: 1}, hash: off, watch: {ask: good}}
  bad: {hostnames: [b], backends: {s: 1}, watch: {ask: bad}}
`)})
	if len(problems) != 1 {
		t.Errorf("got %v", problems)
	}
	want := []string{
		"service merged=false broken=true 1", "bad merged=false broken=false 2", "good merged=false broken=false 3",
		"bad merged=true broken=true 4", "good merged=true broken=true 5",
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
