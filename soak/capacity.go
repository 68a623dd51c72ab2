package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

var benchmarked = regexp.MustCompile(`"INCR","([0-9.]+)"`)

// L14.
func hot(t *trial) error {
	r := rig.Route{Name: "hot", RateLimit: "{rate: 1000000000/day, by: {header: x-key}, onError: deny}"}
	denied := rig.Route{Name: "denied", RateLimit: "{rate: 10/day, by: {header: x-key}, onError: deny}"}
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	_, addresses, err := t.replicas(3, rig.Policy{Routes: []rig.Route{r, denied}}, redis.URL(), patient...)
	if err != nil {
		return err
	}
	out, err := redis.Tool(t.ctx, "redis-benchmark", "-p", strconv.Itoa(redis.Port), "-t", "incr", "-n", "200000", "-c", "50", "--csv")
	if err != nil {
		return err
	}
	m := benchmarked.FindStringSubmatch(out)
	if m == nil {
		return fmt.Errorf("redis-benchmark: no figure for INCR in %q", out)
	}
	own, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return err
	}
	got, err := t.saturate(addresses, r, 4*time.Second)
	if err != nil {
		return err
	}
	t.hold(got.Rate() >= .8*own && got.Failures() == 0, "one key, 3 × 64 workers: %.0f a second, %.2f × Redis' own %.0f (INCR, 50 connections), %d failed",
		got.Rate(), got.Rate()/own, own, got.Failures())

	if _, err := t.exhaust(addresses, denied, "key-0", 1000); err != nil {
		return err
	}
	const span = 4 * time.Second
	idle, err := t.commands(redis, func() error { return t.sleep(span) })
	if err != nil {
		return err
	}
	busy, err := t.commands(redis, func() error {
		got, err = t.saturate(addresses, denied, span)
		return err
	})
	if err != nil {
		return err
	}
	share := 100 * float64(max(0, busy-idle)) / float64(max(1, got.Answered()))
	t.hold(share <= 1 && got.Allowed == 0 && got.Failures() == 0, "denied: %d calls, %d allowed, %d failed, %d commands of Redis beyond the %d when idle: %.3f %%",
		got.Answered(), got.Allowed, got.Failures(), busy-idle, idle, share)
	return nil
}

// saturate asks for one key from 64 workers at each address, for a while.
func (t *trial) saturate(addresses []string, r rig.Route, d time.Duration) (*load.Result, error) {
	run, err := load.Start(load.Options{Addresses: addresses, Connections: len(addresses), InFlight: 64, Call: call(r, "key-%d", 1)})
	if err != nil {
		return nil, err
	}
	defer run.Stop()
	err = t.sleep(d)
	return run.Take(), err
}

// commands is how many commands Redis ran while something was done.
func (t *trial) commands(redis *rig.Redis, do func() error) (int64, error) {
	before, err := redis.Info("total_commands_processed")
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := redis.Info("total_commands_processed")
	return after - before, err
}

// L15.
func million(t *trial) error {
	const keys = 1_000_000
	r := rig.Route{Name: "million", RateLimit: "{rate: 100/day, by: {header: x-key}, onError: deny}"}
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	replicas, addresses, err := t.replicas(1, rig.Policy{Routes: []rig.Route{r}}, redis.URL(), patient...)
	if err != nil {
		return err
	}
	before, err := redis.Info("used_memory")
	if err != nil {
		return err
	}
	run, err := load.Start(load.Options{
		Addresses: addresses, Connections: 2, InFlight: 64, Calls: keys,
		Call: load.RateLimits("legation", []load.Entry{{Key: "limit", Value: r.Limit()}, {Key: "header:x-key", Value: "consumer-%d"}}, keys, true),
	})
	if err != nil {
		return err
	}
	got := run.Wait(t.ctx)
	t.hold(got.Allowed == keys, "%d of %d keys counted, %.0f a second", got.Allowed, keys, got.Rate())
	after, err := redis.Info("used_memory")
	if err != nil {
		return err
	}
	per := float64(after-before) / keys
	t.hold(per <= 180, "%.0f bytes of Redis a key, at most 180", per)
	space, err := redis.Do("INFO", "keyspace")
	if err != nil {
		return err
	}
	var all, expiring int64
	if m := keyspace.FindStringSubmatch(space); m != nil {
		all, _ = strconv.ParseInt(m[1], 10, 64)
		expiring, _ = strconv.ParseInt(m[2], 10, 64)
	}
	t.hold(all >= keys && all == expiring, "%d keys, %d of them with a TTL", all, expiring)
	rss, err := rig.RSS(replicas[0].PID)
	if err != nil {
		return err
	}
	t.hold(rss <= 100<<20, "legation takes %.0f MiB, at most 100", float64(rss)/(1<<20))
	return nil
}

var keyspace = regexp.MustCompile(`keys=(\d+),expires=(\d+)`)

// L16. legation and Redis have one processor to themselves, so that the load has another. The limit is a bucket, whose calls
// cost the service several times what they cost the load: otherwise it would be the load that can't make three times as many.
func overload(t *trial) error {
	r := rig.Route{Name: "overload", RateLimit: "{rate: 1000000/second, burst: 1000000000, by: {header: x-key}, onError: deny}"}
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	replicas, addresses, err := t.replicas(1, rig.Policy{Routes: []rig.Route{r}}, redis.URL(), patient...)
	if err != nil {
		return err
	}
	for _, pid := range []int{redis.PID, replicas[0].PID} {
		if out, err := exec.CommandContext(t.ctx, "taskset", "-a", "-p", "-c", "0", strconv.Itoa(pid)).CombinedOutput(); err != nil {
			t.say("taskset: %v %s: the load takes some of what the service would have", err, out)
		}
	}
	// As many connections as four Envoys of four workers have. Each takes 1,000 calls.
	o := load.Options{Addresses: addresses, Connections: 16, InFlight: 16, Call: call(r, "key-%d", 1000)}
	capacity, err := t.capacity(o)
	if err != nil {
		return err
	}
	gentle := o
	gentle.Rate = capacity / 4
	before, err := t.openLoop(gentle, 2*time.Second)
	if err != nil {
		return err
	}

	// Envoys as legation configures them wait for 200 ms.
	over := o
	over.Rate, over.Cancel = 3*capacity, 200*time.Millisecond
	got, err := t.openLoop(over, 5*time.Second)
	if err != nil {
		return err
	}
	if err := t.sleep(2 * time.Second); err != nil {
		return err
	}
	after, err := t.openLoop(gentle, 2*time.Second)
	if err != nil {
		return err
	}
	// What others do on the machine changes it from one moment to the next.
	again, err := t.capacity(o)
	if err != nil {
		return err
	}
	capacity = (capacity + again) / 2

	shed := got.Failures() + got.Canceled
	offered := float64(got.Answered()+shed) / got.Elapsed.Seconds()
	t.hold(offered >= 2.5*capacity, "capacity %.0f a second, and %.0f at the end; %.0f offered", 2*capacity-again, again, offered)
	t.hold(got.Rate() >= .8*capacity, "%.0f a second answered within 200 ms (p99 %.1f ms), %.2f × capacity", got.Rate(), millis(got.Latency.Quantile(.99)), got.Rate()/capacity)
	// What a quarter of the calls waits for is the machine's.
	told := before.Latency.Quantile(.99) + 5*time.Millisecond
	t.hold(got.Canceled*100 <= shed && got.Told.Quantile(.99) <= told,
		"of %d shed %d were told, p50 %.1f ms, p99 %.1f ms, at most %.1f; %.1f of these sent late; the others waited for 200 ms in vain",
		shed, got.Failures(), millis(got.Told.Quantile(.5)), millis(got.Told.Quantile(.99)), millis(told), millis(got.Late.Quantile(.99)))
	p99, most := after.Latency.Quantile(.99), 2*before.Latency.Quantile(.99)+5*time.Millisecond
	t.hold(after.Failures()*1000 <= after.Answered() && p99 <= most, "2 s later, at a quarter of capacity: %d answers, %d failed, p99 %.1f ms, at most %.1f", after.Answered(), after.Failures(), millis(p99), millis(most))
	return nil
}

// capacity is how many calls a second a closed loop has answered; all but none of them are shed, as in watch.clean.
func (t *trial) capacity(o load.Options) (float64, error) {
	run, err := load.Start(o)
	if err != nil {
		return 0, err
	}
	defer run.Stop()
	if err := t.sleep(time.Second); err != nil {
		return 0, err
	}
	run.Take()
	err = t.sleep(2 * time.Second)
	got := run.Take()
	t.hold(got.Failures()*1000 <= got.Answered(), "%.0f a second in a closed loop of %d calls, %d failed", got.Rate(), o.Connections*o.InFlight, got.Failures())
	return got.Rate(), err
}

// openLoop asks for a while, and gives what became of it but for the end, when no more is asked.
func (t *trial) openLoop(o load.Options, d time.Duration) (*load.Result, error) {
	run, err := load.Start(o)
	if err != nil {
		return nil, err
	}
	defer run.Stop()
	err = t.sleep(d)
	return run.Take(), err
}
