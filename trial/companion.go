package trial

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/control"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// companion answers Envoy's calls, by services that are new for each case: their store is empty, nobody is logged in, and
// nothing is revoked.
type companion struct {
	compiled *control.Compiled
	issuer   *issuer
	current  atomic.Pointer[services]
	passed   atomic.Int64  // ns since the case began, by the clock that limits count by
	refunded chan struct{} // holds one: something was given back
}

// awaitRefund waits for what may be given back after an answer: Envoy says so in a call of its own, which nobody waits for.
func (c *companion) awaitRefund(ctx context.Context, atMost time.Duration) {
	t := time.NewTimer(atMost)
	defer t.Stop()
	select {
	case <-c.refunded:
	case <-t.C:
	case <-ctx.Done():
	}
}

// noon is when each case begins, by the clock that limits count by: it stands still, so that no window ends and nothing is
// filled up before the case has said that time passes.
var noon = time.Date(2030, time.January, 15, 12, 0, 0, 0, time.UTC)

func (c *companion) now() time.Time { return noon.Add(time.Duration(c.passed.Load())) }

// later has time pass.
func (c *companion) later(d time.Duration) { c.passed.Add(int64(d)) }

// services are those of one case.
type services struct {
	store   store.Store
	shared  *store.Shared
	limits  *ratelimit.Service
	counter rls.RateLimitServiceServer
	auth    *auth.Service
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// fresh puts new services in the place of those before.
func (c *companion) fresh(ctx context.Context) error {
	c.passed.Store(0)
	s, err := c.start(ctx)
	if err != nil {
		return err
	}
	return c.current.Swap(s).close()
}

func (c *companion) start(ctx context.Context) (_ *services, err error) {
	s := new(services)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.store, err = store.Open(store.Options{Now: c.now}); err != nil {
		return nil, err
	}
	if s.shared, err = store.OpenShared(store.Options{}); err != nil {
		return nil, err
	}
	s.limits = ratelimit.New(ratelimit.Options{Store: s.store})
	s.limits.Load(c.compiled.Limits)
	var to captured
	s.limits.Register(&to)
	s.counter = to.server.(rls.RateLimitServiceServer)
	s.auth = auth.New(auth.Options{
		Counter: control.NewCounter(s.limits), Transport: c.issuer,
		Keys: s.shared.Board("keys"), Revoked: s.shared.Board("revoked"), Sessions: s.shared.Records("session"),
	})
	table, logins := withProbes(c.compiled.Auth)
	if err = s.auth.Load(table); err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.done.Go(func() { _ = s.auth.Run(run) })
	return s, s.awaitProviders(ctx, logins)
}

// withProbes is the table with a rule for each login, by which it is asked whether it is ready: those of routes count.
func withProbes(t auth.Table) (with auth.Table, probes []auth.Rule) {
	seen := map[string]bool{}
	for _, r := range t.Rules {
		for _, p := range r.Providers {
			if p.OIDC != nil && !seen[p.Name] {
				seen[p.Name] = true
				probes = append(probes, auth.Rule{Name: "legation-test/" + p.Name, Providers: []auth.Provider{p}})
			}
		}
	}
	t.Rules = slices.Concat(t.Rules, probes)
	return t, probes
}

// awaitProviders waits for the key sets and for what providers say of themselves, all of which comes from the issuer of the
// run.
func (s *services) awaitProviders(ctx context.Context, logins []auth.Rule) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("the keys of the policy's identity providers were not loaded"))
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !s.ready(ctx, logins) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (s *services) ready(ctx context.Context, logins []auth.Rule) bool {
	for _, k := range s.auth.Health() {
		if !k.Loaded {
			return false
		}
	}
	for _, r := range logins {
		answer, err := s.auth.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			ContextExtensions: map[string]string{auth.RuleExtension: r.ID()},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: "GET", Scheme: "https", Host: "ready.test", Path: "/", Headers: map[string]string{"accept": "text/html"},
			}},
		}})
		if err != nil || answer.GetDeniedResponse().GetStatus().GetCode() == typev3.StatusCode_ServiceUnavailable {
			return false
		}
	}
	return true
}

func (s *services) close() error {
	if s == nil {
		return nil
	}
	if s.stop != nil {
		s.stop()
		s.done.Wait()
	}
	var errs []error
	if s.limits != nil {
		errs = append(errs, s.limits.Close())
	}
	if s.shared != nil {
		errs = append(errs, s.shared.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

func (c *companion) close() error { return c.current.Swap(nil).close() }

// captured takes the server that a service registers.
type captured struct{ server any }

func (c *captured) RegisterService(_ *grpc.ServiceDesc, server any) { c.server = server }

// counting is the rate limit service, whichever is current.
type counting struct {
	rls.UnimplementedRateLimitServiceServer
	c *companion
}

// ShouldRateLimit counts one request.
func (c counting) ShouldRateLimit(ctx context.Context, q *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	s := c.c.current.Load()
	if s == nil {
		return nil, errNoServices
	}
	answer, err := s.counter.ShouldRateLimit(ctx, q)
	for _, d := range q.Descriptors {
		if d.GetIsNegativeHits() {
			select {
			case c.c.refunded <- struct{}{}:
			default:
			}
		}
	}
	return answer, err
}

// knowing is the auth service, whichever is current.
type knowing struct {
	authv3.UnimplementedAuthorizationServer
	c *companion
}

// Check judges one request.
func (k knowing) Check(ctx context.Context, q *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	s := k.c.current.Load()
	if s == nil {
		return nil, errNoServices
	}
	return s.auth.Check(ctx, q)
}

var errNoServices = status.Error(codes.Unavailable, "no case runs")

// register has both answer on a server.
func (c *companion) register(s grpc.ServiceRegistrar) {
	rls.RegisterRateLimitServiceServer(s, counting{c: c})
	authv3.RegisterAuthorizationServer(s, knowing{c: c})
}
