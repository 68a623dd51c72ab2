package xds

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// rejecting refuses every answer of the type that has a resource of that name.
func rejecting(url, name string) func(string, []string) string {
	return func(u string, names []string) string {
		if u == url && slices.Contains(names, name) {
			return "Error adding/updating cluster(s) " + name + ": no good"
		}
		return ""
	}
}

func TestRejectedIsNotSentAgain(t *testing.T) {
	for protocol, after := range map[Protocol][]string{
		Delta: {"cluster +a"},
		SotW:  {"cluster a"},
	} {
		t.Run(string(protocol), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p, e := inSync(t, Options{}, protocol, "e")
				e.set(func() { e.reject = rejecting(cds, "a") })
				bad := snapshot(t, "2", cluster("a", "bad"), endpoint("a", "1"), route("r", "changed"), listener("l", "2"))
				pub := p.Publish(bad)
				<-pub.Done()
				if got := pub.Outcome(); got.State != Rejected || got.Groups["edge"].Rejected != 1 {
					t.Errorf("outcome %+v, want rejected", got)
				}
				// The endpoints flow on. Route and listener could depend on the cluster: they stay as they are.
				want(t, e.got(), append(slices.Clone(after), map[Protocol]string{Delta: "endpoint +a", SotW: "endpoint a"}[protocol])...)
				time.Sleep(time.Hour)
				want(t, e.got())
				p.Publish(bad)
				want(t, e.got())
				if got := p.Status()[0]; got.Revision != "1" || got.Types[0].State != NACK {
					t.Errorf("status %+v, want revision 1 and a NACK", got)
				}

				e.set(func() { e.reject = nil })
				<-p.Publish(usual(t, "1")).Done() // back to the last good
				want(t, e.got(), append(slices.Clone(after), map[Protocol]string{Delta: "endpoint +a", SotW: "endpoint a"}[protocol])...)
				if got := p.Status()[0]; got.Revision != "1" || got.Types[0].State != ACK || got.Types[0].Error != "" {
					t.Errorf("status %+v, want revision 1 and no NACK", got)
				}
			})
		})
	}
}

func TestRejectionOutlastsTheNextAcknowledgement(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, d := inSync(t, Options{}, Delta, "d")
		d.set(func() { d.reject = rejecting(cds, "bad") })
		p.Publish(snapshot(t, "2", cluster("a", "1"), cluster("bad", "1"), endpoint("a", "1"), route("r", "a"), listener("l", "1")))
		want(t, d.got(), "cluster +bad")
		p.Publish(snapshot(t, "3", cluster("a", "1"), cluster("bad", "1"), cluster("c", "1"), endpoint("a", "2"), route("r", "c"), listener("l", "1")))
		want(t, d.got(), "cluster +c", "endpoint +a") // no route
		if s := p.Status()[0].Types[0]; s.State != NACK || len(s.Blamed) != 1 {
			t.Errorf("clusters are %+v, want still rejected", s)
		}
		p.Publish(snapshot(t, "4", cluster("a", "1"), cluster("c", "1"), endpoint("a", "2"), route("r", "c"), listener("l", "1")))
		want(t, d.got(), "route +r")
		time.Sleep(2 * time.Second)
		want(t, d.got(), "cluster -bad")
		if s := p.Status()[0]; s.Types[0].State != ACK || s.Revision != "4" {
			t.Errorf("clusters are %+v, want acknowledged", s)
		}
	})
}

func TestRejectedWholeSetIsNotRepeated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, s := inSync(t, Options{}, SotW, "s")
		s.set(func() { s.reject = rejecting(cds, "bad") })
		p.Publish(snapshot(t, "2", cluster("a", "1"), cluster("bad", "1"), endpoint("a", "1"), route("r", "a"), listener("l", "1")))
		want(t, s.got(), "cluster a bad")
		p.Publish(snapshot(t, "3", cluster("a", "1"), cluster("c", "1"), endpoint("a", "1"), route("r", "a"), listener("l", "1")))
		want(t, s.got(), "cluster a c")
		if s := p.Status()[0]; s.Types[0].State != ACK || s.Revision != "3" {
			t.Errorf("clusters are %+v, want acknowledged", s)
		}
	})
}

// A new Envoy has no last good: what it accepts is better than nothing.
func TestNewEnvoyGetsTheRestOfABadPolicy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(snapshot(t, "1", cluster("a", "1"), cluster("bad", "1"), endpoint("a", "1"), route("r", "a"), listener("l", "1")))
		d := p.envoy(t, Delta, "d")
		d.set(func() { d.reject = rejecting(cds, "bad") })
		d.askUsual()
		want(t, d.got(), "cluster +a +bad", "endpoint +a", "route +r", "listener +l")
		if got := p.Status()[0].Revision; got != "" {
			t.Errorf("revision %q acknowledged, want none", got)
		}
	})
}

func TestRejectedIsRetriedWhenToldTo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{RetryNACK: time.Millisecond}) // which becomes 10 s
		p.Publish(usual(t, "1"))
		d := p.envoy(t, Delta, "d")
		d.askUsual()
		d.got()
		d.set(func() { d.reject = rejecting(lds, "l") })
		p.Publish(snapshot(t, "2", cluster("a", "1"), endpoint("a", "1"), route("r", "a"), listener("l", "2")))
		want(t, d.got(), "listener +l")
		time.Sleep(9 * time.Second)
		want(t, d.got())
		time.Sleep(time.Second)
		want(t, d.got(), "listener +l")
		d.set(func() { d.reject = nil })
		time.Sleep(10 * time.Second)
		want(t, d.got(), "listener +l")
		if got := p.Status()[0].Revision; got != "2" {
			t.Errorf("revision %q acknowledged, want 2", got)
		}
		time.Sleep(time.Hour)
		want(t, d.got())
	})
}

func TestStatusTellsWhatEachEnvoyHas(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told []NodeStatus
		p := start(t, Options{OnNACK: func(n NodeStatus) { told = append(told, n) }})
		groups := usual(t, "1")
		b, a := p.envoy(t, Delta, "b"), p.envoy(t, SotW, "a")
		b.askUsual()
		a.ask(lds)
		b.set(func() { b.reject = rejecting(lds, "l") })
		synctest.Wait()
		if got := p.Status()[0].Types[0].State; got != Waiting {
			t.Errorf("state %s before there is a policy, want waiting", got)
		}
		if !p.Status()[0].Held {
			t.Error("an Envoy is not held before there is a policy")
		}
		<-p.Publish(groups).Done()

		s := groups["edge"]
		acked := func(short, url string) TypeStatus {
			return TypeStatus{Type: short, State: ACK, Sent: s.Version(url), Acknowledged: s.Version(url)}
		}
		wanted := []NodeStatus{
			{ID: "a", Group: "edge", Address: "bufconn", Protocol: SotW, Types: []TypeStatus{acked("listener", lds)}},
			{ID: "b", Group: "edge", Address: "bufconn", Protocol: Delta, Types: []TypeStatus{
				acked("cluster", cds), acked("endpoint", eds), acked("route", rds),
				{
					Type: "listener", State: NACK, Sent: s.Version(lds), Error: "Error adding/updating cluster(s) l: no good",
					Blamed: []Blame{{Resource: "l", Origin: "policy.yaml:4:1"}},
				},
			}},
		}
		ignore := cmpopts.IgnoreFields(NodeStatus{}, "Connected", "Seen")
		noTime := cmpopts.IgnoreFields(TypeStatus{}, "Time")
		if diff := cmp.Diff(wanted, p.Status(), ignore, noTime); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(wanted[1:], told, ignore, noTime); diff != "" {
			t.Errorf("OnNACK: %s", diff)
		}
	})
}

// What an Envoy says goes to the terminals of operators, and to other processes: it is bounded, and moves no cursor. What
// it is about is found behind the bound as well.
func TestWordsOfARejectionAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		e := p.envoy(t, Delta, "e")
		e.askUsual()
		e.set(func() {
			e.reject = func(url string, _ []string) string {
				if url != lds {
					return ""
				}
				return "\x1b[2J\n\u202e" + strings.Repeat("ä", 50_000) + " l: no good"
			}
		})
		p.Publish(usual(t, "1"))
		e.got()
		got := p.Status()[0].Types[3]
		if len(got.Error) > maxWords+len(" …") || !strings.HasPrefix(got.Error, " [2J  ää") || !strings.HasSuffix(got.Error, "ä …") {
			t.Errorf("%d bytes: %.40q", len(got.Error), got.Error)
		}
		if diff := cmp.Diff([]Blame{{Resource: "l", Origin: "policy.yaml:4:1"}}, got.Blamed); diff != "" {
			t.Error(diff)
		}
	})
}

// An Envoy whose group nobody knows, or that has gone, is held, and the log tells of one that comes.
func TestEnvoyOfNoGroupIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := &diary{}
		p := start(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
		<-p.Publish(usual(t, "1")).Done()
		d := p.envoy(t, Delta, "d")
		d.askUsual()
		d.got()
		if p.Status()[0].Held || strings.Contains(log.String(), "not served") {
			t.Errorf("an Envoy of a group that is served: %+v, log %s", p.Status()[0], log)
		}
		<-p.Publish(nil).Done()
		late := p.envoy(t, Delta, "late")
		late.askUsual()
		synctest.Wait()
		for _, n := range p.Status() {
			if !n.Held {
				t.Errorf("%s is not held", n.ID)
			}
		}
		if !strings.Contains(log.String(), `level=WARN msg="envoy asks for a group that is not served" node=late group=edge`) {
			t.Errorf("the log: %s", log)
		}
	})
}

func TestBlame(t *testing.T) {
	t.Parallel()
	entries := func(names ...string) (list []*entry) {
		for _, n := range names {
			list = append(list, newEntry(Resource{Name: n}))
		}
		return list
	}
	sent := &shipment{
		entries: entries("orders", "orders-v2", "orders/v2", "a", "b:80"),
		changed: entries("a", "b:80"),
	}
	for words, want := range map[string]string{
		"Error adding/updating cluster(s) orders: bad":            "orders",
		"Error adding/updating cluster(s) orders-v2: bad, a: bad": "orders-v2 a",
		"'orders/v2' is not good":                                 "orders/v2",
		"cluster b:80: bad":                                       "b:80",
		"Proto constraint validation failed":                      "a b:80", // nobody named: what changed
	} {
		var got []string
		for _, e := range blame(words, sent) {
			got = append(got, e.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q blames %q, want %q", words, got, want)
		}
	}
}

// Of an answer that is rejected for one resource, the others were taken, also one that was rejected before.
func TestMendedBesideARejectionIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, d := inSync(t, Options{}, Delta, "d")
		rest := []Resource{cluster("a", "1"), endpoint("a", "1"), listener("l", "1")}
		for i, bad := range []string{"b", "c"} {
			d.set(func() { d.reject = rejecting(cds, bad) })
			p.Publish(snapshot(t, bad, append(rest, route("r", "a"), cluster("b", fmt.Sprint(i)), cluster("c", fmt.Sprint(i)))...))
			want(t, d.got(), "cluster +b +c")
		}
		d.set(func() { d.reject = nil })
		p.Publish(snapshot(t, "4", append(rest, route("r", "b"), cluster("b", "1"), cluster("c", "2"))...))
		want(t, d.got(), "cluster +c", "route +r")
		if s := p.Status()[0]; s.Types[0].State != ACK || s.Revision != "4" {
			t.Errorf("status %+v, want acknowledged", s)
		}
	})
}
