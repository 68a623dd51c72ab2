package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// L4.
func killed(t *trial) error {
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	issuer, err := rig.NewIssuer()
	if err != nil {
		return err
	}
	_, addresses, err := t.replicas(2, rig.Policy{Auth: issuer.Entry(), Routes: append(slices.Clone(watched), counted)}, redis.URL())
	if err != nil {
		return err
	}
	checks, err := t.checks(addresses, counted, issuer)
	if err != nil {
		return err
	}
	defer checks.Stop()
	w, err := t.watch(addresses)
	if err != nil {
		return err
	}
	defer w.stop()
	checks.Take()
	err = w.suffer(trouble{
		name: "killed", lasts: 4 * time.Second, added: 5 * time.Millisecond,
		begin: func() error { redis.Kill(); return nil },
		end:   func() error { return redis.Restart(t.ctx) },
	})
	t.holdChecks("killed", checks.Take())
	return err
}

// counted asks who calls, and counts the caller in the same call; when it can't be counted the process does so by itself.
var counted = rig.Route{Name: "auth", Auth: "[idp]", RateLimit: "{rate: 1000000000/day, by: consumer}"}

// holdChecks holds what became of the auth service's answers.
func (t *trial) holdChecks(name string, got *load.Result) {
	t.hold(got.Latency.Quantile(.99) <= 50*time.Millisecond && got.Failures() == 0 && got.Refused == 0 && got.Allowed > 0,
		"%s: auth with a limit: %d answers, p99 %.1f ms, %d failed, %d refused", name, got.Answered(), millis(got.Latency.Quantile(.99)), got.Failures(), got.Refused)
}

// L5.
func stuck(t *trial) error {
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	proxy, err := t.rig.Proxy(redis.Address())
	if err != nil {
		return err
	}
	defer proxy.Close()
	issuer, err := rig.NewIssuer()
	if err != nil {
		return err
	}
	p := rig.Policy{Auth: issuer.Entry(), Routes: append(slices.Clone(watched), counted)}
	_, addresses, err := t.replicas(2, p, "redis://"+proxy.Address())
	if err != nil {
		return err
	}
	checks, err := t.checks(addresses, counted, issuer)
	if err != nil {
		return err
	}
	defer checks.Stop()
	w, err := t.watch(addresses)
	if err != nil {
		return err
	}
	defer w.stop()
	for _, x := range []trouble{
		{
			name:  "slow",
			begin: func() error { proxy.Delay(500 * time.Millisecond); return nil },
			end:   func() error { proxy.Delay(0); return nil },
		},
		{name: "paused", begin: redis.Pause, end: redis.Continue},
		{
			name:  "swallowing",
			begin: func() error { proxy.Swallow(true); return nil },
			end:   func() error { proxy.Swallow(false); return nil },
		},
	} {
		x.lasts, x.most = 3*time.Second, 15*time.Millisecond
		checks.Take()
		if err := w.suffer(x); err != nil {
			return err
		}
		t.holdChecks(x.name, checks.Take())
	}
	return nil
}

// checks asks the auth service 300 times a second.
func (t *trial) checks(addresses []string, r rig.Route, issuer *rig.Issuer) (*load.Run, error) {
	var messages [][]byte
	for i := range 20 {
		token, err := issuer.Token(fmt.Sprintf("user-%d", i))
		if err != nil {
			return nil, err
		}
		message, err := rig.Check(r.Rule(), token, "key")
		if err != nil {
			return nil, err
		}
		messages = append(messages, message)
	}
	return load.Start(load.Options{Addresses: addresses, Rate: 300, Call: load.Checks(messages)})
}

// L6.
func absent(t *trial) error {
	port, err := rig.Port()
	if err != nil {
		return err
	}
	guarded, err := t.rig.Redis(t.ctx, "--requirepass", "the-right-one")
	if err != nil {
		return err
	}
	plain, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	for _, row := range []struct{ name, url string }{
		{"absent", "redis://user:hunter2@" + rig.Local(port)},
		{"wrong password", "redis://:hunter2@" + guarded.Address()},
		{"TLS refused", "rediss://user:hunter2@" + plain.Address()},
	} {
		l, err := t.rig.ServeAnyhow(t.ctx, rig.Policy{Routes: watched}.String(), row.url, "--roles", "xds", "--xds-address", "127.0.0.1:0")
		if err != nil {
			return err
		}
		var ready string
		err = rig.Until(t.ctx, 10*time.Second, "readiness to tell of the store", func() (err error) {
			if ready, err = l.Get("/readyz"); err == nil && !strings.Contains(ready, "store: ") {
				err = fmt.Errorf("%s", ready)
			}
			return err
		})
		t.hold(err == nil, "%s: it starts, is ready to serve xDS, and tells what is degraded: %s", row.name, strings.Join(strings.Fields(ready), " "))
		for i, want := range []string{"Unavailable", "", ""} {
			_, err := t.ask(l.Address, watched[i], "absent", 1)
			t.hold(want == "" && err == nil || want != "" && err != nil && strings.Contains(err.Error(), want), "%s: onError: %s is kept", row.name, watched[i].Name)
		}
		status, err := l.Get("/status")
		if err != nil {
			return err
		}
		t.hold(!strings.Contains(l.Said()+ready+status, "hunter2"), "%s: the password is in no log, readiness or status", row.name)
		if err := l.Signal(syscall.SIGTERM); err != nil {
			return err
		}
	}
	return nil
}

// L9.
func full(t *trial) error {
	redis, err := t.rig.Redis(t.ctx)
	if err != nil {
		return err
	}
	_, addresses, err := t.replicas(2, rig.Policy{Routes: watched}, redis.URL())
	if err != nil {
		return err
	}
	w, err := t.watch(addresses)
	if err != nil {
		return err
	}
	defer w.stop()
	memory := func(most string) func() error {
		return func() error {
			_, err := redis.Do("CONFIG", "SET", "maxmemory", most)
			return err
		}
	}
	err = w.suffer(trouble{name: "out of memory", lasts: 4 * time.Second, added: 5 * time.Millisecond, begin: memory("1"), end: memory("0")})
	if err != nil {
		return err
	}
	return t.evicting()
}

// evicting expects a Redis that throws counters away to be warned of.
func (t *trial) evicting() error {
	redis, err := t.rig.Redis(t.ctx, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	if err != nil {
		return err
	}
	l, err := t.rig.ServeAnyhow(t.ctx, rig.Policy{Routes: watched}.String(), redis.URL())
	if err != nil {
		return err
	}
	for _, place := range []struct {
		name string
		text func() (string, error)
	}{
		{"log", func() (string, error) { return l.Said(), nil }},
		{"status", func() (string, error) { return l.Get("/status") }},
		{"metrics", func() (string, error) {
			n, err := l.Metric("legation_store_evicting")
			return fmt.Sprintf("evicting: %g", n), err
		}},
	} {
		err := rig.Until(t.ctx, 5*time.Second, "a warning", func() error {
			text, err := place.text()
			if err == nil && (!strings.Contains(strings.ToLower(text), "evict") || text == "evicting: 0") {
				err = fmt.Errorf("no word of evictions")
			}
			return err
		})
		t.hold(err == nil, "a Redis that evicts is warned of in the %s", place.name)
	}
	return nil
}
