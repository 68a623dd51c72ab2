package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// This file holds what is promised of herds and of Envoys that do not behave.

// promise is one, and whether it held.
type promise struct {
	held bool
	text string
}

func (p promise) String() string {
	if p.held {
		return "held   " + p.text
	}
	return "BROKEN " + p.text
}

const (
	herdTime   = 3 * time.Second
	herdMemory = 200 << 20
	backWithin = time.Minute
)

// herd has all clients come at once, and leave, beside what the server took after it had served one.
func herd(ctx context.Context, s settings) (list []promise, err error) {
	f, err := newFleet(ctx, s)
	if err != nil {
		return nil, err
	}
	defer f.server.stop()
	f.settings.clients = 1 // so that the code that serves is in memory
	if err := f.join(); err != nil {
		return nil, err
	}
	f.leave()
	f.settings.clients = s.clients
	before, err := f.server.rest()
	if err != nil {
		return nil, err
	}
	_, took, err := f.timed(f.join)
	if err != nil {
		return nil, err
	}
	during, err := f.server.usage()
	if err != nil {
		return nil, err
	}
	f.leave()
	after, err := f.server.usage()
	back := before.rss + before.rss/10
	began := time.Now()
	for err == nil && after.rss > back && time.Since(began) < backWithin {
		time.Sleep(time.Second)
		after, err = f.server.usage()
	}
	return []promise{
		{took <= herdTime, fmt.Sprintf("%d Envoys at once, %s: all in sync after %.1f s, wanted ≤ %v", s.clients, s.title(), took.Seconds(), herdTime)},
		{during.most <= herdMemory, fmt.Sprintf("RSS at most %d MiB, wanted ≤ %d", during.most>>20, herdMemory>>20)},
		{after.rss <= back, fmt.Sprintf("RSS %.2f × that of before (%d MiB) %.0f s after they left, wanted ≤ 1.1 ×",
			float64(after.rss)/float64(before.rss), before.rss>>20, time.Since(began).Seconds())},
	}, err
}

// leaks has Envoys come, get changes, and go, again and again.
func leaks(ctx context.Context, s settings) (list []promise, err error) {
	const rounds, warm = 20, 3
	s.clients = min(s.clients, 100)
	f, err := newFleet(ctx, s)
	if err != nil {
		return nil, err
	}
	defer f.server.stop()
	var heap, first uint64
	var goroutines, before int
	for round := range rounds {
		if err := f.join(); err != nil {
			return nil, err
		}
		for range s.changes {
			if err := f.change(); err != nil {
				return nil, err
			}
		}
		f.leave()
		if _, err := f.server.rest(); err != nil {
			return nil, err
		}
		if heap, goroutines, err = f.server.live(); err != nil {
			return nil, err
		}
		if round == warm {
			first, before = heap, goroutines
		}
	}
	return []promise{{
		heap <= first+first/10 && goroutines <= before+before/10,
		fmt.Sprintf("%d Envoys come and go %d times, with %d changes each time: heap %.2f × that of round %d, goroutines %d after %d, wanted ≤ 1.1 ×",
			s.clients, rounds, s.changes, float64(heap)/float64(first), warm, goroutines, before),
	}}, nil
}

const (
	stuckClients = 200
	floods       = 10
	pushes       = 200
	stuckMemory  = 1 << 20 // each
)

// unruly has clients that read nothing and clients that ask all the time beside good ones.
func unruly(ctx context.Context, s settings) (list []promise, err error) {
	s.clients = min(s.clients, 100)
	f, err := newFleet(ctx, s)
	if err != nil {
		return nil, err
	}
	defer f.server.stop()
	if _, _, err := f.timed(f.join); err != nil {
		return nil, err
	}
	alone, err := f.push()
	if err != nil {
		return nil, err
	}
	before, err := f.server.rest()
	if err != nil {
		return nil, err
	}
	stuck, err := f.stuck()
	defer func() {
		for _, k := range stuck {
			k.conn.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	if _, err := f.server.rest(); err != nil {
		return nil, err
	}
	ended := make(chan error, floods)
	for range floods {
		go func() { ended <- f.flood() }()
	}
	beside, err := f.push()
	if err != nil {
		return nil, err
	}
	during, err := f.server.usage()
	if err != nil {
		return nil, err
	}
	cut := 0
	for late := time.After(patience); cut < floods; cut++ {
		select {
		case err := <-ended:
			if err != nil {
				return nil, err
			}
		case <-late:
			return nil, fmt.Errorf("%d of %d floods were cut off", cut, floods)
		}
	}
	each := (during.most - before.rss) / stuckClients
	return []promise{
		{beside <= 2*alone, fmt.Sprintf("%d Envoys beside %d that read nothing and %d that flood: push p99 %s, alone %s, wanted ≤ 2 ×",
			s.clients, stuckClients, floods, milliseconds(beside), milliseconds(alone))},
		{each <= stuckMemory, fmt.Sprintf("each that reads nothing takes %d KiB, wanted ≤ %d", each>>10, stuckMemory>>10)},
		{true, fmt.Sprintf("%d of %d floods were cut off", cut, floods)},
	}, nil
}

// push changes a route again and again, and tells the 99th percentile of the time until all clients have it.
func (f *fleet) push() (time.Duration, error) {
	var times []time.Duration
	for range pushes {
		began := time.Now()
		if err := f.change(); err != nil {
			return 0, err
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	return times[len(times)*99/100], nil
}

// stuck opens clients that ask for everything and read nothing, with the smallest windows.
func (f *fleet) stuck() (all []*client, err error) {
	for range stuckClients {
		k, err := dial(f.server.address, f.script.path, f.config, initialWindow, nil)
		if err != nil {
			return all, err
		}
		all = append(all, k)
		for _, url := range f.asked() {
			k.send(f.script.first[url])
		}
		if err := k.flush(); err != nil {
			return all, err
		}
	}
	return all, nil
}

// flood asks as often as the windows allow, until the server ends it.
func (f *fleet) flood() error {
	told := make(chan arrival)
	k, err := dial(f.server.address, f.script.path, f.config, wideWindow, told)
	if err != nil {
		return err
	}
	defer k.conn.Close()
	again, err := f.script.request(resource.RouteType, []string{"no-such-table"}, nil)
	if err != nil {
		return err
	}
	more := func(string) {
		for len(k.queue) < mostFrame*16 {
			k.send(again)
		}
	}
	k.send(f.script.first[resource.ClusterType])
	more("")
	if err := k.flush(); err != nil {
		return err
	}
	go k.follow(f.script, more)
	for a := range told {
		if a.err != nil {
			break // cut off
		}
	}
	return nil
}
