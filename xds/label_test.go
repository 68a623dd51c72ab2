package xds

import (
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

const ecds = resource.ExtensionConfigType

// label names the revision.
func label(revision string) Resource {
	return must(NewResource("revision", &corev3.TypedExtensionConfig{
		Name: "revision", TypedConfig: &anypb.Any{Value: []byte(revision)},
	}, "", ""))
}

func scope(name, table string) Resource {
	return must(NewResource(name, &routev3.ScopedRouteConfiguration{Name: name, RouteConfigurationName: table}, "", ""))
}

// labelled is an Envoy with the usual snapshot and its label.
func labelled(t *testing.T, o Options, p Protocol) (*plane, *envoy) {
	t.Helper()
	plane := start(t, o)
	plane.Publish(snapshot(t, "1", cluster("a", "1"), endpoint("a", "1"), route("r", "a"), scope("s", "r"), listener("l", "1"), label("1")))
	e := plane.envoy(t, p, "e")
	e.ask(cds)
	e.ask(eds, "a")
	e.ask(lds)
	e.ask(ecds, "revision") // as a new Envoy does: before the routes
	e.ask(rds, "r")
	e.ask(srds)
	e.got()
	return plane, e
}

// Everything else changes before the label does, and each of it is acknowledged.
func TestLabelComesLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, e := labelled(t, Options{StageTimeout: time.Hour}, Delta)
		first := len(e.nonces)
		e.set(func() { e.mute = true })
		pub := p.Publish(snapshot(t, "2", cluster("b", "1"), route("r", "b"), scope("s", "q"), listener("l", "2"), label("2")))
		want(t, e.got(), "cluster +b")
		e.ack(cds, first+1)
		want(t, e.got(), "route +r", "scoped_route +s")
		e.ack(rds, first+2)
		want(t, e.got())
		e.ack(srds, first+3)
		want(t, e.got(), "listener +l")
		e.ack(lds, first+4)
		want(t, e.got(), "extension_config +revision")
		if got := pub.Outcome().State; got != Working {
			t.Errorf("state %s before the label is acknowledged, want working", got)
		}
		e.ack(ecds, first+5)
		<-pub.Done()
		if got := pub.Outcome().State; got != Acknowledged {
			t.Errorf("state %s, want acknowledged", got)
		}
	})
}

// Behind routes alone the label is sent at once: Envoy reads one after the other.
func TestLabelFollowsRoutesWithoutWaiting(t *testing.T) {
	for _, protocol := range []Protocol{Delta, SotW} {
		t.Run(string(protocol), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p, e := labelled(t, Options{}, protocol)
				e.set(func() { e.mute = true })
				p.Publish(snapshot(t, "2", cluster("a", "1"), endpoint("a", "1"), route("r", "b"), scope("s", "r"), listener("l", "1"), label("2")))
				plus := map[Protocol]string{Delta: "+"}[protocol]
				want(t, e.got(), "route "+plus+"r", "extension_config "+plus+"revision")
			})
		})
	}
}

// A new Envoy has the label before its listeners open; the routes, which come after it, are what they open with.
func TestFirstLabelWaitsForNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{StageTimeout: time.Hour})
		p.Publish(snapshot(t, "1", cluster("a", "1"), listener("l", "1"), label("1")))
		for _, protocol := range []Protocol{Delta, SotW} {
			e := p.envoy(t, protocol, string(protocol))
			e.set(func() { e.mute = true })
			e.ask(cds)
			e.ask(ecds, "revision")
			plus := map[Protocol]string{Delta: "+"}[protocol]
			want(t, e.got(), "cluster "+plus+"a", "extension_config "+plus+"revision")
		}
	})
}

// An Envoy that has refused a part of a revision is not told that it has it, until it takes one whole.
func TestLabelIsKeptFromWhoeverRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, e := labelled(t, Options{}, Delta)
		e.set(func() {
			e.reject = func(url string, _ []string) string {
				return map[string]string{lds: "no"}[url]
			}
		})
		rest := []Resource{cluster("a", "1"), endpoint("a", "1"), route("r", "a"), scope("s", "r")}
		p.Publish(snapshot(t, "2", append(rest, listener("l", "2"), label("2"))...))
		want(t, e.got(), "listener +l")
		p.Publish(snapshot(t, "3", append(rest, listener("l", "2"), route("q", "a"), label("3"))...))
		want(t, e.got())
		e.set(func() { e.reject = nil })
		p.Publish(snapshot(t, "4", append(rest, listener("l", "4"), label("4"))...))
		want(t, e.got(), "listener +l", "extension_config +revision")
	})
}

// A revision that changes nothing else changes the label; one that comes back with what it had gets nothing.
func TestLabelAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, e := labelled(t, Options{}, Delta)
		rest := []Resource{cluster("a", "1"), endpoint("a", "1"), route("r", "a"), scope("s", "r"), listener("l", "1")}
		p.Publish(snapshot(t, "2", append(rest, label("2"))...))
		want(t, e.got(), "extension_config +revision")
		p.Publish(snapshot(t, "2", append(rest, label("2"))...))
		want(t, e.got())

		again := p.envoy(t, Delta, "again")
		again.askKnowing(ecds, map[string]string{"revision": label("2").Version}, "revision")
		want(t, again.got())
	})
}
