package xds

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
)

// move turns everything from a to b.
func move(t testing.TB) map[string]*Snapshot {
	return snapshot(t, "2", cluster("b", "1"), endpoint("b", "1"), route("q", "b"), listener("l", "2"))
}

func TestMakeBeforeBreak(t *testing.T) {
	for protocol, lines := range map[Protocol][]string{
		Delta: {"cluster +b", "listener +l", "after a second", "route -r", "cluster -a", "endpoint -a"},
		SotW:  {"cluster a b", "listener l", "after a second", "cluster b"},
	} {
		t.Run(string(protocol), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p, e := inSync(t, Options{}, protocol, "e")
				pub := p.Publish(move(t))
				<-pub.Done()
				got := append(e.got(), "after a second")
				time.Sleep(2 * time.Second)
				want(t, append(got, e.got()...), lines...)
			})
		})
	}
}

func TestEachStageWaitsForTheAcknowledgement(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, d := inSync(t, Options{StageTimeout: time.Hour}, Delta, "d")
		d.set(func() { d.mute = true })

		pub := p.Publish(snapshot(t, "2", cluster("b", "1"), endpoint("a", "2"), route("r", "b"), listener("l", "2")))
		want(t, d.got(), "cluster +b", "endpoint +a")
		d.ask(eds, "b") // Envoy withholds the ACK of clusters until they are warm
		want(t, d.got())
		d.ack(eds, 5) // 1 to 4 were the first answers, 5 and 6 are cluster and endpoint
		d.ack(eds, 6)
		want(t, d.got(), "endpoint -b")
		d.ack(eds, 7)
		want(t, d.got())
		d.ack(cds, 5)
		want(t, d.got(), "route +r")
		d.ack(rds, 8)
		want(t, d.got(), "listener +l")
		if got := pub.Outcome().State; got != Working {
			t.Errorf("state %s before the last ACK, want working", got)
		}
		d.ack(lds, 9)
		<-pub.Done()
		if got := pub.Outcome().State; got != Acknowledged {
			t.Errorf("state %s, want acknowledged", got)
		}
	})
}

// diary is a log that is read while it is written.
type diary struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(p)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.String()
}

func TestStageTimeoutGoesOnWithoutTheAcknowledgement(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := &diary{}
		p, d := inSync(t, Options{StageTimeout: 5 * time.Second, Log: slog.New(slog.NewTextHandler(log, nil))}, Delta, "d")
		d.set(func() { d.mute = true })
		began := time.Now()
		pub := p.Publish(snapshot(t, "2", cluster("b", "1"), route("r", "b"), listener("l", "2")))
		want(t, d.got(), "cluster +b")
		<-pub.Done()
		if got := pub.Outcome().Groups["edge"]; got != (Tally{Connected: 1, Late: 1}) || time.Since(began) != 5*time.Second {
			t.Errorf("outcome %+v after %v, want one late after 5 s", got, time.Since(began))
		}
		if told := log.String(); !strings.Contains(told, `msg="envoy does not acknowledge its configuration" node=d group=edge type=cluster for=5s`) {
			t.Errorf("the log tells nothing of it:\n%s", told)
		}
		want(t, d.got(), "route +r")
		time.Sleep(5 * time.Second)
		want(t, d.got(), "listener +l")
	})
}

func TestChangedClusterGetsItsEndpointsAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		d, s := p.envoy(t, Delta, "d"), p.envoy(t, SotW, "s")
		d.askUsual()
		s.askUsual()
		d.got()
		s.got()
		p.Publish(snapshot(t, "2", cluster("a", "2"), endpoint("a", "1"), route("r", "a"), listener("l", "1")))
		want(t, d.got(), "cluster +a", "endpoint +a")
		want(t, s.got(), "cluster a", "endpoint a")
	})
}

// Envoy rejects a second listener with the same address: the old one has to go in the same answer.
func TestRenamedListenerIsOneAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		d, s := p.envoy(t, Delta, "d"), p.envoy(t, SotW, "s")
		d.askUsual()
		s.askUsual()
		d.got()
		s.got()
		p.Publish(snapshot(t, "2", cluster("a", "1"), endpoint("a", "1"), route("r", "a"), listener("m", "1")))
		want(t, d.got(), "listener +m -l")
		want(t, s.got(), "listener m")
	})
}

func TestScopedRoutesAreWhole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(snapshot(t, "1", scope("a", "r"), scope("b", "r"), secret("x", "1"), secret("y", "1")))
		s := p.envoy(t, SotW, "s")
		s.ask(srds)
		want(t, s.got(), "scoped_route a b")
		s.ask(sds, "x", "y")
		want(t, s.got(), "secret x y")
		p.Publish(snapshot(t, "2", scope("b", "q"), scope("c", "r"), secret("x", "2"), secret("y", "1")))
		got := s.got()
		slices.Sort(got)
		want(t, got, "scoped_route b c", "secret x y")
		for _, status := range p.Status()[0].Types {
			if shown := status.Sent+status.Acknowledged != ""; shown == (status.Type == "secret") {
				t.Errorf("%s: versions shown: %v, which of secrets are hashes of what they hold", status.Type, shown)
			}
		}
	})
}

func secret(name, of string) Resource {
	return must(NewResource(name, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
		Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: of}},
	}}}, "", ""))
}

// A certificate that is renewed waits for nothing, and goes alone; one that is asked for is answered while clusters warm,
// which may need it to become warm. One that nothing refers to any more goes when nothing can use it.
func TestSecretsWaitForNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{StageTimeout: time.Hour})
		p.Publish(snapshot(t, "1", cluster("a", "1"), listener("l", "1"), secret("x", "1")))
		d := p.envoy(t, Delta, "d")
		d.ask(cds)
		d.ask(lds)
		d.ask(sds, "x")
		d.got()
		p.Publish(snapshot(t, "2", cluster("a", "1"), listener("l", "1"), secret("x", "2")))
		want(t, d.got(), "secret +x")

		d.set(func() { d.mute = true })
		third := p.Publish(snapshot(t, "3", cluster("a", "2"), listener("l", "2"), secret("x", "3"), secret("y", "1")))
		want(t, d.got(), "cluster +a", "secret +x")
		d.ask(sds, "y")
		want(t, d.got())
		d.ack(sds, 6) // 1 to 3 were the first answers, 4 the renewed secret, 5 and 6 cluster and secret
		want(t, d.got(), "secret +y")
		d.ack(sds, 7)
		want(t, d.got())
		d.ack(cds, 5)
		want(t, d.got(), "listener +l")
		d.set(func() { d.mute = false })
		d.ack(lds, 8)
		<-third.Done()
		time.Sleep(2 * time.Second)
		want(t, d.got())

		p.Publish(snapshot(t, "4", cluster("a", "2"), listener("l", "3"), secret("y", "1")))
		want(t, d.got(), "listener +l")
		time.Sleep(2 * time.Second)
		want(t, d.got(), "secret -x")
	})
}

func TestSupersedingPublish(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, d := inSync(t, Options{StageTimeout: time.Hour}, Delta, "d")
		d.set(func() { d.mute = true })
		second := p.Publish(move(t))
		want(t, d.got(), "cluster +b")
		third := p.Publish(snapshot(t, "3", cluster("c", "1"), route("r", "c"), listener("l", "1")))
		<-second.Done()
		if got := second.Outcome().State; got != Superseded {
			t.Errorf("state %s, want superseded", got)
		}
		want(t, d.got())
		d.set(func() { d.mute = false })
		d.ack(cds, 5)
		<-third.Done()
		want(t, d.got(), "cluster +c", "route +r")
		time.Sleep(2 * time.Second)
		want(t, d.got(), "cluster -a -b", "endpoint -a")
		if got, want := third.Outcome().State, Acknowledged; got != want {
			t.Errorf("state %s, want %s", got, want)
		}
	})
}

func TestNewEnvoyInTheMiddleGetsTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, d := inSync(t, Options{StageTimeout: time.Hour}, Delta, "d")
		d.set(func() { d.mute = true })
		p.Publish(move(t))
		synctest.Wait()
		late := p.envoy(t, Delta, "late")
		late.ask(cds)
		late.ask(lds)
		late.ask(rds, "q")
		got := late.got()
		slices.Sort(got)
		want(t, got, "cluster +b", "listener +l", "route +q")
	})
}

func TestStuckEnvoyDelaysNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		good, stuck := p.envoy(t, Delta, "good"), p.envoy(t, SotW, "stuck")
		good.askUsual()
		stuck.askUsual()
		synctest.Wait()
		good.got()
		stuck.set(func() { stuck.mute = true })
		began := time.Now()
		pub := p.Publish(move(t))
		want(t, good.got(), "cluster +b", "listener +l")
		if s := p.Status()[0]; s.ID != "good" || s.Revision != "2" || !time.Now().Equal(began) {
			t.Errorf("%s has %q, want good to have 2 at once", s.ID, s.Revision)
		}
		<-pub.Done()
		want := map[string]Tally{"edge": {Connected: 2, Acknowledged: 1, Late: 1}}
		if diff := cmp.Diff(want, pub.Outcome().Groups); diff != "" {
			t.Error(diff)
		}
	})
}

// The window of a stream is 64 KiB: the server stands in Send while the Envoy reads nothing.
func TestEnvoyThatReadsNothingDelaysNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		good := p.envoy(t, Delta, "good")
		good.ask(cds)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stuck, err := p.dial(t).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, url := range []string{cds, rds} {
			if err := stuck.Send(&discoveryv3.DeltaDiscoveryRequest{Node: nodeOf("stuck", "edge"), TypeUrl: url}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		began := time.Now()
		for i := range 20 {
			p.Publish(snapshot(t, fmt.Sprint(i), cluster("a", strings.Repeat(fmt.Sprint(i%10), 1<<20))))
			want(t, good.got(), "cluster +a")
		}
		if got := p.Status()[0]; got.Revision != "19" || !time.Now().Equal(began) {
			t.Errorf("%s has %q after %v, want 19 at once", got.ID, got.Revision, time.Since(began))
		}
	})
}

func TestPublishWithNobodyConnectedIsDone(t *testing.T) {
	t.Parallel()
	p := New(Options{}).Publish(usual(t, "1"))
	<-p.Done()
	if got := p.Outcome().State; got != Acknowledged {
		t.Errorf("state %s, want acknowledged", got)
	}
}
