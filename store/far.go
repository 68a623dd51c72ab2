package store

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// far is the Redis that processes share. On a Cluster each part of the slots has a fuse of its own: a node may be away
// while the others answer.
type far struct {
	client redis.UniversalClient
	kind   string
	quick  time.Duration // that a record's trip may take
	fuses  []*fuse
	log    *slog.Logger
	told   string

	up      prometheus.Gauge
	entries *prometheus.GaugeVec
	reads   *prometheus.CounterVec
}

const (
	putTimeout   = 2 * time.Second        // of a Board's Put
	probeTimeout = 400 * time.Millisecond // of a probe, and of each trip for a board
	fuseParts    = 64                     // of a Cluster's slots
)

func openFar(o Options) (*far, error) {
	redis.SetLogger(goRedisLog{o.Log})
	o.pool = 32
	client, kind, err := dial(o)
	if err != nil {
		return nil, err
	}
	f := &far{client: client, kind: kind, quick: 5 * cmp.Or(max(o.Timeout, 0), 10*time.Millisecond), log: o.Log}
	n := 1
	if kind == "cluster" {
		n = fuseParts
	}
	f.meter(o.Metrics)
	f.fuses = make([]*fuse, n)
	for i := 0; n > 0; i++ {
		bucket := fmt.Sprintf("probe-%d", i)
		if at := slot(bucket) * len(f.fuses) / slots; f.fuses[at] == nil {
			f.fuses[at] = &fuse{probe: string(appendTag(nil, bucket)) + ":shared"}
			n--
		}
	}
	return f, nil
}

func (f *far) meter(r prometheus.Registerer) {
	f.up = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "legation_store_shared_up",
		Help: "1 when the Redis of sessions, keys and revocations answers.",
	})
	f.entries = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "legation_store_board_entries",
		Help: "Entries that this process knows, by board: keys, revoked. As of when it was last as Redis has it.",
	}, []string{"board"})
	f.reads = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "legation_store_board_reads_total",
		Help: "Readings by board and by what was read: changes, or whole, at the start and where Redis or a message was lost.",
	}, []string{"board", "what"})
	if r != nil {
		r.MustRegister(f.up, f.entries, f.reads)
	}
}

// fuse gives the one of a key.
func (f *far) fuse(key string) *fuse {
	if len(f.fuses) == 1 {
		return f.fuses[0]
	}
	return f.fuses[keySlot(key)*len(f.fuses)/slots]
}

// trip goes to Redis unless it is taken to be down. It takes most at most.
func (f *far) trip(ctx context.Context, key string, most time.Duration, do func(context.Context) error) error {
	fuse := f.fuse(key)
	if fuse.blown.Load() {
		return unavailable(errDown)
	}
	within, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	err := do(within)
	switch {
	case err == nil:
		fuse.judge(nil)
		return nil
	case redis.HasErrorPrefix(err, "FULL"):
		return errFull
	case ctx.Err() == nil: // else nothing is known of Redis
		fuse.judge(err)
	}
	return unavailable(err)
}

// watch probes what is taken to be down, or has not answered yet, each 100 ms, and the rest each 2 s.
func (f *far) watch(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		var probes sync.WaitGroup
		for _, fuse := range f.fuses {
			if n%20 == 0 || fuse.state() != "" {
				probes.Go(func() { f.probe(ctx, fuse) })
			}
		}
		probes.Wait()
		f.tell()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// probe sets a key: a replica and a full Redis still answer a ping.
func (f *far) probe(ctx context.Context, fuse *fuse) {
	within, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := f.client.Do(within, "SET", fuse.probe, 1, "PX", 60_000).Err()
	if ctx.Err() == nil {
		fuse.set(err)
	}
}

// tell tells operators once when Redis comes or goes.
func (f *far) tell() {
	state := f.state()
	if state == "" {
		f.up.Set(1)
	} else {
		f.up.Set(0)
	}
	if state == starting || f.told != "" && (state == "") == (f.told == "ok") {
		return
	}
	if state == "" {
		f.told = "ok"
		f.log.Info("shared store available", "kind", f.kind)
		return
	}
	f.told = "down"
	f.log.Warn("shared store unavailable", "kind", f.kind, "reason", state)
}

// state is empty when all is well, else why it isn't.
func (f *far) state() string {
	for _, fuse := range f.fuses {
		if s := fuse.state(); s != "" {
			return s
		}
	}
	return ""
}
