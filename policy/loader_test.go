package policy_test

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/policy/modeltest"
	"golang.org/x/tools/txtar"
)

// TestLoaderKeepsWhatHasNotChanged tells for edits of one team's file which routes and services are others afterwards.
func TestLoaderKeepsWhatHasNotChanged(t *testing.T) {
	shared := []byte("services: {shared: {dns: 'shared:80'}}\nroutes:\n  other: {hostnames: [other.example.com], backends: {s20: 1}}\n")
	for _, tt := range []struct {
		name    string
		edit    func(policy.Files)
		changed []string
	}{
		{"nothing", func(policy.Files) {}, nil},
		{"a file that nobody refers to", func(f policy.Files) { f["notes.txt"] = []byte("x") }, nil},
		{
			"a comment behind all entries", func(f policy.Files) { f[teamFile(20)] = append(slices.Clone(f[teamFile(20)]), "# end\n"...) }, nil,
		},
		{
			"a value of a route", func(f policy.Files) {
				f[teamFile(20)] = bytes.Replace(f[teamFile(20)], []byte("5s"), []byte("6s"), 1)
			}, routesFrom(20, 21),
		},
		{
			"a line more", func(f policy.Files) {
				f[teamFile(20)] = bytes.Replace(f[teamFile(20)], []byte("  r00025"), []byte("\n  r00025"), 1)
			}, routesFrom(25, 40),
		},
		{
			"an endpoint", func(f policy.Files) {
				f[teamFile(20)] = bytes.Replace(f[teamFile(20)], []byte("10.0.0.1"), []byte("10.0.0.2"), 1)
			}, append(routesFrom(20, 40), "other", "s20"),
		},
		{
			"a route more", func(f policy.Files) {
				f[teamFile(20)] = append(slices.Clone(f[teamFile(20)]), "  more: {hostnames: [h], backends: {s20: 1}}\n"...)
			}, []string{"more"},
		},
		{
			"a route more in a file of its own", func(f policy.Files) {
				f["more.yaml"] = []byte("routes: {more: {hostnames: [h], backends: {s20: 1}}}\n")
			}, []string{"more"},
		},
		{"a file less", func(f policy.Files) { delete(f, teamFile(40)) }, nil},
		{
			"a renamed file", func(f policy.Files) {
				f["renamed.yaml"] = f[teamFile(0)]
				delete(f, teamFile(0))
			}, append(routesFrom(0, 20), "s0"),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := manyRoutes(60, 20)
			files["shared.yaml"] = shared
			l := testLanguage().NewLoader()
			before, _ := l.Load(files)
			files = maps.Clone(files)
			tt.edit(files)
			after, problems := l.Load(files)
			if after == nil {
				t.Fatal(problems.Err())
			}
			got := others(before, after)
			slices.Sort(tt.changed)
			if diff := cmp.Diff(tt.changed, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("other entries than before (-want +got):\n%s", diff)
			}
			if before.Gateways[0] != after.Gateways[0] {
				t.Error("the gateway is another one")
			}
		})
	}
}

func routesFrom(from, to int) []string {
	var names []string
	for i := from; i < to; i++ {
		names = append(names, fmt.Sprintf("r%05d", i))
	}
	return names
}

// others names the services and routes of a model that are none of another's.
func others(before, after *policy.Model) []string {
	var names []string
	for _, s := range after.Services {
		if !slices.Contains(before.Services, s) {
			names = append(names, s.Name)
		}
	}
	for _, r := range after.Routes {
		if !slices.Contains(before.Routes, r) {
			names = append(names, r.Name)
		}
	}
	bound := before.Bound[before.Gateways[0]]
	for _, r := range after.Bound[after.Gateways[0]] {
		if slices.Contains(bound, r) == slices.Contains(names, r.Name) {
			names = append(names, "bound "+r.Name)
		}
	}
	slices.Sort(names)
	return names
}

// TestLoaderGoesOnBesideABrokenFile: what is wrong in one file keeps nobody's entries from being taken over.
func TestLoaderGoesOnBesideABrokenFile(t *testing.T) {
	last := manyRoutes(60, 20)
	l := testLanguage().NewLoader()
	_, before, _ := l.Isolate(last, nil)
	candidate := maps.Clone(last)
	candidate[teamFile(0)] = []byte(broken)
	candidate[teamFile(20)] = bytes.Replace(last[teamFile(20)], []byte("5s"), []byte("6s"), 1)
	_, after, problems := l.Isolate(candidate, last)
	if after == nil || !problems.HasErrors() {
		t.Fatal(problems.Err())
	}
	if diff := cmp.Diff(routesFrom(20, 21), others(before, after)); diff != "" {
		t.Errorf("other entries than before (-want +got):\n%s", diff)
	}
}

// FuzzLoader: whatever follows whatever, going on from the one load gives what a whole load of the other gives.
func FuzzLoader(f *testing.F) {
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var last []byte
		for _, file := range archive.Files {
			if policy.IsPolicy(file.Name) {
				f.Add(last, file.Data)
				last = file.Data
			}
		}
	}
	for _, pair := range [][2]string{{teamA, teamA2}, {teamB, teamB2}, {onB, onB2}, {teamA, broken}, {keyed, keyed2}, {listed, teamB}} {
		f.Add([]byte(pair[0]), []byte(pair[1]))
	}
	f.Fuzz(func(t *testing.T, before, after []byte) {
		language := testLanguage()
		l := language.NewLoader()
		rest := policy.Files{"p.yaml": []byte(platform), "b.yaml": []byte(teamB), "s.endpoints": []byte("10.0.0.1:80\n")}
		for _, content := range [][]byte{before, after, nil, before} {
			files := maps.Clone(rest)
			files["a.yaml"] = content
			got, problems := l.Load(files)
			want, wantProblems := language.Load(files)
			if diff := cmp.Diff(wantProblems, problems, cmp.AllowUnexported(policy.Problem{}), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("problems (-whole +again):\n%s", diff)
			}
			if diff := cmp.Diff(modeltest.Of(t, want).Whole, modeltest.Of(t, got).Whole); diff != "" {
				t.Fatalf("models (-whole +again):\n%s", diff)
			}
		}
	})
}

// TestLoaderSeesWhatRefersToAService: who names a service in other ways than to send to it is not forgotten.
func TestLoaderSeesWhatRefersToAService(t *testing.T) {
	const (
		before  = "services: {a: {dns: 'a:80'}, b: {dns: 'b:80'}}\n"
		sidecar = "sidecars: {b: {certificate: mesh/b, ca: {secret: mesh/ca}, outbound: {port: 15001, services: [a]}}}\n"
	)
	for _, tt := range []struct{ name, rest, after string }{
		{"a backend without weight is gone", "routes: {r: {hostnames: [r], backends: {a: 1, b: 0}}}\n", "services: {a: {dns: 'a:80'}}\n"},
		{"a sidecar's app calls it", sidecar, "services: {a: {dns: 'a:81'}, b: {dns: 'b:80'}}\n"},
		{"a sidecar has its name", sidecar, "services: {a: {dns: 'a:80'}, b: {dns: 'b:81'}}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			language := testLanguage()
			l := language.NewLoader()
			rest := "gateways: {edge: {listeners: {http: {port: 80}}}}\n" + tt.rest
			if m, problems := l.Load(files("p.yaml", rest, "s.yaml", before)); m == nil {
				t.Fatal(problems.Err())
			}
			f := files("p.yaml", rest, "s.yaml", tt.after)
			got, problems := l.Load(f)
			want, wantProblems := language.Load(f)
			if diff := cmp.Diff(wantProblems, problems, cmp.AllowUnexported(policy.Problem{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("problems (-whole +again):\n%s", diff)
			}
			if diff := cmp.Diff(modeltest.Of(t, want).Whole, modeltest.Of(t, got).Whole); diff != "" {
				t.Errorf("models (-whole +again):\n%s", diff)
			}
		})
	}
}

// A bound on all files together holds for a load that goes on from another, too.
func TestLoaderCountsTheValuesOfAllFiles(t *testing.T) {
	files := manyRoutes(20, 10)
	for i := range 20 {
		files[fmt.Sprintf("padding-%d.yaml", i)] = []byte("# " + strings.Repeat(",", 99_000) + "\n")
	}
	ld := testLanguage().NewLoader()
	if m, problems := ld.Load(files); m == nil {
		t.Fatal(problems.Err())
	}
	for i := range 3 {
		files = maps.Clone(files)
		files[fmt.Sprintf("more-%d.yaml", i)] = files["padding-0.yaml"]
		got, problems := ld.Load(files)
		want, wanted := testLanguage().Load(files)
		if (got == nil) != (want == nil) || fmt.Sprint(problems) != fmt.Sprint(wanted) {
			t.Errorf("%d files more: got %v, want %v", i+1, problems, wanted)
		}
	}
}

// So does a bound on what routes come to.
func TestLoaderCountsWhatRoutesComeTo(t *testing.T) {
	repeat := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	listeners := repeat(50, "l%d: {port: 1%[1]d}, ")
	files := policy.Files{"edge.yaml": []byte("gateways: {a: {listeners: {" + listeners + "}}, b: {listeners: {" + listeners +
		"}}, c: {listeners: {" + listeners + "}}}\nservices: {s: {dns: 's:80'}}\n")}
	ld, whole, refused := testLanguage().NewLoader(), testLanguage(), 0
	for i := range 12 {
		files = maps.Clone(files)
		files[fmt.Sprintf("r%d.yaml", i)] = fmt.Appendf(nil, "routes: {r%d: {gateways: [a, b, c], hostnames: [%s], backends: {s: 1}}}\n",
			i, repeat(700, "h%d.r"+fmt.Sprint(i)+", "))
		got, problems := ld.Load(files)
		want, wanted := whole.Load(files)
		if (got == nil) != (want == nil) || fmt.Sprint(problems) != fmt.Sprint(wanted) {
			t.Fatalf("%d routes: got %.200v, want %.200v", i+1, problems, wanted)
		}
		if want == nil {
			refused++
		}
	}
	if refused == 0 || refused == 12 {
		t.Errorf("%d of 12 were refused: this tells nothing", refused)
	}
}
