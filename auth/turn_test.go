package auth

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/legation/legation/callout"
)

// calls are those of a turn.
func calls(all ...*authv3.CheckRequest) []*callout.Call {
	var list []*callout.Call
	for _, q := range all {
		list = append(list, &callout.Call{Message: must(proto.Marshal(q))})
	}
	return list
}

// perAsk counts the turns, and answers each ask by itself.
type perAsk struct {
	turns, asks int
	verdict     func(*Ask) Verdict
}

func (p *perAsk) Count(asks []*Ask) {
	p.turns++
	p.asks += len(asks)
	for _, a := range asks {
		a.Verdict = p.verdict(a)
	}
}

func TestTurnIsCountedAtOnce(t *testing.T) {
	open, limited := staticRule(), staticRule()
	limited.Name, limited.Limits = "edge/limited", []string{"l"}
	k := &perAsk{verdict: func(a *Ask) Verdict {
		v := Verdict{Allowed: a.Caller.Consumer == "idp/alice", Headers: [][2]string{{"x-of", a.Caller.Consumer}}}
		if !v.Allowed {
			v.Limit = "l of " + a.Caller.Consumer
		}
		return v
	}}
	s := load(t, Options{Counter: k}, Table{Rules: []Rule{open, limited}})
	token := func(sub string) string { return "Bearer " + rsaPair().sign(t, goodClaims(map[string]any{"sub": sub})) }
	turn := calls(ask(limited.ID(), token("alice")), ask(open.ID(), token("bob")), ask(limited.ID(), token("bob")), ask(limited.ID(), ""),
		ask("", token("alice")), ask(limited.ID(), "Bearer x"))
	turn = append(turn, &callout.Call{Message: []byte{0xff}, Reply: []byte{}})
	s.Answer(turn)
	if k.turns != 1 || k.asks != 4 {
		t.Errorf("%d asks in %d turns, want 4 in 1", k.asks, k.turns)
	}
	for i, want := range []struct {
		status int
		limit  any
		header string
	}{{200, nil, "idp/alice"}, {200, nil, ""}, {429, "l of idp/bob", "idp/bob"}, {429, "l of ", ""}, {403, nil, ""}, {429, "l of ", ""}} {
		got := flatten(read(t, turn[i]))
		if got.status != want.status || got.meta["limit"] != want.limit || got.headers["x-of"]+got.added["x-of"] != want.header {
			t.Errorf("call %d: %+v", i, got)
		}
	}
	if last := turn[6]; last.Code != codes.Internal || last.Text == "" || len(last.Reply) != 0 {
		t.Errorf("no message: %v %q %q", last.Code, last.Text, last.Reply)
	}
	s.Answer(nil)
	s.Answer(calls(ask(open.ID(), token("bob"))))
	if k.turns != 1 {
		t.Error("the counter was asked about nothing")
	}
}

func TestRepliesAreAppended(t *testing.T) {
	rule := staticRule()
	s := load(t, Options{}, Table{Rules: []Rule{rule}})
	for _, authorization := range []string{"", "Bearer " + rsaPair().sign(t, goodClaims(nil))} {
		turn := calls(ask(rule.ID(), authorization), ask(rule.ID(), authorization))
		turn[1].Reply = append(make([]byte, 0, 1<<10), "before"...)
		s.Answer(turn)
		rest, ok := bytes.CutPrefix(turn[1].Reply, []byte("before"))
		if !ok || !bytes.Equal(rest, turn[0].Reply) {
			t.Errorf("%q, want before and %q", turn[1].Reply, turn[0].Reply)
		}
	}
}

func TestManyNewTokensInATurn(t *testing.T) {
	rule := staticRule()
	s := load(t, Options{}, Table{Rules: []Rule{rule}})
	var all []*authv3.CheckRequest
	for n := range 100 {
		pair, sub := []keyPair{rsaPair(), ecPair(), ed25519Pair()}[n%3], fmt.Sprint("user-", n/2) // most stand twice
		token := "Bearer " + pair.sign(t, goodClaims(map[string]any{"sub": sub}))
		if n%5 == 0 {
			token = token[:len(token)-6] + "AAAAAA"
		}
		all = append(all, ask(rule.ID(), token), ask(rule.ID(), token))
	}
	for _, state := range []string{"new", "seen before"} {
		turn := calls(all...)
		s.Answer(turn)
		for i, c := range turn {
			got, n := flatten(read(t, c)), i/2
			if n%5 == 0 {
				if got.status != 401 || got.meta["reason"] != "token_signature" {
					t.Errorf("%s, call %d: %+v", state, i, got)
				}
			} else if want := fmt.Sprint("idp/user-", n/2); got.status != 200 || got.meta["consumer"] != want {
				t.Errorf("%s, call %d: %+v, want %s", state, i, got, want)
			}
		}
	}
}

func TestPanicEndsOneCallOnly(t *testing.T) {
	good, broken := staticRule(), staticRule()
	broken.Name, broken.Providers[0].JWT.Issuer = "edge/broken", "https://broken.test/"
	var log bytes.Buffer
	s := load(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, Table{Rules: []Rule{good, broken}})
	s.table.Load().rules[broken.Name].providers[0].way.(*tokens).source = nil
	token := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	hit := "Bearer " + rsaPair().sign(t, goodClaims(map[string]any{"iss": "https://broken.test/"}))
	for range 2 { // the second time with a warm cache
		turn := calls(ask(good.ID(), token), ask(broken.ID(), hit), ask(good.ID(), token), ask(broken.ID(), hit))
		s.Answer(turn)
		for i, want := range []int{200, 503, 200, 503} {
			if got := flatten(read(t, turn[i])); got.status != want {
				t.Errorf("call %d: %+v, want %d", i, got, want)
			}
		}
	}
	if n := strings.Count(log.String(), "check panicked"); n != 4 {
		t.Errorf("told %d times: %s", n, log.String())
	}
}

func TestCounterThatPanicsRefusesAllThatItWasAsked(t *testing.T) {
	open, limited := staticRule(), staticRule()
	limited.Name, limited.Limits = "edge/limited", []string{"l"}
	k := &perAsk{verdict: func(a *Ask) Verdict {
		if a.Caller.Consumer == "idp/mallory" {
			panic("store: secret-in-a-panic")
		}
		return Verdict{Allowed: true}
	}}
	metrics := prometheus.NewRegistry()
	s := load(t, Options{Counter: k, Metrics: metrics}, Table{Rules: []Rule{open, limited}})
	token := func(sub string) string { return "Bearer " + rsaPair().sign(t, goodClaims(map[string]any{"sub": sub})) }
	turn := calls(ask(limited.ID(), token("alice")), ask(open.ID(), token("alice")), ask(limited.ID(), token("mallory")),
		ask(limited.ID(), token("bob")), ask(limited.ID(), ""), ask(open.ID(), ""))
	s.Answer(turn)
	for i, want := range []int{503, 200, 503, 503, 503, 401} {
		got := flatten(read(t, turn[i]))
		if got.status != want || strings.Contains(got.body, "secret") {
			t.Errorf("call %d: %+v, want %d", i, got, want)
		}
	}
	decided := map[string]float64{}
	for _, family := range must(metrics.Gather()) {
		for _, m := range family.Metric {
			switch family.GetName() {
			case "legation_auth_decisions_total":
				labels := map[string]string{}
				for _, l := range m.Label {
					labels[l.GetName()] = l.GetValue()
				}
				decided[strings.TrimRight(labels["result"]+" "+labels["reason"]+" "+labels["entry"]+" "+labels["kind"], " ")] = m.Counter.GetValue()
			case "legation_auth_check_seconds":
				if n := m.Histogram.GetSampleCount(); n != 6 {
					t.Errorf("the time of %d requests is told, want 6", n)
				}
			}
		}
	}
	want := map[string]float64{"allow  idp jwt": 1, "unauthenticated no_credentials": 1, "unavailable internal": 4}
	if d := cmp.Diff(want, decided); d != "" {
		t.Error(d)
	}
}

// TestNothingIsKeptOfAMessage has the buffers of a turn used for the next one, as the connection uses them.
func TestNothingIsKeptOfAMessage(t *testing.T) {
	rule := staticRule()
	rule.Limits, rule.Metadata = []string{"l"}, []string{"tenant.id"}
	k := &perAsk{verdict: func(*Ask) Verdict { return Verdict{Allowed: true} }}
	s := load(t, Options{Counter: k}, Table{Rules: []Rule{rule}, Consumers: []Consumer{{Name: "acme", Identities: []string{"idp/alice"}}}})
	token := "Bearer " + rsaPair().sign(t, goodClaims(map[string]any{"tenant": map[string]any{"id": "t-1"}}))
	var first answer
	for n := range 3 {
		turn := calls(ask(rule.ID(), token), ask(rule.ID(), "Bearer x"))
		s.Answer(turn)
		for _, c := range turn {
			clear(c.Message)
		}
		got := flatten(read(t, turn[0]))
		if n == 0 {
			first = got
		}
		if d := cmp.Diff(first, got, cmp.AllowUnexported(answer{})); d != "" {
			t.Errorf("turn %d: %s", n, d)
		}
	}
	if first.meta["consumer"] != "acme" || first.headers["x-auth-tenant"] != "t-1" {
		t.Errorf("%+v", first)
	}
	for _, p := range s.table.Load().providers {
		for i := range p.way.(*tokens).cache.places {
			if g := p.way.(*tokens).cache.places[i].Load(); g != nil && (g.grant.identity != "idp/alice" || g.grant.claims["sub"] != "alice") {
				t.Errorf("the grant is %+v", g)
			}
		}
	}
}

func TestRoomOfHugeRequestsIsGivenBack(t *testing.T) {
	q := ask("edge/a", "")
	for n := range 1000 {
		q.Attributes.Request.Http.Headers[fmt.Sprint("h", n)] = "v"
		q.Attributes.ContextExtensions[fmt.Sprint("e", n)] = "v"
	}
	d := newDecision()
	if err := d.decode(must(proto.Marshal(q))); err != nil {
		t.Fatal(err)
	}
	d.reset()
	if cap(d.headers) > mostKept || cap(d.extensions) > mostKept {
		t.Errorf("room for %d headers and %d extensions is kept", cap(d.headers), cap(d.extensions))
	}
}
