package control

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/legation/legation/store"
)

// judging is a plane that watches its fleet.
func judging(t *testing.T, o Options) *plane {
	t.Helper()
	p := newPlane(t, o, true)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.watchFleet(ctx)
	}()
	p.stop = func() { cancel(); <-ended }
	t.Cleanup(p.stop)
	return p
}

// refusing sets whether Envoys refuse what they are sent.
func refusing(refuse bool, all ...*proxy) {
	for _, e := range all {
		e.set(func() { e.refuse = refuse })
	}
}

// boardOf is a board that several planes share.
func boardOf(t *testing.T) store.Board {
	t.Helper()
	s, err := store.OpenShared(store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s.Board("parked")
}

// pass lets the fleet be judged.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A group whose only Envoy refuses a policy goes back by itself; the companions answer for both, and status says why.
func TestRefusedPolicyGoesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		first := p.push(protected(1, 10))
		e := p.envoy()
		refusing(true, e)
		second := p.push(protected(2, 20))
		refusing(false, e)
		pass(5 * time.Second)
		o := p.Outcome()
		want := []Parked{{
			Group: "edge", Revision: second.Model.Revision, To: first.Model.Revision, Refused: 1, Of: 1,
			Reasons: []Reason{{Node: "envoy-1", Type: "route", Resource: "http", Origin: "policy.yaml:1:31", Error: "no"}},
		}}
		if d := cmp.Diff(want, o.Parked, cmpopts.IgnoreFields(Parked{}, "Time")); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if !p.knows(first) || !p.knows(second) {
			t.Error("the companions do not answer for both policies")
		}
		if nodes := p.o.XDS.Status(); len(nodes) != 1 || nodes[0].Revision != first.Model.Revision {
			t.Errorf("the Envoy runs %+v, want the first policy", nodes)
		}

		// It stays parked: polls and new Envoys get the last good one.
		before := e.pushes
		p.Load()
		pass(time.Minute)
		another := p.envoy()
		pass(5 * time.Second)
		if e.set(func() {}); e.pushes != before {
			t.Errorf("%d responses were sent again", e.pushes-before)
		}
		for _, n := range p.o.XDS.Status() {
			if n.Revision != first.Model.Revision {
				t.Errorf("an Envoy runs %s, want the first policy", n.Revision)
			}
		}

		// What changes is tried, and the companions then forget what nobody runs.
		third := p.push(protected(3, 30))
		pass(time.Minute)
		if o := p.Outcome(); len(o.Parked) != 0 || !p.knows(third) || p.knows(first) {
			t.Errorf("after a change: parked %+v; the first is known: %t", o.Parked, p.knows(first))
		}
		if another.set(func() {}); another.pushes == 0 {
			t.Error("the new Envoy was told nothing")
		}
	})
}

// One odd Envoy among others is left alone, until too many refuse.
func TestOddEnvoyHoldsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		p.push(protected(1, 10))
		var all []*proxy
		for range 12 {
			all = append(all, p.envoy())
		}
		refusing(true, all[0])
		second := p.push(protected(2, 20))
		pass(time.Minute)
		if o := p.Outcome(); len(o.Parked) != 0 {
			t.Errorf("one of twelve refuses: got %+v", o.Parked)
		}
		refusing(true, all[1])
		third := p.push(protected(3, 30))
		pass(5 * time.Second)
		o := p.Outcome()
		if len(o.Parked) != 1 || o.Parked[0].Refused != 2 || o.Parked[0].Of != 12 || o.Parked[0].To != second.Model.Revision || o.Parked[0].Revision != third.Model.Revision {
			t.Errorf("two of twelve refuse: got %+v, want to be back at the second", o.Parked)
		}
	})
}

func TestTooMany(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		refused, connected int
		want               bool
	}{
		{0, 0, false},
		{0, 10, false},
		{1, 1, true},
		{1, 2, false},
		{1, 9, false},
		{2, 2, true},
		{2, 10, true},
		{2, 19, true},
		{2, 20, false},
		{3, 20, true},
		{100, 1000, false},
		{101, 1000, true},
	} {
		if got := tooMany(tally{Connected: row.connected, Refused: row.refused}); got != row.want {
			t.Errorf("%d of %d: got %t, want %t", row.refused, row.connected, got, row.want)
		}
	}
}

// Where nothing else is known that was good, what there is stays, and the refusal shows.
func TestNothingToGoBackTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		first := p.push(protected(1, 10))
		e := p.envoy()
		e.set(func() { e.refuse = true })
		p.push(strings.Replace(protected(1, 10), "app.test", "other.test", 1))
		refusing(false, e)
		pass(5 * time.Second)
		if o := p.Outcome(); len(o.Parked) != 1 || o.Parked[0].To != first.Model.Revision {
			t.Errorf("got %+v", o.Parked)
		}
		p = judging(t, Options{})
		write(t, filepath.Join(p.dir, "policy.yaml"), protected(1, 10))
		e = p.envoy()
		refusing(true, e)
		p.Load()
		pass(time.Minute)
		if o := p.Outcome(); len(o.Parked) != 0 || o.Revision == "" {
			t.Errorf("the very first policy: got %+v", o)
		}
	})
}

// After a restart what was parked is known, and what the group had before comes from the history.
func TestParkedOverARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := Options{DataDir: t.TempDir(), Parked: boardOf(t)}
		p := judging(t, o)
		first := p.push(protected(1, 10))
		e := p.envoy()
		refusing(true, e)
		second := p.push(protected(2, 20))
		refusing(false, e)
		pass(5 * time.Second)
		must(t, p.Close())

		o.Dir = p.dir
		p = judging(t, o)
		if !p.knows(first) || !p.knows(second) {
			t.Error("before the first load the companions do not know both policies")
		}
		p.Load()
		e = p.envoy()
		pass(5 * time.Second)
		if got := p.Outcome().Parked; len(got) != 1 || got[0].To != first.Model.Revision || got[0].Revision != second.Model.Revision || len(got[0].Reasons) == 0 {
			t.Errorf("got %+v", got)
		}
		if nodes := p.o.XDS.Status(); len(nodes) != 1 || nodes[0].Revision != first.Model.Revision {
			t.Errorf("the Envoy runs %+v, want the first policy", nodes)
		}
		if !p.knows(first) {
			t.Error("the companions do not know what the Envoy runs")
		}

		// Force tries it again.
		files, _, err := ReadDir(p.dir)
		must(t, err)
		if _, err := p.Push(t.Context(), files, Change{Parent: "head", Force: true}); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		if got := p.Outcome().Parked; len(got) != 0 {
			t.Errorf("tried again: got %+v", got)
		}
		if nodes := p.o.XDS.Status(); nodes[0].Revision != second.Model.Revision {
			t.Errorf("the Envoy runs %+v, want the second policy", nodes)
		}
		if e.set(func() {}); e.pushes == 0 {
			t.Error("the Envoy was told nothing")
		}
	})
}

// Processes add up their Envoys: one that is alone with its process is not alone in its group; and what one parks all do.
func TestReplicasJudgeTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := boardOf(t)
		var planes []*plane
		var envoys []*proxy
		for _, name := range []string{"a", "b", "c"} {
			p := judging(t, Options{Parked: board, Replica: name})
			p.push(protected(1, 10))
			planes, envoys = append(planes, p), append(envoys, p.envoy())
		}
		pass(10 * time.Second)
		refusing(true, envoys[0])
		for _, p := range planes {
			p.push(protected(2, 20))
		}
		pass(time.Minute)
		for i, p := range planes {
			if got := p.Outcome().Parked; len(got) != 0 {
				t.Errorf("replica %d: one of three refuses, and it goes back: %+v", i, got)
			}
		}
		refusing(true, envoys[1])
		for _, p := range planes {
			p.push(protected(3, 30))
		}
		pass(5 * time.Second)
		for i, p := range planes {
			if got := p.Outcome().Parked; len(got) != 1 || got[0].Refused < 2 || got[0].Of != 3 {
				t.Errorf("replica %d: two of three refuse: got %+v", i, got)
			}
		}
	})
}

// However long the names and the words of an Envoy are, what it refused is parked by all.
func TestParkedByAllWhateverAnEnvoySays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := boardOf(t)
		p := judging(t, Options{Parked: board, Replica: "a"})
		for _, size := range []int{10, 100_000} {
			digest := strconv.Itoa(size)
			must(t, p.putParked(t.Context(), Parked{Group: "edge", Reasons: []Reason{{Node: strings.Repeat("x", size)}}}, digest))
			p.mu.Lock()
			got := p.known("edge", digest)
			p.mu.Unlock()
			if got == nil || len(got.Reasons) == 1 != (size == 10) {
				t.Errorf("a name of %d bytes: others know %+v", size, got)
			}
		}
	})
}

// What other processes write on the board is held to be what it may be.
func TestHostileBoard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := boardOf(t)
		for name, value := range map[string]string{
			"envoys/x": `{"edge": {"connected": -5, "refused": 99, "digest": ""}}`, "envoys/y": "[", "envoys/": `{"edge": null}`, "other": "x",
		} {
			must(t, board.Put(t.Context(), store.Entry{Name: name, Value: []byte(value)}))
		}
		p := judging(t, Options{Parked: board, Replica: "a"})
		compiled := p.push(protected(1, 10))
		groups, err := new(encoder).snapshots(compiled)
		must(t, err)
		name := parkedName("edge", digest(groups["edge"]))
		for _, value := range []string{"[", `{"group": "other"}`, `{"group": "edge"}`} {
			must(t, board.Put(t.Context(), store.Entry{Name: name, Value: []byte(value)}))
			pass(3 * time.Second)
			if got := p.Outcome().Parked; len(got) != 0 {
				t.Errorf("%s: got %+v: there is nothing to go back to", value, got)
			}
		}
		p.envoy()
		pass(3 * time.Second)
		if nodes := p.o.XDS.Status(); len(nodes) != 1 || nodes[0].Held {
			t.Errorf("got %+v", nodes)
		}
	})
}

// What was refused before is told in the answer to who goes back to it.
func TestRollbackToWhatWasRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{Parked: boardOf(t), DataDir: t.TempDir()})
		p.push(byStages(1, 10))
		envoys := slices.Collect(maps.Values(p.start(2)))
		refusing(true, envoys...)
		second := p.push(byStages(2, 20))
		refusing(false, envoys...)
		pass(2 * time.Second)
		p.push(byStages(3, 30))
		pass(40 * time.Second)
		a, err := p.Rollback(t.Context(), "2", Change{Parent: "head"})
		must(t, err)
		if len(a.Parked) != 1 || a.Parked[0].Group != "edge" || a.Parked[0].Revision != second.Model.Revision {
			t.Errorf("got %+v, want it to say that it is parked for edge", a)
		}
	})
}
