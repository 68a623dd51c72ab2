package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/bench/envoys"
	"github.com/legation/legation/bench/rig"
)

const (
	realEnvoys = 6
	roamers    = 200
	spreadTime = 30 * time.Second
	atLeast    = 6 * time.Second // of load and pushes after each upgrade, also where the streams stand evenly at once
)

// C10. First with real Envoys, on one port of which the kernel has each connection taken by one of them; then with more
// simulated ones than a machine has room for.
func upgrade(t *trial) error {
	for _, simulated := range []bool{false, true} {
		if err := upgradeWith(t, simulated); err != nil {
			return err
		}
	}
	return nil
}

func upgradeWith(t *trial, simulated bool) error {
	r, err := newRolling(t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	name, n := "real", realEnvoys
	if simulated {
		name, n = "simulated", roamers
		err = r.roam(ctx, &parts)
	} else {
		err = r.gateways()
	}
	if err != nil {
		return err
	}
	if _, err := r.spread(n); err != nil {
		return err
	}
	var load *traffic
	if !simulated {
		load = t.traffic(r.port, 0, []page{{host: "edge.test", path: "/"}, {host: "edge.test", path: "/private", token: r.token}, {host: "edge.test", path: "/counted"}})
	}
	parts.Go(func() { r.pushOn(ctx) })
	for i, p := range r.planes {
		if err := r.renew(p); err != nil {
			return err
		}
		ready := time.Now()
		took, err := r.spread(n)
		if err != nil {
			return err
		}
		t.hold(took <= spreadTime, "%d %s Envoys, process %d of 2 upgraded: spread again %.1f s after it was ready (%s), at most %.0f s",
			n, name, i+1, took.Seconds(), r.standing(), spreadTime.Seconds())
		if err := r.sleep(atLeast - time.Since(ready)); err != nil {
			return err
		}
	}
	if load != nil {
		good, failed, why := load.end()
		t.hold(failed == 0 && good > 0, "%d requests meanwhile, %d failed%s", good, failed, why)
	}
	cancel()
	parts.Wait()
	return r.holdPushes(n, simulated)
}

// rolling is two processes on one Redis, and those whom they serve.
type rolling struct {
	*trial
	planes  []*rig.Plane
	port    int
	service string
	auth    string // the policy's section
	token   string // which passes it
	all     []*rig.Gateway

	mu     sync.Mutex // guards what follows
	down   *rig.Plane // the one that is being upgraded; nil: none
	head   int64
	pushes int
	failed error
}

func newRolling(t *trial) (r *rolling, err error) {
	r = &rolling{trial: t}
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return nil, err
	}
	if r.service, err = t.upstream(); err != nil {
		return nil, err
	}
	if r.port, err = rig.Port(); err != nil {
		return nil, err
	}
	issuer, err := rig.NewIssuer()
	if err != nil {
		return nil, err
	}
	r.auth = issuer.Entry()
	if r.token, err = issuer.Token("alice"); err != nil {
		return nil, err
	}
	for range 2 {
		p, err := t.rig.Plane("--redis", redis.URL(), "--redis-timeout", "100ms")
		if err != nil {
			return nil, err
		}
		if err := p.Start(t.ctx); err != nil {
			return nil, err
		}
		r.planes = append(r.planes, p)
	}
	if r.head, err = r.planes[0].Push(t.ctx, r.policy(0), 0); err != nil {
		return nil, err
	}
	for _, p := range r.planes {
		if err := p.Ready(t.ctx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// policy is one whose answers tell a number. Of its routes two take a companion.
func (r *rolling) policy(n int) map[string][]byte {
	return map[string][]byte{"policy.yaml": fmt.Appendf(nil, `gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1}}}}
services: {app: {endpoints: [%q]}}
auth: %s
routes:
  app: {hostnames: [edge.test], backends: {app: 1}, headers: {response: {set: {x-push: "%d"}}}}
  private: {hostnames: [edge.test], match: {path: /private}, auth: [idp], backends: {app: 1}}
  counted: {hostnames: [edge.test], match: {path: /counted}, rateLimit: {rate: 100000000/day, by: ip}, backends: {app: 1}}
`, r.port, r.service, r.auth, n)}
}

// gateways starts the real Envoys, each of which knows both processes.
func (r *rolling) gateways() error {
	for i := range realEnvoys {
		g, err := r.rig.Gateway(r.ctx, "edge", fmt.Sprintf("edge-%d", i), r.planes)
		if err != nil {
			return err
		}
		r.all = append(r.all, g)
	}
	for _, g := range r.all {
		if err := g.Ready(r.ctx); err != nil {
			return err
		}
	}
	return nil
}

// roam starts the simulated ones.
func (r *rolling) roam(ctx context.Context, parts *sync.WaitGroup) error {
	node := &corev3.Node{Id: "reader", Cluster: "edge", UserAgentName: "envoy"}
	first, err := envoys.NewScript(node, false, nil)
	if err != nil {
		return err
	}
	asks, err := envoys.NewFleet(r.planes[0].XDS, nil).Follow(ctx, first)
	if err != nil {
		return err
	}
	script, err := envoys.NewScript(node, false, asks)
	if err != nil {
		return err
	}
	addresses := []string{r.planes[0].XDS, r.planes[1].XDS}
	for i := range roamers {
		own, err := script.As(fmt.Sprintf("roamer-%d", i))
		if err != nil {
			return err
		}
		parts.Go(func() { envoys.Roam(ctx, addresses, nil, own, func(string) {}) })
	}
	return nil
}

// streams is how many Envoys each process has.
func (r *rolling) streams() (counts []int) {
	for _, p := range r.planes {
		n, _ := p.Metric("legation_xds_streams") // none is told where nobody is connected
		counts = append(counts, int(n))
	}
	return counts
}

func (r *rolling) standing() string { return strings.Trim(fmt.Sprint(r.streams()), "[]") + " streams" }

// spread waits until all Envoys are connected and no process has clearly more than its share, for twice the time it may take.
func (r *rolling) spread(n int) (time.Duration, error) {
	began := time.Now()
	err := rig.Until(r.ctx, 2*spreadTime, "the streams to be spread", func() error {
		counts := r.streams()
		if sum := counts[0] + counts[1]; sum != n || max(counts[0], counts[1]) > n/2+max(1, n/20) {
			return fmt.Errorf("%v streams", counts)
		}
		return r.sleep(100 * time.Millisecond)
	})
	return time.Since(began), err
}

// renew replaces a process.
func (r *rolling) renew(p *rig.Plane) error {
	r.mu.Lock()
	r.down = p
	r.mu.Unlock()
	if err := p.Stop(r.ctx); err != nil {
		return err
	}
	if err := p.Start(r.ctx); err != nil {
		return err
	}
	err := p.Ready(r.ctx)
	r.mu.Lock()
	r.down = nil
	r.mu.Unlock()
	return err
}

// pushOn pushes to one of the processes that run, in turn, each 2 s.
func (r *rolling) pushOn(ctx context.Context) {
	tick := time.NewTicker(pushEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		to, head := r.planes[n%2], r.head
		if to == r.down {
			to = r.planes[1-n%2]
		}
		r.mu.Unlock()
		number, err := to.Push(r.ctx, r.policy(n), head)
		r.mu.Lock()
		if err == nil && number != head+1 {
			err = fmt.Errorf("push %d became revision %d, want %d", n, number, head+1)
		}
		if err != nil {
			r.failed = errors.Join(r.failed, err)
		} else {
			r.head, r.pushes = number, n
		}
		r.mu.Unlock()
	}
}

// holdPushes holds that all of them were taken, and that the last one is everywhere.
func (r *rolling) holdPushes(n int, simulated bool) error {
	r.hold(r.failed == nil && r.pushes > 0 && int64(r.pushes) == r.head-1, "%d pushes, each taken: revision %d is the last one %v", r.pushes, r.head, errors.Join(r.failed))
	began := time.Now()
	err := rig.Until(r.ctx, 10*time.Second, "the last push at all Envoys", func() error {
		for _, p := range r.planes {
			text, err := p.Get("/status")
			if err != nil {
				return err
			}
			if revision := fmt.Sprintf(`"number": %d`, r.head); !strings.Contains(text, revision) {
				return fmt.Errorf("%s is not at revision %d", p.XDS, r.head)
			}
		}
		if simulated {
			return nil
		}
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
		for range 8 * n { // each Envoy is asked several times, all but for certain
			if err := showsPush(c, r.port, r.pushes); err != nil {
				return err
			}
		}
		return nil
	})
	r.hold(err == nil, "%.1f s later the last push is served by both, to all %v", time.Since(began).Seconds(), errors.Join(err))
	return nil
}

func showsPush(c *http.Client, port, n int) error {
	q, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		return err
	}
	q.Host = "edge.test"
	a, err := c.Do(q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if got := a.Header.Get("X-Push"); got != fmt.Sprint(n) {
		return fmt.Errorf("an Envoy is at push %q, want %d", got, n)
	}
	return nil
}
