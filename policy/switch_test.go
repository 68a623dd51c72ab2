package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/policy"
)

// lamp is on unless somebody says off.
type lamp struct {
	Off   bool
	Level int `policy:"level"`
}

func (*lamp) Check(*policy.Check) {}

func (l *lamp) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if l.Off = n.Off(); !l.Off {
		d.Decode(n, l)
	}
}

func TestOffOfASwitchedKeyIsASetting(t *testing.T) {
	off, dim, bright := "lamp: off", "lamp: {level: 1}", "lamp: {level: 9}"
	for _, test := range []struct {
		name, defaults, service, route string
		want                           *lamp
	}{
		{name: "nobody says anything"},
		{name: "the route is off", defaults: dim, route: off, want: &lamp{Off: true}},
		{name: "the service is off", defaults: dim, service: off, want: &lamp{Off: true}},
		{name: "a nearer layer says more", defaults: off, service: dim, want: &lamp{Level: 1}},
		{name: "the nearest wins", defaults: dim, service: off, route: bright, want: &lamp{Level: 9}},
	} {
		t.Run(test.name, func(t *testing.T) {
			language := policy.New(policy.Define[lamp]("lamp", policy.Layers, "x").Switch())
			m, problems := language.Load(policy.Files{"a.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 80}}, defaults: {` + test.defaults + `}}}
services: {s: {` + join(`endpoints: ["10.0.0.1:1"]`, test.service) + `}}
routes: {r: {` + join(`hostnames: ["*"], backends: {s: 1}`, test.route) + `}}
`)})
			if m == nil {
				t.Fatal(problems.Err())
			}
			got, _ := policy.Find[*lamp](m.Bound[m.Gateways[0]][0].Settings)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// join adds a key, if there is one, to the others of a map in braces.
func join(keys, key string) string {
	if key == "" {
		return keys
	}
	return keys + ", " + key
}
