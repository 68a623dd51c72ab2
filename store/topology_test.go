package store

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// startCluster starts three nodes with all slots between them.
func startCluster(t *testing.T) []*server {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	nodes := make([]*server, 3)
	args := []string{"--cluster", "create"}
	for i := range nodes {
		nodes[i] = startRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
			"--cluster-require-full-coverage", "no") // its bus is at clusterBus: 6.2 knows no --cluster-port
		args = append(args, nodes[i].addr())
	}
	out, err := exec.Command("redis-cli", append(args, "--cluster-yes")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, n := range nodes {
		until(t, patience, "the cluster", func() bool {
			return strings.Contains(n.client().ClusterInfo(t.Context()).Val(), "cluster_state:ok")
		})
	}
	return nodes
}

func TestCluster(t *testing.T) {
	nodes := startCluster(t)
	url := nodes[0].url() + "?addr=" + nodes[1].addr() + "&cluster=true"
	s := openReady(t, url)
	for _, c := range conform {
		t.Run(c.name, func(t *testing.T) { c.test(t, s) })
	}
	t.Run("counts across slots without exceeding any", func(t *testing.T) { testClusterPairs(t, s, openReady(t, url)) })
	t.Run("gives back", func(t *testing.T) { testGivesBack(t, s) })
	t.Run("moved slots", func(t *testing.T) { testMovedSlot(t, s, nodes) })
	t.Run("the probe's slot moved", func(t *testing.T) { testMovedProbe(t, openReady(t, url), nodes) })
	t.Run("a node down", func(t *testing.T) { testNodeDown(t, open(t, Options{URL: url}), nodes) })
}

// testClusterPairs may refuse some while others are about to give back, but never exceeds a limit.
func testClusterPairs(t *testing.T, stores ...Store) {
	a, b := daily("wide-a", 100, 1), daily("wide-b", 60, 1)
	got := swarm(600, func(i int) bool {
		out := count(t, stores[i%len(stores)], a, b)
		return out[0].Allowed && out[1].Allowed
	})
	a.Hits = 0
	if used := int(100 - count(t, stores[0], a)[0].Remaining); got > 60 || got < 40 || used != got {
		t.Errorf("%d allowed of 60, a is charged %d", got, used)
	}
}

func testGivesBack(t *testing.T, s Store) {
	spent, other := daily("back-spent", 2, 2), daily("back-other", 10, 1)
	count(t, s, spent)
	spent.Hits = -1
	if out := count(t, s, other, spent); !out[0].Allowed || !out[1].Allowed || out[0].Count != 1 || out[1].Count != 1 {
		t.Errorf("to give back is never refused: %+v", out)
	}
	full := daily("back-full", 1, 1)
	count(t, s, full)
	fixed, gcra := daily("back-fixed", 10, 3), bucketGCRA("back-gcra", 1, time.Hour, 10, 4)
	count(t, s, fixed, gcra)
	out := count(t, s, fixed, gcra, full)
	if out[2].Allowed || out[0].Remaining != 7 || out[1].Remaining != 6 {
		t.Errorf("refused: %+v", out)
	}
	fixed.Hits, gcra.Hits = 0, 0
	if out := count(t, s, fixed, gcra); out[0].Remaining != 7 || out[1].Remaining != 6 {
		t.Errorf("afterwards: %+v", out)
	}
}

// testMovedSlot moves a slot while its bucket is being counted.
func testMovedSlot(t *testing.T, s Store, nodes []*server) {
	h := daily("moved", 1000, 1)
	count(t, s, h)
	key := ""
	for _, n := range nodes {
		if keys := n.client().ClusterGetKeysInSlot(t.Context(), slot(h.Key), 1).Val(); len(keys) == 1 {
			key = keys[0]
		}
	}
	var from, to *server
	for _, n := range nodes {
		if keys := n.client().ClusterGetKeysInSlot(t.Context(), slot(h.Key), 1).Val(); len(keys) == 1 {
			from = n
		} else {
			to = n
		}
	}
	id := func(n *server) string { return n.client().ClusterMyID(t.Context()).Val() }
	n := fmt.Sprint(slot(h.Key))
	do(t, to.client(), "CLUSTER SETSLOT "+n+" IMPORTING "+id(from))
	do(t, from.client(), "CLUSTER SETSLOT "+n+" MIGRATING "+id(to))
	count(t, s, h)
	do(t, from.client(), fmt.Sprintf("MIGRATE 127.0.0.1 %d %s 0 2000", to.port, key))
	count(t, s, h) // the source answers ASK
	for _, node := range nodes {
		do(t, node.client(), "CLUSTER SETSLOT "+n+" NODE "+id(to))
	}
	if got := count(t, s, h)[0]; got.Remaining != 996 { // the source answers MOVED
		t.Errorf("got %+v, want 996 left", got)
	}
}

// testMovedProbe moves the slot by which a node's lane is probed: the node is still there.
func testMovedProbe(t *testing.T, s Store, nodes []*server) {
	from, to := nodes[0].client(), nodes[1]
	probes := func() []string { return from.Keys(t.Context(), "*probe-*").Val() }
	until(t, patience, "the probe's bucket", func() bool { return s.Health().OK && len(probes()) > 0 })
	key := probes()[0]
	n, id := from.ClusterKeySlot(t.Context(), key).Val(), to.client().ClusterMyID(t.Context()).Val()
	assign := fmt.Sprintf("CLUSTER SETSLOT %d NODE %s", n, id)
	do(t, to.client(), assign)
	until(t, patience, "the slot to be empty", func() bool { // the probe may come in between
		from.Del(t.Context(), key)
		return from.Do(t.Context(), "CLUSTER", "SETSLOT", n, "NODE", id).Err() == nil
	})
	do(t, nodes[2].client(), assign)
	until(t, patience, "the next probe, in another slot", func() bool { return len(probes()) > 0 })
	if h := s.Health(); !h.OK {
		t.Errorf("taken to be down since a slot moved: %+v", h)
	}
}

// testNodeDown stops one node: its buckets are unavailable, the others go on, and it heals.
func testNodeDown(t *testing.T, s Store, nodes []*server) {
	until(t, patience, "the store to be ready", func() bool { return s.Health().OK })
	nodes[2].kill()
	failed, fine := 0, 0
	for i := range 300 {
		if _, err := s.Count(context.Background(), []Hit{daily(fmt.Sprint("down", i), 10, 1)}); err != nil {
			failed++
		} else {
			fine++
		}
	}
	if failed < 50 || fine < 100 {
		t.Errorf("%d failed and %d fine with one of three nodes down", failed, fine)
	}
	nodes[2].start()
	until(t, patience, "all buckets to answer again", func() bool {
		for i := range 64 {
			if _, err := s.Count(context.Background(), []Hit{daily(fmt.Sprint("heal", i), 1<<40, 1)}); err != nil {
				return false
			}
		}
		return s.Health().OK
	})
}

func TestSentinelFailsOver(t *testing.T) {
	primary := startRedis(t)
	sentinel, replica := startReplicated(t, primary)
	c := redis.NewSentinelClient(&redis.Options{Addr: sentinel.addr()})
	defer c.Close()

	s := open(t, Options{URL: "redis://" + sentinel.addr() + "?master_name=main", Timeout: 2 * time.Second})
	until(t, patience, "the store to be ready", func() bool { return s.Health().OK })
	count(t, s, daily("failover", 10, 3))
	until(t, patience, "replication", func() bool {
		return len(replica.client().Keys(t.Context(), "*failover*").Val()) == 1
	})
	primary.kill()
	until(t, patience, "the sentinel to name the new primary", func() bool {
		at, err := c.GetMasterAddrByName(t.Context(), "main").Result()
		return err == nil && len(at) == 2 && at[1] == fmt.Sprint(replica.port)
	})
	heals(t, s)
	if got := count(t, s, daily("failover", 10, 1))[0]; got.Remaining != 6 {
		t.Errorf("the counter was lost: %+v", got)
	}
}

// startReplicated gives a Redis a replica, and a sentinel that watches both.
func startReplicated(t *testing.T, primary *server) (sentinel, replica *server) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a sentinel")
	}
	replica = startRedis(t, "--replicaof", "127.0.0.1", fmt.Sprint(primary.port))
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n", primary.port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel = startSentinel(t, conf)
	until(t, patience, "the replica", func() bool {
		return strings.Contains(replica.client().Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	c := redis.NewSentinelClient(&redis.Options{Addr: sentinel.addr()})
	defer c.Close()
	until(t, patience, "the sentinel to find the replica", func() bool {
		replicas, err := c.Replicas(t.Context(), "main").Result()
		return err == nil && len(replicas) == 1
	})
	return sentinel, replica
}

func startSentinel(t *testing.T, conf string) *server {
	t.Helper()
	s := &server{t: t, port: freePort(t)}
	s.cmd = exec.Command(redisServer(t), conf, "--sentinel", "--bind", "127.0.0.1", "--port", fmt.Sprint(s.port))
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}
