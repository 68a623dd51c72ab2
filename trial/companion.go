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
)

// companion answers Envoy's calls. Its counts are new for each case; who is logged in a case tells by its cookies.
type companion struct {
	shared   *store.Shared
	limits   *ratelimit.Service
	counter  rls.RateLimitServiceServer
	auth     *auth.Service
	counts   counts
	passed   atomic.Int64  // ns since the case began, by the clock that limits count by
	refunded chan struct{} // holds one: something was given back

	stop context.CancelFunc
	done sync.WaitGroup
}

// counts is the store of the case that runs.
type counts struct{ current atomic.Pointer[store.Store] }

// Decide asks it.
func (c *counts) Decide(decisions []*store.Decision) { (*c.current.Load()).Decide(decisions) }

// Count asks it.
func (c *counts) Count(ctx context.Context, hits []store.Hit) ([]store.Outcome, error) {
	return (*c.current.Load()).Count(ctx, hits)
}

// Health is fine: it is part of this process.
func (c *counts) Health() store.Health { return (*c.current.Load()).Health() }

// Close ends it.
func (c *counts) Close() error {
	if s := c.current.Swap(nil); s != nil {
		return (*s).Close()
	}
	return nil
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

// fresh begins all counts anew, at noon.
func (c *companion) fresh() error {
	empty, err := store.Open(store.Options{Now: c.now})
	if err != nil {
		return err
	}
	c.passed.Store(0)
	if old := c.counts.current.Swap(&empty); old != nil {
		return (*old).Close()
	}
	return nil
}

// start starts the services, and waits until they know all keys. What was started before an error is for close.
func (c *companion) start(ctx context.Context, compiled *control.Compiled, i *issuer) (err error) {
	c.refunded = make(chan struct{}, 1)
	if err := c.fresh(); err != nil {
		return err
	}
	if c.shared, err = store.OpenShared(store.Options{}); err != nil {
		return err
	}
	c.limits = ratelimit.New(ratelimit.Options{Store: &c.counts})
	c.limits.Load(compiled.Limits)
	var to captured
	c.limits.Register(&to)
	c.counter = to.server.(rls.RateLimitServiceServer)
	c.auth = auth.New(auth.Options{
		Counter: control.NewCounter(c.limits), Transport: i,
		Keys: c.shared.Board("keys"), Revoked: c.shared.Board("revoked"), Sessions: c.shared.Records("session"),
	})
	table, logins := withProbes(compiled.Auth)
	if err = c.auth.Load(table); err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.done.Go(func() { _ = c.auth.Run(run) })
	return c.awaitProviders(ctx, logins)
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
func (c *companion) awaitProviders(ctx context.Context, logins []auth.Rule) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("the keys of the policy's identity providers were not loaded"))
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !c.ready(ctx, logins) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *companion) ready(ctx context.Context, logins []auth.Rule) bool {
	for _, k := range c.auth.Health() {
		if !k.Loaded {
			return false
		}
	}
	for _, r := range logins {
		answer, err := c.auth.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
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

// close ends the services, as far as they were started.
func (c *companion) close() error {
	if c.stop != nil {
		c.stop()
		c.done.Wait()
	}
	var errs []error
	if c.limits != nil {
		errs = append(errs, c.limits.Close())
	}
	if c.shared != nil {
		errs = append(errs, c.shared.Close())
	}
	return errors.Join(append(errs, c.counts.Close())...)
}

// captured takes the server that a service registers.
type captured struct{ server any }

func (c *captured) RegisterService(_ *grpc.ServiceDesc, server any) { c.server = server }

// counting is the rate limit service, and notes what is given back.
type counting struct {
	rls.UnimplementedRateLimitServiceServer
	c *companion
}

// ShouldRateLimit counts one request.
func (c counting) ShouldRateLimit(ctx context.Context, q *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	answer, err := c.c.counter.ShouldRateLimit(ctx, q)
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

// register has both services answer on a server.
func (c *companion) register(s grpc.ServiceRegistrar) {
	rls.RegisterRateLimitServiceServer(s, counting{c: c})
	c.auth.Register(s)
}
