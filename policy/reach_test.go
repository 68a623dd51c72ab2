package policy_test

import (
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/policy"
)

// hatch says something about timeouts, too, when it has the field patience.
type hatch struct {
	Patience *string `policy:"patience"`
}

func (*hatch) Check(*policy.Check) {}

func (h *hatch) Reaches() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if h.Patience != nil {
			yield("timeouts", "patience")
		}
	}
}

func TestLockHoldsForWhatReachesTheKey(t *testing.T) {
	language := policy.New(
		policy.Define[timeouts]("timeouts", policy.Layers, ""),
		policy.Define[hatch]("hatch", policy.InRoute, ""),
		policy.Define[hatch]("hatch", policy.InService, ""),
	)
	_, problems := language.Load(policy.Files{"p.yaml": []byte(`
gateways:
  edge: {listeners: {http: {port: 80}}, defaults: {locked: [timeouts]}}
  free: {listeners: {http: {port: 81}}}
services:
  here: {dns: "here:80", hatch: {patience: much}}
  there: {dns: "there:80", hatch: {patience: much}}
routes:
  reaches: {gateways: [edge], hostnames: [a.test], backends: {here: 1}, hatch: {patience: some}}
  does-not: {gateways: [edge], hostnames: [b.test], backends: {here: 1}, hatch: {}}
  free: {gateways: [free], hostnames: [a.test], backends: {there: 1}, hatch: {patience: some}}
`)})
	var got []string
	for _, p := range problems {
		got = append(got, p.Error())
	}
	want := []string{
		`p.yaml:6:44: services.here.hatch.patience: the defaults of gateway "edge" lock timeouts, which this is about (p.yaml:3:61)`,
		`p.yaml:9:91: routes.reaches.hatch.patience: the defaults of gateway "edge" lock timeouts, which this is about (p.yaml:3:61)`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
