package control

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// by hand is a controller that loads when the test says so.
func byHand(t testing.TB, o Options) (c *Controller, reports *[]Outcome) {
	t.Helper()
	reports = &[]Outcome{}
	o.Report = func(o Outcome) { *reports = append(*reports, o) }
	c = controller(o)
	c.Recall()
	return c, reports
}

func TestUnchangedRevisionReportsNothing(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"policy.yaml": whole(1), "note.txt": "a file that the policy does not refer to"})
	c, reports := byHand(t, Options{Dir: dir})
	c.Load()
	first := c.Outcome()
	write(t, filepath.Join(dir, "note.txt"), "changed")
	write(t, filepath.Join(dir, "policy.yaml"), whole(1))
	c.Load()
	second := c.Outcome()
	if len(*reports) != 1 || !(*reports)[0].Changed {
		t.Errorf("got %d reports, want the first load's", len(*reports))
	}
	if second.Changed || second.Revision != first.Revision || second.Since != first.Since || !second.Read.After(first.Read) {
		t.Errorf("got %+v after %+v, want the same revision, read later", second, first)
	}
}

// A broken file stays at its last version while the others' changes apply, and is told once.
func TestBrokenFileKeepsItsLastVersion(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"gateway.yaml": gateway(1), "a.yaml": team("a", 1), "b.yaml": team("b", 1)})
	c, reports := byHand(t, Options{Dir: dir})
	c.Load()

	write(t, filepath.Join(dir, "a.yaml"), team("a", 2)+"nonsense: {}\n")
	write(t, filepath.Join(dir, "b.yaml"), team("b", 2))
	for range 3 {
		c.Load()
	}
	if len(*reports) != 2 {
		t.Fatalf("got %d reports, want 2: the problem is told once", len(*reports))
	}
	o := (*reports)[1]
	if !o.Changed || len(o.Problems) != 1 || o.Problems[0].Pos.File != "a.yaml" || string(o.Files["a.yaml"]) == team("a", 1) {
		t.Errorf("got %+v, want a change, and one problem of a.yaml as it stands", o)
	}
	if got, want := ports(o.Model), "a=1 b=2"; got != want {
		t.Errorf("serves %s, want %s", got, want)
	}

	write(t, filepath.Join(dir, "a.yaml"), team("a", 3))
	c.Load()
	if o := c.Outcome(); len(o.Problems) != 0 || ports(o.Model) != "a=3 b=2" {
		t.Errorf("after the cure: got %v, %s", o.Problems, ports(o.Model))
	}
}

// A policy for Envoys that others configure has domains and no gateway. What it served stays only when nothing is left.
func TestDomainsNeedNoGateway(t *testing.T) {
	t.Parallel()
	domain := func(rate string) string {
		return "rateLimits: {shop: {descriptors: [{entry: k, rate: " + rate + "}]}}\n"
	}
	file := filepath.Join(tree(t, map[string]string{"a.yaml": domain("1/second")}), "a.yaml")
	o := Options{Dir: filepath.Dir(file), DataDir: t.TempDir()}
	c, _ := byHand(t, o)
	c.Load()
	for i, step := range []struct {
		text   string
		served bool
	}{
		{domain("2/second"), true},
		{"", true}, // a restart: the same
		{domain("3/second"), true},
		{"services: {}\n", false},
		{gateway(10000), true},
		{domain("4/second"), false},
	} {
		if step.text == "" {
			c, _ = byHand(t, o)
		} else {
			write(t, file, step.text)
		}
		c.Load()
		if got := c.Outcome(); got.Changed != step.served || (got.Error == "") != step.served || step.served && len(got.Problems) > 0 {
			t.Errorf("step %d: got %+v, want it served: %t", i, got, step.served)
		}
	}
}

// ports is the services' first ports.
func ports(m *policy.Model) string {
	var all []string
	for _, s := range m.Services {
		all = append(all, fmt.Sprintf("%s=%d", s.Name, s.Endpoints[0].Port))
	}
	return strings.Join(all, " ")
}

// Another problem in the place of the one before is told too, and so is its end.
func TestProblemsAreToldWhenTheyChange(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"policy.yaml": whole(1)})
	c, reports := byHand(t, Options{Dir: dir})
	c.Load()
	for i, row := range []struct {
		text     string
		problems bool
	}{
		{"routes: [\n", true},
		{whole(1) + "nonsense: {}\n", true},
		{whole(1), false},
	} {
		write(t, filepath.Join(dir, "policy.yaml"), row.text)
		c.Load()
		c.Load()
		if len(*reports) != i+2 {
			t.Fatalf("%q: got %d reports, want %d", row.text, len(*reports), i+2)
		}
		if o := (*reports)[i+1]; o.Problems.HasErrors() != row.problems || o.Changed {
			t.Errorf("%q: got %+v", row.text, o)
		}
	}
}

func TestFirstLoadIsAllOrNothing(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		harm func(dir string)
	}{
		{"a broken file", func(dir string) { write(t, filepath.Join(dir, "b.yaml"), "routes: [\n") }},
		{"an unreadable file", func(dir string) { link(t, "../outside.yaml", filepath.Join(dir, "b.yaml")) }},
		{"an unreadable folder", func(dir string) { write(t, filepath.Join(dir, strings.Repeat("d/", 40)+"b.yaml"), team("b", 1)) }},
	} {
		dir := tree(t, map[string]string{"policy.yaml": whole(1)})
		row.harm(dir)
		c, reports := byHand(t, Options{Dir: dir})
		c.Load()
		if o := c.Outcome(); o.Revision != "" || o.Model != nil || !o.Problems.HasErrors() || len(*reports) != 1 {
			t.Errorf("%s: got %+v, want nothing served and the problem told", row.name, o)
		}
		select {
		case <-c.Loaded():
			t.Errorf("%s: Loaded is closed", row.name)
		default:
		}
	}
}

// Files and folders that can't be read are not taken for deleted.
func TestUnreadableFilesStay(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, blamed string
		harm         func(dir string)
	}{
		{"a file", "teams/b.yaml", func(dir string) { link(t, "../../outside.yaml", filepath.Join(dir, "teams/b.yaml")) }},
		{"a folder", "", func(dir string) {
			must(t, os.Chmod(filepath.Join(dir, "teams"), 0))
			t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "teams"), 0o755) })
		}},
		{"files that are too large together", ".", func(dir string) {
			first := filepath.Join(dir, "0.txt")
			write(t, first, strings.Repeat("x", 1<<20))
			for i := range policy.MaxTotal >> 20 {
				must(t, os.Link(first, filepath.Join(dir, strconv.Itoa(i+1)+".txt")))
			}
		}},
	} {
		if row.name == "a folder" && os.Geteuid() == 0 {
			continue // root reads everything; the first load's test has a folder that nobody may
		}
		dir := tree(t, map[string]string{"policy.yaml": whole(1), "teams/b.yaml": team("b", 1)})
		c, reports := byHand(t, Options{Dir: dir})
		c.Load()
		row.harm(dir)
		c.Load()
		o := c.Outcome()
		if len(*reports) != 2 || o.Changed || ports(o.Model) != "app=1 b=1" || len(o.Problems) != 1 {
			t.Errorf("%s: got %d reports, %v, serves %s; want the problem, and both services", row.name, len(*reports), o.Problems, ports(o.Model))
		}
		if row.blamed != "" && len(o.Problems) > 0 && o.Problems[0].Pos.File != row.blamed {
			t.Errorf("%s: blames %s, want %s", row.name, o.Problems[0].Pos.File, row.blamed)
		}
	}
}

// What has gone from a file may have moved to one that can't be read, or that somebody has only begun to write: it stays
// until that is known.
func TestWhatMayHaveMovedStays(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		harm func(file string)
	}{
		{"emptied", func(file string) { write(t, file, "") }},
		{"unreadable", func(file string) { link(t, "../../outside.yaml", file) }},
		{"cut short", func(file string) { write(t, file, team("b", 1)+team("a", 1)[:12]) }},
	} {
		dir := tree(t, map[string]string{"policy.yaml": whole(1), "teams/a.yaml": team("a", 1), "teams/b.yaml": team("b", 1)})
		c, _ := byHand(t, Options{Dir: dir, AllowShrink: true})
		c.Load()
		b := filepath.Join(dir, "teams/b.yaml")
		must(t, os.Remove(b))
		row.harm(b)
		must(t, os.Remove(filepath.Join(dir, "teams/a.yaml")))
		c.Load()
		if o := c.Outcome(); ports(o.Model) != "a=1 app=1 b=1" || len(o.Problems) != 2 || o.Problems[1].Pos.File != "teams/a.yaml" {
			t.Errorf("%s: serves %s, %v; want all that was there, and both files named", row.name, ports(o.Model), o.Problems)
		}
		must(t, os.Remove(b))
		write(t, b, team("b", 2))
		c.Load()
		if o := c.Outcome(); ports(o.Model) != "app=1 b=2" || len(o.Problems) != 0 {
			t.Errorf("%s: then serves %s, %v; want what the files say", row.name, ports(o.Model), o.Problems)
		}
	}
}

// withUnread keeps what is below an unreadable folder, and nothing whose name merely begins alike.
func TestWithUnread(t *testing.T) {
	t.Parallel()
	last := policy.Files{"teams/a.yaml": nil, "teams.yaml": nil, "teamsters/b.yaml": nil, "c.yaml": nil}
	for _, row := range []struct {
		file string
		want int
	}{{"teams", 1}, {"teams.yaml", 1}, {"c.yaml", 1}, {"d.yaml", 0}, {".", 4}} {
		problems := policy.Problems{{Pos: policy.Pos{File: row.file}}}
		if got := withUnread(nil, last, problems); len(got) != row.want {
			t.Errorf("%s: got %d files, want %d", row.file, len(got), row.want)
		}
	}
	if got := withUnread(policy.Files{"a.yaml": nil}, last, policy.Problems{{Pos: policy.Pos{File: "c.yaml"}}}); len(got) != 2 {
		t.Errorf("got %d files, want the candidate's and c.yaml", len(got))
	}
}

// Loaded closes with the first policy that is served, and stays closed.
func TestLoadedClosesOnce(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"policy.yaml": "routes: [\n"})
	c, _ := byHand(t, Options{Dir: dir})
	c.Load()
	for i := range 3 { // a second close would panic
		write(t, filepath.Join(dir, "policy.yaml"), whole(i+1))
		c.Load()
		<-c.Loaded()
	}
}

// What the status answers is a list, also where there is nothing to list.
func TestOutcomeHasAListOfProblems(t *testing.T) {
	t.Parallel()
	c, _ := byHand(t, Options{Dir: tree(t, map[string]string{"policy.yaml": whole(1)})})
	if c.Outcome().Problems == nil {
		t.Error("before the first load: nil")
	}
	c.Load()
	if c.Outcome().Problems == nil {
		t.Error("after a load without problems: nil")
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	dir := tree(t, map[string]string{"policy.yaml": whole(1)})
	c, _ := byHand(t, Options{Dir: dir, Metrics: r})
	c.Load()
	c.Load()
	write(t, filepath.Join(dir, "policy.yaml"), "routes: [\n")
	write(t, filepath.Join(dir, "odd.yaml"), "services: {odd: {endpoints: [\"127.0.0.1:1\"], loadBalancer: {overprovisioning: 200%}}}\n")
	c.Load()
	families, err := r.Gather()
	must(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"legation_control_loads_total published": 1, "legation_control_loads_total unchanged": 1,
		"legation_control_loads_total refused": 1, "legation_control_problems": 1,
		"legation_control_warnings": 1,
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v (of %v)", name, got[name], want, got)
		}
	}
	if at := got["legation_control_published_timestamp_seconds"]; at < 1e9 {
		t.Errorf("published at %v", at)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

// A key set beside the policy is read anew when its file changes, and the companion is told.
func TestKeySetFileIsReadAnew(t *testing.T) {
	t.Parallel()
	const key = `{"kty": "EC", "crv": "P-256", "kid": "new", "x": "lK3MG4-4UmJxvT5ZBr2cwABl-HjGzJJ60bLFCy16Q64", "y": "WdXsgi4cDzPV4YG_QZfMtpGgPYcPPbK5GVOpGzD-flE"}`
	dir := tree(t, map[string]string{"policy.yaml": protected(1, 1), "keys.json": string(publicKeys(t))})
	c, reports := byHand(t, Options{Dir: dir})
	c.Load()
	write(t, filepath.Join(dir, "keys.json"), `{"keys": [`+key+`]}`)
	c.Load()
	if len(*reports) != 2 || !(*reports)[1].Changed || !policy.Wanted("keys.json") {
		t.Fatalf("got %d reports, want a change, for which the file is watched", len(*reports))
	}
	rules, _ := feature.Companions(c.Outcome().Model)
	if got := string(rules.Rules[0].Providers[0].JWT.JWKS.Keys); !strings.Contains(got, `"new"`) {
		t.Errorf("the companion has the keys %s", got)
	}
	write(t, filepath.Join(dir, "keys.json"), `{"keys": [`)
	c.Load()
	rules, _ = feature.Companions(c.Outcome().Model)
	if got := string(rules.Rules[0].Providers[0].JWT.JWKS.Keys); len(c.Outcome().Problems) != 1 || !strings.Contains(got, `"new"`) {
		t.Errorf("a broken file: %v, and the companion has the keys %s", c.Outcome().Problems, got)
	}
}
