package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// watched is a limit for each thing that can become of a request when it can't be counted. None is ever used up.
var watched = []rig.Route{
	{Name: "deny", RateLimit: "{rate: 1000000000/day, by: {header: x-key}, onError: deny}"},
	{Name: "allow", RateLimit: "{rate: 1000000000/day, by: {header: x-key}, onError: allow}"},
	{Name: "local", RateLimit: "{rate: 1000000000/day, by: {header: x-key}, onError: local}"},
}

// watch asks for all of them, 500 times a second each, until it is stopped.
type watch struct {
	t         *trial
	addresses []string
	runs      []*load.Run // by watched
}

func (t *trial) watch(addresses []string) (*watch, error) {
	w := &watch{t: t, addresses: addresses}
	for _, r := range watched {
		run, err := load.Start(load.Options{Addresses: addresses, Connections: len(addresses), Rate: 500, Call: call(r, "key-%d", 100)})
		if err != nil {
			w.stop()
			return nil, err
		}
		w.runs = append(w.runs, run)
	}
	return w, nil
}

func (w *watch) stop() {
	for _, r := range w.runs {
		r.Stop()
	}
}

// phase is what became of the calls of a time, by watched.
type phase []*load.Result

// take ends a phase.
func (w *watch) take() (p phase) {
	for _, r := range w.runs {
		p = append(p, r.Take())
	}
	return p
}

// lasts takes what ends within d.
func (w *watch) lasts(d time.Duration) (phase, error) {
	w.take()
	err := w.t.sleep(d)
	return w.take(), err
}

func (p phase) merge(o phase) {
	for i := range p {
		p[i].Merge(o[i])
	}
}

// quantile is over all answers, UNAVAILABLE among them.
func (p phase) quantile(q float64) time.Duration {
	var all load.Histogram
	for _, r := range p {
		all.Merge(&r.Latency)
		all.Merge(&r.Told)
	}
	return all.Quantile(q)
}

// late is how long after they were due the calls went out, which the service pays for too.
func (p phase) late() time.Duration {
	var all load.Histogram
	for _, r := range p {
		all.Merge(&r.Late)
	}
	return all.Quantile(.99)
}

// kept holds a phase of trouble to what each limit's onError says. Calls that were counted before it came out are well.
func (w *watch) kept(name string, p phase, some bool) {
	broken, unavailable := []string{}, uint64(0)
	for i, r := range p {
		for reason, n := range r.Failed {
			switch {
			case reason != "grpc status 14":
				broken = append(broken, fmt.Sprintf("%s: %d × %s", watched[i].Name, n, reason))
			case watched[i].Name == "deny":
				unavailable += n
			default:
				broken = append(broken, fmt.Sprintf("%s: %d × UNAVAILABLE", watched[i].Name, n))
			}
		}
		if r.Refused > 0 {
			broken = append(broken, fmt.Sprintf("%s: %d refused", watched[i].Name, r.Refused))
		}
		if watched[i].Name == "deny" && r.Allowed > 0 && !some {
			broken = append(broken, fmt.Sprintf("deny: %d allowed", r.Allowed))
		}
	}
	slices.Sort(broken)
	t := w.t
	t.hold(len(broken) == 0, "%s: onError is kept in all %d answers %s", name, p.answers(), strings.Join(broken, ", "))
	t.hold(some || unavailable > 0, "%s: with onError: deny %d were told UNAVAILABLE", name, unavailable)
}

func (p phase) answers() (n uint64) {
	for _, r := range p {
		n += r.Answered() + r.Failures()
	}
	return n
}

// clean holds a phase without trouble to all but no failures: a machine that others use has moments of its own.
func (w *watch) clean(name string, p phase) {
	failed, refused := uint64(0), uint64(0)
	for _, r := range p {
		failed += r.Failures()
		refused += r.Refused
	}
	w.t.hold(failed*1000 <= p.answers() && refused == 0, "%s: %d answers, %d failed, %d refused, p99 %.1f ms", name, p.answers(), failed, refused, millis(p.quantile(.99)))
}

// heals waits until all replicas count again, and holds that to a time.
func (w *watch) heals(name string, limit time.Duration) error {
	begin := time.Now()
	for _, address := range w.addresses {
		err := rig.Until(w.t.ctx, 20*time.Second, "counting again", func() error {
			_, err := w.t.ask(address, watched[0], "heals", 1)
			return err
		})
		if err != nil {
			return err
		}
	}
	took := time.Since(begin)
	w.t.hold(took <= limit, "%s: normal after %.0f ms, at most %.0f", name, millis(took), millis(limit))
	return nil
}

// trouble is one kind of outage, of which all is to be as promised: onError, latencies, and that it ends.
type trouble struct {
	name       string
	begin, end func() error
	lasts      time.Duration
	added      time.Duration // of the p99 while it lasts, beyond the p99 before; 0: see most
	most       time.Duration // p99 while it lasts
}

// suffer goes through a trouble.
func (w *watch) suffer(x trouble) error {
	before, err := w.lasts(2 * time.Second)
	if err != nil {
		return err
	}
	w.clean("before", before)
	if err := x.begin(); err != nil {
		return err
	}
	// What Redis had answered by then may still be on its way.
	if err := w.t.sleep(50 * time.Millisecond); err != nil {
		return err
	}
	first := w.take()
	during, err := w.lasts(x.lasts)
	if err != nil {
		return err
	}
	w.kept(x.name, during, false)
	during.merge(first)
	p99, most := during.quantile(.99), x.most
	if x.added > 0 {
		most = before.quantile(.99) + x.added
	}
	w.t.hold(p99 <= most, "%s: p99 %.1f ms, at most %.1f; %.1f of these sent late", x.name, millis(p99), millis(most), millis(during.late()))
	if err := x.end(); err != nil {
		return err
	}
	if err := w.heals(x.name, time.Second); err != nil {
		return err
	}
	after, err := w.lasts(2 * time.Second)
	if err != nil {
		return err
	}
	w.clean("after", after)
	return nil
}
