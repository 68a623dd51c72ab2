package xds

import (
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
)

// What random sequences have found, one by one.

// nack rejects the nth delta response.
func (e *envoy) nack(url string, n int, words string) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.delta.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: e.nonces[n-1], ErrorDetail: &statuspb.Status{Message: words}})
	if err != nil {
		e.t.Fatal(err)
	}
}

func TestRejectionOfWhatHasGoneMeanwhileBlocksNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, d := inSync(t, Options{}, Delta, "d")
		d.set(func() { d.mute = true })
		p.Publish(snapshot(t, "2", cluster("a", "1"), cluster("bad", "1"), endpoint("a", "1"), route("r", "bad"), listener("l", "1")))
		want(t, d.got(), "cluster +bad")
		p.Publish(snapshot(t, "3", cluster("a", "1"), endpoint("a", "1"), route("r", "b"), listener("l", "1")))
		d.nack(cds, 5, "cluster(s) bad: no good") // 1 to 4 were the first answers
		want(t, d.got(), "route +r")
	})
}

// The answer lists everything, and Envoy drops what is missing: of what it rejected it still has the version before.
func TestLastGoodOutlastsARejectionInTheStateOfTheWorld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, s := inSync(t, Options{}, SotW, "s")
		s.set(func() { s.reject = rejecting(cds, "a") })
		p.Publish(snapshot(t, "2", cluster("a", "bad"), endpoint("a", "1"), route("r", "a"), listener("l", "1")))
		want(t, s.got(), "cluster a", "endpoint a")
		s.set(func() { s.reject = nil })
		p.Publish(snapshot(t, "3", cluster("b", "1"), endpoint("b", "1"), route("r", "b"), listener("l", "1")))
		want(t, s.got(), "cluster a b", "route r")
		time.Sleep(2 * time.Second)
		want(t, s.got(), "cluster b")
	})
}

func TestRoutesAskedForOnReconnectionWaitForTheirClusters(t *testing.T) {
	for _, protocol := range []Protocol{Delta, SotW} {
		hold := func(t *testing.T) {
			p := start(t, Options{StageTimeout: time.Hour})
			p.Publish(usual(t, "1"))
			e := p.envoy(t, protocol, "e")
			e.set(func() { e.mute = true })
			e.askUsual()
			for _, line := range e.got() {
				if line[:5] == "route" {
					t.Errorf("%s: %q before the clusters were acknowledged", protocol, line)
				}
			}
		}
		t.Run(string(protocol), func(t *testing.T) { bubble(t, hold) })
	}
}

func TestEndpointsOfAChangedClusterAreSentToOneThatHasThem(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		known := endpoint("a", "1")
		p.Publish(snapshot(t, "1", cluster("a", "2"), known))
		d := p.envoy(t, Delta, "d")
		d.askKnowing(cds, map[string]string{"a": cluster("a", "1").Version})
		want(t, d.got(), "cluster +a")
		d.askKnowing(eds, map[string]string{"a": known.Version}, "a")
		want(t, d.got(), "endpoint +a")
	})
}

// Envoy hears of no absence there: it would wait for the cluster to become warm.
func TestAbsentEndpointsAreEmptyInTheStateOfTheWorld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		s := p.envoy(t, SotW, "s")
		s.ask(eds, "a", "missing")
		want(t, s.got(), "endpoint a -missing")
	})
}

// An Envoy that is slow to answer has what it was sent after a rejection, also when what it rejected is sent again behind it.
func TestMendedOutlastsTheSameRejectionAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, s := inSync(t, Options{}, SotW, "s")
		s.set(func() { s.reject = rejecting(cds, "b") })
		rest := []Resource{cluster("a", "1"), endpoint("a", "1"), route("r", "a"), listener("l", "1")}
		bad := snapshot(t, "2", append(rest, cluster("b", "bad"))...)
		p.Publish(bad)
		want(t, s.got(), "cluster a b")
		s.set(func() { s.mute = true })
		p.Publish(snapshot(t, "3", append(rest, cluster("b", "1"))...))
		want(t, s.got(), "cluster a b")
		p.Publish(bad)
		time.Sleep(5 * time.Second)
		want(t, s.got(), "cluster a b")
		p.Publish(snapshot(t, "4", append(rest, cluster("c", "1"))...))
		time.Sleep(5 * time.Second)
		want(t, s.got(), "cluster a b c")
	})
}

// What was rejected, and has gone, and comes back, is sent again: the Envoy never had it.
func TestRejectedIsSentWhenItComesBack(t *testing.T) {
	for protocol, lines := range map[Protocol][]string{
		Delta: {"cluster +b", "extension_config +revision", "cluster +b"},
		SotW:  {"cluster a b", "extension_config revision", "cluster a b"},
	} {
		t.Run(string(protocol), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p, e := labelled(t, Options{}, protocol)
				e.set(func() { e.reject = rejecting(cds, "b") })
				rest := []Resource{cluster("a", "1"), endpoint("a", "1"), route("r", "a"), scope("s", "r"), listener("l", "1")}
				bad := snapshot(t, "2", append(rest, cluster("b", "bad"), label("2"))...)
				p.Publish(bad)
				got := e.got()
				p.Publish(snapshot(t, "3", append(rest, label("3"))...))
				got = append(got, e.got()...)
				pub := p.Publish(bad)
				want(t, append(got, e.got()...), lines...)
				if got := pub.Outcome().State; got != Rejected {
					t.Errorf("state %s, want rejected again", got)
				}
			})
		})
	}
}

// A cluster that comes back changed, and goes again before its endpoints could be sent, is warm all the same.
func TestEndpointsOfWhatComesAndGoesAreSentInTheStateOfTheWorld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, s := inSync(t, Options{RemovalGrace: time.Minute}, SotW, "s")
		with := func(revision, endpoints string, more ...Resource) map[string]*Snapshot {
			return snapshot(t, revision, append(more, cluster("a", "1"), endpoint("a", endpoints), route("r", "a"), listener("l", "1"))...)
		}
		p.Publish(with("2", "1", cluster("b", "1"), endpoint("b", "1")))
		s.ask(eds, "b")
		want(t, s.got(), "cluster a b", "endpoint b")
		s.set(func() { s.mute = true })
		p.Publish(with("3", "2"))
		want(t, s.got(), "endpoint a")
		p.Publish(with("4", "2", cluster("b", "2"), endpoint("b", "1")))
		want(t, s.got(), "cluster a b")
		p.Publish(with("5", "2"))
		time.Sleep(5 * time.Second)
		want(t, s.got(), "endpoint b")
	})
}

// What is mended in an answer that is not answered in time does not count as rejected for ever.
func TestMendedIsTakenWithoutAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, d := inSync(t, Options{}, Delta, "d")
		d.set(func() { d.reject = rejecting(cds, "b") })
		rest := []Resource{cluster("a", "1"), endpoint("a", "1"), listener("l", "1")}
		p.Publish(snapshot(t, "2", append(rest, route("r", "a"), cluster("b", "bad"))...))
		want(t, d.got(), "cluster +b")
		d.set(func() { d.mute = true })
		p.Publish(snapshot(t, "3", append(rest, route("r", "a"), cluster("b", "1"))...))
		want(t, d.got(), "cluster +b")
		p.Publish(snapshot(t, "4", append(rest, route("r", "c"), cluster("b", "1"), cluster("c", "1"))...))
		time.Sleep(5 * time.Second)
		want(t, d.got(), "cluster +c")
		d.set(func() { d.mute = false })
		d.ack(cds, 7) // 1 to 4 were the first answers
		want(t, d.got(), "route +r")
	})
}

// What an Envoy asked for while it was not there is sent when it is there again.
func TestAbsentIsSentWhenItComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		rest := []Resource{cluster("a", "1"), endpoint("a", "1"), listener("l", "1")}
		with := snapshot(t, "1", append(rest, route("r", "a"), route("q", "a"))...)
		p.Publish(with)
		d := p.envoy(t, Delta, "d")
		d.askUsual()
		d.got()
		d.set(func() { d.mute = true })
		p.Publish(snapshot(t, "2", append(rest, route("r", "b"), cluster("b", "1"))...))
		d.ask(rds, "q")
		want(t, d.got(), "cluster +b")
		time.Sleep(5 * time.Second)
		want(t, d.got(), "route +r -q")
		d.set(func() { d.mute = false })
		p.Publish(with)
		time.Sleep(5 * time.Second)
		want(t, d.got(), "route +q +r")
	})
}
