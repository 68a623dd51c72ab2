package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/bench/rig"
)

// rows is a run in which one scenario was measured twice.
func rows(t *testing.T) []*row {
	t.Helper()
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == "exact/64" })
	return []*row{
		{scenarios[i], empty, []figures{{"rate": 100, "p99": 40, "cpu": 10}, {"rate": 300, "p99": 40, "cpu": 10}, {"rate": 120, "p99": 60, "cpu": 10}}},
		{scenarios[i], legation, []figures{{"rate": 240, "p99": 20, "cpu": 4, "redis": 1, "failed": 0}, {"rate": 250, "p99": 30, "cpu": 4, "redis": 1, "failed": 0}, {"rate": 230, "p99": 10, "cpu": 5, "redis": 1, "failed": .02}}},
		{scenarios[i], embedded, []figures{{"rate": 60, "p99": 20}}},
	}
}

func TestReport(t *testing.T) {
	b := &bench{rounds: 3, skipped: []skip{{"leased/64", "legation check: unknown key"}}}
	got := b.report(rows(t))
	type line struct {
		Service string
		Median  figures
		Ratio   map[string]float64
		Goals   []reached
	}
	var lines []line
	for _, f := range got.Rows {
		lines = append(lines, line{f.Service, f.Median, f.Ratio, f.Goals})
	}
	want := []line{
		{Service: empty, Median: figures{"rate": 120, "p99": 40, "cpu": 10}},
		{legation, figures{"rate": 240, "p99": 20, "cpu": 4, "redis": 1, "failed": 0}, map[string]float64{"rate": 2, "p99": .5, "cpu": .4}, []reached{
			{"cpu", empty, "≤ 0.35 ×", .4, false}, {"rate", empty, "≥ 2 ×", 2, true},
		}},
		{Service: embedded, Median: figures{"rate": 60, "p99": 20}, Ratio: map[string]float64{"rate": .5, "p99": .5}},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var table, text bytes.Buffer
	if err := got.table(&table); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"| exact/64 ", "| 2.00 ", "UP TO 2.0 % WRONG ANSWERS", "met     exact/64, legation: rate 2.00 × that of empty, wanted ≥ 2 ×",
		"MISSED  exact/64, legation: cpu 0.40 × that of empty, wanted ≤ 0.35 ×", "skipped leased/64: legation check: unknown key",
	} {
		if !strings.Contains(table.String(), part) {
			t.Errorf("the table lacks %q:\n%s", part, &table)
		}
	}
	if err := got.json(&text); err != nil {
		t.Fatal(err)
	}
	var again report
	if err := json.Unmarshal(text.Bytes(), &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got.Rows, again.Rows); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
}

// Each scenario asks for a route that there is, and has a name of its own.
func TestScenariosHold(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenarios {
		if seen[s.name] || s.about == "" || s.keys == 0 {
			t.Errorf("%q stands twice, or says too little", s.name)
		}
		seen[s.name] = true
		if s.kind != throughs && !slices.ContainsFunc(routes, func(r rig.Route) bool { return r.Name == s.limit }) {
			t.Errorf("%s: no route %q", s.name, s.limit)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"--rounds 0", "more than 0"},
		{"--seconds -1", "more than 0"},
		{"-o xml", "want table or json"},
		{"--run (", "--run"},
		{"--target 127.0.0.1:1", "--entry"},
		{"--target 127.0.0.1:1 --entry novalue", "want key=value"},
		{"--pid x", "want a number"},
		{"--variant =--fast-path=off", "want a name"},
		{"--run no-such-scenario", "--list"},
		{"extra", "flags only"},
	} {
		err := run(t.Context(), strings.Fields(row.args))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want it to say %q", row.args, err, row.want)
		}
	}
	got, err := variants([]string{"slow=--fast-path=off --redis-timeout 20ms"})
	want := []variant{{"legation slow", []string{"--fast-path=off", "--redis-timeout", "20ms"}}}
	if err != nil || cmp.Diff(want, got, cmp.AllowUnexported(variant{})) != "" {
		t.Errorf("got %v %v, want %v", got, err, want)
	}
}
