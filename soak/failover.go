package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/legation/legation/bench/rig"
)

// L7.
func failover(t *trial) error {
	for _, part := range []func(*trial) error{sentinel, readOnly, cluster} {
		if err := part(t); err != nil {
			return err
		}
	}
	return nil
}

// replicated is a primary and its replica.
func (t *trial) replicated() (primary, replica *rig.Redis, err error) {
	if primary, err = t.rig.Redis(t.ctx); err != nil {
		return nil, nil, err
	}
	if replica, err = t.rig.Redis(t.ctx, "--replicaof", "127.0.0.1 "+strconv.Itoa(primary.Port), "--repl-diskless-sync-delay", "0"); err != nil {
		return nil, nil, err
	}
	return primary, replica, t.info(replica, "master_link_status:up")
}

// info waits until INFO tells a text.
func (t *trial) info(s *rig.Redis, text string) error {
	return rig.Until(t.ctx, 20*time.Second, text, func() error {
		got, err := s.Do("INFO", "replication")
		if err == nil && !strings.Contains(got, text) {
			err = errors.New("not yet")
		}
		return err
	})
}

func sentinel(t *trial) error {
	primary, replica, err := t.replicated()
	if err != nil {
		return err
	}
	port, err := rig.Port()
	if err != nil {
		return err
	}
	conf := filepath.Join(t.rig.Dir, "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1\nsentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n", primary.Port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	watcher, err := t.rig.Sentinel(t.ctx, port, conf)
	if err != nil {
		return err
	}
	err = rig.Until(t.ctx, 20*time.Second, "the sentinel to find the replica", func() error {
		got, err := watcher.Do("SENTINEL", "replicas", "main")
		if err == nil && !strings.Contains(got, strconv.Itoa(replica.Port)) {
			err = errors.New("not yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	_, addresses, err := t.replicas(2, rig.Policy{Routes: watched}, "redis://"+watcher.Address()+"?master_name=main")
	if err != nil {
		return err
	}
	w, err := t.watch(addresses)
	if err != nil {
		return err
	}
	defer w.stop()
	return w.fails("Sentinel", func() error { primary.Kill(); return nil }, func() error { return t.info(replica, "role:master") })
}

// fails goes through a fail-over; begin takes the primary away, and over waits for the new one.
func (w *watch) fails(name string, begin, over func() error) error {
	before, err := w.lasts(2 * time.Second)
	if err != nil {
		return err
	}
	w.clean(name+" before", before)
	if err := begin(); err != nil {
		return err
	}
	if err := over(); err != nil {
		return err
	}
	if err := w.heals(name, time.Second); err != nil {
		return err
	}
	// On a Cluster only some keys had trouble; on all some calls came out well before and after.
	during := w.take()
	w.kept(name, during, true)
	most := before.quantile(.99) + 5*time.Millisecond
	w.t.hold(during.quantile(.99) <= most, "%s: p99 %.1f ms, at most %.1f", name, millis(during.quantile(.99)), millis(most))
	if err := w.t.sleep(time.Second); err != nil {
		return err
	}
	after, err := w.lasts(2 * time.Second)
	if err != nil {
		return err
	}
	w.clean(name+" after", after)
	return nil
}

// readOnly points legation at what becomes a replica, and a primary again.
func readOnly(t *trial) error {
	one, other, err := t.replicated()
	if err != nil {
		return err
	}
	_, addresses, err := t.replicas(2, rig.Policy{Routes: watched}, one.URL())
	if err != nil {
		return err
	}
	w, err := t.watch(addresses)
	if err != nil {
		return err
	}
	defer w.stop()
	return w.suffer(trouble{
		name: "read-only", lasts: 3 * time.Second, added: 5 * time.Millisecond,
		begin: func() error {
			_, err1 := other.Do("REPLICAOF", "NO", "ONE")
			_, err2 := one.Do("REPLICAOF", "127.0.0.1", strconv.Itoa(other.Port))
			return errors.Join(err1, err2)
		},
		end: func() error {
			_, err := one.Do("REPLICAOF", "NO", "ONE")
			return err
		},
	})
}

// cluster is three primaries with a replica each.
func cluster(t *trial) error {
	var nodes []*rig.Redis
	create := []string{"--cluster", "create"}
	for range 6 {
		bus, err := rig.Port()
		if err != nil {
			return err
		}
		n, err := t.rig.Redis(t.ctx, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", strconv.Itoa(bus),
			"--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
		create = append(create, n.Address())
	}
	if _, err := nodes[0].Tool(t.ctx, "redis-cli", append(create, "--cluster-replicas", "1", "--cluster-yes")...); err != nil {
		return err
	}
	for _, n := range nodes {
		err := rig.Until(t.ctx, 20*time.Second, "the cluster", func() error {
			got, err := n.Do("CLUSTER", "INFO")
			if err == nil && !strings.Contains(got, "cluster_state:ok") {
				err = errors.New("not yet")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	_, addresses, err := t.replicas(2, rig.Policy{Routes: watched}, nodes[0].URL()+"?addr="+nodes[1].Address()+"&cluster=true")
	if err != nil {
		return err
	}
	w, err := t.watch(addresses)
	if err != nil {
		return err
	}
	defer w.stop()
	if err := w.moves(nodes); err != nil {
		return err
	}
	heir, err := t.heir(nodes)
	if err != nil {
		return err
	}
	return w.fails("Cluster", func() error { nodes[2].Kill(); return nil }, func() error { return t.info(heir, "role:master") })
}

// heir is the replica of the third node.
func (t *trial) heir(nodes []*rig.Redis) (heir *rig.Redis, err error) {
	err = rig.Until(t.ctx, 20*time.Second, "a replica of the third node", func() error {
		for _, n := range nodes {
			got, err := n.Do("INFO", "replication")
			if err == nil && strings.Contains(got, fmt.Sprintf("master_port:%d", nodes[2].Port)) && strings.Contains(got, "master_link_status:up") {
				heir = n
				return nil
			}
		}
		return errors.New("none yet")
	})
	return heir, err
}

// moves has slots move from one node to another under load.
func (w *watch) moves(nodes []*rig.Redis) error {
	t := w.t
	before, err := w.lasts(2 * time.Second)
	if err != nil {
		return err
	}
	w.clean("slots before", before)
	from, err := nodes[0].Do("CLUSTER", "MYID")
	if err != nil {
		return err
	}
	to, err := nodes[1].Do("CLUSTER", "MYID")
	if err != nil {
		return err
	}
	_, err = nodes[0].Tool(t.ctx, "redis-cli", "--cluster", "reshard", nodes[0].Address(), "--cluster-from", from, "--cluster-to", to,
		"--cluster-slots", "1000", "--cluster-yes")
	if err != nil {
		return err
	}
	if err := w.heals("slots moved", time.Second); err != nil {
		return err
	}
	during := w.take()
	w.kept("1,000 slots moving", during, true)
	t.hold(during[0].Failures()*100 <= during[0].Answered(), "1,000 slots moving: %d of %d with onError: deny came to nothing, at most 1 %%",
		during[0].Failures(), during[0].Answered())
	after, err := w.lasts(2 * time.Second)
	if err != nil {
		return err
	}
	w.clean("slots after", after)
	return nil
}
