package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is what a run found.
type report struct {
	CPUs    int     `json:"cpus"`
	Go      string  `json:"go"`
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"`
	Rows    []found `json:"rows"`
	Skipped []skip  `json:"skipped"`
	scenes  []scenario
}

// found is one row: medians of the rounds, and how far these lie apart.
type found struct {
	Scenario string             `json:"scenario"`
	Service  string             `json:"service"`
	Median   figures            `json:"median"`
	Least    figures            `json:"least"`
	Most     figures            `json:"most"`
	Ratio    map[string]float64 `json:"ratio,omitempty"` // beside the empty handler in the same scenario
	Goals    []reached          `json:"goals,omitempty"`
}

// reached is a goal and what was found.
type reached struct {
	Figure string  `json:"figure"`
	Beside string  `json:"beside"`
	Want   string  `json:"want"`
	Got    float64 `json:"got"`
	Met    bool    `json:"met"`
}

func (b *bench) report(rows []*row) *report {
	r := &report{CPUs: runtime.NumCPU(), Go: runtime.Version(), Rounds: b.rounds, Seconds: b.time.Seconds(), Rows: []found{}, Skipped: b.skipped}
	for _, one := range rows {
		f := found{Scenario: one.scenario.name, Service: one.contestant}
		f.Median, f.Least, f.Most = summary(one.rounds)
		r.Rows = append(r.Rows, f)
		if len(r.scenes) == 0 || r.scenes[len(r.scenes)-1].name != one.scenario.name {
			r.scenes = append(r.scenes, one.scenario)
		}
	}
	for i := range r.Rows {
		r.compare(&r.Rows[i])
	}
	return r
}

// summary gives the median of each figure, the least and the most.
func summary(rounds []figures) (median, least, most figures) {
	median, least, most = figures{}, figures{}, figures{}
	for name := range rounds[0] {
		var all []float64
		for _, f := range rounds {
			all = append(all, f[name])
		}
		slices.Sort(all)
		median[name] = (all[len(all)/2] + all[(len(all)-1)/2]) / 2
		least[name], most[name] = all[0], all[len(all)-1]
	}
	return median, least, most
}

// compare sets a row beside the others of its scenario.
func (r *report) compare(f *found) {
	if beside := r.find(f.Scenario, empty); beside != nil && beside != f {
		f.Ratio = map[string]float64{}
		for _, name := range []string{"rate", "cpu", "p99"} {
			if beside.Median[name] > 0 && f.Median[name] > 0 {
				f.Ratio[name] = f.Median[name] / beside.Median[name]
			}
		}
	}
	for _, g := range r.goals(f) {
		beside := r.find(f.Scenario, g.beside)
		if beside == nil || beside.Median[g.what] <= 0 {
			continue
		}
		got, sign := f.Median[g.what]/beside.Median[g.what], "≥"
		if g.most {
			sign = "≤"
		}
		f.Goals = append(f.Goals, reached{
			Figure: g.what, Beside: g.beside, Want: fmt.Sprintf("%s %g ×", sign, g.ratio), Got: got, Met: got == g.ratio || got < g.ratio == g.most,
		})
	}
}

// goals is what a row is to reach: legation's, over Redis.
func (r *report) goals(f *found) []goal {
	i := slices.IndexFunc(r.scenes, func(s scenario) bool { return s.name == f.Scenario })
	switch {
	case f.Service == envoyOne:
		return []goal{{"tax", envoyTwo, true, .7}}
	case f.Service == envoyNative:
		return []goal{{"tax", envoyAuth, true, .5}}
	case f.Service == slow && f.Scenario == "auth/64":
		return []goal{cpu(1.3)}
	case f.Service == legation, strings.HasPrefix(f.Service, legation+" "), f.Service == envoyExact:
		return r.scenes[i].goals
	}
	return nil
}

func (r *report) find(scenario, service string) *found {
	i := slices.IndexFunc(r.Rows, func(f found) bool { return f.Scenario == scenario && f.Service == service })
	if i < 0 {
		return nil
	}
	return &r.Rows[i]
}

func (r *report) json(w io.Writer) error {
	r.Skipped = slices.Concat([]skip{}, r.Skipped) // a list, even when empty
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(r)
}

// table is for people; it is Markdown too.
func (r *report) table(w io.Writer) error {
	fmt.Fprintf(w, "%d CPUs, %s, %d rounds of %g s, medians. Times in µs; CPU is service + Redis for one call, ratios are beside %s.\n\n",
		r.CPUs, r.Go, r.Rounds, r.Seconds, empty)
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	line := func(cells ...string) { fmt.Fprintf(t, "| %s\t|\n", strings.Join(cells, "\t| ")) }
	line("scenario", "service", "calls/s", "×", "p50", "p99", "×", "p99.9", "CPU", "×", "of it Redis", "client", "also")
	line(slices.Repeat([]string{"---"}, 13)...)
	for i := range r.Rows {
		f := &r.Rows[i]
		m := f.Median
		line(f.Scenario, f.Service, cell(m, "rate", "%.0f"), cell(f.Ratio, "rate", "%.2f"), cell(m, "p50", "%.0f"), cell(m, "p99", "%.0f"),
			cell(f.Ratio, "p99", "%.2f"), cell(m, "p999", "%.0f"), cell(m, "cpu", "%.2f"), cell(f.Ratio, "cpu", "%.2f"), cell(m, "redis", "%.2f"),
			cell(m, "client", "%.2f"), f.also())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	r.verdicts(w)
	return nil
}

func cell(f map[string]float64, name, format string) string {
	if v, ok := f[name]; ok && (v != 0 || name != "cpu") {
		return fmt.Sprintf(format, v)
	}
	return ""
}

// also is what only some scenarios measure, and what is to be warned of.
func (f *found) also() string {
	var all []string
	for _, one := range []struct{ name, format string }{
		{"tax", "tax %.1f"}, {"envoy", "Envoy %.1f"}, {"bytes", "%.0f bytes a key"}, {"rss", "%.0f MiB"}, {"late", "sent late p99 %.0f"},
	} {
		if text := cell(f.Median, one.name, one.format); text != "" {
			all = append(all, text)
		}
	}
	if wrong := f.Most["failed"]; wrong > .001 {
		all = append(all, fmt.Sprintf("UP TO %.1f %% WRONG ANSWERS", 100*wrong))
	}
	return strings.Join(all, ", ")
}

func (r *report) verdicts(w io.Writer) {
	fmt.Fprintln(w)
	for _, f := range r.Rows {
		for _, g := range f.Goals {
			word := map[bool]string{true: "met", false: "MISSED"}[g.Met]
			fmt.Fprintf(w, "%-6s  %s, %s: %s %.2f × that of %s, wanted %s\n", word, f.Scenario, f.Service, g.Figure, g.Got, g.Beside, g.Want)
		}
	}
	slices.SortFunc(r.Skipped, func(a, b skip) int { return cmp.Compare(a.Scenario, b.Scenario) })
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "skipped %s: %s\n", s.Scenario, s.Reason)
	}
}
