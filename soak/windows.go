package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// L2.
func leases(t *trial) error {
	const limit, lease, replicas, workers = 200_000, 1000, 3, 64
	r := rig.Route{Name: "leased", RateLimit: fmt.Sprintf("{rate: %d/day, by: {header: x-key}, mode: leased, lease: %d, onError: deny}", limit, lease)}
	p := rig.Policy{Routes: []rig.Route{r}}
	if !t.knows(p) {
		return nil
	}
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	all, addresses, err := t.replicas(replicas, p, redis.URL(), patient...)
	if err != nil {
		return err
	}
	if err := t.awayFromHour(40 * time.Second); err != nil {
		return err
	}
	got, err := t.exhaust(addresses, r, "whole", 2*limit)
	if err != nil {
		return err
	}
	t.hold(got.Allowed <= limit, "%d of %d allowed by %d replicas", got.Allowed, limit, replicas)
	t.hold(got.Allowed+replicas*lease >= limit, "%d not used, at most %d × %d", limit-int(got.Allowed), replicas, lease)

	run, err := load.Start(load.Options{Addresses: addresses, Connections: replicas, InFlight: workers, Call: call(r, "killed", 1)})
	if err != nil {
		return err
	}
	if err := t.sleep(300 * time.Millisecond); err != nil {
		return err
	}
	first := run.Take()
	all[0].Kill()
	for last := first; ; {
		if err := t.sleep(500 * time.Millisecond); err != nil {
			return err
		}
		last = run.Take()
		if first.Merge(last); last.Allowed == 0 {
			break
		}
	}
	first.Merge(run.Stop())
	t.hold(first.Allowed <= limit, "one of the replicas killed: %d allowed", first.Allowed)
	t.hold(first.Allowed+(replicas+1)*lease+workers >= limit, "one of the replicas killed: %d not used, at most %d × %d, and %d in flight to it",
		limit-int(first.Allowed), replicas+1, lease, workers)
	return nil
}

// decision is one answer of the log that a sliding window is held against.
type decision struct {
	start, end time.Time
	allowed    bool
}

// L3.
func sliding(t *trial) error {
	const limit, window, keys, span = 100, 2 * time.Second, 90, 15 * time.Second
	r := rig.Route{Name: "sliding", RateLimit: fmt.Sprintf("{rate: %d/2s, algorithm: slidingWindow, by: {header: x-key}, onError: deny}", limit)}
	p := rig.Policy{Routes: []rig.Route{r}}
	if !t.knows(p) {
		return nil
	}
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	_, addresses, err := t.replicas(3, p, redis.URL(), patient...)
	if err != nil {
		return err
	}
	// Keys are asked for from far below their limit to far above it.
	pick := func(number uint64) uint64 {
		h := number * 0x9e3779b97f4a7c15
		return (h >> 32) % (1 + (h&0xffff)%keys)
	}
	inner := load.RateLimits("legation", []load.Entry{{Key: "limit", Value: r.Limit()}, {Key: "header:x-key", Value: "key-%d"}}, keys, true)
	c := inner
	c.Body = func(dst []byte, number uint64) []byte { return inner.Body(dst, pick(number)) }
	var mu sync.Mutex
	log := make([][]decision, keys)
	run, err := load.Start(load.Options{
		Addresses: addresses, Connections: 3, Rate: 3000, Call: c,
		Answered: func(number uint64, v load.Verdict, start, end time.Time) {
			mu.Lock()
			defer mu.Unlock()
			log[pick(number)] = append(log[pick(number)], decision{start, end, v == load.Allowed})
		},
	})
	if err != nil {
		return err
	}
	if err := t.sleep(span); err != nil {
		return err
	}
	got := run.Stop()
	var all verdict
	for _, l := range log {
		v := compare(l, limit, window)
		all = verdict{all.judged + v.judged, all.close + v.close, all.over + v.over, all.under + v.under, max(all.most, v.most)}
	}
	share := 100 * float64(all.over+all.under) / float64(max(1, all.judged))
	t.hold(got.Allowed > 0 && got.Refused > 0 && got.Failures() == 0, "%d allowed, %d refused, %d without an answer", got.Allowed, got.Refused, got.Failures())
	t.hold(share <= .01 && all.judged > all.close, "%d decisions, of keys from far below their limit to far above: %d allowed and %d refused that an exact log would not have: %.4f %%, at most 0.01",
		all.judged, all.over, all.under, share)
	t.say("%d more came so near to when another hit left that it can't be told from outside which was first", all.close)
	t.hold(all.most <= limit, "in any %s at most %d were allowed for one key; the limit is %d", window, all.most, limit)
	return nil
}

// verdict is on decisions of a sliding window.
type verdict struct {
	judged, close int // what an exact log would have decided is known, and isn't
	over, under   int // of judged: allowed over the limit, and refused under it
	most          int // that were allowed in any window, for sure
}

// compare holds decisions against an exact log of those that were allowed. When a decision was made is known as far as when
// it was asked for and answered; where it depends on more than that, it is not judged.
func compare(log []decision, limit int, window time.Duration) (v verdict) {
	slices.SortFunc(log, func(a, b decision) int { return a.end.Compare(b.end) })
	var allowed []decision
	for _, d := range log {
		if d.allowed {
			allowed = append(allowed, d)
		}
	}
	for _, d := range log {
		sure, perhaps := 0, 0
		for i := len(allowed) - 1; i >= 0 && allowed[i].end.After(d.start.Add(-window-time.Second)); i-- {
			a := allowed[i]
			if a == d {
				continue
			}
			if a.end.Before(d.start) && a.start.After(d.end.Add(-window)) {
				sure++
			}
			if a.start.Before(d.end) && a.end.After(d.start.Add(-window)) {
				perhaps++
			}
		}
		switch {
		case sure < limit && perhaps >= limit:
			v.close++
			continue
		case d.allowed && sure >= limit:
			v.over++
		case !d.allowed && perhaps < limit:
			v.under++
		}
		v.judged++
		if d.allowed {
			v.most = max(v.most, sure+1)
		}
	}
	return v
}
