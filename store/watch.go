package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// watch probes lanes that are down or in trouble each 100 ms, and the others each 2 s, so that readiness knows without
// traffic. It follows the primary when Sentinel names another, and the slots of a Cluster.
func (s *redisStore) watch(ctx context.Context) {
	defer close(s.stopped)
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	const every = 100 // ticks between inspections
	for n, inspection := 0, 0; ; n++ {
		down := s.checkLanes(ctx, n%20 == 0)
		switch c := s.client.(type) {
		case *redis.ClusterClient:
			s.survey(ctx, c, down, n)
		case *redis.Client:
			if s.kind == "sentinel" && n%10 == 0 && !s.asking.Swap(true) {
				wg.Go(func() { s.follow(ctx, c) })
			}
		}
		s.tell()
		if !down && n >= inspection {
			s.inspect(ctx)
			inspection = n + every
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// checkLanes probes lanes that may be down, or all.
func (s *redisStore) checkLanes(ctx context.Context, all bool) (down bool) {
	var wg sync.WaitGroup
	for _, l := range s.ways.Load().lanes {
		up, _ := l.state()
		down = down || !up
		switch {
		case !up || l.failing.Load() || l.missed > 0 || all:
			wg.Go(func() { l.check(ctx) })
		case l.overdue():
			wg.Go(l.settle)
		}
	}
	wg.Wait()
	return down
}

// follow has the lane go to the primary that Sentinel names: one that was cut off from it may still answer us. Nobody waits
// for it, so a Sentinel may be farther away than trips may take.
func (s *redisStore) follow(ctx context.Context, c *redis.Client) {
	defer s.asking.Store(false)
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	if addr, err := primary(ctx, c.Options()); err == nil {
		s.ways.Load().lanes[0].link.follow(addr)
	}
}

// inspect looks whether Redis would drop counters to make room, which lets more through than a limit allows. Who may not
// ask isn't told.
func (s *redisStore) inspect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	var mu sync.Mutex
	warning := ""
	look := func(ctx context.Context, c *redis.Client) error {
		text, err := c.Info(ctx, "memory").Result()
		if policy := evicts(text); err == nil && policy != "" {
			mu.Lock()
			defer mu.Unlock()
			warning = fmt.Sprintf("redis evicts keys when its memory is full (maxmemory-policy %s): limits may let more through; "+
				"set maxmemory-policy noeviction", policy)
		}
		return err
	}
	var err error
	switch c := s.client.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, look)
	case *redis.Client:
		err = look(ctx, c)
	}
	if err != nil && warning == "" {
		return // nothing new is known
	}
	switch old := s.warning.Swap(&warning); {
	case warning != "" && (old == nil || *old != warning):
		s.log.Warn("redis may lose counters", "warning", warning)
		s.metrics.evicting.Set(1)
	case warning == "":
		s.metrics.evicting.Set(0)
	}
}

// evicts is the policy by which a Redis evicts keys, as its INFO tells; empty when it doesn't.
func evicts(info string) string {
	policy, limited := "", false
	for line := range strings.Lines(info) {
		switch name, v, _ := strings.Cut(strings.TrimSpace(line), ":"); name {
		case "maxmemory":
			limited = v != "0"
		case "maxmemory_policy":
			policy = v
		}
	}
	if !limited || policy == "noeviction" {
		return ""
	}
	return policy
}
