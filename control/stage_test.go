package control

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// byStages is the protected policy, of which each change goes to one Envoy first.
func byStages(port, requests int) string {
	return delivered(protected(port, requests), "delivery: {canary: 1, hold: 30s}, ")
}

// delivered is a policy with what its gateway says of delivery.
func delivered(text, delivery string) string {
	return strings.Replace(text, "{edge: {", "{edge: {"+delivery, 1)
}

// runs is what each connected Envoy has taken last, by node id.
func (p *plane) runs() map[string]string {
	all := map[string]string{}
	for _, n := range p.o.XDS.Status() {
		all[n.ID] = n.Revision
	}
	return all
}

// count is how many Envoys run a policy.
func (p *plane) count(c *Compiled) (n int) {
	for _, revision := range p.runs() {
		if revision == c.Model.Revision {
			n++
		}
	}
	return n
}

// canary is the only one that there is, and the Envoys that it is among by their ids.
func (p *plane) canary() string {
	p.t.Helper()
	if s := p.Outcome().Staged; len(s) == 1 && len(s[0].Canaries) == 1 {
		return s[0].Canaries[0].Node
	}
	p.t.Fatalf("want one canary, got %+v", p.Outcome().Staged)
	return ""
}

// envoysOf starts so many.
func (p *plane) start(n int) map[string]*proxy {
	all := map[string]*proxy{}
	for range n {
		e := p.envoy()
		all[e.id] = e
	}
	return all
}

// pushes is how many responses the Envoys were sent, by node id.
func pushes(envoys map[string]*proxy) map[string]int {
	all := map[string]int{}
	for id, e := range envoys {
		e.set(func() { all[id] = e.pushes })
	}
	return all
}

func TestHeldByTheCanaryGoesToAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		first := p.push(byStages(1, 10))
		if got := p.Outcome().Staged; got != nil {
			t.Errorf("the first policy of all is staged: %+v", got)
		}
		p.start(4)
		pass(5 * time.Second)
		began := time.Now()
		second := p.push(byStages(2, 20))
		if s := p.Outcome().Staged; len(s) != 1 || !s[0].Canaries[0].Connected.Equal(began.Add(-5*time.Second)) {
			t.Errorf("just chosen: got %+v, want a canary that is connected", s)
		}
		pass(3 * time.Second)
		want := []Staged{{
			Group: "edge", Revision: second.Model.Revision, From: first.Model.Revision, Time: began, Hold: 30, Of: 4, Origin: "policy.yaml:1:19",
			Canaries: []Canary{{Node: p.canary(), Connected: began.Add(-5 * time.Second)}},
		}}
		got := p.Outcome().Staged
		if d := cmp.Diff(want, got, cmpopts.IgnoreFields(Canary{}, "Since")); d != "" || time.Since(got[0].Canaries[0].Since) > 3*time.Second {
			t.Errorf("(-want +got):\n%s", d)
		}
		if runs := p.runs(); p.count(second) != 1 || p.count(first) != 3 || runs[p.canary()] != second.Model.Revision {
			t.Errorf("got %v, want the canary alone to run %s", runs, second.Model.Revision)
		}
		if !p.knows(first) || !p.knows(second) {
			t.Error("the companions do not answer for both policies")
		}
		e := p.envoy()
		if pass(24 * time.Second); p.count(second) != 1 || p.runs()[e.id] != first.Model.Revision {
			t.Errorf("before the hold is over: got %v", p.runs())
		}
		if !p.knows(first) || !p.knows(second) {
			t.Error("during the hold the companions do not answer for both policies")
		}
		if pass(6 * time.Second); p.count(second) != 5 || p.Outcome().Staged != nil {
			t.Errorf("after the hold: got %v, %+v", p.runs(), p.Outcome().Staged)
		}
		if !p.knows(first) {
			t.Error("just after, requests that were routed before are not answered for")
		}
		if pass(time.Minute); p.knows(first) || !p.knows(second) || len(p.Outcome().Parked) != 0 {
			t.Error("the companions still know what nobody runs")
		}
	})
}

// What the canary refuses nobody else is ever sent, and it goes back at once.
func TestRefusedByTheCanary(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		first := p.push(byStages(1, 10))
		envoys := p.start(20)
		before := pushes(envoys)
		refusing(true, slices.Collect(maps.Values(envoys))...)
		second := p.push(byStages(2, 20))
		refusing(false, slices.Collect(maps.Values(envoys))...)
		pass(2 * time.Second)
		o := p.Outcome()
		var canary string
		for id, n := range pushes(envoys) {
			if n > before[id] {
				canary += id
			}
		}
		want := []Parked{{
			Group: "edge", Revision: second.Model.Revision, To: first.Model.Revision, Refused: 1, Of: 1, Canaries: true,
			Reasons: []Reason{{Node: canary, Type: "cluster", Resource: "app", Origin: "policy.yaml:4:12", Error: "no"}},
		}}
		if d := cmp.Diff(want, o.Parked, cmpopts.IgnoreFields(Parked{}, "Time"), cmpopts.IgnoreFields(Reason{}, "Type", "Resource", "Origin")); d != "" || o.Staged != nil {
			t.Errorf("(-want +got):\n%s%+v", d, o.Staged)
		}
		if r := o.Parked[0].Reasons[0]; r.Type == "" || !strings.HasPrefix(r.Origin, "policy.yaml:") {
			t.Errorf("got %+v, want the line of what was refused", r)
		}
		e := p.envoy()
		if pass(time.Minute); p.count(first) != 21 || p.runs()[e.id] != first.Model.Revision {
			t.Errorf("got %v, want all to run the first policy", p.runs())
		}
		third := p.push(byStages(3, 30))
		if pass(40 * time.Second); p.count(third) != 21 || len(p.Outcome().Parked) != 0 {
			t.Errorf("another one: got %v", p.runs())
		}
	})
}

// A canary that is lost, again and again, or slow sends the policy back, and status says why.
func TestCanaryGoesWrong(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		act  func(t *testing.T, p *plane, canary *proxy)
		soon time.Duration // then nothing is decided yet
		late time.Duration // after that it is
		want string
	}{
		"leaves": {
			func(_ *testing.T, _ *plane, e *proxy) { pass(4 * time.Second); e.leave() },
			14 * time.Second, 4 * time.Second, "left 4s after it took it, and did not come back",
		},
		"comes and goes": {
			func(_ *testing.T, p *plane, e *proxy) {
				for range returnsMax {
					pass(5 * time.Second)
					e.leave()
					pass(2 * time.Second)
					e = p.envoyCalled(e.id)
				}
			},
			0, 2 * time.Second, "came back for the third time since it got it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := judging(t, Options{})
				first := p.push(byStages(1, 10))
				envoys := p.start(3)
				p.push(byStages(2, 20))
				pass(time.Second)
				row.act(t, p, envoys[p.canary()])
				if pass(row.soon); row.soon > 0 && len(p.Outcome().Parked) != 0 {
					t.Errorf("too soon: %+v", p.Outcome().Parked)
				}
				pass(row.late)
				o := p.Outcome()
				if len(o.Parked) != 1 || len(o.Parked[0].Reasons) != 1 || o.Staged != nil {
					t.Fatalf("got %+v, %+v", o.Parked, o.Staged)
				}
				if r := o.Parked[0].Reasons[0]; r.Error != row.want || r.Type != "" || r.Origin != "policy.yaml:1:19" {
					t.Errorf("got %+v, want %q", r, row.want)
				}
				if pass(10 * time.Second); p.count(first) != len(p.runs()) {
					t.Errorf("got %v, want all to run the first policy", p.runs())
				}
			})
		})
	}
}

func TestCanaryThatTakesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		p.push(byStages(1, 10))
		for _, e := range p.start(3) {
			e.set(func() { e.mute = true })
		}
		p.push(byStages(2, 20))
		if pass(59 * time.Second); len(p.Outcome().Parked) != 0 {
			t.Errorf("too soon: %+v", p.Outcome().Parked)
		}
		pass(5 * time.Second)
		if o := p.Outcome(); len(o.Parked) != 1 || o.Parked[0].Reasons[0].Error != "has not taken it within 1m0s" {
			t.Errorf("got %+v", o.Parked)
		}
	})
}

// A canary that comes back holds it anew.
func TestHoldIsWithoutABreak(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		p.push(byStages(1, 10))
		envoys := p.start(3)
		second := p.push(byStages(2, 20))
		pass(25 * time.Second)
		canary := envoys[p.canary()]
		canary.leave()
		pass(100 * time.Millisecond) // too short for anybody to look
		p.envoyCalled(canary.id)
		if pass(28 * time.Second); p.count(second) != 1 {
			t.Errorf("got %v, want the others to wait", p.runs())
		}
		if pass(5 * time.Second); p.count(second) != 3 {
			t.Errorf("got %v, want all to have it", p.runs())
		}
	})
}

// Where the hold is short, what the others ran until then is answered for all the same.
func TestCompanionsAfterAShortHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		first := p.push(delivered(protected(1, 10), "delivery: {canary: 1, hold: 2s}, "))
		p.start(3)
		pass(time.Minute)
		second := p.push(delivered(protected(2, 20), "delivery: {canary: 1, hold: 2s}, "))
		if pass(4 * time.Second); p.count(second) != 3 {
			t.Fatalf("got %v", p.runs())
		}
		if pass(8 * time.Second); !p.knows(first) {
			t.Error("8s after the others left it, the first policy is not known")
		}
		if pass(5 * time.Second); p.knows(first) {
			t.Error("a while later the first policy is still known")
		}
	})
}

// Who takes back what went wrong, with the files as they were, has what the others have, also after a restart.
func TestTakenBackByHand(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]bool{"refused": true, "under way": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := Options{DataDir: t.TempDir(), Parked: boardOf(t)}
				p := judging(t, o)
				p.push(byStages(1, 10))
				envoys := p.start(3)
				p.push(byStages(2, 20))
				pass(35 * time.Second)
				refusing(refuse, slices.Collect(maps.Values(envoys))...)
				third := p.push(byStages(3, 30))
				refusing(false, slices.Collect(maps.Values(envoys))...)
				pass(5 * time.Second)
				second := p.push(byStages(2, 20))
				if pass(2 * time.Second); p.count(second) != 3 || p.Outcome().Staged != nil || p.Outcome().Parked != nil {
					t.Errorf("got %v, %+v", p.runs(), p.Outcome())
				}
				p.stop()
				must(t, p.Close())
				o.Dir = p.dir
				p = judging(t, o)
				p.Load()
				p.start(3)
				if pass(2 * time.Second); p.count(second) != 3 || p.Outcome().Staged != nil || p.Outcome().Parked != nil {
					t.Errorf("after a restart: got %v, %+v", p.runs(), p.Outcome().Staged)
				}
				write(t, filepath.Join(p.dir, "policy.yaml"), byStages(3, 30))
				p.Load()
				pass(2 * time.Second)
				if parked := p.Outcome().Parked; refuse != (len(parked) == 1) || !refuse && p.count(third) != 1 {
					t.Errorf("again: got %v, %+v", p.runs(), parked)
				}
			})
		})
	}
}

// What another process has just let go to all is what a newer policy is compared with by a process that has not looked yet:
// when that is the first to have it, and when it is not.
func TestStageThatIsOverElsewhere(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"who looks", "who does not"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				board := boardOf(t)
				a := judging(t, Options{Parked: board, Replica: "a"})
				b := judging(t, Options{Parked: board, Replica: "b"})
				a.push(byStages(1, 10))
				b.push(byStages(1, 10))
				a.envoyCalled("one")
				a.envoyCalled("two")
				pass(10 * time.Second)
				second := a.push(byStages(2, 20))
				b.push(byStages(2, 20))
				pass(2 * time.Second)
				b.stop()
				if pass(35 * time.Second); a.staging() || !b.staging() {
					t.Fatalf("got %+v and %+v, want the stage to be over for who looks", a.Outcome().Staged, b.Outcome().Staged)
				}
				planes := []*plane{a, b}
				if first == "who does not" {
					slices.Reverse(planes)
				}
				for _, p := range planes {
					p.push(byStages(3, 30))
				}
				for _, p := range planes {
					if s := p.Outcome().Staged; len(s) != 1 || s[0].From != second.Model.Revision {
						t.Errorf("got %+v, want one that leaves the others at %s", s, second.Model.Revision)
					}
				}
			})
		})
	}
}

// Processes that serve directories of their own do not take another's stage for theirs, nor after a restart.
func TestStageOfAnotherDirectory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := boardOf(t)
		a := judging(t, Options{Parked: board, Replica: "a"})
		o := Options{Parked: board, Replica: "b", DataDir: t.TempDir()}
		b := judging(t, o)
		a.push(byStages(1, 10))
		b.push(byStages(1, 10))
		b.push(protected(2, 20)) // at once
		a.envoyCalled("at-a")
		b.envoyCalled("at-b")
		pass(10 * time.Second)
		b.push(byStages(2, 20))
		a.push(byStages(3, 30))
		pass(5 * time.Second)
		b.stop()
		must(t, b.Close())
		o.Dir = b.dir
		b = judging(t, o)
		b.Load()
		b.envoyCalled("at-b")
		pass(2 * time.Second)
		if s := b.Outcome().Staged; s != nil || len(b.runs()) != 1 {
			t.Errorf("got %+v, %v", s, b.runs())
		}
		for _, n := range b.o.XDS.Status() {
			if n.Revision != b.Outcome().Revision {
				t.Errorf("the Envoy runs %s, want %s", n.Revision, b.Outcome().Revision)
			}
		}
	})
}

// A canary that was gone by the time it was chosen has another take its place; after a restart, too, also where none had
// been chosen yet.
func TestCanaryThatNeverCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := Options{DataDir: t.TempDir(), Parked: boardOf(t)}
		p := judging(t, o)
		restart := func() {
			p.stop()
			must(t, p.Close())
			o.Dir = p.dir
			p = judging(t, o)
			p.Load()
		}
		first := p.push(byStages(1, 10))
		second := p.push(byStages(2, 20)) // while there is no Envoy
		restart()
		if s := p.Outcome().Staged; len(s) != 1 || s[0].From != first.Model.Revision || len(s[0].Canaries) != 0 {
			t.Fatalf("got %+v, want it to wait for an Envoy", s)
		}
		p.start(2)
		pass(5 * time.Second)
		gone := p.canary()
		restart()
		p.envoyCalled("new-1")
		p.envoyCalled("new-2")
		if pass(10 * time.Second); p.canary() != gone || p.count(first) != 2 {
			t.Errorf("got %s and %v, want %s to be waited for", p.canary(), p.runs(), gone)
		}
		if pass(10 * time.Second); !strings.HasPrefix(p.canary(), "new-") || p.count(second) != 1 {
			t.Errorf("got %s, want another in the place of %s", p.canary(), gone)
		}
		if pass(30 * time.Second); p.count(second) != 2 {
			t.Errorf("got %v", p.runs())
		}
	})
}

// The first Envoy that connects is the canary where there was none.
func TestStageWaitsForAnEnvoy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		first := p.push(byStages(1, 10))
		second := p.push(byStages(2, 20))
		pass(time.Hour)
		if s := p.Outcome().Staged; len(s) != 1 || len(s[0].Canaries) != 0 {
			t.Fatalf("got %+v, want it to wait", s)
		}
		one := p.envoy()
		pass(2 * time.Second)
		two := p.envoy()
		pass(10 * time.Second)
		if runs := p.runs(); runs[one.id] != second.Model.Revision || runs[two.id] != first.Model.Revision {
			t.Errorf("got %v, want the first one to have the second policy", runs)
		}
		if pass(30 * time.Second); p.count(second) != 2 {
			t.Errorf("got %v", p.runs())
		}
	})
}

// What comes meanwhile is compared with what the others have.
func TestStageIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		first := p.push(byStages(1, 10))
		envoys := p.start(5)
		p.push(byStages(2, 20))
		pass(20 * time.Second)
		third := p.push(byStages(3, 30))
		if pass(25 * time.Second); p.count(first) != 4 || p.count(third) != 1 || p.Outcome().Staged[0].From != first.Model.Revision {
			t.Errorf("got %v, want the third policy at one, and the first at the others", p.runs())
		}
		before, canary := pushes(envoys), p.canary()
		p.push(delivered(protected(1, 10), "delivery: {canary: 2}, ")) // as the others have it
		if pass(2 * time.Second); p.Outcome().Staged != nil {
			t.Errorf("what the others have is staged: %+v", p.Outcome().Staged)
		}
		for id, n := range pushes(envoys) {
			if (n > before[id]) != (id == canary) {
				t.Errorf("%s was sent %d responses", id, n-before[id])
			}
		}
	})
}

// A change of delivery alone sends nothing; without it what is on its way goes to all.
func TestDeliveryItselfIsNoChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		p.push(protected(1, 10))
		envoys := p.start(3)
		before := pushes(envoys)
		p.push(byStages(1, 10))
		p.push(delivered(protected(1, 10), "delivery: {canary: 50%}, "))
		pass(time.Minute)
		if d := cmp.Diff(before, pushes(envoys)); d != "" || p.Outcome().Staged != nil {
			t.Errorf("responses (-want +got):\n%s", d)
		}
		p.push(delivered(protected(2, 20), "delivery: {canary: 50%}, "))
		pass(5 * time.Second)
		if s := p.Outcome().Staged; len(s) != 1 || len(s[0].Canaries) != 2 {
			t.Errorf("got %+v, want two canaries of three Envoys", s)
		}
		last := p.push(protected(2, 20))
		pass(2 * time.Second)
		if o := p.Outcome(); o.Staged != nil || p.count(last) != 3 {
			t.Errorf("got %v", p.runs())
		}
	})
}

// Endpoints go to all Envoys at once, also while something else is on its way that has not touched them.
func TestEndpointsAreNotStaged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		text := func(port, other int, path string) string {
			return delivered(whole(port), "delivery: {canary: 1}, ") +
				strings.Replace("---\n"+team("other", other), "hostnames:", "match: {path: "+path+"}, hostnames:", 1)
		}
		p := judging(t, Options{})
		p.push(text(1, 1, "/a"))
		envoys := p.start(3)
		for _, e := range envoys {
			must(t, e.stream.Send(endpointsOf("app", "other")))
		}
		synctest.Wait()
		ports := func(name string) string {
			var all []string
			for id := range envoys {
				e := envoys[id]
				e.set(func() { all = append(all, fmt.Sprint(e.port(t, name))) })
			}
			slices.Sort(all)
			return strings.Join(all, " ")
		}
		p.push(text(2, 1, "/a"))
		if got := ports("app"); got != "2 2 2" || p.Outcome().Staged != nil {
			t.Errorf("endpoints alone: got %s, %+v", got, p.Outcome().Staged)
		}
		p.push(text(2, 7, "/b"))
		pass(20 * time.Second)
		if got := ports("other"); got != "1 1 7" {
			t.Errorf("with a route: got %s, want the canary alone to have it", got)
		}
		p.push(text(3, 8, "/b"))
		if pass(time.Second); ports("app") != "3 3 3" || ports("other") != "1 1 8" {
			t.Errorf("while it is on its way: got %s and %s, want all to have the endpoints that it had not touched", ports("app"), ports("other"))
		}
		if pass(11 * time.Second); p.Outcome().Staged != nil || ports("other") != "8 8 8" {
			t.Errorf("the hold began anew: %+v", p.Outcome().Staged)
		}
	})
}

// Force lets what is on its way go to all, and has what went back tried anew.
func TestForce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{Parked: boardOf(t)})
		p.push(byStages(1, 10))
		envoys := p.start(3)
		second := p.push(byStages(2, 20))
		pass(2 * time.Second)
		again := func(force bool) Accepted {
			t.Helper()
			files, _, err := ReadDir(p.dir)
			must(t, err)
			a, err := p.Push(t.Context(), files, Change{Parent: "head", Force: force})
			must(t, err)
			pass(2 * time.Second)
			return a
		}
		if a := again(true); !slices.Equal(a.Released, []string{"edge"}) || a.Staged != nil {
			t.Errorf("the answer: got %+v, want it to say that all of edge get it", a)
		}
		if p.count(second) != 3 || p.Outcome().Staged != nil {
			t.Errorf("got %v, want all to have it", p.runs())
		}
		refusing(true, slices.Collect(maps.Values(envoys))...)
		third := p.push(byStages(3, 30))
		refusing(false, slices.Collect(maps.Values(envoys))...)
		if pass(2 * time.Second); len(p.Outcome().Parked) != 1 {
			t.Fatalf("got %+v", p.Outcome())
		}
		if a := again(true); len(a.Staged) != 1 || len(a.Released) != 0 || len(a.Parked) != 0 {
			t.Errorf("the answer: got %+v, want it to say that it begins anew", a)
		}
		if len(p.Outcome().Parked) != 0 || p.count(third) != 1 || p.canary() == "" {
			t.Errorf("tried again: got %v, want one to have it", p.runs())
		}
		if pass(32 * time.Second); p.count(third) != 3 {
			t.Errorf("got %v", p.runs())
		}
	})
}

// To go back is urgent: it goes to all at once.
func TestRollbackIsNotStaged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{Parked: boardOf(t), DataDir: t.TempDir()})
		first := p.push(byStages(1, 10))
		p.start(3)
		second := p.push(byStages(2, 20))
		pass(40 * time.Second)
		if p.count(second) != 3 {
			t.Fatalf("got %v", p.runs())
		}
		if _, err := p.Rollback(t.Context(), "1", Change{Parent: "head"}); err != nil {
			t.Fatal(err)
		}
		if pass(time.Second); p.count(first) != 3 || p.Outcome().Staged != nil {
			t.Errorf("got %v", p.runs())
		}
		p.push(byStages(2, 21))
		pass(time.Second)
		p.push(byStages(2, 20)) // which was everywhere once: it is tried all the same
		if pass(2 * time.Second); p.count(second) != 1 {
			t.Errorf("got %v, want one to have it", p.runs())
		}
	})
}

// A restart goes on with a stage: the others get what they had, and the canary holds it anew. The companions know both from
// the start. One with the same policy sends nothing.
func TestStageOverARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := Options{DataDir: t.TempDir(), Parked: boardOf(t)}
		p := judging(t, o)
		first := p.push(byStages(1, 10))
		p.start(3)
		p.push(byStages(2, 20))
		pass(time.Second)
		third := p.push(byStages(3, 30)) // the second was never everywhere
		pass(20 * time.Second)
		canary := p.canary()
		restart := func() {
			p.stop()
			must(t, p.Close())
			o.Dir = p.dir
			p = judging(t, o)
		}
		restart()
		if !p.knows(first) || !p.knows(third) {
			t.Error("before the first load the companions do not know both policies")
		}
		p.Load()
		if s := p.Outcome().Staged; len(s) != 1 || s[0].From != first.Model.Revision || p.canary() != canary {
			t.Fatalf("got %+v, want the same stage", s)
		}
		p.start(3)
		if pass(29 * time.Second); p.count(third) != 1 || p.count(first) != 2 || p.runs()[canary] != third.Model.Revision {
			t.Errorf("got %v", p.runs())
		}
		if pass(5 * time.Second); p.count(third) != 3 {
			t.Errorf("got %v", p.runs())
		}

		restart()
		p.Load()
		if s := p.Outcome().Staged; s != nil {
			t.Errorf("the same policy is staged after a restart: %+v", s)
		}
		p.start(2)
		write(t, filepath.Join(p.dir, "policy.yaml"), byStages(4, 40)) // while it is down
		restart()
		p.Load()
		if s := p.Outcome().Staged; len(s) != 1 || s[0].From != third.Model.Revision {
			t.Errorf("what changed meanwhile: got %+v, want it to be staged", s)
		}
	})
}

// What is chosen is the same for all processes, and another time others.
func TestRanked(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "b"}
	one := ranked(names, "1")
	slices.Reverse(names)
	if got := ranked(names, "1"); !slices.Equal(got, one) || len(got) != 8 {
		t.Errorf("got %v, want %v", got, one)
	}
	if got := ranked(names, "2"); slices.Equal(got, one) {
		t.Errorf("got %v again", got)
	}
}
