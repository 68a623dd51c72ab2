package delivery_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/delivery"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/testing/protocmp"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", delivery.Kind) }

// load is a policy with this delivery.
func load(t *testing.T, setting string) *policy.Model {
	t.Helper()
	text := fmt.Sprintf("gateways: {edge: {listeners: {http: {port: 1}}, %s}}\nservices: {web: {endpoints: [\"10.0.0.1:80\"]}}\n"+
		"routes: {web: {hostnames: [a.test], backends: {web: 1}}}\n", setting)
	m, problems := policy.New(delivery.Kind).Load(policy.Files{"edge.yaml": []byte(text)})
	if m == nil {
		t.Fatal(problems)
	}
	return m
}

func TestCanaries(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		canary   string
		of, want int
	}{
		{"1", 0, 0},
		{"1", 1, 1},
		{"1", 100, 1},
		{"3", 2, 2},
		{"3", 4, 3},
		{"10%", 0, 0},
		{"10%", 1, 1},
		{"10%", 10, 1},
		{"10%", 11, 2},
		{"0.001%", 7, 1},
		{"100%", 7, 7},
		{"100%", 10_000, 500},
		{"500", 10_000, 500},
	} {
		s, _ := policy.Find[*delivery.Setting](load(t, "delivery: {canary: "+row.canary+"}").Gateways[0].Settings)
		if got := s.Canaries(row.of); got != row.want {
			t.Errorf("%s of %d: got %d, want %d", row.canary, row.of, got, row.want)
		}
		if got := s.Holds().String(); got != "30s" {
			t.Errorf("the default hold is %s, want 30s", got)
		}
	}
}

// What Envoys get is the same with and without: a change of it alone is none for them.
func TestNothingOfItComesToEnvoy(t *testing.T) {
	t.Parallel()
	resources := func(setting string) []envoy.Resource {
		all, err := envoy.NewTranslator([]*policy.Kind{delivery.Kind}).Translate(load(t, setting))
		if err != nil {
			t.Fatal(err)
		}
		list := all["edge"]
		for i := range list {
			list[i].Pos = policy.Pos{}
		}
		return list
	}
	if d := cmp.Diff(resources(""), resources("delivery: {canary: 2, hold: 5s}"), protocmp.Transform()); d != "" {
		t.Errorf("(-without +with):\n%s", d)
	}
}
