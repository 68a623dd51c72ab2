package policy_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/policy"
)

func files(pairs ...string) policy.Files {
	f := make(policy.Files)
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = []byte(pairs[i+1])
	}
	return f
}

const (
	platform    = "gateways: {edge: {listeners: {http: {port: 80}}}}\nservices: {shared: {dns: 'shared:80'}}\n"
	teamA       = "routes: {a: {hostnames: [a], backends: {shared: 1}}}\n"
	teamA2      = "routes: {a: {hostnames: [a2], backends: {shared: 1}}}\n"
	teamB       = "services: {b: {dns: 'b:80'}}\nroutes: {b: {hostnames: [b], backends: {b: 1}}}\n"
	teamB2      = "services: {b: {dns: 'b:81'}, b2: {dns: 'b2:80'}}\nroutes: {b: {hostnames: [b], backends: {b: 1}}}\n"
	onB         = "routes: {c: {hostnames: [c], backends: {b: 1}}}\n"
	onB2        = "routes: {c: {hostnames: [c2], backends: {b: 1, b2: 1}}}\n"
	broken      = "routes: {a: [\n"
	keyed       = "auth: {idp: {jwt: {issuer: x, jwks: {file: keys.json}}}}\n"
	listed      = platform + "---\nservices:\n  s: {endpoints: {file: s.endpoints}}\n"
	named       = "gateways: {edge: {listeners: {http: {port: 80}, web: {port: 81}}}}\nservices: {shared: {dns: 'shared:80'}}\n"
	onListener  = "routes: {a: {hostnames: [a], listeners: [web], backends: {shared: 1}}}\n"
	redirecting = "gateways: {edge: {listeners: {http: {port: 80, httpsRedirect: true}}}}\nservices: {shared: {dns: 'shared:80'}}\n"
	keyed2      = "auth: {idp: {jwt: {issuer: y, jwks: {file: keys.json}}}}\n"
)

// TestIsolate tells for each candidate what is served of it.
func TestIsolate(t *testing.T) {
	good := files("p.yaml", platform, "a.yaml", teamA)
	for _, tt := range []struct {
		name                  string
		last, candidate, want policy.Files
		problems              int
	}{
		{"good", good, files("p.yaml", platform, "a.yaml", teamA2), files("p.yaml", platform, "a.yaml", teamA2), 0},
		{
			"a bad file stays as it was, another one changes", files("p.yaml", platform, "a.yaml", teamA, "b.yaml", teamB),
			files("p.yaml", platform, "a.yaml", broken, "b.yaml", teamB2), files("p.yaml", platform, "a.yaml", teamA, "b.yaml", teamB2), 1,
		},
		{
			"a new bad file is left out", good, files("p.yaml", platform, "a.yaml", teamA2, "n.yaml", "routes: {n: [\n"),
			files("p.yaml", platform, "a.yaml", teamA2), 1,
		},
		{
			"what a file lost is not blamed on those that need it", files("p.yaml", platform, "b.yaml", teamB, "c.yaml", onB),
			files("p.yaml", platform, "b.yaml", broken, "c.yaml", onB), files("p.yaml", platform, "b.yaml", teamB, "c.yaml", onB), 1,
		},
		{
			"a new reference into a broken file falls with it", files("p.yaml", platform, "b.yaml", teamB, "c.yaml", onB),
			files("p.yaml", platform, "b.yaml", teamB2+"---\n"+broken, "c.yaml", onB2), files("p.yaml", platform, "b.yaml", teamB, "c.yaml", onB), 1,
		},
		{
			"a deleted file that is needed comes back", files("p.yaml", platform, "b.yaml", teamB, "c.yaml", onB),
			files("p.yaml", platform, "c.yaml", onB), files("p.yaml", platform, "b.yaml", teamB, "c.yaml", onB), 1,
		},
		{
			"what has moved into a bad file stays where it was", files("p.yaml", platform, "a.yaml", teamA, "b.yaml", teamB),
			files("p.yaml", platform, "b.yaml", teamA+teamB), files("p.yaml", platform, "a.yaml", teamA, "b.yaml", teamB), 2,
		},
		{
			"what has moved under another name stays for its host", files("p.yaml", platform, "a.yaml", teamA2, "b.yaml", teamB),
			files("p.yaml", platform, "b.yaml", teamB+"---\nroutes: {other: {hostnames: [a2], backends: {shared: 1}, oops: 1}}\n"),
			files("p.yaml", platform, "a.yaml", teamA2, "b.yaml", teamB), 2,
		},
		{
			"what a route answered for stays while a bad file says of its host what it did not say before", files("p.yaml", platform, "a.yaml", teamA, "b.yaml", onB+"services: {b: {dns: 'b:80'}}\n"),
			files("p.yaml", platform, "a.yaml", teamA2, "b.yaml", "routes: {c: {hostnames: [c, a], backends: {b: 1}}}\nservices: {b: {dn: 'b:80'}}\n"),
			files("p.yaml", platform, "a.yaml", teamA, "b.yaml", onB+"services: {b: {dns: 'b:80'}}\n"), 3,
		},
		{
			"what has moved into a bad file that is new stays where it was", files("p.yaml", platform, "a.yaml", teamA+"services: {b: {dns: 'b:80'}}\n"),
			files("p.yaml", platform, "a.yaml", "services: {b: {dns: 'b:80'}}\n", "n.yaml", broken),
			files("p.yaml", platform, "a.yaml", teamA+"services: {b: {dns: 'b:80'}}\n"), 2,
		},
		{
			"what a bad file does not name may go", files("p.yaml", platform, "a.yaml", teamA2, "b.yaml", teamB),
			files("p.yaml", platform, "b.yaml", "routes: {a2.b: {hostnames: [a2.test, xa2], oops: 1}}"), files("p.yaml", platform, "b.yaml", teamB), 2,
		},
		{
			"two conflicts do not lose what moved between the others", files("p.yaml", platform, "a.yaml", teamA, "b.yaml", teamB, "x.yaml", onB),
			files("p.yaml", platform, "a.yaml", "services: {late: {dns: 'late:80'}}\n", "b.yaml", teamA+"---\n"+teamB+"---\n"+onB, "x.yaml", onB2[:20]),
			files("p.yaml", platform, "a.yaml", teamA, "b.yaml", teamB, "x.yaml", onB), 2,
		},
		{
			"a deleted file that nobody needs stays away", files("p.yaml", platform, "a.yaml", teamA, "b.yaml", teamB),
			files("p.yaml", platform, "a.yaml", teamA), files("p.yaml", platform, "a.yaml", teamA), 0,
		},
		{"the deleted platform comes back", good, files("a.yaml", teamA2), good, 2},
		{"a conflict takes back both", good, files("p.yaml", platform, "a.yaml", teamA2, "x.yaml", teamA2), good, 1},
		{"a new file loses against one that stands", good, files("p.yaml", platform, "a.yaml", teamA, "0.yaml", teamA), good, 1},
		{
			"a second gateway that others did not expect is taken back", good,
			files("p.yaml", platform, "a.yaml", teamA, "g.yaml", "gateways: {inner: {listeners: {http: {port: 81}}}}\n"), good, 1,
		},
		{
			"a lock that others did not expect is taken back", files("p.yaml", platform, "a.yaml", "routes: {a: {hostnames: [a], backends: {shared: 1}, plan: required}}\n"),
			files("p.yaml", "gateways: {edge: {listeners: {http: {port: 80}}, defaults: {locked: [plan]}}}\nservices: {shared: {dns: 'shared:80'}}\n",
				"a.yaml", "routes: {a: {hostnames: [a], backends: {shared: 1}, plan: required}}\n"),
			files("p.yaml", platform, "a.yaml", "routes: {a: {hostnames: [a], backends: {shared: 1}, plan: required}}\n"), 1,
		},
		{
			"a bad key set falls back with its referrer", files("p.yaml", platform, "k.yaml", keyed, "keys.json", "{}"),
			files("p.yaml", platform, "k.yaml", keyed2, "keys.json", "oops"), files("p.yaml", platform, "k.yaml", keyed, "keys.json", "{}"), 1,
		},
		{
			"a deleted key set comes back", files("p.yaml", platform, "k.yaml", keyed, "keys.json", "{}"),
			files("p.yaml", platform, "k.yaml", keyed), files("p.yaml", platform, "k.yaml", keyed, "keys.json", "{}"), 1,
		},
		{"an empty directory changes nothing", good, nil, good, 1},
		{
			"a bad file of endpoints stays as it was, those who refer to it change", files("p.yaml", listed, "s.endpoints", "10.0.0.1:80\n"),
			files("p.yaml", listed+"  t: {dns: 't:80'}\n", "s.endpoints", "10.0.0.1:80\noops\n"),
			files("p.yaml", listed+"  t: {dns: 't:80'}\n", "s.endpoints", "10.0.0.1:80\n"), 1,
		},
		{
			"an emptied file of endpoints stays as it was", files("p.yaml", listed, "s.endpoints", "10.0.0.1:80\n"),
			files("p.yaml", listed, "s.endpoints", "# none\n"), files("p.yaml", listed, "s.endpoints", "10.0.0.1:80\n"), 1,
		},
		{
			"endpoints that do not go together stay as they were", files("p.yaml", listed, "s.endpoints", "10.0.0.1:80\n"),
			files("p.yaml", listed, "s.endpoints", "10.0.0.1:80 priority=1\n"), files("p.yaml", listed, "s.endpoints", "10.0.0.1:80\n"), 1,
		},
		{
			"a deleted file of endpoints comes back", files("p.yaml", listed, "s.endpoints", "10.0.0.1:80\n"),
			files("p.yaml", listed), files("p.yaml", listed, "s.endpoints", "10.0.0.1:80\n"), 1,
		},
		{
			"a listener that a route needs comes back", files("p.yaml", named, "a.yaml", onListener),
			files("p.yaml", platform, "a.yaml", onListener), files("p.yaml", named, "a.yaml", onListener), 1,
		},
		{
			"the last listener that served a route comes back", files("p.yaml", platform, "a.yaml", teamA),
			files("p.yaml", redirecting, "a.yaml", teamA), files("p.yaml", platform, "a.yaml", teamA), 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, model, problems := testLanguage().Isolate(tt.candidate, tt.last)
			if model == nil {
				t.Fatal("nothing is served: ", problems.Err())
			}
			if diff := cmp.Diff(show(tt.want), show(got)); diff != "" {
				t.Errorf("served files (-want +got):\n%s\n%v", diff, problems.Err())
			}
			if len(problems) != tt.problems {
				t.Errorf("got %d problems, want %d: %v", len(problems), tt.problems, problems.Err())
			}
			if alone, _ := testLanguage().Load(got); alone == nil || alone.Revision != model.Revision {
				t.Error("the model is not that of the files")
			}
		})
	}
}

func show(f policy.Files) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		out = append(out, name+": "+string(f[name]))
	}
	return out
}

func TestIsolateWithoutLastServesAllOrNothing(t *testing.T) {
	_, model, problems := testLanguage().Isolate(files("p.yaml", platform, "a.yaml", broken), nil)
	if model != nil || !problems.HasErrors() {
		t.Errorf("got model %v, problems %v; want none served", model, problems)
	}
	candidate := files("p.yaml", platform, "a.yaml", teamA)
	got, model, problems := testLanguage().Isolate(candidate, nil)
	if model == nil || len(problems) > 0 || len(got) != 2 {
		t.Errorf("got %v, %v, %v; want the candidate served", got, model, problems)
	}
}

// TestIsolateHoldsProblemsAtTheCandidate: positions are those of the files that people wrote last.
func TestIsolateHoldsProblemsAtTheCandidate(t *testing.T) {
	_, _, problems := testLanguage().Isolate(files("p.yaml", platform, "a.yaml", "\n\n"+broken), files("p.yaml", platform, "a.yaml", teamA))
	if len(problems) != 1 || problems[0].Pos.Line < 3 {
		t.Errorf("got %v, want one problem below line 2", problems)
	}
}

// TestIsolateLosesNoHost has routes renamed and moved between files of which some are bad: each host of the policy is
// answered for at every time.
func TestIsolateLosesNoHost(t *testing.T) {
	hosts := []string{"a.test", "b.test", "c.test"}
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		loader := testLanguage().NewLoader()
		routes := map[string]string{"a": "hostnames: [a.test]", "b": "hostnames: [b.test]", "c": "hostnames: [c.test]"}
		last, _, _ := loader.Isolate(cut(random, routes), nil)
		for step := range 20 {
			for i := range random.IntN(3) {
				name := slices.Sorted(maps.Keys(routes))[random.IntN(len(routes))]
				routes[fmt.Sprintf("r%d-%d", step, i)] = routes[name]
				delete(routes, name)
			}
			if random.IntN(3) == 0 {
				host := hosts[random.IntN(len(hosts))]
				routes["deeper-"+host] = "hostnames: [" + host + "], match: {path: /deep}"
			}
			candidate := cut(random, routes)
			for i, bad := range []string{"oops: 1\n", "gateways: [\n", "routes: {lost: {hostnames: [a.test], backends: {nobody: 1}}}\ngateways: [\n"} {
				if name := fmt.Sprintf("%d.yaml", i); random.IntN(5) == 0 {
					candidate[name] = append(candidate[name], bad...)
				}
			}
			before := last
			var model *policy.Model
			if last, model, _ = loader.Isolate(candidate, last); model == nil {
				t.Fatalf("seed %d, step %d: nothing is served", seed, step)
			}
			for _, host := range hosts {
				if !slices.ContainsFunc(model.Routes, func(r *policy.Route) bool { return r.Match.Path.Value != "/deep" && slices.Contains(r.Hostnames, host) }) {
					t.Fatalf("seed %d, step %d: nothing answers for %s\nbefore:\n%s\ncandidate:\n%s\nserved:\n%s", seed, step, host,
						strings.Join(show(before), "\n"), strings.Join(show(candidate), "\n"), strings.Join(show(last), "\n"))
				}
			}
		}
	}
}

// cut is a policy of these routes, their hosts by name, in one to three files.
func cut(random *rand.Rand, routes map[string]string) policy.Files {
	all := files("p.yaml", platform)
	number := 1 + random.IntN(3)
	texts := make([]string, number)
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		i := random.IntN(number)
		texts[i] += fmt.Sprintf("  %s: {%s, backends: {shared: 1}}\n", name, routes[name])
	}
	for i, text := range texts {
		if text != "" {
			all[fmt.Sprintf("%d.yaml", i)] = []byte("routes:\n" + text)
		}
	}
	return all
}
