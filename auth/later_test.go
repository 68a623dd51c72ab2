package auth

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/legation/legation/callout"
)

// asking is a way that asks somebody else about whoever calls.
type asking struct {
	by  *provider
	ask func(ctx context.Context, name string) finding
}

func (w asking) look(d *decision, _ time.Time) finding {
	name := d.header("x-name")
	if name == "" {
		return finding{}
	}
	return finding{work: question{w, name}}
}
func (asking) challenge() string { return "Ask" }
func (asking) same(way) bool     { return false }

type question struct {
	asking
	name string
}

func (question) waits() bool                                   { return true }
func (q question) do(ctx context.Context, _ time.Time) finding { return q.ask(ctx, q.name) }

// accept is what a way says that accepts.
func (w asking) accept(name string) finding {
	g, err := w.by.newGrant(claims{"sub": name, "tenant": map[string]any{"id": "t-" + name}}, time.Time{})
	return finding{grant: g, err: err}
}

// asks makes a service whose second entry asks.
func asks(t testing.TB, o Options, ask func(w asking, ctx context.Context, name string) finding) (s *Service, rule Rule) {
	t.Helper()
	rule = staticRule()
	second := rule.Providers[0]
	second.Name = "asked"
	rule.Providers = append(rule.Providers, second)
	s = load(t, o, Table{Rules: []Rule{rule}})
	p := s.table.Load().rules[rule.Name].providers[1]
	w := asking{by: p}
	w.ask = func(ctx context.Context, name string) finding { return ask(w, ctx, name) }
	p.way = w
	return s, rule
}

func TestCallsThatWaitHoldUpNoOthers(t *testing.T) {
	r := prometheus.NewRegistry()
	answer := make(chan struct{})
	s, rule := asks(t, Options{Metrics: r}, func(w asking, ctx context.Context, name string) finding {
		select {
		case <-answer:
			return w.accept(strings.Clone(name))
		case <-ctx.Done():
			return finding{err: ctx.Err()}
		}
	})
	token := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	turn := calls(ask(rule.ID(), token), ask(rule.ID(), "", "x-name", "bob"), ask(rule.ID(), ""), ask(rule.ID(), "Bearer x", "x-name", "eve"))
	s.Answer(turn)
	for _, c := range turn {
		clear(c.Message) // as the connection uses them for other calls
	}
	for i, want := range []int{200, 0, 401, 0} {
		if waits := turn[i].Later != nil; waits != (want == 0) {
			t.Fatalf("call %d: waits: %t", i, waits)
		} else if !waits {
			if got := flatten(read(t, turn[i])); got.status != want {
				t.Errorf("call %d: %+v, want %d", i, got, want)
			}
		} else if len(turn[i].Reply) > 0 {
			t.Errorf("call %d waits, and is answered", i)
		}
	}
	if got := counted(t, r, "legation_auth_decisions_total"); got != 2 {
		t.Errorf("%g are counted before those that wait were decided, want 2", got)
	}
	close(answer)
	for i, want := range map[int]string{1: "asked/bob", 3: "asked/eve"} {
		turn[i].Finish(t.Context())
		if got := flatten(read(t, turn[i])); got.status != 200 || got.meta["consumer"] != want || got.headers["x-auth-tenant"] != "t-"+want[6:] {
			t.Errorf("call %d: %+v, want %s", i, got, want)
		}
	}
	if all, waited := counted(t, r, "legation_auth_decisions_total"), counted(t, r, "legation_auth_waited_total"); all != 4 || waited != 2 {
		t.Errorf("%g are counted, of which %g waited, want 4 and 2", all, waited)
	}
}

// What does not come in time is a 503 of ours, ahead of the deadline of Envoy.
func TestCallsThatWaitTooLong(t *testing.T) {
	for name, deadline := range map[string]time.Duration{"of Envoy": 200 * time.Millisecond, "none": 0} {
		synctest.Test(t, func(t *testing.T) {
			s, rule := asks(t, Options{}, func(_ asking, ctx context.Context, _ string) finding {
				<-ctx.Done()
				return finding{err: ctx.Err()}
			})
			q := ask(rule.ID(), "", "x-name", "bob")
			turn := calls(q)
			s.Answer(turn)
			ctx, want := t.Context(), mostWait
			if deadline > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, deadline)
				defer cancel()
				want = deadline - headStart
			}
			start := time.Now()
			turn[0].Finish(ctx)
			if got := flatten(read(t, turn[0])); got.status != 503 || got.meta["reason"] != "timeout" || time.Since(start) != want {
				t.Errorf("%s: after %s: %+v, want it after %s", name, time.Since(start), got, want)
			}
			if got := flatten(must(s.Check(t.Context(), q))); got.status != 503 {
				t.Errorf("%s: over grpc-go: %+v", name, got)
			}
		})
	}
}

func TestCallsThatWaitAndPanic(t *testing.T) {
	var log bytes.Buffer
	s, rule := asks(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(asking, context.Context, string) finding {
		panic("secret-in-a-panic")
	})
	for range 2 {
		turn := calls(ask(rule.ID(), "", "x-name", "bob"))
		s.Answer(turn)
		turn[0].Finish(t.Context())
		if got := flatten(read(t, turn[0])); got.status != 503 || got.meta["reason"] != "internal" {
			t.Errorf("%+v", got)
		}
	}
	if n := strings.Count(log.String(), "check panicked"); n != 2 || strings.Contains(log.String(), "secret") {
		t.Errorf("%d: %s", n, log.String())
	}
}

// Whoever was revoked while the call waited is refused.
func TestRevokedWhileItWaited(t *testing.T) {
	board := &slate{}
	var s *Service
	s, rule := asks(t, Options{Revoked: board}, func(w asking, ctx context.Context, name string) finding {
		revoke(t, s, "subject:asked/"+name)
		return w.accept(name)
	})
	turn := calls(ask(rule.ID(), "", "x-name", "bob"))
	s.Answer(turn)
	turn[0].Finish(t.Context())
	if got := flatten(read(t, turn[0])); got.status != 401 || got.meta["reason"] != "revoked" {
		t.Errorf("%+v", got)
	}
}

// Over a real connection one call waits while a hundred others of the same connection are answered.
func TestCallsThatWaitOverAConnection(t *testing.T) {
	answer := make(chan struct{})
	s, rule := asks(t, Options{}, func(w asking, ctx context.Context, name string) finding {
		select {
		case <-answer:
			return w.accept(name)
		case <-ctx.Done():
			return finding{err: ctx.Err()}
		}
	})
	c := authv3.NewAuthorizationClient(fast(t, s))
	slow := make(chan *authv3.CheckResponse, 1)
	go func() {
		r, _ := c.Check(t.Context(), ask(rule.ID(), "", "x-name", "bob"))
		slow <- r
	}()
	for range 100 {
		if got := check(t, c, ask(rule.ID(), "")); got.status != 401 {
			t.Fatalf("%+v", got)
		}
	}
	select {
	case r := <-slow:
		t.Fatalf("answered before it could be: %v", r)
	default:
	}
	close(answer)
	if got := flatten(<-slow); got.status != 200 || got.meta["consumer"] != "asked/bob" {
		t.Errorf("%+v", got)
	}
}

// fast serves s as app does.
func fast(t testing.TB, s *Service) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := callout.New(callout.Options{Methods: map[string]callout.Method{authv3.Authorization_Check_FullMethodName: s.Answer}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, l, time.Second) }()
	c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}
