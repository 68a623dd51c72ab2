package xds

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestStreamsAreHeldUntilThereIsAPolicy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		d, s := p.envoy(t, Delta, "d"), p.envoy(t, SotW, "s")
		d.askUsual()
		s.askUsual()
		want(t, d.got())
		want(t, s.got())

		p.Publish(usual(t, "1"))
		want(t, d.got(), "cluster +a", "endpoint +a", "route +r", "listener +l")
		want(t, s.got(), "cluster a", "endpoint a", "route r", "listener l")

		p.Publish(nil) // held again: they keep what they have
		p.Publish(usual(t, "2"))
		want(t, d.got())
		want(t, s.got())
	})
}

// go-control-plane's SnapshotCache deletes the watch when a snapshot has an endpoint that Envoy has not asked for;
// every later snapshot then reaches nobody.
func TestAnEndpointThatNobodyAskedForLosesNoWatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(snapshot(t, "1", cluster("a", "1"), endpoint("a", "1")))
		d, s := p.envoy(t, Delta, "d"), p.envoy(t, SotW, "s")
		for _, e := range []*envoy{d, s} {
			e.ask(cds)
			e.ask(eds, "a")
			e.got()
		}
		p.Publish(snapshot(t, "2", cluster("a", "1"), endpoint("a", "1"), endpoint("b", "1")))
		want(t, d.got())
		want(t, s.got())
		p.Publish(snapshot(t, "3", cluster("a", "1"), endpoint("a", "2"), endpoint("b", "1")))
		want(t, d.got(), "endpoint +a")
		want(t, s.got(), "endpoint a")
	})
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		base := []Resource{cluster("a", "1"), cluster("b", "1"), route("r", "1"), route("q", "1"), listener("l", "1")}
		p.Publish(snapshot(t, "1", base...))
		d, s := p.envoy(t, Delta, "d"), p.envoy(t, SotW, "s")
		for _, e := range []*envoy{d, s} {
			e.ask(cds)
			e.ask(lds)
			e.ask(rds, "r", "q")
			e.got()
		}
		base[1], base[3] = cluster("b", "2"), route("q", "2")
		p.Publish(snapshot(t, "2", base...))
		want(t, d.got(), "cluster +b", "route +q")
		want(t, s.got(), "cluster a b", "route q") // clusters are whole, or Envoy would drop a
		p.Publish(snapshot(t, "3", base...))
		want(t, d.got())
		want(t, s.got())
	})
}

func TestEveryNameIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		d, s := p.envoy(t, Delta, "d"), p.envoy(t, SotW, "s")
		d.ask(rds, "r", "missing")
		want(t, d.got(), "route +r -missing")
		d.ask(rds, "missing")
		want(t, d.got(), "route -missing")
		d.ask(rds, "r")
		want(t, d.got(), "route +r")
		s.ask(rds, "missing")
		want(t, s.got(), "route")
		s.ask(rds, "r")
		want(t, s.got(), "route r")

		p.Publish(snapshot(t, "2", route("r", "a"), route("missing", "1")))
		want(t, d.got(), "route +missing")
		want(t, s.got(), "route missing")
	})
}

func TestFirstAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		url  string
		line []string
	}{
		"wildcard with nothing": {srds, []string{"scoped_route"}}, // Envoy waits for it when it starts
		"on demand":             {vhds, []string{"virtual_host"}},
		"runtime":               {rtds, []string{"runtime"}},
		"no wildcard":           {rds, []string{"route"}}, // not all routes
		"unknown type":          {"type.googleapis.com/google.protobuf.Empty", []string{"other"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := start(t, Options{})
				p.Publish(usual(t, "1"))
				d := p.envoy(t, Delta, "d")
				d.ask(test.url)
				want(t, d.got(), test.line...)
			})
		})
	}
}

func TestReconnectingEnvoyGetsOnlyTheDifference(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, first := inSync(t, Options{}, Delta, "d")
		first.cancel()

		restarted := start(t, Options{})
		restarted.Publish(usual(t, "1"))
		same := restarted.envoy(t, Delta, "d")
		first.set(func() {
			same.askKnowing(cds, maps.Clone(first.has[cds]))
			same.askKnowing(eds, maps.Clone(first.has[eds]), "a")
			same.askKnowing(lds, maps.Clone(first.has[lds]))
			same.askKnowing(rds, maps.Clone(first.has[rds]), "r")
		})
		want(t, same.got())
		if s := restarted.Status()[0]; s.Revision != "1" || s.Types[0].State != ACK {
			t.Errorf("status %+v, want revision 1 acknowledged", s)
		}

		other := start(t, Options{})
		other.Publish(snapshot(t, "2", cluster("b", "1"), endpoint("b", "1"), route("r", "b"), listener("l", "1")))
		moved := other.envoy(t, Delta, "d")
		first.set(func() {
			moved.askKnowing(cds, maps.Clone(first.has[cds]))
			moved.askKnowing(eds, maps.Clone(first.has[eds]), "a")
			moved.askKnowing(lds, maps.Clone(first.has[lds]))
			moved.askKnowing(rds, maps.Clone(first.has[rds]), "r")
		})
		want(t, moved.got(), "cluster +b", "route +r")
		time.Sleep(2 * time.Second)
		want(t, moved.got(), "cluster -a", "endpoint -a")
	})
}

// It is known of an Envoy whether it goes on with what it has, or starts anew.
func TestResumedEnvoys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		fresh := []*envoy{p.envoy(t, Delta, "new-d"), p.envoy(t, SotW, "new-s")}
		for _, e := range fresh {
			e.askUsual()
			e.got()
		}
		p.envoy(t, Delta, "old-d").askKnowing(cds, map[string]string{"a": "0"})
		s := p.envoy(t, SotW, "old-s")
		if err := s.sotw.Send(&discoveryv3.DiscoveryRequest{Node: s.takeNode(), TypeUrl: cds, VersionInfo: "0"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, n := range p.Status() {
			if want := n.ID == "old-d" || n.ID == "old-s"; n.Resumed != want {
				t.Errorf("%s resumed: %t", n.ID, n.Resumed)
			}
		}
	})
}

func TestNamesComeAndGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(snapshot(t, "1", route("r", "1"), route("q", "1")))
		s := p.envoy(t, SotW, "s")
		s.ask(rds, "r")
		want(t, s.got(), "route r")
		s.ask(rds, "q")
		want(t, s.got(), "route q")
		s.set(func() { s.names[rds] = []string{"q"} })
		s.ask(rds)
		synctest.Wait()
		p.Publish(snapshot(t, "2", route("r", "2"), route("q", "1")))
		want(t, s.got())
		s.ask(rds, "r")
		want(t, s.got(), "route r")

		d := p.envoy(t, Delta, "d")
		d.ask(cds, "x")
		want(t, d.got(), "cluster -x")
		d.ask(cds, "*")
		want(t, d.got())
		p.Publish(snapshot(t, "3", cluster("x", "1"), cluster("y", "1")))
		want(t, d.got(), "cluster +x +y")
	})
}

func TestStreamsOfOneGroupGetNothingOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		groups := usual(t, "1")
		maps.Copy(groups, map[string]*Snapshot{"inner": snapshot(t, "1", cluster("secret", "1"))["edge"]})
		p.Publish(groups)
		d := p.envoy(t, Delta, "d")
		d.ask(cds, "*", "secret")
		want(t, d.got(), "cluster +a -secret")
	})
}

func TestNodeCannotChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		for name, n := range map[string]*corev3.Node{
			"group": {Id: "d", Cluster: "inner"},
			"id":    {Id: "other", Cluster: "edge"},
		} {
			d := p.envoy(t, Delta, "d")
			d.ask(cds)
			d.got()
			d.set(func() { d.node = n })
			d.ask(lds)
			want(t, d.got())
			if got := status.Code(d.err); got != codes.PermissionDenied {
				t.Errorf("another %s: %v, want PermissionDenied", name, d.err)
			}
		}
	})
}

func TestNodeHasToBeCompleteAndLegible(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		for _, n := range []*corev3.Node{nil, {Id: "d"}, {Cluster: "edge"}, nodeOf("\x1b[2Jd", "edge"), nodeOf("d", "edge\n")} {
			for _, protocol := range []Protocol{Delta, SotW} {
				e := connect(t, p.dial(t), protocol, n)
				e.ask(cds)
				want(t, e.got())
				if got := status.Code(e.err); got != codes.InvalidArgument {
					t.Errorf("node %v: %v, want InvalidArgument", n, e.err)
				}
			}
		}
	})
	odd := &corev3.Node{UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: "1.40\x1b[2J"}}
	if got := envoyVersion(odd); got != "1.40 [2J" {
		t.Errorf("version %q, want no bytes that move the cursor", got)
	}
}

func TestFloodsAreCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{MaxRequests: 10, MaxStreams: 2})
		p.Publish(usual(t, "1"))
		good, flood := p.envoy(t, Delta, "good"), p.envoy(t, Delta, "flood")
		good.ask(cds)
		flood.ask(cds)
		want(t, good.got(), "cluster +a")
		third := p.envoy(t, Delta, "third")
		third.ask(cds)
		synctest.Wait()
		for i := range 20 {
			flood.ask(rds, fmt.Sprint(i))
		}
		synctest.Wait()
		for name, e := range map[string]*envoy{"flood": flood, "third": third} {
			if status.Code(e.err) != codes.ResourceExhausted {
				t.Errorf("%s: %v, want ResourceExhausted", name, e.err)
			}
		}
		p.Publish(snapshot(t, "2", cluster("a", "2")))
		want(t, good.got(), "cluster +a")
	})
}

func TestStreamThatAsksForNothingIsEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		idle, good := p.envoy(t, Delta, "idle"), p.envoy(t, Delta, "good")
		good.ask(cds)
		time.Sleep(patience)
		want(t, good.got(), "cluster +a")
		idle.got()
		if status.Code(idle.err) != codes.DeadlineExceeded || good.err != nil {
			t.Errorf("idle: %v, want DeadlineExceeded; good: %v", idle.err, good.err)
		}
	})
}

func TestTypesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		d := p.envoy(t, Delta, "d")
		for i := range maxTypes + 1 {
			d.ask(fmt.Sprintf("type.googleapis.com/t%d", i))
		}
		d.got()
		if status.Code(d.err) != codes.ResourceExhausted {
			t.Errorf("%v, want ResourceExhausted", d.err)
		}
	})
}

func TestStoppingEndsTheStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		d := p.envoy(t, Delta, "d")
		d.ask(cds)
		synctest.Wait()
		pub := p.Publish(usual(t, "1"))
		p.end()
		d.got()
		if status.Code(d.err) != codes.Unavailable {
			t.Errorf("stream ended with %v, want Unavailable", d.err)
		}
		<-pub.Done()
		<-p.Publish(usual(t, "2")).Done()
	})
}

func TestTwoHundredStreamsGetInSync(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		var all []*envoy
		for i := range 200 {
			e := p.envoy(t, []Protocol{Delta, SotW}[i%2], fmt.Sprintf("e%03d", i))
			e.askUsual()
			all = append(all, e)
		}
		synctest.Wait()
		pub := p.Publish(snapshot(t, "2", cluster("b", "1"), endpoint("a", "1"), route("r", "b"), listener("l", "1")))
		<-pub.Done()
		if got, want := pub.Outcome().Groups["edge"], (Tally{Connected: 200, Acknowledged: 200}); got != want {
			t.Errorf("outcome %+v, want %+v", got, want)
		}
		for _, n := range p.Status() {
			if n.Revision != "2" {
				t.Errorf("%s acknowledged %q, want 2", n.ID, n.Revision)
			}
		}
		for _, e := range all {
			e.cancel()
		}
		synctest.Wait()
		if n := len(p.Status()); n != 0 {
			t.Errorf("%d streams left, want none", n)
		}
	})
}

// Envoys that have all there is for them are sent away, as many as are wanted, and no others.
func TestEnvoysAreSentAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		var all []*envoy
		for _, name := range []string{"a", "b", "c"} {
			e := p.envoy(t, Delta, name)
			e.askUsual()
			e.got()
			all = append(all, e)
		}
		refuses := p.envoy(t, Delta, "refuses")
		refuses.set(func() { refuses.reject = func(string, []string) string { return "no" } })
		refuses.askUsual()
		refuses.got()
		allowed := func(_, node string) bool { return node != "b" }
		if n := p.SendAway(3, time.Second, allowed); n != 0 || p.Streams() != 4 {
			t.Errorf("%d that have just come were sent away, %d are left", n, p.Streams())
		}
		time.Sleep(time.Second)
		if n := p.SendAway(1, time.Second, allowed); n != 1 {
			t.Errorf("%d were sent away, want 1", n)
		}
		synctest.Wait()
		if n := p.SendAway(3, time.Second, allowed); n != 1 || p.Streams() != 3 {
			t.Errorf("%d more were sent away and %d were left before, want the one that may be, of 3", n, p.Streams())
		}
		for i, want := range []codes.Code{codes.Unavailable, codes.OK, codes.Unavailable} {
			if got := all[i].ended(); got != want {
				t.Errorf("Envoy %d: its stream ended with %s, want %s", i, got, want)
			}
		}
		if got := refuses.ended(); got != codes.OK {
			t.Errorf("one that refuses something ended with %s", got)
		}
	})
}
