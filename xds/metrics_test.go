package xds

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := prometheus.NewPedanticRegistry()
		p := start(t, Options{Metrics: r})
		d, stray := p.envoy(t, Delta, "d"), connect(t, p.dial(t), SotW, nodeOf("e", "made-up"))
		d.set(func() { d.reject = rejecting(lds, "l") })
		d.askUsual()
		stray.ask(cds)
		stray.got()
		p.Publish(usual(t, "1"))
		d.got()
		if got := samples(t, r); !slices.Contains(got, "legation_xds_parked edge: 1") {
			t.Errorf("%q: want one resource parked", got)
		}
		d.set(func() { d.reject = nil })
		p.Publish(snapshot(t, "2"))
		d.got()
		want := []string{
			"legation_xds_answer_seconds: 5",
			"legation_xds_floods_total: 0",
			"legation_xds_nacks_total edge listener: 1",
			"legation_xds_parked : 0",
			"legation_xds_parked edge: 0",
			"legation_xds_publish_seconds: 1", // the first was rejected
			"legation_xds_responses_total edge cluster: 1",
			"legation_xds_responses_total edge endpoint: 1",
			"legation_xds_responses_total edge listener: 2",
			"legation_xds_responses_total edge route: 1",
			"legation_xds_sent_away_total: 0",
			"legation_xds_sent_bytes_total edge cluster: some",
			"legation_xds_sent_bytes_total edge endpoint: some",
			"legation_xds_sent_bytes_total edge listener: some",
			"legation_xds_sent_bytes_total edge route: some",
			"legation_xds_streams : 1", // a group that is not served gets no label
			"legation_xds_streams edge: 1",
		}
		if diff := cmp.Diff(want, samples(t, r)); diff != "" {
			t.Error(diff)
		}
	})
}

// samples are the values of r as "name labels: value", sorted.
func samples(t *testing.T, r prometheus.Gatherer) []string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{}
	for _, f := range families {
		if f.GetHelp() == "" || !strings.HasPrefix(f.GetName(), "legation_xds_") {
			t.Errorf("metric %s: help %q", f.GetName(), f.GetHelp())
		}
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetValue()
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			if value > 0 && strings.HasSuffix(f.GetName(), "_bytes_total") {
				lines[line+": some"] = true
				continue
			}
			lines[fmt.Sprintf("%s: %v", line, value)] = true
		}
	}
	return slices.Sorted(maps.Keys(lines))
}
