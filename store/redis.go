package store

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisStore counts in Redis.
type redisStore struct {
	client  redis.UniversalClient
	kind    string
	timeout time.Duration
	ways    atomic.Pointer[ways]
	trips   sync.Pool // of trips that are over
	memory  *memory
	metrics *metrics
	log     *slog.Logger
	stop    context.CancelFunc
	stopped chan struct{}
	cluster cluster
	warning atomic.Pointer[string]
	asking  atomic.Bool // Sentinel, for the primary

	told    string    // what operators know: ok, down, or nothing yet
	changed time.Time // since when it isn't so any more
}

// goRedisLog gives go-redis' words to slog. They tell of single connections: what operators need, the breaker tells.
type goRedisLog struct{ log *slog.Logger }

func (g goRedisLog) Printf(ctx context.Context, format string, v ...any) {
	if g.log.Enabled(ctx, slog.LevelDebug) {
		g.log.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, v...))
	}
}

func openRedis(o Options) (Store, error) {
	return openRedisAt(o, newClock())
}

// openRedisAt has the store's process see the time of c.
func openRedisAt(o Options, c clock) (Store, error) {
	redis.SetLogger(goRedisLog{o.Log})
	client, kind, err := dial(o)
	if err != nil {
		return nil, err
	}
	hold := trust
	if kind == "cluster" {
		hold = clusterTrust
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &redisStore{
		client:  client,
		kind:    kind,
		timeout: o.Timeout,
		memory:  newMemory(c, hold),
		metrics: newMetrics(o.Metrics),
		log:     o.Log,
		stop:    cancel,
		stopped: make(chan struct{}),
		trips:   sync.Pool{New: newTrip},
	}
	if one, ok := client.(*redis.Client); ok {
		s.ways.Store(&ways{lanes: []*lane{s.newLane(one.Options(), "probe")}})
	} else {
		s.ways.Store(&ways{reason: starting})
		s.cluster.stale.Store(true)
	}
	go s.watch(ctx)
	return s, nil
}

// newLane is the lane to the Redis that o tells how to reach, where the probe's bucket is.
func (s *redisStore) newLane(o *redis.Options, probe string) *lane {
	l := &lane{timeout: s.timeout, metrics: s.metrics}
	l.probe.Store(&probe)
	l.strayed = func() { s.cluster.stale.Store(true) }
	l.reason = starting
	l.change = s.measure
	l.link.options, l.link.now = o, s.memory.now
	l.batch = batch{memory: s.memory, metrics: s.metrics, cluster: s.kind == "cluster"}
	return l
}

// measure sets the metric when a lane comes or goes.
func (s *redisStore) measure() {
	up := 0.0
	if s.Health().OK {
		up = 1
	}
	s.metrics.up.Set(up)
}

// settled is how long a state holds before operators are told: they needn't hear of every hiccup.
const settled = 500 * time.Millisecond

// tell tells operators once when the store as a whole comes or goes.
func (s *redisStore) tell() {
	h := s.Health()
	state := "down"
	if h.OK {
		state = "ok"
	}
	switch {
	case h.Reason == starting || state == s.told:
		s.changed = time.Time{}
		return
	case s.told != "" && s.changed.IsZero():
		s.changed = time.Now()
		return
	case s.told != "" && time.Since(s.changed) < settled:
		return
	}
	s.told, s.changed = state, time.Time{}
	if h.OK {
		s.log.Info("store available", "kind", s.kind)
	} else {
		s.log.Warn("store unavailable", "kind", s.kind, "reason", h.Reason)
	}
}

// Health is OK when every lane is.
func (s *redisStore) Health() Health {
	h := Health{OK: true, Kind: s.kind}
	if w := s.warning.Load(); w != nil {
		h.Warning = *w
	}
	w := s.ways.Load()
	if len(w.lanes) == 0 {
		h.OK, h.Reason = false, w.reason
		return h
	}
	for _, l := range w.lanes {
		if up, reason := l.state(); !up {
			h.OK, h.Reason = false, reason
			return h
		}
	}
	return h
}

// Close closes the connections; trips under way fail.
func (s *redisStore) Close() error {
	s.stop()
	<-s.stopped
	for _, l := range s.ways.Load().lanes {
		l.link.close()
	}
	return s.client.Close()
}

// Count is Decide for one. It takes as long as it may, whatever ctx says: what is under way is charged.
func (s *redisStore) Count(_ context.Context, hits []Hit) ([]Outcome, error) {
	d := Decision{Hits: hits}
	s.Decide([]*Decision{&d})
	return d.Outcomes, d.Err
}

// Decide makes one trip, or on a Cluster one to each node, at once; none for decisions that are known to be refused.
func (s *redisStore) Decide(decisions []*Decision) {
	for len(decisions) > maxTrip {
		s.decide(decisions[:maxTrip])
		decisions = decisions[maxTrip:]
	}
	s.decide(decisions)
}

func (s *redisStore) decide(decisions []*Decision) {
	t := s.trips.Get().(*trip)
	defer s.trips.Put(t)
	t.decisions = s.ask(t.decisions[:0], decisions)
	if len(t.decisions) == 0 {
		return
	}
	if s.kind == "cluster" {
		s.decideCluster(t.decisions)
	} else {
		s.ways.Load().lanes[0].run(t)
	}
	for _, d := range t.decisions {
		if d.Err != nil {
			d.Outcomes, d.Err = d.Outcomes[:0], unavailable(d.Err)
		}
	}
	clear(t.decisions)
}

// ask appends those decisions that have to be asked for; the others have their outcomes. A decision after one that is asked
// for, and may change what is left to it, is asked for too.
func (s *redisStore) ask(to, decisions []*Decision) []*Decision {
	now := s.memory.now()
	for _, d := range decisions {
		d.Outcomes = d.Outcomes[:0]
		if d.Err = validate(d.Hits); d.Err != nil || len(d.Hits) == 0 {
			continue
		}
		d.Outcomes = slices.Grow(d.Outcomes, len(d.Hits))[:len(d.Hits)]
		if s.memory.refuse(d.Hits, d.Outcomes, now) && !touched(d.Hits, to) {
			s.metrics.spared.Inc()
			continue
		}
		to = append(to, d)
	}
	return to
}

// touched tells whether one of the decisions has to do with a bucket of hits.
func touched(hits []Hit, decisions []*Decision) bool {
	for _, d := range decisions {
		for i := range d.Hits {
			for j := range hits {
				if d.Hits[i].Key == hits[j].Key && d.Hits[i].Algorithm == hits[j].Algorithm {
					return true
				}
			}
		}
	}
	return false
}

func unavailable(err error) error {
	return fmt.Errorf("%w: %s", ErrUnavailable, reason(err))
}
