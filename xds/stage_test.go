package xds

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// standing is what the Envoys of a plane are at: their node id, what they took, and whether it is the staged one.
func (p *plane) standing() (list []string) {
	synctest.Wait()
	for _, n := range p.Status() {
		line := n.ID + " " + n.Revision
		if n.Staged {
			line += " staged"
		}
		list = append(list, line)
	}
	return list
}

// Of a group some Envoys get what is staged, also when they reconnect, and each change keeps the order: there, back, and
// with all.
func TestStageGoesToSomeEnvoys(t *testing.T) {
	for protocol, moves := range map[Protocol]struct{ there, back []string }{
		Delta: {
			[]string{"cluster +b", "listener +l", "after a second", "route -r", "cluster -a", "endpoint -a"},
			[]string{"cluster +a", "endpoint +a", "route +r", "listener +l", "after a second", "cluster -b"},
		},
		SotW: {
			[]string{"cluster a b", "listener l", "after a second", "cluster b"},
			[]string{"cluster a b", "endpoint a", "route r", "listener l", "after a second", "cluster a"},
		},
	} {
		t.Run(string(protocol), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := start(t, Options{})
				old, now := usual(t, "1"), move(t)
				p.Publish(old)
				c, o := p.envoy(t, protocol, "canary"), p.envoy(t, protocol, "other")
				for _, e := range []*envoy{c, o} {
					e.askUsual()
					e.got()
				}
				settle := func(e *envoy) []string {
					got := append(e.got(), "after a second")
					time.Sleep(2 * time.Second)
					return append(got, e.got()...)
				}
				stage := map[string]Stage{"edge": {Snapshot: now["edge"], Nodes: []string{"canary", "elsewhere"}}}
				pub := p.PublishStages(old, stage)
				<-pub.Done()
				if got := pub.Outcome(); got.State != Acknowledged || got.Groups["edge"] != (Tally{Connected: 2, Acknowledged: 2}) {
					t.Errorf("got %+v, want both to be where they are to be", got)
				}
				want(t, settle(c), moves.there...)
				want(t, o.got())
				if d := cmp.Diff([]string{"canary 2 staged", "other 1"}, p.standing()); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}

				again := p.envoy(t, protocol, "canary")
				again.ask(cds)
				if got := again.got(); len(got) != 1 || got[0] != map[Protocol]string{Delta: "cluster +b", SotW: "cluster b"}[protocol] {
					t.Errorf("a canary that reconnects: got %s", text(got))
				}
				again.cancel()

				<-p.Publish(old).Done()
				want(t, settle(c), moves.back...)
				if d := cmp.Diff([]string{"canary 1", "other 1"}, p.standing()); d != "" {
					t.Errorf("back (-want +got):\n%s", d)
				}

				p.PublishStages(old, stage)
				c.got()
				p.Publish(now)
				want(t, settle(o), moves.there...)
				if d := cmp.Diff([]string{"canary 2", "other 2"}, p.standing()); d != "" {
					t.Errorf("promoted (-want +got):\n%s", d)
				}
			})
		})
	}
}

// A publication judges each Envoy by what is meant for it.
func TestOutcomeOfAStage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		old := usual(t, "1")
		p.Publish(old)
		for _, id := range []string{"a", "b", "c"} {
			e := p.envoy(t, Delta, id)
			e.askUsual()
			e.got()
			e.set(func() { e.reject = func(string, []string) string { return "no" } })
		}
		pub := p.PublishStages(old, map[string]Stage{"edge": {Snapshot: move(t)["edge"], Nodes: []string{"b"}}, "gone": {}})
		<-pub.Done()
		if got := pub.Outcome(); got.State != Rejected || got.Groups["edge"] != (Tally{Connected: 3, Acknowledged: 2, Rejected: 1}) {
			t.Errorf("got %+v, want one of three to have rejected it", got)
		}
	})
}

// Loads count for the clusters of both.
func TestLoadsDuringAStage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		old, now := usual(t, "1")["edge"], move(t)["edge"]
		p.PublishStages(map[string]*Snapshot{"edge": old}, map[string]Stage{"edge": {Snapshot: now, Nodes: []string{"x"}}})
		clusters := p.clusters("edge")
		for name, there := range map[string]bool{"a": true, "b": true, "c": false} {
			if got := clusters.get(name) != nil; got != there {
				t.Errorf("cluster %s is known: %t, want %t", name, got, there)
			}
		}
	})
}

// What is live is followed where nothing else has touched it.
func TestFollow(t *testing.T) {
	base := usual(t, "1")["edge"]
	before := snapshot(t, "2", cluster("a", "1"), endpoint("a", "1"), cluster("b", "1"), endpoint("b", "1"), route("r", "b"))["edge"]
	after := snapshot(t, "3", cluster("a", "1"), endpoint("a", "2"), cluster("b", "1"), endpoint("b", "2"), route("r", "a"))["edge"]
	got := base.Follow(before, after, eds)
	if got.revision != "1" || got.Version(rds) != base.Version(rds) || got.Version(cds) != base.Version(cds) {
		t.Errorf("got %+v", got)
	}
	if is := got.set(eds); len(is.sorted) != 1 || is.sorted[0] != after.set(eds).get("a") || is.version != newSet(is.sorted, sumOf(is.sorted)).version {
		t.Errorf("got %+v, want the endpoints of a as they are now, and none of b", is)
	}
	changed := snapshot(t, "2", cluster("a", "1"), endpoint("a", "9"))["edge"]
	if got := base.Follow(changed, after, eds); got.set(eds) != base.set(eds) {
		t.Error("what the snapshot before had changed itself was followed")
	}
	if base.set(eds).sorted[0].Version != endpoint("a", "1").Version {
		t.Error("the base was changed")
	}
}
