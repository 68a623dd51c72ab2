package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// sized is a limit of a size, by one of the algorithms.
type sized struct {
	rig.Route
	limit int
}

// sizedLimits is each algorithm with limits of 1, 100 and 10,000, in windows that don't end while they are counted.
func sizedLimits() (all []sized) {
	for _, a := range []struct{ name, settings string }{
		{"fixed-window", "rate: %d/day"},
		{"gcra", "rate: 1/hour, burst: %d"}, // nothing worth the name comes back in the time
		{"sliding-window", "rate: %d/day, algorithm: slidingWindow"},
		{"month", "quota: %d/month, timeZone: Europe/Berlin"},
	} {
		for _, n := range []int{1, 100, 10_000} {
			settings := fmt.Sprintf(a.settings, n)
			all = append(all, sized{rig.Route{Name: fmt.Sprintf("%s-%d", a.name, n), RateLimit: "{" + settings + ", by: {header: x-key}, onError: deny}"}, n})
		}
	}
	return all
}

// known is the limits that this legation takes, and a policy of them.
func (t *trial) known(limits []sized) (all []sized, p rig.Policy) {
	for _, l := range limits {
		if t.knows(rig.Policy{Routes: []rig.Route{l.Route}}) {
			all = append(all, l)
			p.Routes = append(p.Routes, l.Route)
		}
	}
	return all, p
}

// rounds is how often a limit is used up.
func (l sized) rounds() int { return max(2, min(20, 2000/l.limit)) }

// calls is how many calls a round makes: enough that many are refused.
func (l sized) calls() int { return max(600, 2*l.limit) }

// L1.
func exactness(t *trial) error {
	limits, p := t.known(sizedLimits())
	rated := rig.Route{Name: "gcra-rate", RateLimit: "{rate: 100/second, burst: 50, by: {header: x-key}, onError: deny}"}
	p.Routes = append(p.Routes, rated)
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	replicas, addresses, err := t.replicas(3, p, redis.URL(), patient...)
	if err != nil {
		return err
	}
	for _, l := range limits {
		if err := t.useUp(addresses, l, l.rounds()); err != nil {
			return err
		}
	}
	if err := t.refill(addresses, rated, 50, 100); err != nil {
		return err
	}
	return t.raise(replicas, addresses, p)
}

// useUp uses a limit up, each round with another key.
func (t *trial) useUp(addresses []string, l sized, rounds int) error {
	over, under, failed, calls := 0, 0, uint64(0), 0
	for n := range rounds {
		if err := t.awayFromHour(20 * time.Second); err != nil {
			return err
		}
		got, err := t.exhaust(addresses, l.Route, fmt.Sprintf("round-%d", n), uint64(l.calls()))
		if err != nil {
			return err
		}
		over += max(0, int(got.Allowed)-l.limit)
		under += max(0, l.limit-int(got.Allowed))
		failed += got.Failures()
		calls += l.calls()
	}
	t.hold(over == 0 && under == 0 && failed == 0, "%s: %d rounds, %d calls: %d over, %d under, %d without an answer", l.Name, rounds, calls, over, under, failed)
	return nil
}

// refill keeps a bucket empty for a while: what passes is what it held and what came in.
func (t *trial) refill(addresses []string, r rig.Route, burst, rate float64) error {
	var mu sync.Mutex
	var began, passed, refused, ended time.Time // the first call, the first and last to pass, the last that found it empty
	run, err := load.Start(load.Options{
		Addresses: addresses, Connections: len(addresses), InFlight: 64, Call: call(r, "refill", 1),
		Answered: func(_ uint64, v load.Verdict, start, end time.Time) {
			mu.Lock()
			defer mu.Unlock()
			if began.IsZero() || start.Before(began) {
				began = start
			}
			switch {
			case v == load.Allowed && (passed.IsZero() || end.Before(passed)):
				passed = end
			case v == load.Refused && start.After(refused):
				refused = start
			}
			if v == load.Allowed && end.After(ended) {
				ended = end
			}
		},
	})
	if err != nil {
		return err
	}
	if err := t.sleep(3 * time.Second); err != nil {
		return err
	}
	got := run.Stop()
	low, high := uint64(burst+rate*refused.Sub(passed).Seconds()-1), uint64(burst+rate*ended.Sub(began).Seconds()+1)
	t.hold(got.Allowed >= low && got.Allowed <= high && got.Failures() == 0,
		"gcra over %.2f s: %d of %d calls allowed, want %d to %d", ended.Sub(began).Seconds(), got.Allowed, got.Answered(), low, high)
	return nil
}

// raise raises a limit that was used up, and over again: had refused hits been counted, nothing would pass.
func (t *trial) raise(replicas []*rig.Legation, addresses []string, p rig.Policy) error {
	r := rig.Route{Name: "fixed-window-100"}
	if _, err := t.exhaust(addresses, r, "raised", 1000); err != nil {
		return err
	}
	text := strings.Replace(p.String(), "rate: 100/day, by", "rate: 150/day, by", 1)
	for _, l := range replicas {
		if err := os.WriteFile(l.Policy, []byte(text), 0o600); err != nil {
			return err
		}
	}
	for _, l := range replicas {
		err := rig.Until(t.ctx, 10*time.Second, "the raised limit", func() error {
			a, err := t.ask(l.Address, r, "raised", 0)
			if err != nil {
				return err
			}
			if n := a.GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit(); n != 150 {
				return fmt.Errorf("it is %d", n)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	got, err := t.exhaust(addresses, r, "raised", 1000)
	if err != nil {
		return err
	}
	t.hold(got.Allowed == 50 && got.Failures() == 0, "raised from 100 to 150 when it was used up: %d more allowed", got.Allowed)
	return nil
}

// L10: as L1, while Redis forgets the scripts.
func flushed(t *trial) error {
	limits, p := t.known(sizedLimits())
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	_, addresses, err := t.replicas(3, p, redis.URL(), patient...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.ctx)
	var flushing sync.WaitGroup
	flushes := 0
	flushing.Go(func() {
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-tick.C:
				if _, err := redis.Do("SCRIPT", "FLUSH"); err == nil {
					flushes++
				}
			case <-ctx.Done():
				return
			}
		}
	})
	for _, l := range limits {
		if err = t.useUp(addresses, l, l.rounds()); err != nil {
			break
		}
	}
	cancel()
	flushing.Wait()
	t.hold(flushes >= 5, "the scripts were flushed %d times meanwhile", flushes)
	return err
}

// L12: replies are lost after Redis has counted.
func replies(t *trial) error {
	r := rig.Route{Name: "lossy", RateLimit: "{rate: 1000000000/day, by: {header: x-key}, onError: deny}"}
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	proxy, err := t.rig.Proxy(redis.Address())
	if err != nil {
		return err
	}
	defer proxy.Close()
	_, addresses, err := t.replicas(3, rig.Policy{Routes: []rig.Route{r}}, "redis://"+proxy.Address())
	if err != nil {
		return err
	}
	proxy.Lose(100)
	run, err := load.Start(load.Options{Addresses: addresses, Connections: 3, Rate: 3000, Call: call(r, "lossy", 1)})
	if err != nil {
		return err
	}
	if err := t.sleep(5 * time.Second); err != nil {
		return err
	}
	got := run.Stop()
	proxy.Lose(0)
	var counted uint64
	err = rig.Until(t.ctx, 5*time.Second, "an answer", func() error {
		a, err := t.ask(addresses[0], r, "lossy", 0)
		if err == nil {
			counted = 1_000_000_000 - uint64(a.GetStatuses()[0].GetLimitRemaining())
		}
		return err
	})
	if err != nil {
		return err
	}
	sent := got.Answered() + got.Failures()
	t.hold(counted <= sent, "%d sent, %d counted", sent, counted)
	t.hold(got.Allowed <= counted, "%d allowed, and so many at least are counted", got.Allowed)
	t.hold(got.Failures() > 0 && got.Failures() < sent, "%d calls were told UNAVAILABLE for replies that were lost", got.Failures())
	return nil
}

// L8.
func lost(t *trial) error {
	const limit = 1000
	r := rig.Route{Name: "lost", RateLimit: fmt.Sprintf("{rate: %d/day, by: {header: x-key}, onError: deny}", limit)}
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	replicas, addresses, err := t.replicas(3, rig.Policy{Routes: []rig.Route{r}}, redis.URL(), patient...)
	if err != nil {
		return err
	}
	if err := t.awayFromHour(40 * time.Second); err != nil {
		return err
	}
	run, err := load.Start(load.Options{Addresses: addresses, Connections: 3, Rate: 3000, Call: call(r, "lost", 1)})
	if err != nil {
		return err
	}
	const losses = 3
	for range losses {
		if err := t.sleep(2 * time.Second); err != nil {
			return err
		}
		if _, err := redis.Do("FLUSHALL"); err != nil {
			return err
		}
	}
	if err := t.sleep(12 * time.Second); err != nil { // replicas may believe in what they knew for 10 s
		return err
	}
	got := run.Stop()
	t.hold(got.Allowed >= limit && got.Allowed <= (1+losses)*limit, "%d losses, limit %d: %d allowed, at most %d", losses, limit, got.Allowed, (1+losses)*limit)
	t.say("%d calls came to nothing", got.Failures())
	seen := 0.0
	for _, l := range replicas {
		if n, err := l.Metric("legation_store_lost_total"); err == nil {
			seen += n
		}
	}
	t.hold(seen > 0, "legation_store_lost_total counts %.0f", seen)
	return nil
}
